"""A script in a batch job that is told to end: SIGTERM ends it once, in good order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from grid.grids.told import end_well_when_told

pytestmark = pytest.mark.row("B02", "G25")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_first_one_ends_and_later_ones_do_nothing() -> None:
    end_well_when_told()
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    os.kill(os.getpid(), signal.SIGTERM)  # the end is under way
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None])
def test_a_script_that_has_its_own_way_keeps_it(own: object) -> None:
    signal.signal(signal.SIGTERM, own)  # type: ignore[arg-type]
    end_well_when_told()
    assert signal.getsignal(signal.SIGTERM) is own


def test_another_thread_leaves_it() -> None:
    thread = threading.Thread(target=end_well_when_told)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
