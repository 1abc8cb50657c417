"""A pilot: a batch job of ours that holds nodes for a grid and starts a kernel on each of them.

    preparing ──submit──> queued ──(its script runs)──> started ──(end of the script, qdel, walltime)──> ended

We only ever speak to the machine where jobs are submitted (`login`), by commands of a POSIX shell. Everything else goes
by files in a directory there that the nodes see as well (0700, in the home directory):

    ~/.grid/pilots/<token>/
        nodes.sh      what the job runs: starts `rank.sh` once on each node, by the batch system's own launcher
        rank.sh       finds out which of the nodes this is, and runs the kernel of that rank
        <rank>/stdin  the kernel's input: code, settings, keys (0600); removed as soon as it is read
        output, error what the script and the launcher print
        <rank>/...    its first words, what it printed, how it ended: see `launch/spool.py`
        started       seconds since 1970, when the script began
        notice        the same, when it heard that its end is near: SIGUSR1, as by `--signal=B:USR1@120` of Slurm
        ended         its exit status

Lives here: the files, what can be read from them, the way to a node through `login`.
Elsewhere:  the batch system (`grid/batch/`), when pilots are submitted and what runs on them (`batch.py`).
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from grid.batch_systems import Dialect
from grid.batch_systems.sge import SPARED, WARNING
from grid.errors import AllocationError, ConnectError
from grid.kernel.boot import MARK
from grid.launch import Connection, RemoteProcess
from grid.launch.shell import remote_path
from grid.launch.spool import run_script

BASE = "~/.grid/pilots"
_SEEN_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9.-]+\Z")

NODES_SCRIPT = """\
#!/bin/sh
# Starts one kernel of grid on each node of this job, and ends when they have ended.
cd "$(dirname "$0")" || exit 1
here=$(pwd -P)
exec >output 2>error </dev/null
echo "$PATH" >path  # PBS gives tasks next to none: what the job's profile and lines have made of it counts on all nodes
date +%s >started.new && mv started.new started
launchers=  # dash lists no jobs within $(jobs -p)
trap 'kill -TERM $launchers 2>/dev/null' TERM HUP {warning}  # the launchers hand it on to the kernels
trap 'date +%s >notice.new && mv notice.new notice' USR1
start() {  # a launcher in the background; where it ends without having begun $rank, that is told at once
    (
        trap 'kill -TERM "$child" 2>/dev/null' TERM HUP
        {spared}
        "$@" </dev/null &
        child=$!
        wait "$child"
        while kill -0 "$child" 2>/dev/null; do wait "$child"; done
        [ -z "$rank" ] || [ -e "$rank/pid" ] || [ -e "$rank/status" ] || echo 77 >"$rank/status"
    ) &
    launchers="$launchers $!"
}
over() {
    rank=0
    for host in "$@"; do
        if [ $rank = 0 ]; then start /bin/sh "$here/rank.sh" 0
        else start ssh -o BatchMode=yes "$host" /bin/sh "$here/rank.sh" $rank
        fi
        rank=$((rank + 1))
    done
}
rank=
{start}
until wait; do :; done  # the end of this script is the end of all that the job has on its nodes
[ -e nodes.sh ] || exit 0  # the client has removed it all meanwhile
rank=0
while [ $rank -lt {nodes} ]; do  # a node that the launcher never reached must not be waited for
    [ -e $rank/pid ] || [ -e $rank/status ] || echo 77 >$rank/status
    rank=$((rank + 1))
done
echo 0 >ended.new && mv ended.new ended
# A living client reads how it ended, and removes this directory. Kernels say by 75 that theirs was unreachable.
[ "$(cat ./*/status | sort -u)" = 75 ] && cd / && rm -rf "$here"
exit 0
"""
"""`{start}`: the batch system's own line for pilots (`Dialect.pilot_lines`); `{nodes}`: how many kernels there are;
`{spared}`, `{warning}`: see `batch_systems/sge.py`."""

RANK_SCRIPT = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
rank=${1:-${SLURM_PROCID:-${PBS_NODENUM:-0}}}
read -r PATH <path && export PATH
exec /bin/sh "$rank/run.sh"
"""


@dataclass
class Rank:
    """One node of a pilot, as its files tell."""

    number: int
    words: str | None = None  # its report, JSON
    noise: str = ""
    status: int | None = None  # exit status of its kernel
    accepting: bool = False  # the grid is about to connect
    settled: bool = False  # the grid has dealt with it: connected or failed


@dataclass
class Pilot:
    """See the module. `directory` is absolute on the login machine; times are of its clock, in seconds since 1970."""

    token: str
    directory: str
    command: str
    walltime_s: float
    ranks: list[Rank]
    job: str | None = None
    state: str = "preparing"
    reason: str = ""
    started: float | None = None
    notice: float | None = None
    age_s: float | None = None  # how long it had been running when it was last looked at
    status: int | None = None
    noise: str = ""  # what the script itself printed to standard error
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def left_s(self) -> float | None:
        """Seconds of walltime left when it was last looked at; None before it started."""
        return None if self.age_s is None else self.walltime_s - self.age_s


def prepare_script(token: str) -> str:
    """Shell text that makes a pilot's directory and prints its path and the addresses of the login machine."""
    base = remote_path(BASE)
    return (
        f"umask 077; mkdir -p {base} && cd {base} && mkdir {token} && "
        f"{{ find . -maxdepth 1 -name '*-*' -mmin +10080 -exec rm -rf {{}} +; "  # of clients that are long gone
        f"cd {token}; pwd -P; "
        "hostname -I 2>/dev/null || hostname; }"
    )


def pilot_files(directory: str, kernels: Sequence[tuple[str, bytes]], dialect: Dialect) -> bytes:
    """A tar archive of all files of a pilot; `kernels` has command and input for each rank."""
    files: dict[str, bytes] = {
        "nodes.sh": NODES_SCRIPT.replace("{start}", dialect.pilot_lines(len(kernels)))
        .replace("{nodes}", str(len(kernels)))
        .replace("{spared}", SPARED)
        .replace("{warning}", WARNING)
        .encode(),
        "rank.sh": RANK_SCRIPT.encode(),
    }
    for rank, (command, words) in enumerate(kernels):
        script = run_script(command, f"{directory}/{rank}")
        files[f"{rank}/run.sh"] = script.encode()
        files[f"{rank}/stdin"] = words
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unpack_script(directory: str) -> str:
    """Shell text that unpacks the files of a pilot from its standard input."""
    return f"umask 077; cd {shlex.quote(directory)} && tar xzf -"


def look_script(pilots: Iterable[Pilot]) -> str:
    """One command that shows what is new of all these pilots: see `take_news`."""
    lines = [
        "date +%s",
        'show() { [ -f "$1" ] || return 0; s=$(wc -c <"$1"); [ "$s" -gt "$2" ] && s=$2; '
        'printf "\\nFILE %s %d\\n" "$1" "$s"; tail -c "$2" "$1" | head -c "$s"; }',
    ]
    for pilot in pilots:
        names = [("started", 40), ("notice", 40), ("ended", 40), ("error", 2000)]
        for rank in pilot.ranks:
            names.append((f"{rank.number}/status", 40))
            if rank.words is None:
                names += [(f"{rank.number}/stdout", _SEEN_BYTES), (f"{rank.number}/stderr", 4096)]
        lines += [f"show {shlex.quote(f'{pilot.directory}/{name}')} {size}" for name, size in names]
    return "\n".join(lines)


def take_news(pilots: Iterable[Pilot], answer: bytes) -> None:
    """Put what `look_script` printed into the pilots.

    Raises:
        AllocationError: It is not of that form.
    """
    first, _, rest = answer.partition(b"\n")
    if not first.strip().isdigit():
        raise AllocationError(f"the login machine answered {first[:200]!r}", hint="Does its shell print much?")
    now = float(first)
    found: dict[str, bytes] = {}
    while rest:
        head, separator, rest = rest.partition(b"\nFILE ")[2].partition(b"\n")
        if not separator:
            break
        name, _, size = head.decode().rpartition(" ")
        found[name], rest = rest[: int(size)], rest[int(size) :]
    for pilot in pilots:
        _take(pilot, now, found)


def _take(pilot: Pilot, now: float, found: Mapping[str, bytes]) -> None:
    def text(name: str) -> str:
        return found.get(f"{pilot.directory}/{name}", b"").decode(errors="replace").strip()

    if text("started").isdigit():
        if pilot.started is None:
            pilot.started = float(text("started"))
        pilot.age_s = max(0.0, now - pilot.started)
    if text("notice").isdigit():
        pilot.notice = float(text("notice"))
    pilot.noise = text("error")
    if text("ended").isdigit():
        pilot.status = int(text("ended"))
    for rank in pilot.ranks:
        if text(f"{rank.number}/status").isdigit():
            rank.status = int(text(f"{rank.number}/status"))
        if rank.words is not None:
            continue
        printed = text(f"{rank.number}/stdout")
        for line in printed.splitlines():
            if line.startswith(MARK):
                rank.words = line[len(MARK) :]
        rank.noise = "\n".join(part for part in (text(f"{rank.number}/stderr"), printed) if part)[-2000:]


def remove_script(directory: str) -> str:
    """Shell text that removes a pilot's directory."""
    quoted = shlex.quote(directory)
    # Its script may have written just now.
    return f"rm -rf {quoted}; [ ! -e {quoted} ] || {{ sleep 1; rm -rf {quoted}; }}"


def remove_token_script(token: str) -> str:
    """The same, of a pilot whose token alone is known."""
    return f"cd {remote_path(BASE)} && rm -rf {shlex.quote(token)}"


class PilotConnection(Connection):
    """The way to a node of a pilot: through the login machine, or straight where that is this machine."""

    in_job = True

    def __init__(self, login: Connection, addresses: Sequence[str]) -> None:
        super().__init__(login.host, login.limits)
        self._login, self._addresses = login, list(addresses)
        self._open: set[tuple[str, int]] = set()
        self._closed = False

    def start(self, command: str) -> RemoteProcess:
        raise ConnectError(
            "commands run on its nodes only by way of their kernels", host=self.host.label, hint="Publish an object"
        )

    def forward(self, address: str, port: int) -> str:
        self._open.add((address, port))
        return self._login.forward(address, port)

    def unforward(self, address: str, port: int) -> None:
        self._open.discard((address, port))
        self._login.unforward(address, port)

    def server_address(self) -> str | None:
        return self._login.server_address() if self._login.host.ssh == "local" else None

    def towards(self) -> list[str]:
        return self._addresses

    def alive(self) -> bool:
        return not self._closed and self._login.alive()

    def close(self) -> None:
        self._closed = True
        for address, port in list(self._open):
            self.unforward(address, port)


def is_safe_name(text: str) -> bool:
    """Whether a node's own word for its name may stand in messages and tables as a host's name."""
    return bool(_NAME.match(text))
