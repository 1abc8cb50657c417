"""Downloads that jobs wait for: into the store's own directory, checked, tried again.

Lives here: `Fetcher`.
Elsewhere:  the condition (`conditions/atoms.IsFetched`), one download (`download.py`), jobs that fetch (`fetching.py`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from grid.jobs.download import TIMEOUT_S, Download, Permanent, Policy, sha256_of

logger = logging.getLogger(__name__)


class Fetcher:
    """Fetches URLs into a directory, each in a thread; `path` says where one lies."""

    def __init__(self, directory: Path, policy: Policy, attempts: int = 3, pause_s: float = 1.0) -> None:
        self._directory, self._policy, self._attempts, self._pause_s = directory, policy, attempts, pause_s
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def path(self, url: str) -> Path:
        """Where the file of that URL lies, or will."""
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in url.rsplit("/", 1)[-1])[:80].lstrip(".")
        return self._directory / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name or 'file'}"

    def fetch(self, url: str, sha256: str | None, size: int | None, done: Callable[[str | None], None]) -> None:
        """Call `done(None)` when it is there, `done(reason)` if it can't be had."""
        thread = threading.Thread(target=self._run, args=(url, sha256, size, done), name="jobs-fetch", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def stop(self) -> None:
        """Give up what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _run(self, url: str, sha256: str | None, size: int | None, done: Callable[[str | None], None]) -> None:
        reason = "the server stopped"
        download = Download(url, self.path(url), self._policy, stopped=self._stop.is_set)
        for attempt in range(self._attempts):
            if attempt and self._stop.wait(self._pause_s * 2**attempt):
                download.clear()
                return
            try:
                self._once(url, sha256, size, download)
            except Permanent as exc:
                reason = str(exc)
                break
            except (OSError, ValueError) as exc:
                reason = f"{url} could not be fetched ({exc})"
                logger.info("%s; attempt %d of %d", reason, attempt + 1, self._attempts)
            else:
                done(None)
                return
            if self._stop.is_set():
                download.clear()
                return
        download.clear()
        done(reason)

    def _once(self, url: str, sha256: str | None, size: int | None, download: Download) -> None:
        target = self.path(url)
        if target.exists() and (sha256 or size is not None) and _fits(target, sha256, size):
            return
        download.run(sha256, size)


def _fits(path: Path, sha256: str | None, size: int | None) -> bool:
    """Whether the file is as wanted."""
    if size is not None and path.stat().st_size != size:
        return False
    return sha256 is None or sha256_of(path) == sha256.lower()
