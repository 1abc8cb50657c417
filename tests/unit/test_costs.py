"""What a call cost: measured at a server, sent home, added up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from grid.cli.costs import rows, size
from grid.kernel.costs import FORBIDDEN, NO_COUNTER, SHORT, Meter
from grid.services.cost import _WHY
from grid.services.load import Load
from grid.wire.frames import MEASURED

pytestmark = pytest.mark.row("I04")


def counter(place: Path, name: str, joules: float) -> Path:
    """A counter of energy as the kernel shows it."""
    (place / name).mkdir()
    (place / name / "max_energy_range_uj").write_text("1000000000\n")
    (place / name / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    return place / name / "energy_uj"


def test_cpu_time_is_that_of_the_process_and_of_what_it_waited_for(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    meter.begin(None)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    own, peak, _ = MEASURED.unpack(meter.end())
    assert 0.05 <= own < 5 and peak > 1e6
    meter.begin(None)
    burns = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burns], check=True)
    assert MEASURED.unpack(meter.end())[0] >= 0.25


def test_energy_is_the_sum_of_whole_processors_also_where_a_counter_begins_again(tmp_path: Path) -> None:
    first, second = counter(tmp_path, "intel-rapl:0", 5.0), counter(tmp_path, "intel-rapl:1", 999.0)
    part = counter(tmp_path, "intel-rapl:0:0", 1.0)
    meter = Meter(tmp_path)
    meter.begin(None)
    first.write_text("7000000")
    second.write_text("2000000")  # by way of 1000 J
    part.write_text("900000000")
    assert MEASURED.unpack(meter.end())[2] == pytest.approx(2.0 + 3.0)
    meter.begin(0.001)
    assert MEASURED.unpack(meter.end())[2] == SHORT
    meter.begin(1.0)
    first.unlink()  # its driver was unloaded meanwhile
    assert MEASURED.unpack(meter.end())[2] == NO_COUNTER


def test_a_host_without_counters_and_one_that_forbids_them_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path / "nothing", tmp_path):
        meter = Meter(place)
        meter.begin(None)
        assert MEASURED.unpack(meter.end())[2] == NO_COUNTER
    counter(tmp_path, "intel-rapl:0", 1.0)

    def refuses(self: Path) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuses)  # root may read whatever its mode is
    meter = Meter(tmp_path)
    meter.begin(None)
    assert MEASURED.unpack(meter.end())[2] == FORBIDDEN and "only root" in _WHY[FORBIDDEN]


def test_sums_count_short_calls_with_their_run_time() -> None:
    load, other = Load(), Load()
    load.add(0.25)
    load.add(2.0)
    load.measured(2.0, 0.5, 3e6, -1.0)
    assert load.costs()["cpu_s"] == pytest.approx(0.75) and load.costs()["energy_j"] is None
    other.add(1.0)
    other.measured(1.0, 4.0, 9e6, 12.5)
    other.tally.sent, other.tally.received = 10, 20
    load.absorb(other)
    assert load.costs() == {
        "calls": 3, "running_s": 3.25, "cpu_s": pytest.approx(4.75), "peak_memory": 9_000_000,
        "bytes_out": 10, "bytes_in": 20, "energy_j": 12.5,
    }  # fmt: skip


def test_the_table_has_a_row_for_each_service_and_none_for_a_grid_that_is_silent() -> None:
    costs = {**Load().costs(), "calls": 7, "cpu_s": 2.5, "bytes_in": 1_234_567}
    status = {"services": {"A.0": {"costs": costs}, "old": {}}}
    (row,) = rows([{"name": "fit", "status": status}, {"name": "mute", "status": None}])
    assert row[:3] == ["fit", "A.0", 7] and row[5:] == ["not known", "0 B", "1.23 MB", "not known"]
    assert [size(n) for n in (999, 1000, 5 * 10**15)] == ["999 B", "1 kB", "5e+03 TB"]
