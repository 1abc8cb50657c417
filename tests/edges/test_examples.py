"""The examples, run as a user runs them, short; their results held against what is published."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LJ13 = -44.326801
SHORT = ("--servers", "3", "--rounds", "8", "--steps", "6000")


def run(script: str, *arguments: str, timeout: float = 120) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def found(output: str) -> float:
    (energy,) = re.findall(r"best energy found +(-[\d.]+)", output)
    return float(energy)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the examples, and forgets it afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name: str) -> ModuleType:
        return __import__(name)

    yield load
    for name in set(sys.modules) - before:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.row("D03")
def test_replica_exchange_finds_the_published_minimum():
    output = run("replica_exchange.py", *SHORT, "--plain")
    assert found(output) == pytest.approx(LJ13, abs=2e-6)
    assert "published minimum       -44.326801" in output
    assert re.search(r"difference +0\.000000", output)
    assert re.search(r"exchanges accepted +[1-9]\d* of 8 ", output)


@pytest.mark.row("D03")
def test_the_same_seed_gives_the_same_run():
    outputs = [run("replica_exchange.py", *SHORT[:4], "--steps", "500", "--seed", "5") for _ in range(2)]
    without_times = {re.sub(r"[\d.]+ s ", "", output) for output in outputs}
    assert len(without_times) == 1


@pytest.mark.row("D03")
def test_the_fits_agree_with_the_certified_values():
    output = run("nist_fits.py", "MGH09", "BoxBOD", "Rat43", "--servers", "2", "--tries", "12")
    summary = output.partition("agreeing digits")[2]
    best = {name: float(digits) for name, digits in re.findall(r"(\w+) +[\d.]+ +[\d.]+ +([\d.]+) +\d+ of 12", summary)}
    assert best.keys() == {"MGH09", "BoxBOD", "Rat43"}
    assert min(best.values()) >= 8, summary


@pytest.mark.row("D03", "D07")
@pytest.mark.parametrize("script, arguments", [("replica_exchange.py", SHORT[2:]), ("nist_fits.py", ("BoxBOD",))])
def test_the_examples_run_over_ssh(lab, monkeypatch, script, arguments):
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    output = run(script, "--hosts", ",".join(lab.hosts), *arguments)
    if script == "nist_fits.py":
        assert "11.0" in output.partition("agreeing digits")[2]
    else:
        assert found(output) == pytest.approx(LJ13, abs=2e-6)


@pytest.mark.row("D03", "D07")
def test_the_demo_runs():
    done = subprocess.run(
        [ROOT / "scripts/demo", *SHORT], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert found(done.stdout) == pytest.approx(LJ13, abs=2e-6)


def test_the_picture_shows_every_server(load, monkeypatch):
    from random import Random

    from rich.console import Console

    example = load("replica_exchange")
    exchange = example.Exchange([0.1, 0.2, 0.4], Random(1))
    picture = example.Picture(13, [("R.0/0", "node1"), ("R.0/1", "node1"), ("R.0/2", "node2")], exchange, example.SMALL)
    reports = [example.Report(-40.0 + i, 0.5, -44.0 - i / 10) for i in range(3)]
    exchange.swap([-39.0, -44.0, -30.0], first=0)
    picture.note()
    console = Console(width=130, record=True, file=StringIO())
    console.print(picture.table(3, reports, -44.2))
    text = console.export_text()
    assert all(word in text for word in ("R.0/0", "R.0/2", "node2", "0.400", "-44.200000", "round 3 of 80"))


def test_an_exchange_obeys_metropolis(load):
    """Over many tries, exchanges uphill happen as often as exp says; downhill always; nobody is lost."""
    from math import exp
    from random import Random

    example = load("replica_exchange")
    exchange = example.Exchange([0.5, 1.0], Random(3))
    for _ in range(4000):
        exchange.rung = [0, 1]
        exchange.swap([-2.0, -1.0], first=0)  # the colder one is the lower one already
        assert sorted(exchange.rung) == [0, 1]
    assert exchange.share() == pytest.approx(exp(-1.0), abs=0.03)
    exchange.rung = [0, 1]
    exchange.swap([-1.0, -2.0], first=0)
    assert exchange.rung == [1, 0]


def test_the_energy_has_the_right_slope_and_known_minima(load):
    physics = load("lennard_jones")
    assert physics.energy([(0.0, 0.0, 0.0), (2 ** (1 / 6), 0.0, 0.0)]) == pytest.approx(-1.0)
    assert physics.minimise([(0.0, 0, 0), (1.1, 0, 0), (0, 1.1, 0), (0, 0, 1.1)])[0] == pytest.approx(-6.0)
    replica = physics.Replica(13)
    replica.start(0.3, seed=1)
    replica.run(2000)
    flat = [value for point in replica.points for value in point]
    value, slope = physics._slope(flat)
    assert value == pytest.approx(physics.energy(replica.points), rel=1e-12)
    for k in range(0, 39, 7):
        ahead, behind = flat.copy(), flat.copy()
        ahead[k] += 1e-6
        behind[k] -= 1e-6
        assert slope[k] == pytest.approx(
            (physics._slope(ahead)[0] - physics._slope(behind)[0]) / 2e-6, rel=1e-5, abs=1e-5
        )


def test_monte_carlo_reaches_the_temperature_of_a_bond(load):
    """Two atoms: the mean energy at T = 0.1 by sampling is that by integrating over the distance."""
    from math import exp

    physics = load("lennard_jones")
    replica = physics.Replica(2)
    replica.radius = 0.9  # distances up to 1.8
    replica.points = [(0.5, 0.0, 0.0), (-0.6, 0.0, 0.0)]
    replica.rng, replica.temperature = physics.Random(4), 0.1
    replica.run(5000)
    sampled = sum(replica.run(20).energy for _ in range(20_000)) / 20_000
    # The share of pairs inside of a sphere that are r apart, times exp(-E/T).
    weights = total = 0.0
    for i in range(900, 1800):
        r = i / 1000
        s = r / 1.8
        energy = 4 * (r**-12 - r**-6)
        weight = r * r * (1 - 1.5 * s + 0.5 * s**3) * exp(-energy / 0.1)
        weights += weight
        total += weight * energy
    assert sampled == pytest.approx(total / weights, abs=0.01)


@pytest.mark.parametrize("name", ["MGH09", "Thurber", "Hahn1", "MGH17", "Rat43", "BoxBOD", "Eckerle4", "ENSO"])
def test_the_solver_agrees_to_ten_digits(load, name):
    nist = load("nist_data")
    data = nist.load()[name]
    assert len(data.x) == len(data.y)
    for start in data.starts[1:] if name == "BoxBOD" else data.starts:  # its first start leads onto a plain
        found = data.fit(start)
        digits = [nist.agreeing_digits(*pair) for pair in zip(found.parameters, data.certified, strict=True)]
        assert min(digits) >= 10
        assert nist.agreeing_digits(found.rss, data.rss) >= 10
