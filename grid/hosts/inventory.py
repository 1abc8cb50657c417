"""The file that lists hosts: hosts.yaml, with defaults and groups.

Lives here: finding it, reading it, choosing a group; every complaint names file, line and key.
Elsewhere:  what the fields mean (`host.py`), an example with every key (hosts.example.yaml).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from grid import trust
from grid.errors import InventoryError
from grid.hosts.host import FIELDS, Host, did_you_mean, parse_address


def find_hosts_file() -> Path | None:
    """The hosts file used where none is named: $GRID_HOSTS, ./hosts.yaml, ~/.config/grid/hosts.yaml, or None.

    A file that is found, and not named, must be ours or root's, and so must all that leads to it: it may run commands.

    Raises:
        InventoryError: $GRID_HOSTS names a file that isn't there; somebody else could have written the file.
    """
    named = os.environ.get("GRID_HOSTS")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InventoryError("no such file", file=named, hint="The variable GRID_HOSTS names it")
        return path
    for path in (Path("hosts.yaml"), Path("~/.config/grid/hosts.yaml").expanduser()):
        if path.is_file():
            _check_owner(path)
            return path
    return None


def _check_owner(path: Path) -> None:
    try:
        trust.resolved(os.fspath(path))
    except OSError as exc:
        where = "" if str(exc.filename) == os.path.realpath(path) else f" ({exc.filename})"
        raise InventoryError(
            f"it was found here, and somebody else could have written it{where}: {exc.strerror}",
            file=os.fspath(path),
            hint=f"Look into it: it may run commands. Name it with --hosts {path} or GRID_HOSTS to use it",
        ) from exc


def load_hosts(path: str | os.PathLike[str], group: str | None = None) -> list[Host]:
    """Read a hosts file; hosts.example.yaml at the top of the repository explains the form.

    Args:
        path: The file.
        group: Only the hosts of this group, in the group's order, each entry once.
    Raises:
        InventoryError: It can't be read, or says something that we can't use; with file, line and key.
    """
    file = os.fspath(path)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "is not UTF-8 text"
        raise InventoryError(f"can't read the hosts file: {reason}", file=file) from exc
    return _Inventory(file, text).select(group)


def choose_hosts(named: str | None = None, group: str | None = None) -> list[Host] | None:
    """The hosts that a user means: those of a file, or names with commas; None where nothing is named or found.

    Args:
        named: A hosts file, or `name,name,...` as ssh knows them; without it `find_hosts_file` looks for a file.
        group: Only this group of the file.
    Raises:
        InventoryError: No such file or group, or the file can't be used.
        ValueError: One of the names can't be the name of a host.
    """
    if named and not os.path.isfile(os.path.expanduser(named)):
        if named.endswith((".yaml", ".yml")) or "/" in named:
            raise InventoryError("no such file", file=named, hint="Name a hosts file, or hosts with commas")
        if group:
            raise InventoryError("names alone have no groups", file=named, hint="Name a hosts file, or leave the group")
        return [Host(name.strip()) for name in named.split(",") if name.strip()]
    path = os.path.expanduser(named) if named else find_hosts_file()
    return None if path is None else load_hosts(path, group)


_DEEPEST = 50
"""Groups may contain groups, so often."""


class _Inventory:
    """One hosts file, read node by node so that every complaint can name its line."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._values = yaml.constructor.SafeConstructor()
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            line = None if exc.problem_mark is None else exc.problem_mark.line + 1
            raise InventoryError(f"is not YAML: {exc.problem or exc.context}", file=file, line=line) from exc
        except yaml.YAMLError as exc:
            raise InventoryError(f"is not YAML: {exc}", file=file) from exc
        except RecursionError:
            raise InventoryError("is nested too deeply", file=file, hint="Is it really a hosts file?") from None
        if root is None:
            raise InventoryError("the file is empty", file=file, hint="It needs at least `hosts:`")
        sections = self._pairs(root, "the file", known=("defaults", "hosts", "groups"))
        if "hosts" not in sections:
            raise self._error("there is no 'hosts:'", root)
        known = tuple(name for name in FIELDS if name != "name")
        self._defaults: dict[str, yaml.Node] = {}
        if "defaults" in sections:
            self._defaults = self._pairs(sections["defaults"], "defaults", known)
        self.hosts: list[Host] = []
        self._read_hosts(sections["hosts"])
        self._groups: dict[str, list[tuple[str, yaml.Node]]] = {}
        self._walked: dict[str, list[Host]] = {}
        if "groups" in sections:
            self._read_groups(sections["groups"])

    def select(self, group: str | None) -> list[Host]:
        # Walk every group, not only the one asked for: a mistake is reported on the first use of the file.
        members = {name: self._members(name, ()) for name in self._groups}
        for host in self.hosts:
            host.is_in(name for name, hosts in members.items() if host in hosts)
        if group is None:
            return self.hosts
        own = [host for host in self.hosts if group in host.groups]
        if group not in members and not own:
            known = sorted({*members, *(name for host in self.hosts for name in host.groups)})
            listed = f"The file has: {', '.join(known)}" if known else "The file has no groups"
            hint = f"{listed}{did_you_mean(group, known)}"
            raise InventoryError(f"no group {group!r}", file=self._file, key=group, hint=hint)
        return _unique([*members.get(group, []), *own])

    def _read_hosts(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            for name, fields in self._pairs(node, "hosts").items():
                self._add_host(name, fields, fields)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                if isinstance(item, yaml.ScalarNode):
                    self._add_host(item.value, item, None)
                else:
                    self._read_host_mapping(item)
        else:
            raise self._error("'hosts' must be a list or a mapping", node, "hosts")
        if not self.hosts:
            raise self._error("'hosts' lists no host", node, "hosts")

    def _read_host_mapping(self, node: yaml.Node) -> None:
        fields = self._pairs(node, "a host")
        if len(fields) == 1 and "name" not in fields:
            ((name, inner),) = fields.items()
            if isinstance(inner, yaml.MappingNode) or name not in FIELDS:  # `- node17: {n_cpu: 4}`
                self._add_host(name, node, inner)
                return
        if "name" not in fields:
            raise self._error("this host has no 'name'", node, "name")
        name_node = fields["name"]
        if not isinstance(name_node, yaml.ScalarNode):
            raise self._error("name: must be text", name_node, "name")
        self._add_host(name_node.value, name_node, node)

    def _add_host(self, name: str, where: yaml.Node, fields: yaml.Node | None) -> None:
        own: dict[str, yaml.Node] = {}
        if fields is not None and not _is_null(fields):
            own = self._pairs(fields, f"host {name!r}", known=tuple(FIELDS))
            own.pop("name", None)
        try:
            user, _, port = parse_address(name)
        except ValueError as exc:
            raise self._error(str(exc), where, "name") from None
        # What the name itself says comes before the defaults.
        said = {key for key, part in (("user", user), ("port", port)) if part is not None}
        defaults = {key: node for key, node in self._defaults.items() if key not in said}
        values: dict[str, Any] = {}
        for key, node in {**defaults, **own}.items():
            try:
                values[key] = FIELDS[key](self._value(node))
            except ValueError as exc:
                raise self._error(f"host {name!r}: {key}: {exc}", node, key) from None
        if "env" in own and "env" in defaults:
            values["env"] = {**FIELDS["env"](self._value(defaults["env"])), **values["env"]}
        for key in ("environment", "python_archive"):  # paths begin in the directory of the file
            if values.get(key) not in (None, "here", "none") and not re.fullmatch(r"uv(:[0-9.]+)?", values[key]):
                values[key] = str(Path(self._file).absolute().parent / Path(values[key]).expanduser())
        try:
            self.hosts.append(Host(name, **values))
        except ValueError as exc:
            raise self._error(str(exc), where, "name") from None

    def _read_groups(self, node: yaml.Node) -> None:
        for name, listed in self._pairs(node, "groups").items():
            if isinstance(listed, yaml.SequenceNode):
                items = listed.value
            elif isinstance(listed, yaml.ScalarNode) and not _is_null(listed):
                items = [listed]
            else:
                raise self._error(f"group {name!r} must be a list of host and group names", listed, name)
            self._groups[name] = []
            for item in items:
                if not isinstance(item, yaml.ScalarNode):
                    raise self._error(f"group {name!r} must list names", item, name)
                self._groups[name].append((item.value, item))

    def _members(self, group: str, path: tuple[str, ...]) -> list[Host]:
        if group in self._walked:
            return self._walked[group]
        found: list[Host] = []
        for name, node in self._groups[group]:
            if len(path) >= _DEEPEST:
                raise self._error(f"group {group!r} is a group in a group, {_DEEPEST} times", node, group)
            if name in (*path, group):
                circle = " -> ".join([*path, group, name])
                raise self._error(f"group {name!r} contains itself: {circle}", node, group)
            hosts = [host for host in self.hosts if name in (host.name, host.label)]
            if name in self._groups:
                found += self._members(name, (*path, group))
            elif hosts:
                found += hosts
            else:
                known = [*self._groups, *(host.name for host in self.hosts)]
                what = f"group {group!r} lists {name!r}, which is neither a host nor a group here"
                raise self._error(what, node, group, hint=did_you_mean(name, known).removeprefix(". "))
        self._walked[group] = _unique(found)
        return self._walked[group]

    def _pairs(self, node: yaml.Node, what: str, known: tuple[str, ...] | None = None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(f"{what} must be a mapping (`key: value` lines)", node)
        pairs: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(f"a key of {what} must be plain text", key_node)
            key = key_node.value
            if key in pairs:
                raise self._error(f"{what}: {key!r} is given twice", key_node, key)
            if known is not None and key not in known:
                hint = did_you_mean(key, known).removeprefix(". ") or f"Known here: {', '.join(known)}"
                raise self._error(f"{what}: unknown key {key!r}", key_node, key, hint=hint)
            pairs[key] = value_node
        return pairs

    def _value(self, node: yaml.Node) -> Any:
        try:
            return self._values.construct_object(node, deep=True)
        except Exception as exc:  # KeyError, AttributeError and others for `!!bool x`, `!!timestamp x`
            problem = exc.problem if isinstance(exc, yaml.MarkedYAMLError) else f"{type(exc).__name__} {exc}"
            raise self._error(f"can't use this value: {problem}", node) from exc

    def _error(self, what: str, node: yaml.Node, key: str | None = None, hint: str = "") -> InventoryError:
        return InventoryError(what, file=self._file, line=node.start_mark.line + 1, key=key, hint=hint)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _unique(hosts: Iterable[Host]) -> list[Host]:
    """Each entry once, by identity: two entries of one machine are two."""
    return list({id(host): host for host in hosts}.values())
