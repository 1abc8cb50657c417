"""Have a main thread that waits for messages hear signals at once.

Python notes a signal and calls its handler between two byte codes of the main thread. One that comes just before that
thread begins to wait, or that the system gives to another thread, is heard when the wait ends, by itself. So a thread
of ours is told of each signal by the interpreter, and ends the wait with an empty message.

Code of the user may want to be told instead (asyncio's `add_signal_handler`), and may forget to give it back.

Lives here: that thread and its pipe.
Elsewhere:  who waits, and looks for signals now and then all the same (`serve`).
"""

from __future__ import annotations

import os
import signal
import threading

from grid.wire.carrier import Waker


class Rouser:
    """Made in the main thread, with what ends its wait for messages."""

    def __init__(self, waker: Waker) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._sent = self._ended = False
        threading.Thread(target=self._watch, args=(waker,), name="grid-signals", daemon=True).start()
        self.listen()

    def listen(self) -> bool:
        """Be told of signals, unless somebody else is; whether we are."""
        other = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        ours = other in (-1, self._writer)
        if not ours:
            signal.set_wakeup_fd(other)
        return ours

    def heard(self) -> None:
        """An empty message came: the next signal is worth another one."""
        self._sent = False  # one that comes before this is handled before the next wait: no signal is missed

    def end(self) -> None:
        """End the thread."""
        self._ended = True
        signal.set_wakeup_fd(-1)
        os.write(self._writer, b"\0")  # not closed: a forked child may have its other copy

    def _watch(self, waker: Waker) -> None:
        while os.read(self._reader, 4096) and not self._ended:
            if not self._sent:  # a storm of signals during a long call makes one message
                self._sent = True
                waker.wake()
        waker.close()
