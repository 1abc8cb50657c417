"""Exit codes: the table in the help and the numbers are one."""

from __future__ import annotations

import re
import signal

import pytest

from grid.cli import exits

pytestmark = pytest.mark.row("D04")


def test_the_help_explains_each_code_and_no_other() -> None:
    numbers = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    told = {int(found) for found in re.findall(r"^  (\d+) ", exits.EPILOG, re.M)}
    assert told == numbers


def test_codes_are_those_that_shells_and_click_give() -> None:
    assert (exits.OK, exits.USAGE, exits.INTERRUPTED) == (0, 2, 128 + signal.SIGINT)
