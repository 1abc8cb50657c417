"""A real executable of the field over ssh hosts: what comes back is what a serial run here writes."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from grid import In, Out, SSHGrid
from tests.lab import Lab
from tests.lab.host import wait_until

pytestmark = pytest.mark.lab


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.row("A06")
def test_alignments_of_three_hosts_are_those_of_a_serial_run(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("mafft") is None:
        pytest.skip("mafft is not installed: apt-get install mafft")
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.chdir(tmp_path)
    letters = random.Random(1)
    for number in range(9):
        parent = [letters.choice("ACGT") for _ in range(60)]
        with open(f"f{number}.fa", "w") as file:
            for name in "abcd":
                own = "".join(letters.choice("ACGT") if letters.random() < 0.1 else base for base in parent)
                file.write(f">{name}\n{own}\n")
        serial = subprocess.run(["mafft", "--quiet", f"f{number}.fa"], capture_output=True, check=True)
        Path(f"f{number}.serial").write_bytes(serial.stdout)
    inputs = [In(f"f{number}.fa") for number in range(9)]
    with SSHGrid(["s1", "s2", "s3"], output=None, wait="all") as g:

        def runs() -> list[tuple[str, bool]]:
            done = g.map_commands("mafft --quiet {i} > {o}", inputs, o=Out("*.aln"), shell=True, to="out", memo="memo")
            return [(run.host, run.memo) for run in done]

        first = runs()
        assert {host for host, _ in first} == {"s1", "s2", "s3"} and not any(memo for _, memo in first)
        for number in range(9):
            assert digest(Path(f"out/f{number}.aln")) == digest(Path(f"f{number}.serial"))
        Path("out/f4.aln").unlink()
        assert [number for number, (_, memo) in enumerate(runs()) if not memo] == [4]
        doomed = [g.command("sh -c 'sleep 1000 & sleep 1000'") for _ in range(3)]
        wait_until(lambda: len(sleeping(lab)) >= 6, "the commands to run")
        assert all(one.cancel() for one in doomed)
        wait_until(lambda: not sleeping(lab), "the commands to end")


def sleeping(lab: Lab) -> list[str]:
    hosts = [lab.hosts[name] for name in ("s1", "s2", "s3")]
    return [command for host in hosts for _, command in host.processes() if command.startswith("sleep 1000")]
