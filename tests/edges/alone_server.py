"""A job server in a process of its own, so that its memory, threads and log can be looked at while it is attacked.

    python -m tests.edges.alone_server STORE '{"tls": true, "limits": {...}, "settings": {...}}'     ends with its input

Lives here: the process, and `Alone`, which starts it from a test.
Elsewhere:  the attacks (`test_web_strangers.py`, `test_jobs_enemy.py`).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


class Alone:
    """A context manager: `port`, `url`, `token` (all rights of a user), `reader` (of the same, with `read` alone)."""

    def __init__(self, place: Path, **options: Any) -> None:
        self.place = place
        self.log = place / "server.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.edges.alone_server", str(place / "store"), json.dumps(options)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        about = json.loads(line)
        self.port, self.url = int(about["port"]), str(about["url"])
        self.token, self.reader, self.other = about["token"], about["reader"], about["other"]

    def api(self, token: str | None = None) -> httpx.Client:
        """A client with that token."""
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, timeout=LIMIT_S, trust_env=False, verify=False
        )

    def memory(self) -> int:
        """Bytes in memory now."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """Bytes in memory, at most so far."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))

    def threads(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def end(self) -> float:
        """End it by its input; seconds that took."""
        import time

        began = time.monotonic()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()
        return time.monotonic() - began

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self.end()
            finally:
                self.process.kill()
                self.process.wait(LIMIT_S)


def main(store: str, options: dict[str, Any]) -> None:
    """The process."""
    from grid.jobs import JobManager, Policy, Settings, Store, ThreadEngine
    from grid.web.limits import WebLimits
    from grid.web.server import WebServer
    from grid.web.tls import Certificate
    from grid.web.tokens import Tokens
    from tests.edges.jobs_services import ALL

    logging.basicConfig(level=logging.INFO)
    fetch = Policy(**options["policy"]) if "policy" in options else Policy()
    settings = Settings(tick_s=0.05, fetch=fetch, **options.get("settings", {}))
    with JobManager(Store(store), ThreadEngine(2, 2), settings) as manager:
        for cls in ALL:
            manager.register(cls)
        tokens = Tokens(manager.store.directory)
        certificate = Certificate.own(manager.store.directory, "127.0.0.1") if options.get("tls") else None
        limits = WebLimits(**options.get("limits", {}))
        web = WebServer(
            manager, ("127.0.0.1", options.get("port", 0)), tokens=tokens, certificate=certificate, limits=limits
        )
        given = {
            "token": tokens.create("mara"),
            "reader": tokens.create("mara", ["read"]),
            "other": tokens.create("ole"),
        }
        print(json.dumps({"port": web.port, "url": web.url, **given}), flush=True)
        sys.stdin.read()
        web.close()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
