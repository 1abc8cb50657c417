"""The peptide example with the real OpenMM, short: physics, exchanges, the picture, and what is said without OpenMM."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.lab import Lab, LabHost

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ("--servers", "3", "--rounds", "24", "--steps", "200")
ROW = re.compile(r"^ +([\d.]+) +([\d.]+) +(-?[\d.]+) +([\d.]+)% ± \S+ +([\d.]+)% ± \S+ +([\d.]+)% ± \S+ *(.*)$", re.M)


def run(*arguments: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "peptide_exchange.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env=os.environ | environment
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.row("D03", "D07")
def test_a_short_run_has_the_right_physics_and_repeats(tmp_path: Path) -> None:
    plot = tmp_path / "maps.svg"
    output = run(*SHORT, "--plot", str(plot)).stdout
    rows = ROW.findall(output)
    bath, motion, energy = ([float(row[column]) for row in rows] for column in range(3))
    assert bath == [300.0, 424.3, 600.0]
    assert motion == sorted(motion) and motion == pytest.approx(bath, rel=0.25), "equipartition"
    assert energy == sorted(energy) and energy[0] > -140 and energy[-1] < 60, "above the minimum, by heat alone"
    assert all(sum(map(float, row[3:6])) == pytest.approx(100, abs=0.2) for row in rows), "regions cover the map"
    made, tried = map(int, re.findall(r"exchanges accepted +(\d+) of (\d+)", output)[0])
    assert 0 < made < tried == 24
    assert re.search(r"round trips +\d+: \d+ \d+ \d+ by replica", output)

    picture = ElementTree.parse(plot).getroot()
    texts = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert [text for text in texts if text.endswith(" K")] == ["300 K", "424 K", "600 K"]

    again = tmp_path / "again.svg"
    assert run(*SHORT, "--plot", str(again)).stdout.replace(str(again), str(plot)) == output
    assert again.read_bytes() == plot.read_bytes(), "the same angles, one by one"
    assert run(*SHORT, "--seed", "2").stdout != output


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    """Two hosts with OpenMM."""
    packages = ("pyzmq", "dill", "numpy", "openmm")
    with Lab([LabHost("m1", packages=packages), LabHost("m2", packages=packages)]) as lab:
        yield lab


@pytest.mark.row("D03", "D07")
def test_the_peptide_runs_over_ssh(hosts: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(hosts.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    lines = "".join(f"  - {{name: {name}, use_n_cpu: 1}}\n" for name in hosts.hosts)
    (tmp_path / "hosts.yaml").write_text(f"hosts:\n{lines}")
    short = ("--rounds", "6", "--steps", "100", "--solvent", "vacuum")
    output = run("--hosts", str(tmp_path / "hosts.yaml"), *short).stdout
    assert len(ROW.findall(output)) == 2
    assert output == run("--servers", "2", *short).stdout, "the same machine under other names"


@pytest.mark.row("D07")
def test_hosts_without_openmm_are_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    done = run("--hosts", ",".join(lab.hosts), "--rounds", "1", status=1)
    assert done.stdout == ""
    named = re.search(r"3 hosts with one cause \(([\w, ]+)\); host '(\w+)': it lacks openmm\. Run `(.*)`", done.stderr)
    assert named is not None and set(named[1].split(", ")) == set(lab.hosts)
    assert named[3] == f"grid hosts setup {named[2]} --with OpenMM"


@pytest.mark.row("D07")
def test_without_openmm_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['openmm'] = None\n")
    done = run("--servers", "2", "--rounds", "1", status=1, PYTHONPATH=str(tmp_path))
    assert done.stdout == ""
    assert f"Run: {sys.executable} -m pip install openmm" in done.stderr


@pytest.mark.parametrize(
    "arguments, what",
    [
        (("--steps", "70"), "--steps: a multiple of 50"),
        (("--rounds", "0"), "--rounds: at least 1"),
        (("--coldest", "700"), "the second above the first"),
        (("--plot", "maps.bmp"), "ends in .svg"),
        (("--plot", "/nowhere/maps.svg"), "in a directory that is there"),
    ],
)
def test_odd_options_are_refused_at_once(arguments: tuple[str, ...], what: str) -> None:
    assert what in run(*arguments, status=2).stderr


def test_the_system_is_the_one_that_openmm_itself_would_build(load: Callable[[str], ModuleType]) -> None:
    """Energy and forces in OBC2 are those of OpenMM's own force field files; the amino acid is the L form."""
    from io import StringIO

    from openmm import Context, Platform, VerletIntegrator
    from openmm.app import ForceField, HBonds, PDBFile

    physics = load("alanine_dipeptide")
    pdb = PDBFile(StringIO(physics.START))
    files = ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
    systems = [
        physics.make_system("obc2")[0],
        files.createSystem(pdb.topology, constraints=HBonds, removeCMMotion=False),
    ]
    energies, forces = [], []
    for system in systems:
        context = Context(system, VerletIntegrator(0.001), Platform.getPlatformByName("Reference"))
        context.setPositions(pdb.positions)
        state = context.getState(energy=True, forces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(state.getForces(asNumpy=True)._value)
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)
    assert energies[0] == pytest.approx(-142.94, abs=0.1)
    assert abs(forces[0] - forces[1]).max() < 0.1, "kJ/mol/nm, of some hundred"

    n, ca, c, cb = (pdb.positions[i]._value for i in (6, 8, 10, 12))
    across = physics._cross(list(n - ca), list(c - ca))
    assert physics._dot(across, list(cb - ca)) > 0, "CO, R, N clockwise, seen from the hydrogen"


def test_a_new_temperature_scales_the_motion(load: Callable[[str], ModuleType]) -> None:
    physics = load("alanine_dipeptide")
    peptide = physics.Peptide()
    start = peptide.start(300.0, seed=2**100)
    assert start == pytest.approx(-142.94, abs=0.1)
    (_, before) = peptide._energies()
    peptide.set_temperature(600.0)
    assert peptide._energies()[1] == pytest.approx(2 * before)
    assert peptide.integrator.getTemperature()._value == 600.0
    assert peptide.freedoms == 3 * 22 - 12
    report = peptide.run(100)
    assert len(report.angles) == 2 and math.isfinite(report.energy)


def test_torsions_regions_and_shares(load: Callable[[str], ModuleType]) -> None:
    physics, maps = load("alanine_dipeptide"), load("ramachandran")
    for angle in (-179.0, -60.0, 0.0, 45.0, 180.0):
        turn = math.radians(angle)
        last = [math.cos(turn), math.sin(turn), 1.0]
        assert physics.torsion([1.0, 0, 0], [0.0, 0, 0], [0.0, 0, 1], last) == pytest.approx(angle, abs=1e-9)
    assert [maps.region(*pair) for pair in ((-60, -45), (-75, 150), (-150, -170), (55, 45))] == [
        "alpha", "beta", "beta", "left",
    ]  # fmt: skip
    rounds = [[(-60, -45), (-75, 150)]] * 5 + [[(-60, -45), (-60, -45)]] * 5
    mean, error = maps.share(rounds, "alpha")
    assert mean == 0.75
    # Blocks of two rounds: 0.5, 0.5, 0.75, 1, 1.
    assert error == pytest.approx(math.sqrt((4 * 0.25**2) / 20))
    assert math.isnan(maps.share(rounds[:2], "alpha")[1])
    drawn = maps.svg([("a < b & c", [(-180.0, 180.0), (179.9, -180.0)]), ("empty", [])], "t")
    assert len(ElementTree.fromstring(drawn).findall(".//{*}rect")) == 1 + 2 + 2
