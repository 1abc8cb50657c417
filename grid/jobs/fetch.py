"""Downloads that jobs wait for: into the store's own directory, checked, tried again.

Lives here: `Fetcher`.
Elsewhere:  the condition (`conditions/atoms.IsFetched`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT_S = 30.0


class Permanent(Exception):
    """Trying again would not help."""


class Fetcher:
    """Fetches URLs into a directory, each in a thread; `path` says where one lies."""

    def __init__(self, directory: Path, attempts: int = 3, pause_s: float = 1.0) -> None:
        self._directory, self._attempts, self._pause_s = directory, attempts, pause_s
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
        for attempt in range(self._attempts):
            if attempt and self._stop.wait(self._pause_s * 2**attempt):
                return
            try:
                self._once(url, sha256, size)
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
                return
        done(reason)

    def _once(self, url: str, sha256: str | None, size: int | None) -> None:
        target = self.path(url)
        if target.exists() and (sha256 or size is not None) and _fits(target, sha256, size) is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source, open(part, "wb") as file:
                announced = source.headers.get("Content-Length")
                while chunk := source.read(CHUNK):
                    if self._stop.is_set():
                        raise OSError("the server stops")
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                if announced is not None and file.tell() != int(announced):
                    raise OSError(f"{file.tell()} of {announced} bytes came")
            wrong = _fits(part, sha256, size)
            if wrong:
                raise Permanent(f"{url} {wrong}")
            os.replace(part, target)
        except urllib.error.HTTPError as exc:
            exc.close()
            if 400 <= exc.code < 500:
                raise Permanent(f"{url} could not be fetched ({exc.code} {exc.reason})") from exc
            raise OSError(f"{exc.code} {exc.reason}") from exc
        except urllib.error.URLError as exc:
            if url.startswith("file:"):
                raise Permanent(f"{url} could not be fetched ({exc.reason})") from exc
            raise
        finally:
            part.unlink(missing_ok=True)


def _fits(path: Path, sha256: str | None, size: int | None) -> str | None:
    """What is wrong with the file."""
    if size is not None and path.stat().st_size != size:
        return f"has {path.stat().st_size} bytes, not {size}"
    if sha256 is not None:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            return f"has the hash {digest.hexdigest()}, not {sha256}"
    return None
