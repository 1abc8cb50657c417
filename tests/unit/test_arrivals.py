"""What strangers cause is logged seldom, and says how much was left out; files are raised as far as is allowed."""

from __future__ import annotations

import logging
import resource

import pytest

from grid.web import arrivals
from grid.web.arrivals import Seldom, raise_files

pytestmark = pytest.mark.row("Y05")


def test_of_many_lines_one_a_second_is_logged_with_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    with caplog.at_level(logging.WARNING, arrivals.logger.name):
        for _ in range(100):
            seldom.warning("a handshake of %s failed", "10.0.0.1")
        now[0] = 1.5
        seldom.warning("another")
        now[0] = 3.0
        seldom.warning("quiet again")
    assert [record.getMessage() for record in caplog.records] == [
        "a handshake of 10.0.0.1 failed",
        "another (99 such lines were left out)",
        "quiet again",
    ]


def test_the_limit_of_files_is_raised_and_never_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
        assert raise_files(100) == min(soft, 200)
        assert raise_files(250) == (250 if hard == resource.RLIM_INFINITY else min(250, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
