"""One test host: what it should be like (`LabHost`) and the running thing (`RunningHost`).

Lives here: its files, its power switch, its wire, its firewall, its sshd, looking inside.
Elsewhere:  what happens within it at start (`init.sh`), the network around it (`lab.py`), interpreters (`pythons.py`).

A host lives exactly as long as its PID 1, and its network namespace as long as its processes: nothing of it can outlive
the power switch. PID 1 reads a pipe that we hold, so that our own death switches it off as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.ground import CLEAN_ENVIRONMENT, FREEZER, call, remove_cgroup
from tests.lab.pythons import CLIENT, KERNEL_PACKAGES, Interpreter, interpreter

if TYPE_CHECKING:
    from tests.lab.lab import Lab

START_S = 20.0  # a host is up within 0.3 s; this is for a machine under load
FIRST_UID = 30_001
HOST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
UNSHARE = ("unshare", "--net", "--uts", "--mount", "--pid", "--ipc", "--fork")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class LabHost:
    """What one test host should be like.

    `pythons` lists minor versions; the first is what `python3` and `python` mean there, and a host with an empty list
    has no Python at all. `packages` are all that its interpreters can import besides the standard library.
    """

    name: str
    pythons: tuple[str, ...] = (CLIENT,)
    packages: tuple[str, ...] = KERNEL_PACKAGES
    behind: str | None = None  # reachable from that host only: its jump host
    open_ports: tuple[int, ...] | None = None  # all others are dropped silently; None: no firewall
    # path -> name; hosts that use a name share a directory; a name that is a path is that directory of this machine
    shares: Mapping[str, str] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=dict)  # path -> mount options, such as "size=64k"
    readonly: tuple[str, ...] = ()  # paths on which nothing can be written
    hidden: tuple[str, ...] = ()  # commands of this machine that it lacks
    sshd: Mapping[str, str] = field(default_factory=dict)  # lines of sshd_config besides the few we need
    shell: str = "/bin/bash"
    freezer: bool = False  # a part of the machine's freezer cgroup (version 1) as its own
    wire: bool = False  # frames pass through a process of ours that can delay, drop and count them


class RunningHost:
    """A host of a lab; `address` is where its sshd listens on port 22."""

    def __init__(self, lab: Lab, spec: LabHost, number: int, address: str, gateway: RunningHost | None) -> None:
        self.lab, self.spec, self.number, self.address, self.gateway = lab, spec, number, address, gateway
        self.name = spec.name
        self.directory = lab.directory / "hosts" / spec.name
        self.outer_link = f"{lab.ground.tag}h{number}"  # our end of its wire
        self._unshare: subprocess.Popen[str] | None = None
        self._wire: subprocess.Popen[str] | None = None
        self._init = 0
        self._sshd_inner = 0
        self.services: dict[str, str] = {}  # name -> command line without quotes; they start when the host does
        self._services_inner: list[int] = []

    # --- files -------------------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """Write everything that `init.sh` needs. The disk (homes, /tmp, /var) then lasts as long as the lab."""
        root = self.directory / "root"
        mounts = ("usr", "opt", "etc", "sys", "proc", "dev", "mnt")
        (self.directory / "bin").mkdir(parents=True)
        for path in (*mounts, "home", "root", "run/sshd", "var/log", "var/lib"):
            (root / path).mkdir(parents=True)
        for path in ("tmp", "var/tmp"):
            (root / path).mkdir()
            (root / path).chmod(0o1777)
        (root / "var/run").symlink_to("/run")
        (root / "root").chmod(0o711)
        for top in Path("/").iterdir():  # /bin -> usr/bin and the like
            if top.is_symlink() and os.readlink(top).lstrip("/").startswith("usr"):
                (root / top.name).symlink_to(os.readlink(top))
        self._write_etc()
        shares = {path: self._share(name) for path, name in self.spec.shares.items()}
        for offset, user in enumerate(self.lab.users):
            home = shares.get("/home", root / "home") / user
            if not home.exists():  # on a shared /home another host was first
                self._make_home(home, FIRST_UID + offset)
        pythons = [interpreter(minor, self.spec.packages) for minor in self.spec.pythons]
        self._write_settings(pythons, shares)

    def _share(self, name: str) -> Path:
        if name.startswith("/"):
            return Path(name)
        directory = self.lab.directory / "shares" / name
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o1777)
        return directory

    def write_file(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file on its disk before it is first switched on. A program for its users goes to /usr/local/bin."""
        program = path.startswith("/usr/local/bin/")
        top = self.directory if program or path.startswith("/etc/") else self.directory / "root"
        file = top / path.lstrip("/").removeprefix("usr/local/" if program else "")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _write_etc(self) -> None:
        etc = self.directory / "etc"
        (etc / "ssh").mkdir(parents=True)
        users = self.lab.users
        for file, line in {
            "passwd": "{name}:x:{uid}:{uid}::/home/{name}:{shell}",
            "group": "{name}:x:{uid}:",
            "shadow": "{name}:*:19000:0:99999:7:::",  # `!` would be a locked account, which sshd refuses
        }.items():
            kept = [
                old
                for old in Path("/etc", file).read_text().splitlines()
                if old.split(":")[0] not in users and not (file == "passwd" and "/home/" in old)
            ]
            made = [line.format(name=name, uid=FIRST_UID + i, shell=self.spec.shell) for i, name in enumerate(users)]
            (etc / file).write_text("\n".join(kept + made) + "\n")
            (etc / file).chmod(0o640 if file == "shadow" else 0o644)
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(self.lab.hosts_file)
        (etc / "resolv.conf").write_text("")
        # No DNS: an unknown name fails at once, not after 10 s.
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        (etc / "environment").write_text("")
        (etc / "motd").write_text("")
        key = etc / "ssh/ssh_host_ed25519_key"
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key))
        settings = {
            "HostKey": "/etc/ssh/ssh_host_ed25519_key",
            "AddressFamily": "inet",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
            **self.spec.sshd,
        }
        (etc / "ssh/sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def _make_home(self, home: Path, uid: int) -> None:
        ssh = home / ".ssh"
        ssh.mkdir(parents=True)
        keys = self.lab.directory / "ssh"
        shutil.copy(keys / "authorized_keys", ssh)
        shutil.copy(keys / "between", ssh / "id_ed25519")  # from host to host, as on a cluster
        (ssh / "known_hosts").symlink_to("/etc/ssh/ssh_known_hosts")
        for path in (home, ssh, *ssh.iterdir()):
            os.chown(path, uid, uid, follow_symlinks=False)
        home.chmod(0o700)
        ssh.chmod(0o700)
        (ssh / "id_ed25519").chmod(0o600)

    def _write_settings(self, pythons: Sequence[Interpreter], shares: Mapping[str, Path]) -> None:
        words = {
            "name": [self.name],
            "interpreters": [f"{python.minor}={python.path}" for python in pythons],
            "libraries": [
                f"/opt/python{python.minor}/lib/{Path(python.library).name}={python.library}"
                for python in pythons
                if python.library
            ],
            "binds": [f"{directory}={path}" for path, directory in shares.items()],
            "tmpfs": [f"{path}={options}" for path, options in self.spec.tmpfs.items()],
            "readonly": list(self.spec.readonly),
            "hidden": list(self.spec.hidden),
            "freezer": [str(self._freezer)] if self.spec.freezer else [],
        }
        lines = [f"{name}={shlex.quote(' '.join(values))}\n" for name, values in words.items()]
        (self.directory / "settings").write_text("".join(lines))

    @property
    def public_key(self) -> str:
        """Its host key, as `type base64`."""
        text = (self.directory / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        return " ".join(text.split()[:2])

    # --- power -------------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._unshare is not None and self._unshare.poll() is None

    def start(self) -> None:
        """First half of power on: it boots. Only `finish_start` waits, so that many hosts boot at once."""
        assert not self.is_on, f"{self.name} is on already"
        with open(self.directory / "init.log", "ab") as log:
            self._unshare = subprocess.Popen(
                [*UNSHARE, "--kill-child", "/bin/bash", str(HERE / "init.sh"), str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=CLEAN_ENVIRONMENT,
                start_new_session=True,  # a Ctrl-C at the terminal is for pytest, not for the host
                cwd="/",
            )

    def finish_start(self) -> None:
        """Second half: put its plug in, start its sshd, wait until that listens."""
        self._init = int(self._answer("pid"))
        self._plug_in()
        if self.spec.open_ports is not None:
            self.block_ports(*self.spec.open_ports)
        self._services_inner = [int(self._tell("run", name, line)) for name, line in self.services.items()]
        self.start_sshd()

    def power_on(self) -> None:
        """Boot again after `kill()`. Its disk is as it was; its processes, /dev/shm and tmpfs mounts are new."""
        self.start()
        self.finish_start()
        for host in self.lab.hosts.values():  # its own network died with it: wire up what stands behind
            if host.gateway is self and host.is_on:
                call(*host._enter("--net"), "ip", "link", "delete", "eth0", check=False)
                host._plug_in()

    def kill(self) -> None:
        """Cut the power: every process of the host dies at once, and its network with them."""
        if self._unshare is None:
            return
        self._unplug()
        unshare, self._unshare = self._unshare, None
        if unshare.poll() is None:
            unshare.kill()  # --kill-child: PID 1 goes with it, and with PID 1 all the others
        unshare.wait(START_S)
        assert unshare.stdin is not None and unshare.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            unshare.stdin.close()
        unshare.stdout.close()
        wait_until(lambda: not self.processes(everything=True), "its processes to die", self)
        if self.spec.freezer:
            remove_cgroup(self._freezer)

    @property
    def _freezer(self) -> Path:
        return FREEZER / f"{self.lab.ground.tag}-{self.name}"

    def _answer(self, word: str) -> str:
        """The next line from PID 1, which must begin with `word`; what follows it."""
        assert self._unshare is not None and self._unshare.stdout is not None
        ready, _, _ = select.select([self._unshare.stdout], [], [], START_S)
        line = self._unshare.stdout.readline() if ready else ""
        if line.split()[:1] != [word]:
            log = (self.directory / "init.log").read_text()
            raise RuntimeError(f"test host {self.name} said {line!r} instead of {word!r}; its log:\n{log}")
        return line[len(word) :].strip()

    def _tell(self, *words: str) -> str:
        assert self._unshare is not None and self._unshare.stdin is not None
        self._unshare.stdin.write(f"{' '.join(words)}\n")
        return self._answer(words[0])

    # --- wire --------------------------------------------------------------------------------------------------

    def _plug_in(self) -> None:
        """Lead a wire from the bridge of its network to its eth0."""
        mac = f"02:67:6c:{self.lab.ground.number:02x}:00:{self.number:02x}"  # fixed: no stale ARP after a reboot
        bridge = self.lab.bridge if self.gateway is None else "inner"
        around: list[str] = [] if self.gateway is None else self.gateway._enter("--net")
        if self.gateway is not None and not self.gateway._has_link("inner"):
            commands = f"link add inner type bridge\naddr add {self.gateway.inner_address}/24 dev inner\n"
            call(*around, "ip", "-batch", "-", input=commands + "link set inner up\n")
        if self.spec.wire:
            self._start_wire(bridge)
        else:
            call(
                *around, "ip", "-batch", "-",
                input=f"link add {self.outer_link} type veth peer name eth0 netns {self._init}\n"
                f"link set {self.outer_link} master {bridge} up\n",
            )  # fmt: skip
        self._ip(
            f"link set lo up\nlink set eth0 address {mac}\naddr add {self.address}/24 dev eth0\nlink set eth0 up\n"
        )
        # A jump host relays what its users ask it to, not packets. (/proc/sys/net is that of whoever looks.)
        call(*self._enter("--net"), "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")

    def _unplug(self) -> None:
        """The kernel would take the wire away by itself, but only some time after the last process."""
        self._stop_wire()
        if self.gateway is None or self.gateway.is_on:
            self._outer_ip("link", "delete", self.outer_link, check=False)

    @property
    def inner_address(self) -> str:
        """Its address on the network of the hosts behind it."""
        return str(self.lab.inner_network(self)[1])

    def _has_link(self, name: str) -> bool:
        return name in call(*self._enter("--net"), "ip", "-br", "link")

    def _ip(self, commands: str) -> None:
        call(*self._enter("--net"), "ip", "-batch", "-", input=commands)

    def _outer_ip(self, *command: str, check: bool = True) -> None:
        around = [] if self.gateway is None else self.gateway._enter("--net")
        call(*around, "ip", *command, check=check)

    def cut(self) -> None:
        """Cut its wire: nothing arrives, and nobody is told. Its processes run on."""
        self._outer_ip("link", "set", self.outer_link, "down")

    def mend(self) -> None:
        self._outer_ip("link", "set", self.outer_link, "up")

    def _start_wire(self, bridge: str) -> None:
        assert self.gateway is None, "a wire with delay leads to a host of the first network only"
        command = [sys.executable, "-I", "-S", str(HERE / "wire.py")]
        self._wire = subprocess.Popen(
            [*command, self.outer_link, bridge, str(self._init), str(self.directory) + "/"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=CLEAN_ENVIRONMENT,
            start_new_session=True,
        )
        self.set_wire()

    def _stop_wire(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            assert wire.stdin is not None and wire.stdout is not None
            wire.stdin.close()
            wire.stdout.close()
            wire.wait(START_S)

    def set_wire(self, *, delay_ms: float = 0, jitter_ms: float = 0, loss_percent: float = 0) -> None:
        """What happens to each frame, in each direction, from now on. For a host made with `wire=True`."""
        assert self._wire is not None, f"{self.name} was not made with wire=True"
        assert self._wire.stdin is not None and self._wire.stdout is not None
        self._wire.stdin.write(f"{delay_ms} {jitter_ms} {loss_percent}\n")
        ready, _, _ = select.select([self._wire.stdout], [], [], START_S)
        assert ready and self._wire.stdout.readline() == "set\n", "the wire's process has ended"

    def limit_rate(self, kbit_s: int) -> None:
        """Let through no more than this, in each direction."""
        limit = ["root", "tbf", "rate", f"{kbit_s}kbit", "burst", "16kb", "latency", "400ms"]
        around = [] if self.gateway is None else self.gateway._enter("--net")
        call(*around, "tc", "qdisc", "replace", "dev", self.outer_link, *limit)
        call(*self._enter("--net"), "tc", "qdisc", "replace", "dev", "eth0", *limit)

    # --- firewall and sshd -------------------------------------------------------------------------------------

    def block_ports(self, *except_ports: int) -> None:
        """Drop whatever comes in on other ports than these (22 unless named); connections that it opens itself work."""
        rules = ["-i lo", "-p tcp ! --syn", *(f"-p tcp --dport {port}" for port in except_ports or (22,))]
        self._set_firewall("DROP", [f"-A INPUT {rule} -j ACCEPT" for rule in rules])

    def open_ports(self) -> None:
        """Take the firewall away."""
        self._set_firewall("ACCEPT", [])

    def _set_firewall(self, policy: str, rules: Sequence[str]) -> None:
        table = "\n".join(["*filter", f":INPUT {policy} [0:0]", *rules, "COMMIT", ""])
        call(*self._enter("--net"), "iptables-restore", "--wait", input=table)

    def start_sshd(self) -> None:
        self._sshd_inner = int(self._tell("sshd"))
        wait_until(self._listens, "sshd to listen on port 22", self)

    def stop_sshd(self) -> None:
        """End the listener: new connections are refused, sessions go on."""
        self._tell("no-sshd")
        self._sshd_inner = 0

    def stop_service(self, name: str) -> None:
        """End one of its services, and wait for that."""
        pid = str(self._services_inner[list(self.services).index(name)])
        self.run(["kill", pid], user="root", check=True)
        wait_until(lambda: self.run(["kill", "-0", pid], user="root").returncode != 0, f"{name} to end", self)

    def start_service(self, name: str) -> None:
        """Start it again."""
        self._services_inner[list(self.services).index(name)] = int(self._tell("run", name, self.services[name]))

    def kill_sessions(self) -> None:
        """Kill sshd's process of every session. What the sessions started stays, without its channel."""
        for pid, command in self.processes():
            if command.startswith("sshd:"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _listens(self) -> bool:
        table = Path(f"/proc/{self._init}/net/tcp").read_text()
        return any(line.split()[1:4:2] == ["00000000:0016", "0A"] for line in table.splitlines()[1:])

    # --- inside ------------------------------------------------------------------------------------------------

    def _enter(self, *namespaces: str) -> list[str]:
        assert self.is_on, f"{self.name} is off"
        return ["nsenter", "--target", str(self._init), *namespaces]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        input: str | None = None,
        timeout: float = 60,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host as `user` (the lab's first one; "root" is there as well), not through ssh."""
        user = user or self.lab.user
        home = "/root" if user == "root" else f"/home/{user}"
        # --root: in a chroot the root of a mount namespace is not that of its processes
        command = self._enter("--mount", "--uts", "--ipc", "--net", "--pid", "--root")
        if user != "root":
            command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        command += ["env", "-i", "-C", home, f"HOME={home}", f"USER={user}", f"LOGNAME={user}"]
        command += [f"PATH={HOST_PATH}", "LC_ALL=C.UTF-8", *argv]
        return subprocess.run(
            command,
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
            env=CLEAN_ENVIRONMENT,
        )

    def processes(self, *, everything: bool = False) -> list[tuple[int, str]]:
        """(pid as this machine sees it, command line) of each process in the host.

        PID 1, sshd's listener and services of the host are left out, unless `everything` is asked for.
        """
        if not everything and not self.is_on:
            return []
        quiet = (1, self._sshd_inner, *self._services_inner)
        found = []
        for pid in self._pids():
            try:  # the state after the words: of a process that died in between, the words are gone
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            inner = int(fields["NSpid"].split()[-1])
            dying = "VmSize" not in fields  # it gave its memory back on its way out, and its command line with it
            if fields["State"].split()[0] in "ZX" or (not everything and (dying or inner in quiet)):
                continue
            command = words.replace(b"\0", b" ").decode(errors="replace").strip()
            if not everything and command.partition(":")[0] in self.services:
                continue  # a part of a service, under a title like `slurmctld: slurmscriptd`
            found.append((pid, command or f"[{fields['Name'].strip()}]"))
        return found

    def _pids(self) -> Iterator[int]:
        try:
            namespace = os.readlink(f"/proc/{self._init}/ns/pid")
        except OSError:
            namespace = self._last_namespace
        self._last_namespace = namespace
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                        yield int(entry)

    _last_namespace = ""

    def path(self, inside: str) -> Path:
        """Where this machine sees a path of the host; of a host that is off only its disk, not its mounts."""
        root = Path(f"/proc/{self._init}/root") if self.is_on else self.directory / "root"
        return root / inside.lstrip("/")

    def litter(self) -> list[str]:
        """Whatever lies in its temp directories and in its shared memory."""
        found: list[str] = []
        for place in ("/tmp", "/var/tmp", "/dev/shm"):
            root = self.path(place)
            for directory, directories, files in os.walk(root):
                inside = f"{place}{directory[len(str(root)) :]}"
                names = [name for name in files if not self._is_nodefile(Path(directory, name))]
                found += [f"{inside}/{name}" for name in sorted(directories + names)]
        return found

    def _is_nodefile(self, path: Path) -> bool:
        """Slurm's qsub has each job make a temporary file for $PBS_NODEFILE, and a job that is cancelled leaves it."""
        if not re.fullmatch(r"[A-Za-z0-9_]{10}", path.name):
            return False
        try:
            return set(path.read_text().split()) <= set(self.lab.hosts)
        except (OSError, UnicodeDecodeError):
            return False

    def __repr__(self) -> str:
        return f"<test host {self.name} {self.address}{'' if self.is_on else ' (off)'}>"


def wait_until(done: Callable[[], Any], what: str, where: object = "", limit_s: float = START_S) -> None:
    """Look every 5 ms, for things that announce themselves to nobody."""
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit_s} s for {what} {where}")
        time.sleep(0.005)
