"""How many cores are ours: what containers and jobs allow counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grid.slots.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.row("M21")
@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/job/step\n", {"job/cpu.max": "100000 100000", "job/step/cpu.max": "max 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, ALL),
        (
            "3:cpu,cpuacct:/docker/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("3:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, ALL),
        ("4:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "1", "cpuset/a/cpu.cfs_period_us": "100000"}, ALL),
        ("0::/../..\nnonsense\n", {"cpu.max": "nonsense"}, ALL),
        ("", {}, ALL),
    ],
)
def test_the_quota_of_a_container_counts(groups: str, files: dict[str, str], cores: int, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.row("M21")
def test_a_local_grid_takes_that_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from grid.grids import choose

    monkeypatch.setattr(choose, "usable_cores", lambda: 1)
    assert choose.local_host().n_cpu == 1
