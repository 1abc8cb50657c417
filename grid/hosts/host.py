"""One machine that grid may use.

Lives here: `Host` and the check of each of its fields, lists of hosts, the three forms of `init_cmd`.
Elsewhere:  the file that lists hosts (`inventory.py`), how one is reached (`launch/`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, Protocol, get_args

from grid.arguments import shown
from grid.batch_systems.known import launcher_names
from grid.errors import GridError
from grid.slots.needs import size
from grid.slots.resources import Said, numbers_of

WAYS = ("paramiko", "openssh", "local")
"""What `Host.ssh` may say anywhere; inside of a batch job also the launchers of its system (`batch_systems`)."""
Transport = Literal["auto", "direct", "tunnel"]

# ssh refuses these in names for the same reason: a ProxyCommand hands %h and %r to a shell.
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}*?!#,/@]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """`user@host:port` -> (user, host, port); parts that are absent are None.

    An IPv6 address takes brackets where a port follows: `[fe80::1]:2222`; alone it may go without.

    Raises:
        ValueError: Not of this form.
    """
    user, at, rest = text.rpartition("@")
    if at and not user:
        raise ValueError(f"name {text!r}: nothing stands before '@'")
    port: str | None = None
    if rest.startswith("["):
        name, closed, tail = rest[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")):
            raise ValueError(f"name {text!r}: write an IPv6 address as [address] or [address]:port")
        port = tail[1:] if tail else None
    elif rest.count(":") == 1:
        name, _, port = rest.partition(":")
    else:
        name = rest
    if port is not None and not (port.isascii() and port.isdigit()):
        raise ValueError(f"name {text!r}: port {port!r} is not a number")
    return user or None, name, None if port is None else int(port)


class Holds(Protocol):
    """What a host asks a grid that uses it."""

    def ishalted(self) -> bool:
        """Whether the grid has ended."""


@dataclass(eq=False)
class Host:
    """One entry in a list of hosts; two entries of one machine stay two entries, and their servers add up.

    Every field is checked when it is set, at construction and later alike; ValueError names field and host. While a
    grid runs over it no field can be changed (GridError): the grid has read them when it started.

    Args:
        name: What ssh connects to: a host name, an address or a `Host` of ~/.ssh/config. `user@name:port` is
            taken apart; `user` and `port` given as well must not contradict it.
        temp_path: Directory on the host for staged files, absolute or starting with `~`; expanded there.
            One that is not there is made, and removed by the last run in it.
        n_cpu: Processors of the host that are ours, 1 unless it is given. `use_n_cpu` (0..n_cpu, at first n_cpu) says
            how many servers this entry starts now.
        niceness: -20..19; negative values need permission on the host.
        python: The interpreter's command there. The default name means: find one that fits.
        init_cmd: Runs before the interpreter; see `compose_command`.
        user, port, key, jump: As in ~/.ssh/config, which answers where they are None. `key` is a file of this
            machine. `jump` is one `user@host:port` or several with commas, the nearest first.
        env: Environment variables that the servers get.
        environment: The packages that servers have there: `here` (what is installed in this process's environment), or
            a file of this machine: requirements.txt, pylock.toml, uv.lock. `none`: what is installed there, whatever
            the grid says.
        python_archive: A file of this machine, .tar.gz or the like, with a relocatable Python that is put there; or
            `uv`, `uv:3.12`: one that uv installs here for the host's platform.
        ssh: `paramiko`, `openssh` (your own ssh binary) or `local` (this machine, no ssh); inside a batch job also
            `srun`, `pbsdsh`, `pbs_tmrsh` or `qrsh`, the batch systems' own launchers.
        transport: `direct` TCP to the servers, `tunnel` through ssh, or `auto`: direct where it works.
        groups: Names under which `load_hosts(..., group=)` finds this entry.
        tags: Words for `publish(..., where=)`, such as "gpu" or "fast-disk".
        cores: What servers with needs share out, in place of what grid finds there: how many, or which: "0-3", [0, 1].
        memory: The same of memory: bytes, or text such as "64G".
        gpus: Devices that are ours there: "auto" (those that grid finds), "none", how many, or which: places in what is
            found (from 0) or UUIDs.
    """

    name: str
    temp_path: str | None = None
    n_cpu: int = 1
    niceness: int = 0
    python: str = "python"
    init_cmd: str = ""
    user: str | None = field(default=None, kw_only=True)
    port: int | None = field(default=None, kw_only=True)
    key: str | None = field(default=None, kw_only=True)
    jump: str | None = field(default=None, kw_only=True)
    env: dict[str, str] = field(default_factory=dict, kw_only=True)
    environment: str | None = field(default=None, kw_only=True)
    python_archive: str | None = field(default=None, kw_only=True)
    ssh: str = field(default="paramiko", kw_only=True)
    transport: Transport = field(default="auto", kw_only=True)
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)
    cores: int | tuple[int, ...] | None = field(default=None, kw_only=True)
    memory: int | str | None = field(default=None, kw_only=True)
    gpus: str | int | tuple[str, ...] = field(default="auto", kw_only=True)
    use_n_cpu: int = field(default=None, kw_only=True)  # type: ignore[assignment]  # None: as many as n_cpu

    def __post_init__(self) -> None:
        user, self.name, port = parse_address(self.name)
        for what, said, given in (("user", user, self.user), ("port", port, self.port)):
            if said is not None and given is not None and said != given:
                raise ValueError(f"host {self.name!r}: {what}: the name says {said!r}, the field {given!r}")
            setattr(self, what, given if said is None else said)

    def __setattr__(self, name: str, value: Any) -> None:
        check = FIELDS.get(name)
        if check is None:
            raise AttributeError(f"a host has no field {name!r}{did_you_mean(name, FIELDS)}")
        try:
            if name == "use_n_cpu" and value is None:
                value = self.n_cpu
            value = check(value)
            if name == "use_n_cpu" and value > self.n_cpu:
                raise ValueError(f"{value} is more than the {self.n_cpu} of n_cpu")
        except ValueError as exc:
            raise ValueError(f"host {shown(self.__dict__.get('name', value))}: {name}: {exc}") from None
        if value != self.__dict__.get(name, value) and any(not grid.ishalted() for grid in self._held_by()):
            raise GridError(
                f"host {self.label!r} is used by a grid that runs, so its {name} can't be changed to {value!r}",
                hint=f"Call add_hosts(Host({self.name!r}, ...)) for more servers; for other settings make another grid",
            )
        super().__setattr__(name, value)
        if name == "n_cpu" and self.__dict__.get("use_n_cpu", 0) > value:
            self.use_n_cpu = value

    def hold(self, grid: Holds) -> None:
        """A grid uses it from now on until that grid has ended."""
        self.__dict__["_holders"] = [weakref.ref(each) for each in (*self._held_by(), grid) if not each.ishalted()]

    def _held_by(self) -> list[Holds]:
        return [grid for known in self.__dict__.get("_holders", ()) if (grid := known()) is not None]

    def __getstate__(self) -> dict[str, Any]:
        kept = (*FIELDS, "_of_file")  # a copy belongs to no grid
        return {name: self.__dict__[name] for name in kept if name in self.__dict__}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Host:
        """What `__getstate__` gave, by way of JSON."""
        said: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}
        groups = said.pop("_of_file", None)
        host = cls(**said)
        if groups:
            host.is_in(groups)
        return host

    @property
    def label(self) -> str:
        """How messages and tables call this host: the name, with user and port where the entry gives them."""
        name = f"[{self.name}]" if ":" in self.name and self.port is not None else self.name
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{user}{name}{port}"

    @property
    def words(self) -> frozenset[str]:
        """What `publish(..., where=)` may say and mean this host: its name, tags and groups, those of its file, too."""
        return frozenset((self.name, self.label, *self.tags, *self.groups, *self.__dict__.get("_of_file", ())))

    def is_in(self, groups: Iterable[str]) -> None:
        """It is in these groups of its file, whatever its own entry says."""
        self.__dict__["_of_file"] = tuple(groups)

    @property
    def said(self) -> Said:
        """What this entry says of the host's resources."""
        assert not isinstance(self.memory, str)
        return Said(self.cores, self.memory, self.gpus)

    def set_temp_path(self, path: str | os.PathLike[str]) -> None:
        """Set the directory for staged files: absolute, or `~...`; kept as written, expanded on the host."""
        self.temp_path = os.fspath(path)

    def set_niceness(self, niceness: int) -> None:
        """Set the servers' priority, -20 (first) to 19 (last)."""
        self.niceness = niceness


def create_host_list(
    names: Iterable[str],
    temp_path: str | os.PathLike[str] | None,
    niceness: int = 0,
    python: str = "python",
    init_cmd: str = "",
) -> list[Host]:
    """One host per name, in order, duplicates kept; all else is shared."""
    path = None if temp_path is None else os.fspath(temp_path)
    return [Host(name, path, niceness=niceness, python=python, init_cmd=init_cmd) for name in names]


def as_hosts(hosts: str | Host | Iterable[str | Host]) -> list[Host]:
    """Names become hosts, hosts stay the same objects; order and duplicates are kept. One alone will do."""
    if isinstance(hosts, (str, Host)):
        hosts = [hosts]
    if not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be names or Host objects, in a list, not {shown(hosts)}")
    result = []
    for item in hosts:
        if not isinstance(item, (str, Host)):
            raise TypeError(f"a host is a name or a Host, not {type(item).__name__}: {item!r}")
        result.append(item if isinstance(item, Host) else Host(item))
    return result


def compose_command(init_cmd: str, interpreter: str) -> str:
    """Put `init_cmd` in front of the interpreter's command line: text for a POSIX shell.

    The last non-blank character decides:
      `;`   it stands in front as it is:                   `module load py;`  -> `module load py; python`
      `!`   the mark goes, the rest wraps the interpreter: `numactl -N 0 !`   -> `numactl -N 0 python`
      else  a `;` is added:                                `. ~/env/activate` -> `. ~/env/activate; python`
    Empty or blank: the interpreter alone.

    Both arguments are shell text already: quoting inside them is the writer's own and stays untouched.
    """
    text = init_cmd.strip()
    if not text:
        return interpreter
    if text.endswith(";"):
        return f"{text} {interpreter}"
    if text.endswith("!"):
        return f"{text[:-1].rstrip()} {interpreter}".lstrip()
    return f"{text}; {interpreter}"


# ---- checks, one per field -------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {shown(value)}")
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _name(value: Any) -> str:
    user, name, port = parse_address(_text(value))
    _safe_word(name)
    _user(user)
    _port(port)
    return str(value)


def _safe_word(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("is empty")
    if text.startswith("-"):
        raise ValueError(f"{text!r} starts with '-', which ssh takes for an option")
    if found := _UNSAFE.search(text):
        raise ValueError(f"{text!r} contains {found.group()!r}")
    return text


def _user(value: Any) -> str | None:
    """Accounts of a directory service are called jane@corp.org or CORP\\jane; ssh takes both."""
    if value is None:
        return None
    if _text(value).endswith("\\"):
        raise ValueError(f"{value!r} ends with a backslash")
    _safe_word(value.replace("@", "").replace("\\", ""))
    return str(value)


def _port(value: Any) -> int | None:
    return None if value is None else _number(1, 65535)(value)


def _jump(value: Any) -> str | None:
    if value is None:
        return None
    stops = [_without_scheme(stop.strip()) for stop in _text(value).split(",")]
    for stop in stops:
        _name(stop)
    return ",".join(stops)


def _without_scheme(stop: str) -> str:
    """`ssh://user@host:port` is `user@host:port`, as in ssh_config(5), ProxyJump."""
    return stop.removeprefix("ssh://").removesuffix("/") if stop.startswith("ssh://") else stop


def _path_there(value: Any) -> str | None:
    if value is None:
        return None
    path = _text(value)
    if not path.startswith(("/", "~")):
        raise ValueError(f"{path!r} is neither absolute nor starts with '~'")
    return path


def _path_here(value: Any) -> str | None:
    if value is None:
        return None
    path = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if not path.strip():
        raise ValueError("is empty")
    return path


def _archive(value: Any) -> str | None:
    text = _path_here(value)
    if text is not None and text.startswith("uv:") and not re.fullmatch(r"uv:3\.\d+(\.\d+)?", text):
        raise ValueError(f"{text!r} names no version of Python: say uv, uv:3.12 or uv:3.12.4")
    return text


def _command(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError("is empty")
    return str(value)


def _number(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):  # NumPy's, too
            raise ValueError(f"must be a whole number, not {shown(value)}")
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"must be {low}..{high}, not {number}")
        return number

    return check


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            hint = did_you_mean(value, choices)
            raise ValueError(f"must be one of {', '.join(choices)}, not {shown(value)}{hint}")
        return str(value)

    return check


def _way(value: Any) -> str:
    return str(value) if value in WAYS else _one_of(*WAYS, *launcher_names())(value)


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        hint = "; packages are named by environment:" if isinstance(value, str) else ""
        raise ValueError(f"must be a mapping of names to values, not {shown(value)}{hint}")
    result = {}
    for name, content in value.items():
        if not isinstance(name, str) or not _VARIABLE.match(name):
            raise ValueError(f"{name!r} is not the name of a variable")
        if isinstance(content, (list, tuple, dict)) or content is None:
            raise ValueError(f"{name}: must be text or a number, not {content!r}")
        result[name] = _text(str(content).lower() if isinstance(content, bool) else str(content))
    return result


def _packages(value: Any) -> str | None:
    if isinstance(value, Mapping):
        raise ValueError(f"must be here, or a file of requirements or a lock, not {shown(value)}; variables go to env:")
    return _path_here(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, Collection) or isinstance(value, Mapping):
        raise ValueError(f"must be a list of names, not {shown(value)}")
    return tuple(_safe_word(name) for name in value)


def _cores(value: Any) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, Integral):
        return _number(1, 1_000_000)(value)
    numbers: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        if isinstance(value, str):
            numbers = numbers_of(value)
        elif isinstance(value, (list, tuple)):
            numbers = tuple(map(_number(0, 1_000_000), value))
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"must be a number of cores, or a list of different ones such as [0, 1] or 0-3, not {shown(value)}"
        )
    return numbers


def _memory(value: Any) -> int | None:
    return None if value is None else size(value, "it")


def _gpus(value: Any) -> str | int | tuple[str, ...]:
    if isinstance(value, Integral):
        return _number(0, 1_000_000)(value)
    if isinstance(value, str) and value in ("auto", "none"):
        return value
    if value is None:
        return "none"  # YAML's own word for it
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, (int, str)) for each in value):
        return tuple(_safe_word(str(each)) for each in value)
    raise ValueError(f"must be auto, none, a number of devices, or a list of places or UUIDs, not {shown(value)}")


FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "temp_path": _path_there,
    "n_cpu": _number(1, 1_000_000),
    "niceness": _number(-20, 19),
    "python": _command,
    "init_cmd": _text,
    "user": _user,
    "port": _port,
    "key": _path_here,
    "jump": _jump,
    "env": _environment,
    "environment": _packages,
    "python_archive": _archive,
    "ssh": _way,
    "transport": _one_of(*get_args(Transport)),
    "groups": _names,
    "tags": _names,
    "cores": _cores,
    "memory": _memory,
    "gpus": _gpus,
    "use_n_cpu": _number(0, 1_000_000),
}
assert list(FIELDS) == [f.name for f in dataclasses.fields(Host)], "a field without a check, or the reverse"


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """`. Did you mean 'x'?`, or nothing where nothing is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
