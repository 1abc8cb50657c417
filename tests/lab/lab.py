"""A lab: several test hosts, the network between them, and a client's ssh files to reach them.

Lives here: order of building and clearing away, addresses, keys, ssh_config, known_hosts.
Elsewhere:  one host (`host.py`), the claim on addresses and names of links (`ground.py`), a batch system on top
            (`cluster.py`).

    with Lab(hosts=[LabHost("s1"), LabHost("inner", behind="s1")]) as lab:
        lab.hosts["s1"].run(["hostname"])
        subprocess.run(["ssh", "-F", lab.ssh_config, "inner", "hostname"])
"""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.lab.cluster import cluster
from tests.lab.ground import Ground, MissingPart, call, missing_parts
from tests.lab.host import LabHost, RunningHost


class Lab:
    """Use as a context manager; leaving it leaves nothing behind.

    `user` may log in with the private key `key` on every host, and so may the other `users`. `ssh_config` holds an
    entry for each host by name, `known_hosts` its key by name and by address. `address` is this machine's in the lab.
    """

    def __init__(
        self,
        hosts: Sequence[LabHost] = (LabHost("s1"), LabHost("s2")),
        *,
        batch: int = 0,  # nodes n1, n2, ... of a batch system, and its `head`, where users log in and call qsub
        system: str = "slurm",  # which one: see `cluster.py`
        users: Sequence[str] = ("mara",),
    ) -> None:
        self.cluster = cluster(system, batch) if batch else None
        self.system = system
        self.specs = (*hosts, *(self.cluster.specs if self.cluster else ()))
        for place, spec in enumerate(self.specs):
            earlier = {other.name for other in self.specs[:place]}
            if spec.name in earlier:
                raise ValueError(f"host {spec.name!r} is named twice")
            if spec.behind is not None and spec.behind not in earlier:
                raise ValueError(f"name {spec.behind!r} before {spec.name!r}, which stands behind it")
        self.users = tuple(users)
        self.user = self.users[0]
        self.hosts: dict[str, RunningHost] = {}
        self._open = ExitStack()

    def __enter__(self) -> Lab:
        missing = missing_parts(batch=self.cluster is not None and self.system == "slurm")
        if missing:
            raise MissingPart("; ".join(missing))
        with ExitStack() as building:
            self._build(building)
            self._open = building.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    def _build(self, building: ExitStack) -> None:
        self.ground = Ground()
        building.callback(self.ground.close)
        # In /tmp by name: paths of hosts stay short, and a test's own TMPDIR stays empty.
        self.directory = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
        building.callback(shutil.rmtree, self.directory)
        self.directory.chmod(0o755)
        self.ground.record(self.directory)

        self.bridge = f"{self.ground.tag}b"
        outside = self.ground.subnet(0)
        self.address = str(outside[1])
        call(
            "ip", "-batch", "-",
            input=f"link add {self.bridge} type bridge\n"
            f"addr add {self.address}/24 dev {self.bridge}\nlink set {self.bridge} up\n",
        )  # fmt: skip
        for number, spec in enumerate(self.specs):
            gateway = self.hosts[spec.behind] if spec.behind else None
            network = self.inner_network(gateway) if gateway else outside
            self.hosts[spec.name] = RunningHost(self, spec, number, str(network[10 + number]), gateway)
        self._write_keys()
        for host in self.hosts.values():
            host.furnish()
        self._write_ssh_files()
        if self.cluster:
            self.cluster.furnish(self)
        for host in self.hosts.values():
            building.callback(host.kill)
            host.start()
        for host in self.hosts.values():
            host.finish_start()
        if self.cluster:
            self.cluster.wait_until_idle()

    def inner_network(self, gateway: RunningHost) -> ipaddress.IPv4Network:
        gateways = [name for name in self.hosts if any(spec.behind == name for spec in self.specs)]
        return self.ground.subnet(1 + gateways.index(gateway.name))

    @property
    def hosts_file(self) -> str:
        lines = ["127.0.0.1 localhost", f"{self.address} client"]
        return "\n".join(lines + [f"{host.address} {host.name}" for host in self.hosts.values()]) + "\n"

    def _write_keys(self) -> None:
        keys = self.directory / "ssh"
        keys.mkdir(mode=0o755)
        self.key = keys / "client"
        for name in ("client", "between"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys / name))
        public = [(keys / f"{name}.pub").read_text() for name in ("client", "between")]
        (keys / "authorized_keys").write_text("".join(public))

    def _write_ssh_files(self) -> None:
        keys = self.directory / "ssh"
        self.known_hosts, self.ssh_config = keys / "known_hosts", keys / "config"
        known = [f"{host.name},{host.address} {host.public_key}\n" for host in self.hosts.values()]
        self.known_hosts.write_text("".join(known))
        entries = []
        for host in self.hosts.values():
            entry = {
                "HostName": host.address,
                "User": self.user,
                "IdentityFile": self.key,
                "IdentitiesOnly": "yes",
                "UserKnownHostsFile": self.known_hosts,
                "GlobalKnownHostsFile": "/dev/null",
                "StrictHostKeyChecking": "yes",
                "BatchMode": "yes",
                "ConnectTimeout": 10,
            }
            if host.gateway is not None:
                entry["ProxyJump"] = host.gateway.name
            lines = [f"    {name} {value}\n" for name, value in entry.items()]
            entries.append(f"Host {host.name}\n{''.join(lines)}")
        self.ssh_config.write_text("\n".join(entries))
        for host in self.hosts.values():
            shutil.copy(self.known_hosts, host.directory / "etc/ssh/ssh_known_hosts")
