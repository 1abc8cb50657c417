"""The joblog, beside that of GNU parallel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from grid.commands.joblog import HEADER, LogLine, read, status_of, written

pytestmark = pytest.mark.row("A07")


def test_lines_are_read_as_they_are_written() -> None:
    lines = [LogLine(1, "a", 5.0, 0.25, 10, 3, 0, 0, "true x"), LogLine(2, "b", 6.5, 100.0, 0, 0, 0, 9, "sh -c a\tb")]
    assert read([HEADER, *map(written, lines)]) == lines
    assert "\n" not in written(LogLine(1, "a", 0, 0, 0, 0, 0, 0, "a\nb"))[:-1]


def test_a_line_that_a_crash_cut_is_left_out() -> None:
    line = written(LogLine(1, "a", 5.0, 0.25, 10, 3, 0, 0, "true"))
    assert [one.seq for one in read([HEADER, line, line[:-1], "x\n"])] == [1]
    with pytest.raises(ValueError, match="no joblog"):
        read(["hello\n"])
    assert read([]) == []


def test_the_status_says_how_many_failed() -> None:
    assert [status_of(n) for n in (0, 1, 100, 101, 5000)] == [0, 1, 100, 101, 101]


@pytest.mark.row("A07")
def test_the_witness_writes_the_same_lines(tmp_path: Path) -> None:
    if shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed: apt-get install parallel")
    log = tmp_path / "log"
    # the numbers of failed jobs are its exit status
    ran = subprocess.run(
        ["parallel", "--joblog", str(log), "-j2", "sh -c 'exit {}'", ":::", "0", "3", "4"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == status_of(2), ran.stderr
    texts = log.read_text().splitlines(keepends=True)
    assert texts[0] == HEADER
    found = read(texts)
    assert sorted((line.seq, line.status, line.signal) for line in found) == [(1, 0, 0), (2, 3, 0), (3, 4, 0)]
    assert [written(line) for line in found] == texts[1:]
