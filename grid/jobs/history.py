"""The last log lines and improvements of jobs, for those who come late: streams keep no history.

In memory, and bounded: of the newest `JOBS` jobs that said something, the last `LINES` of each kind. A restart of the
server begins anew.

Lives here: `History`.
Elsewhere:  the streams (`streams.py`), who asks (`server.py`).
"""

from __future__ import annotations

from collections import OrderedDict, deque

from grid.jobs.host.messages import Message

JOBS = 2_000
LINES = 500
KEPT = ("Log", "Improved")


class History:
    """See the module. Its owner holds a lock."""

    def __init__(self, jobs: int = JOBS, lines: int = LINES) -> None:
        self._most, self._lines = jobs, lines
        self._jobs: OrderedDict[str, dict[str, deque[Message]]] = OrderedDict()

    def note(self, job: str, message: Message) -> None:
        """A message of the job, kept if it is of a kind that is kept."""
        if message.kind not in KEPT:
            return
        if job not in self._jobs:
            if len(self._jobs) >= self._most:
                self._jobs.popitem(last=False)
            self._jobs[job] = {kind: deque(maxlen=self._lines) for kind in KEPT}
        self._jobs[job][message.kind].append(message)

    def of(self, job: str, kind: str) -> list[Message]:
        """What is kept of that kind, oldest first."""
        return list(self._jobs.get(job, {}).get(kind, ()))

    def forget(self, job: str) -> None:
        """The job is deleted."""
        self._jobs.pop(job, None)
