"""Downloads that jobs wait for: into the store's own directory, checked, tried again, a few at once.

Lives here: `Fetcher`.
Elsewhere:  the condition (`conditions/atoms.IsFetched`), one download (`download.py`), jobs that fetch (`job.py`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grid.jobs.fetch.download import TIMEOUT_S, Download, Permanent, Policy, sha256_of
from grid.text import in_words

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """A wanted file. `key`: by which it is withdrawn; `owner`: in whose share it counts."""

    key: str
    owner: str
    url: str
    sha256: str | None
    size: int | None
    done: Callable[[str | None], None]


class Fetcher:
    """Fetches URLs into a directory; `path` says where one lies.

    Args:
        at_once: Threads, started as they are needed.
        each: Of these for one owner: so nobody takes all of them with slow servers.
        most: Files that wait; of more none is taken.
    """

    def __init__(
        self,
        directory: Path,
        policy: Policy,
        attempts: int = 3,
        pause_s: float = 1.0,
        at_once: int = 8,
        each: int = 4,
        most: int = 10_000,
    ) -> None:
        self._directory, self._policy, self._attempts, self._pause_s = directory, policy, attempts, pause_s
        self._at_once, self._each, self._most = at_once, each, most
        self._stop = threading.Event()
        self._news = threading.Condition()  # taken inside the manager's lock, never the other way round
        self._waiting: dict[str, WantedFile] = {}
        self._running: dict[str, WantedFile] = {}
        self._threads: list[threading.Thread] = []

    def path(self, url: str) -> Path:
        """Where the file of that URL lies, or will."""
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in url.rsplit("/", 1)[-1])[:80].lstrip(".")
        return self._directory / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name or 'file'}"

    def fetch(self, wanted: WantedFile) -> None:
        """Call `done(None)` when it has arrived, `done(reason)` if the download fails; never waits."""
        with self._news:
            taken = len(self._waiting) < self._most and not self._stop.is_set()
            if taken:
                self._waiting[wanted.key] = wanted
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                if len(self._threads) < min(self._at_once, len(self._waiting) + len(self._running)):
                    thread = threading.Thread(target=self._work, name="jobs-fetch", daemon=True)
                    self._threads.append(thread)
                    thread.start()
                self._news.notify_all()
        if not taken:
            wanted.done(f"{wanted.url} is not fetched: {self._most} files wait already")

    def give_up(self, key: str) -> None:
        """Nobody waits for it any more."""
        with self._news:
            self._waiting.pop(key, None)
            self._running.pop(key, None)  # its download looks whether it is still there

    def stop(self) -> None:
        """Give up what is under way."""
        with self._news:
            self._stop.set()
            self._news.notify_all()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _next(self) -> WantedFile | None:
        """The oldest whose owner has a place; with the lock held."""
        busy = Counter(each.owner for each in self._running.values())
        return next((each for each in self._waiting.values() if busy[each.owner] < self._each), None)

    def _work(self) -> None:
        """Thread: one file after the other."""
        while True:
            with self._news:
                wanted = None if self._stop.is_set() else self._next()
                if wanted is None:
                    if self._stop.is_set() or not self._waiting:
                        return  # another is started when there is something to do
                    self._news.wait(1.0)
                    continue
                del self._waiting[wanted.key]
                self._running[wanted.key] = wanted
            try:
                self._run(wanted)
            except Exception as exc:
                logger.exception("fetching %s failed", wanted.url)
                wanted.done(f"{wanted.url} could not be fetched ({type(exc).__name__})")
            finally:
                with self._news:
                    self._running.pop(wanted.key, None)
                    self._news.notify_all()

    def _run(self, wanted: WantedFile) -> None:
        def over() -> bool:
            return self._stop.is_set() or self._running.get(wanted.key) is not wanted

        reason = "the server stopped"
        download = Download(wanted.url, self.path(wanted.url), self._policy, stopped=over)
        for attempt in range(self._attempts):
            if attempt and self._stop.wait(self._pause_s * 2**attempt):
                break
            try:
                self._once(wanted, download)
            except Permanent as exc:
                reason = str(exc)
                break
            except (OSError, ValueError) as exc:
                reason = f"{wanted.url} could not be fetched ({in_words(exc)})"
                logger.info("%s; attempt %d of %d", reason, attempt + 1, self._attempts)
            else:
                wanted.done(None)
                return
            if over():
                break
        download.clear()
        if not over():
            wanted.done(reason)

    def _once(self, wanted: WantedFile, download: Download) -> None:
        target = self.path(wanted.url)
        if target.exists() and (wanted.sha256 or wanted.size is not None) and _fits(target, wanted):
            return
        download.run(wanted.sha256, wanted.size)


def _fits(path: Path, wanted: WantedFile) -> bool:
    """Whether the file is as wanted."""
    if wanted.size is not None and path.stat().st_size != wanted.size:
        return False
    return wanted.sha256 is None or sha256_of(path) == wanted.sha256.lower()
