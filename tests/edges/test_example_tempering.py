"""The tempering example on real servers: its posterior beside the certified values, and the same numbers again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "tempering.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.row("D03", "D07")
def test_posterior_means_are_at_the_certified_values() -> None:
    short = ("Eckerle4", "--servers", "4", "--rounds", "120", "--sweeps", "40")
    output = run(*short).stdout
    rows = re.findall(r"^b(\d) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+)$", output, re.M)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    for _, certified, deviation, mean, spread, off in rows:
        assert float(mean) == pytest.approx(float(certified), abs=0.5 * float(deviation))
        assert float(spread) == pytest.approx(float(deviation), rel=0.4), "close to linear, of 32 degrees of freedom"
        assert abs(float(off)) <= 0.5
    made, tried = map(int, re.findall(r"exchanges accepted +(\d+) of (\d+)", output)[0])
    assert 0 < made < tried
    assert run(*short).stdout == output


@pytest.mark.row("D07")
def test_odd_options_are_refused() -> None:
    assert "--rounds: at least 2" in run("--rounds", "1", status=2).stderr
    assert "invalid choice: 'ENSO'" in run("ENSO", status=2).stderr
