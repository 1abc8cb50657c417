"""One thread with an inbox, which owns whatever is only touched by what is put there.

Lives here: `Loop`. It knows no task.
Elsewhere:  what it owns (`scheduler`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

Act = Callable[[], object]

_AT_ONCE = 256
"""Acts out of the inbox before `then` is called again."""


class Loop:
    """See the module. Acts may be put before the thread is started.

    Args:
        name: Of the thread.
        failed: Called with what an act raised. It must not raise.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._name, self._failed = name, failed
        self._inbox: queue.SimpleQueue[Act] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.is_stopping = False

    def start(self, beat: Act, beat_s: float, then: Act) -> None:
        """Start the thread: `beat` is called every `beat_s` seconds, `then` whenever the inbox was emptied."""
        self._thread = threading.Thread(target=self._run, args=(beat, beat_s, then), name=self._name, daemon=True)
        self._thread.start()

    def do(self, act: Act) -> None:
        """Have something done by the thread, in order. From any thread."""
        self._inbox.put(act)

    def stop(self, timeout: float) -> None:
        """End the thread after what was put before; wait for that up to `timeout` seconds, but not in the thread."""

        def leave() -> None:
            self.is_stopping = True

        self.do(leave)
        if self._thread is not None and not self.is_current:
            self._thread.join(timeout)

    @property
    def is_current(self) -> bool:
        """Whether the caller is the thread."""
        return threading.current_thread() is self._thread

    def _run(self, beat: Act, beat_s: float, then: Act) -> None:
        look = time.monotonic()
        while not self.is_stopping:
            try:
                act = self._inbox.get(timeout=max(0.0, look - time.monotonic()))
                for _ in range(_AT_ONCE):
                    self._guarded(act)
                    act = self._inbox.get_nowait()
                self._guarded(act)
            except queue.Empty:
                pass
            if time.monotonic() >= look:
                look = time.monotonic() + beat_s
                self._guarded(beat)
            self._guarded(then)

    def _guarded(self, act: Act) -> None:
        try:
            act()
        except BaseException as exc:  # the user's own code may say sys.exit()
            self._failed(exc)
