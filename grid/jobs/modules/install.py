"""Modules that users install on a server: one Python file or package each, in a place per user and contents.

    service.install_service("fits.py").wait()        at the client
    Fit.submit(...)                                  then as at home; others say "mara/fits.Fit"

Whoever may install runs code as the server's user: that is a right of its own. What comes is a zip archive, and nothing
in it is believed: names, kinds, sizes and the hash are checked before a byte is written, and it is unpacked beside its
place and then moved there. Each becomes importable under a name of its own, made of its hash, so that users and
versions do not meet; so a package has to import its own parts relatively.

Lives here: `Modules` (at the server), `pack` (at the client), `InstallService` (the job that installs).
Elsewhere:  who may (`grid/web/caller.py`), services by name (`manager/registry.py`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from grid.jobs.host.errors import RequestError
from grid.jobs.host.service import Service, ServiceHandler

if TYPE_CHECKING:
    from grid.jobs.manager.registry import ServiceRegistry

SERVICE = "grid.install"
FILES = 2_000
BYTES = 64 << 20
UPLOADS = 20
"""Of one user, that are not installed yet."""
DEPTH = 16
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_TOP = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


# ---- at the client -------------------------------------------------------------------------------------------------


def pack(what: Any) -> tuple[str, bytes]:
    """Name and archive of a module: an imported one, or the path of a file, a package's folder, or a wheel.

    Raises:
        RequestError: It can't be packed.
    """
    named = getattr(what, "__file__", None) or what
    path = Path(named)
    if path.name == "__init__.py":
        path = path.parent
    if path.suffix == ".whl" and path.is_file():
        data = path.read_bytes()
        return check(data)[0], data
    if path.is_dir():
        files = [each for each in sorted(path.rglob("*")) if each.is_file() and not _left_out(each.relative_to(path))]
        members = [(f"{path.name}/{each.relative_to(path).as_posix()}", each) for each in files]
    elif path.suffix == ".py" and path.is_file():
        members = [(path.name, path)]
    else:
        raise RequestError(f"{str(named)!r} is no module", hint="Give one, or a path of a .py, a folder, a wheel")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return check(made.getvalue())[0], made.getvalue()


def _left_out(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


# ---- what an archive may be ----------------------------------------------------------------------------------------


def check(data: bytes) -> tuple[str, list[zipfile.ZipInfo]]:
    """The one module in an archive, and its members. Nothing is unpacked.

    Raises:
        RequestError: Something about it is not as it must be; the message says what.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as exc:
        raise RequestError(f"this is no zip archive ({exc})", hint="Make it with install_service") from exc
    if len(members) > FILES:
        raise RequestError(f"the archive has {len(members)} members", hint=f"At most {FILES}")
    kept, seen, total = [], set(), 0
    files: set[str] = set()
    above: set[str] = set()
    for member in members:
        _check_member(member)
        key = member.filename.rstrip("/").lower()
        if key in seen:
            raise RequestError(f"the archive has {member.filename!r} twice", hint="Each name once")
        seen.add(key)
        if not member.is_dir():
            files.add(key)
        above.update(str(parent).lower() for parent in PurePosixPath(key).parents)
        total += member.file_size
        if total > BYTES:
            raise RequestError("the archive is too large when it is unpacked", hint=f"At most {BYTES} bytes")
        if not member.is_dir() and not member.filename.partition("/")[0].endswith((".dist-info", ".data")):
            kept.append(member)
    if files & above:
        raise RequestError(f"the archive has {min(files & above)!r} as a file and as a folder", hint="Each name once")
    tops = {member.filename.partition("/")[0] for member in kept}
    if len(tops) != 1:
        raise RequestError(f"the archive has {len(tops)} modules ({sorted(tops)[:3]})", hint="One file or package each")
    (top,) = tops
    name = top.removesuffix(".py")
    is_file = len(kept) == 1 and kept[0].filename == f"{name}.py"
    if not _TOP.fullmatch(name) or not (is_file or f"{top}/__init__.py" in {member.filename for member in kept}):
        raise RequestError(f"{top!r} is no module or package", hint="A .py, or a folder with an __init__.py")
    return name, kept


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = PurePosixPath(name).parts
    if "\\" in member.orig_filename or "\0" in member.orig_filename or name.startswith("/") or len(parts) > DEPTH:
        raise RequestError(f"the archive has a member {name!r}", hint="Relative paths with plain names only")
    if not parts or not all(_PART.fullmatch(part) for part in parts) or "//" in name:
        raise RequestError(f"the archive has a member {name!r}", hint="Relative paths with plain names only")
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RequestError(f"the archive's member {name!r} is a link or a device", hint="Files and folders only")
    if member.flag_bits & 0x1:
        raise RequestError(f"the archive's member {name!r} is encrypted", hint="Send it in clear")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RequestError(f"the archive's member {name!r} is packed in an odd way", hint="Stored or deflated")


def unpack(data: bytes, place: Path, alias: str) -> None:
    """Write the members below `place`, the module under its alias; sizes are counted, not believed."""
    name, members = check(data)
    total = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in members:
            first, _, rest = member.filename.partition("/")
            target = place / (alias + first[len(name) :]) / rest if rest else place / (alias + first[len(name) :])
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, open(target, "xb") as file:
                    while chunk := source.read(1 << 16):
                        total += len(chunk)
                        if total > BYTES:
                            raise RequestError("the archive is too large when it is unpacked", hint=f"At most {BYTES}")
                        file.write(chunk)
            except (zipfile.BadZipFile, EOFError, OSError, ValueError) as exc:
                if isinstance(exc, RequestError):
                    raise
                raise RequestError(f"the archive's member {member.filename!r} is broken ({exc})", hint="Again") from exc
            if target.suffix == ".py":
                _check_source(target, member.filename, name)


def _check_source(path: Path, shown: str, name: str) -> None:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise RequestError(f"{shown} does not parse here ({exc})", hint="The server may have another Python") from exc
    for node in ast.walk(tree):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module or ""]
        if any(each.partition(".")[0] == name for each in found):
            raise RequestError(
                f"{shown}, line {getattr(node, 'lineno', 0)}, imports {name} by its name",
                hint="Inside an installed package write: from . import ...",
            )


# ---- at the server -------------------------------------------------------------------------------------------------


class Modules:
    """See the module. `load` imports what is installed; called before jobs are recovered."""

    def __init__(self, directory: Path, registry: ServiceRegistry) -> None:
        self._place, self._registry = Path(directory) / "modules", registry
        self._lock = threading.Lock()
        self.code = self._place / "code"
        """Where all of them lie, each under its own name: a place to import from."""

    def keep(self, user: str, data: bytes) -> str:
        """Put an archive down, to be installed; its name. Raises RequestError."""
        check(data)
        place = self._place / "uploads" / _folder(user)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(list(place.iterdir())) >= UPLOADS:
            raise RequestError("too many archives of yours wait to be installed", hint="Install those first")
        name = secrets.token_hex(12)
        (place / f"{name}.part").write_bytes(data)
        os.replace(place / f"{name}.part", place / name)
        return name

    def install(self, user: str, upload: str, sha256: str) -> dict[str, Any]:
        """Check, unpack, import and register; returns its entry in the list. Raises RequestError."""
        path = self._place / "uploads" / _folder(user) / upload
        if not re.fullmatch(r"[0-9a-f]{24}", upload) or not path.is_file():
            raise RequestError("there is no such upload of yours", hint="Upload it again")
        data = path.read_bytes()
        try:
            digest = hashlib.sha256(data).hexdigest()
            if digest != sha256:
                raise RequestError(f"the archive has the hash {digest}, not {sha256}", hint="Upload it again")
            with self._lock:
                return self._install(user, data, digest)
        finally:
            path.unlink(missing_ok=True)

    def _install(self, user: str, data: bytes, digest: str) -> dict[str, Any]:
        name, _ = check(data)
        alias = f"grid_{hashlib.sha256(f'{user}/{digest}'.encode()).hexdigest()[:16]}_{name}"
        record = self._place / "installed" / f"{alias}.json"
        if record.exists():
            return dict(json.loads(record.read_text()))
        part = self._place / f"part-{secrets.token_hex(8)}"
        part.mkdir(parents=True, mode=0o700)
        self.code.mkdir(exist_ok=True, mode=0o700)
        record.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            unpack(data, part, alias)
            (top,) = part.iterdir()
            _remove(self.code / top.name)  # half of one that a kill left
            os.rename(top, self.code / top.name)
            try:
                services = self._import(user, alias, name, new=True)
                about = {"user": user, "name": name, "alias": alias, "sha256": digest, "bytes": len(data)}
                about |= {"installed": time.time(), "services": services}
                written = part / "about"
                written.write_text(json.dumps(about))
                os.replace(written, record)
            except BaseException:
                _remove(self.code / top.name)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return about

    def _import(self, user: str, alias: str, name: str, *, new: bool) -> dict[str, str]:
        """Import a module and register its services as `user/module.Class`: name -> version."""
        if str(self.code) not in sys.path:
            sys.path.append(str(self.code))
        importlib.invalidate_caches()
        try:
            return self._register(user, alias, name, new=new)
        except BaseException:
            for each in [each for each in sys.modules if each == alias or each.startswith(f"{alias}.")]:
                del sys.modules[each]
            raise

    def _register(self, user: str, alias: str, name: str, *, new: bool) -> dict[str, str]:
        try:
            module = importlib.import_module(alias)
        except BaseException as exc:
            why = f"{type(exc).__name__}: {exc}"
            raise RequestError(f"{name} can't be imported ({why})", hint="Try it at home") from exc
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Service) and value.__module__.partition(".")[0] == alias
        ]
        usable = [cls for cls in found if cls.version is not None]
        if not usable:
            raise RequestError(f"{name} has no service class with a version", hint="In the module or in __init__.py")
        services = {}
        for cls in usable:
            own = cls.__dict__.get("service") or f"{cls.__module__.replace(alias, name, 1)}.{cls.__qualname__}"
            shown = f"{user}/{own}"
            if new and str(cls.version) in self._registry.services().get(shown, ()):
                raise RequestError(
                    f"version {cls.version} of {shown} is installed with other contents", hint="Raise its version"
                )
            services[shown] = str(cls.version)
        for cls, shown in zip(usable, services, strict=True):
            cls.service = shown
            self._registry.add(cls)
        return services

    def load(self) -> Iterator[str]:
        """Import all installed modules; the log names those that fail."""
        for about in self.list():
            try:
                self._import(about["user"], about["alias"], about["name"], new=False)
            except RequestError as exc:
                yield str(exc)

    def list(self) -> list[dict[str, Any]]:
        """Installed modules, oldest first: `user`, `name`, `services` (name -> version), `sha256`, `bytes`, when."""
        found = [json.loads(path.read_text()) for path in self._place.glob("installed/*.json")]
        return sorted(found, key=lambda each: each["installed"])

    def close(self) -> None:
        """Installed modules can't be imported any more; those that are loaded stay."""
        if str(self.code) in sys.path:
            sys.path.remove(str(self.code))


def _remove(path: Path) -> None:
    """Remove a module, with the byte code that Python has kept of it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    for kept in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        kept.unlink(missing_ok=True)


def _folder(user: str) -> str:
    """A folder for a user, whatever the name is."""
    plain = re.sub(r"[^A-Za-z0-9]", "", user)[:20]
    return f"{plain}-{hashlib.sha256(user.encode()).hexdigest()[:12]}"


class InstallService(Service):
    """Installs what was uploaded. Its result: as in the list of modules."""

    service = SERVICE
    version = "1"
    at_manager = True
    modules: ClassVar[Modules]
    owner_of: ClassVar[Callable[[str], str]]

    def run(self, handler: ServiceHandler) -> Any:
        data = self.request.data
        about = self.modules.install(type(self).owner_of(handler.job), str(data.get("upload")), str(data.get("sha256")))
        return {name: value for name, value in about.items() if name != "alias"}


def installing(modules: Modules, owner_of: Callable[[str], str]) -> type[InstallService]:
    """The service of one manager; `owner_of` gives the owner of a job."""
    return type(InstallService.__name__, (InstallService,), {"modules": modules, "owner_of": staticmethod(owner_of)})
