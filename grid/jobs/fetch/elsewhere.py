"""Conditions on jobs of other servers: this server listens to their streams, with credentials that were left for it.

A server that can't be reached is tried again, ever more rarely, until the credentials expire: then the condition
can't be satisfied any more. After a restart the conditions that are stored begin to listen anew. While nobody listens
nothing is lost: each time it is asked first how things stand.

Lives here: `Elsewhere`: a thread for each job that is listened to.
Elsewhere:  the atoms (`conditions/atoms.IsElsewhere`), clients of other servers (`grid/web/client.py`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from typing import Any

from grid.errors import GridError
from grid.jobs.conditions.algebra import C, F, T
from grid.jobs.conditions.atoms import IsElsewhere, JobAtom, JobView
from grid.jobs.fetch.deposits import Deposit, Deposits
from grid.jobs.fetch.download import Forbidden
from grid.jobs.host.errors import AccessError, TooLarge, UnknownJob
from grid.jobs.host.messages import ENDS
from grid.jobs.host.plain import from_plain
from grid.jobs.line.client import reach
from grid.jobs.settings import Settings

logger = logging.getLogger(__name__)

PAUSE_S = (0.5, 60.0)
TURN_S = 1.0
QUEUED = 4
"""Messages that wait: each may be large, and more of a kind in memory than on the wire."""


class Elsewhere:
    """See the module. `lock` is the manager's; atoms change under it."""

    def __init__(self, deposits: Deposits, lock: Any, settings: Settings) -> None:
        self._deposits, self._lock, self._settings = deposits, lock, settings
        self._each: Counter[str] = Counter()
        self._stop = threading.Event()
        self._watched: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def watch(self, atom: IsElsewhere) -> None:
        """Begin to listen; under the manager's lock."""
        most, each = self._settings.elsewhere, self._settings.elsewhere_each
        if len(self._watched) >= most or self._each[atom.owner] >= each:
            atom.cancel(f"this server listens to too many others ({most} at once, {each} for one user)")
            return
        self._each[atom.owner] += 1
        over = self._watched[atom.id] = threading.Event()
        thread = threading.Thread(target=self._follow, args=(atom, over), name="jobs-elsewhere", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def unwatch(self, atom: IsElsewhere) -> None:
        """It is decided, or nobody waits for it any more."""
        over = self._watched.pop(atom.id, None)
        if over is not None:
            self._each[atom.owner] -= 1
            over.set()

    def stop(self) -> None:
        """End all."""
        self._stop.set()
        for over in list(self._watched.values()):
            over.set()
        for thread in self._threads:
            thread.join(15.0)

    def _follow(self, atom: IsElsewhere, over: threading.Event) -> None:
        """Thread: one job elsewhere."""
        inner = atom.inner()
        pause = PAUSE_S[0]
        while not over.is_set():
            try:
                if atom.auth is None:
                    deposit = Deposit("", atom.server, "", "", float("inf"))
                else:
                    deposit = self._deposits.get(atom.auth)
                    if not deposit.covers(atom.server):
                        raise AccessError("the credentials are for another server")
                began = time.monotonic()
                self._listen(atom, inner, deposit, over)
                pause = PAUSE_S[0] if time.monotonic() - began > 10 else pause
            except (AccessError, UnknownJob, Forbidden, TooLarge) as exc:
                self._decide(atom, C, f"{atom}: {exc}")
                return
            except (GridError, OSError) as exc:
                logger.info("%s: %s; trying again", atom, exc)
            except Exception:
                logger.exception("listening for %s stumbled, and goes on", atom)
            if over.wait(pause):
                return
            pause = min(PAUSE_S[1], pause * 2)

    def _listen(self, atom: IsElsewhere, inner: JobAtom, deposit: Deposit, over: threading.Event) -> None:
        """Until the atom is decided, or the server does not answer any more."""
        policy, most = self._settings.fetch, self._settings.elsewhere_bytes
        server = reach(deposit.url, deposit.token, deposit.fingerprint, policy.check, most)
        messages: queue.Queue[Any] = queue.Queue(QUEUED)  # what is missed is told by a Gap, and then asked for
        try:
            server.listen(inner.job, messages)
            self._see(atom, inner, server)
            while not over.is_set():
                try:
                    message = messages.get(timeout=TURN_S)
                except queue.Empty:
                    continue
                if message.kind == "Lost":
                    if message.fields.get("final"):
                        raise TooLarge(str(message.reason), hint="Wait for less of it")
                    return
                if message.kind in ENDS or message.kind in ("Join", "Gap"):
                    self._see(atom, inner, server)
                else:
                    inner.hear(message)
                    self._tell(atom, inner)
        finally:
            server.close()

    def _see(self, atom: IsElsewhere, inner: JobAtom, server: Any) -> None:
        """How things stand there."""
        detail = server.fetch(inner.job)
        inner.see(
            JobView(
                inner.job,
                detail["state"],
                reason=detail["error"] or detail["reason"],
                result=from_plain(detail["result"]),
                best=from_plain(detail["best"]),
                has_best=detail["best"] is not None,
            )
        )
        self._tell(atom, inner)

    def _tell(self, atom: IsElsewhere, inner: JobAtom) -> None:
        if inner._state is not F:
            self._decide(atom, inner._state, inner.reason)

    def _decide(self, atom: IsElsewhere, value: Any, reason: str) -> None:
        with self._lock:
            over = self._watched.get(atom.id)
            if over is None or atom._state is not F:
                return
            over.set()
            # ids are those of that server: without its name they could be taken for jobs of this one
            said = reason if atom.server in reason else f"{atom.server}: {reason}"
            atom.satisfy() if value is T else atom.cancel(said)
