"""The examples of task systems, run as a user runs them, short; their answers held against what is known."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.lab import Lab

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.row("D03")


def run(script: str, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.row("K10", "K36")
def test_the_word_behind_a_hash_is_found() -> None:
    assert run("tasks_md5.py", "--servers", "2") == "the word is 'grid'\n"
    absent = hashlib.md5(b"absent").hexdigest()
    assert run("tasks_md5.py", absent, "--servers", "2", "--longest", "2", status=1).startswith("no word of up to 2")


def read_png(path: Path) -> tuple[int, int, bytes]:
    """Width, height and the raw rows of an RGB image, from a reader that knows the format by its specification."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour, chunks[b"IEND"]) == (8, 2, b"")
    return width, height, zlib.decompress(chunks[b"IDAT"])


@pytest.mark.row("K36")
def test_the_image_of_the_mandelbrot_set_is_right(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    size, path = 160, tmp_path / "m.png"
    printed = run("tasks_mandelbrot.py", "--size", str(size), "--servers", "2", "--out", str(path))
    example = load("tasks_mandelbrot")
    assert float(re.findall(r"area ([\d.]+),", printed)[0]) == pytest.approx(1.50659, abs=0.02)
    width, height, rows = read_png(path)
    assert (width, height, len(rows)) == (size, size, size * (3 * size + 1))
    alone = tmp_path / "alone.png"
    counts = struct.unpack(f"<{size**2}H", example.Tile(0, size, size, 1000)())
    example.write_png(alone, counts, size)
    assert path.read_bytes() == alone.read_bytes(), "the same as in one piece"
    assert example.escape(1 + 0j, 100) == 3 and example.escape(-1 + 0j, 100) == 0 and example.escape(2 + 2j, 9) == 1
    assert counts == tuple(counts[size * (size - 1 - y) + x] for y in range(size) for x in range(size)), "symmetric"


@pytest.mark.row("K06", "K36")
def test_the_curve_of_dna_in_rounds_is_that_in_one_go(load: Callable[[str], ModuleType]) -> None:
    from grid import LocalGrid, run_system

    example = load("tasks_dna_curve")
    sequence = example.tracts(15, 10, 11)
    with LocalGrid(2, output=None) as g:
        points = run_system(example.Curve(sequence, 50), g)
    serial = [(0.0, 0.0, 0.0), *example.follow(sequence)[0]]
    assert len(points) == len(sequence)
    assert max(math.dist(*pair) for pair in zip(points, serial, strict=True)) < 1e-8
    steps = [math.dist(a, b) for a, b in itertools.pairwise(points)]
    assert min(steps) == pytest.approx(example.RISE) and max(steps) == pytest.approx(example.RISE)


@pytest.mark.row("K36")
def test_a_tracts_in_phase_bend_dna_and_others_do_not() -> None:
    printed = run("tasks_dna_curve.py", "--repeats", "10", "--servers", "2")
    straight, bent, cancelled = map(float, re.findall(r"ends ([\d.]+) of", printed))
    assert straight == 1.0 and bent < 0.6 and cancelled > 0.9


@pytest.mark.row("K36")
def test_a_random_search_finds_a_good_classifier(load: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("sklearn")
    printed = run("tasks_sklearn.py", "--tries", "5", "--seed", "1", "--servers", "2")
    accuracy, c, gamma = map(float, re.findall(r"accuracy ([\d.]+) with C=([\d.e+-]+), gamma=([\d.e+-]+)", printed)[0])
    assert accuracy > 0.96
    assert load("tasks_sklearn").judge(c, gamma) == pytest.approx(accuracy, abs=0.004), "judged here, it is as good"


@pytest.mark.row("K40", "D07")
def test_the_same_systems_run_over_ssh_unchanged(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    hosts = ("--hosts", ",".join(lab.hosts))
    printed = run("tasks_mandelbrot.py", "--size", "80", *hosts, "--out", str(tmp_path / "m.png"))
    assert float(re.findall(r"area ([\d.]+),", printed)[0]) == pytest.approx(1.50659, abs=0.05)
