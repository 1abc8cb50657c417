"""A Python for a host that has none, or one that is too old: an archive that travels like a wheel, by content.

    ~/.grid/env/python-<sha256, 16 of it>/      unpacked once; `.whole` names the interpreter in it
                python-....part                 while it arrives

Only a POSIX shell, tar and sha256sum are needed there. The lock is that of `kernel/environments.py`: `flock` takes it
where the host has that command, else the rename at the end decides.

Lives here: `PythonArchive`. Elsewhere: what is built on it (`travel.py`).
"""

from __future__ import annotations

import hashlib
import shlex
import time
from functools import cached_property
from pathlib import Path

from grid.errors import ConnectError, DiskError, HostError, PackagesError, PythonError
from grid.launch import Connection, RemoteProcess
from grid.launch.shell import MINIMUM

MARK = "grid-python "
UNPACK_S = 900.0
SEND_S = 600.0
_CHUNK = 1 << 18

_SCRIPT = r"""
umask 077; e="$HOME"/.grid/env; d=$e/NAME; p=$d.part
mkdir -p "$e" && exec 9>>"$e"/.lock || { echo "MARKfull"; exit 1; }
command -v flock >/dev/null 2>&1 && flock 9
say() { echo "MARK$1 $e"; exit "${2:-1}"; }
[ -f "$d"/.whole ] && { read -r python <"$d"/.whole; say "ready $d/$python" 0; }
command -v tar >/dev/null 2>&1 || say tar
n=0; [ -f "$p" ] && n=$(wc -c <"$p")
echo "MARKfrom $n"
cat >>"$p" || { rm -f "$p"; say full; }
[ "$(wc -c <"$p")" -eq SIZE ] || say cut
sum=$( (sha256sum "$p" || shasum -a 256 "$p") 2>/dev/null); sum=${sum%% *}
[ "$sum" = SHA ] || { rm -f "$p"; say content; }
rm -rf "$d".new; mkdir "$d".new && tar -xf "$p" -C "$d".new 9>&- || { rm -rf "$d".new "$p"; say unpack; }
for c in "$d".new/bin/python3 "$d".new/*/bin/python3 "$d".new/*/*/bin/python3 ""; do [ -x "$c" ] && break; done
[ -n "$c" ] || { rm -rf "$d".new "$p"; say none; }
"$c" -c 'import sys, ssl, zlib; sys.exit(sys.version_info < (MINIMUM))' 9>&- || { rm -rf "$d".new "$p"; say runs; }
echo "${c#"$d".new/}" >"$d".new/.whole && mv "$d".new "$d" || { rm -rf "$d".new; say full; }
rm -f "$p"
read -r python <"$d"/.whole; say "ready $d/$python" 0
"""

_WHY = {
    "full": (DiskError, "can't put the Python of its archive there", "Is there room in the home directory?"),
    "tar": (
        PythonError,
        "it has no tar to unpack python_archive with",
        "Unpack it there by hand, then name it by python:",
    ),
    "content": (DiskError, "the archive arrived with other content than it was sent with", "Try again"),
    "unpack": (DiskError, "can't unpack the archive there", "Is there room, and does its tar know the compression?"),
    "none": (PythonError, "there is no bin/python3 in the archive", "Name another with python_archive:"),
    "runs": (
        PythonError,
        f"the Python of the archive does not run there, or is older than {'.'.join(map(str, MINIMUM))}",
        "It must be for its platform and C library, and relocatable",
    ),
}


class PythonArchive:
    """One archive of this machine.

    Raises:
        PackagesError: It can't be read.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        try:
            self._size = self._path.stat().st_size
            with open(self._path, "rb"):
                pass
        except OSError as exc:
            raise PackagesError(
                f"python_archive: can't read {path}: {exc.strerror}", hint="Name another", file=path
            ) from exc

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        with open(self._path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def bring(self, connection: Connection, label: str) -> str:
        """Have it unpacked on a host; the interpreter's path there.

        Raises:
            PythonError, DiskError: It can't be had there.
            ConnectError: The connection broke; what had arrived stays for the next attempt.
        """
        words = {"MARK": MARK, "NAME": f"python-{self._sha256[:16]}", "SIZE": str(self._size), "SHA": self._sha256}
        text = _SCRIPT.replace("MINIMUM", ", ".join(map(str, MINIMUM)))
        for word, value in words.items():
            text = text.replace(word, value)
        with connection.start(f"sh -c {shlex.quote(text)}") as process:
            kind, rest = self._hear(process, label)
            if kind == "from":
                self._send(process, int(rest), label)
                kind, rest = self._hear(process, label)
            if kind == "ready":
                return rest.rpartition(" ")[0]
            failed, what, hint = _WHY.get(kind, (ConnectError, "the archive was cut off", "Try again: it goes on"))
            said = process.stderr_tail(1.0)[-500:]
            raise failed(f"{what}{': ' + said if said else ''}", host=label, hint=hint)

    def _send(self, process: RemoteProcess, offset: int, label: str) -> None:
        try:
            with open(self._path, "rb") as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    process.write(chunk, SEND_S)
            process.close_stdin()
        except BrokenPipeError:
            pass  # it says why
        except OSError as exc:
            raise self._broken(process, label) from exc

    def _hear(self, process: RemoteProcess, label: str) -> tuple[str, str]:
        deadline = time.monotonic() + UNPACK_S
        while True:
            try:
                line = process.read_line(max(0.1, deadline - time.monotonic())).decode("utf-8", "replace")
            except (TimeoutError, ValueError) as exc:
                raise self._broken(process, label) from exc
            if not line:
                raise self._broken(process, label)
            _, found, said = line.rstrip("\n").partition(MARK)
            if found:
                kind, _, rest = said.partition(" ")
                return kind, rest

    def _broken(self, process: RemoteProcess, label: str) -> HostError:
        said = process.stderr_tail(1.0)[-500:]
        return ConnectError(
            f"the connection broke while a Python was sent{': ' + said if said else ''}",
            host=label,
            hint="What had arrived stays there: another attempt goes on from it",
        )
