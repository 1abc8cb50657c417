"""A script in a batch job that is told to end: SIGTERM ends it as `sys.exit` does, so that its grid clears up.

Batch systems send SIGTERM when a job is cancelled, preempted or out of time, and SIGKILL to all that is left on all
nodes some seconds later, or as soon as the job's script has ended. By default Python dies of SIGTERM at once: then the
kernels on other nodes have no time, and their files stay.

Lives here: the signal. Elsewhere: the job's script, which waits (`batch/wrapper.py`), kernels (`kernel/agent.py`).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


def end_well_when_told() -> None:
    """From now on SIGTERM raises SystemExit(143) in the main thread, unless the script has its own way with it.

    Later ones do nothing: the end is under way by then.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # only there can it be set
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
