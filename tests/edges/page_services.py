"""Services for the tests of the page: jobs that improve, log, fail and say hostile things."""

from __future__ import annotations

import math
import threading
from typing import Any

from grid.jobs import AbortService, Service, ServiceHandler

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>\"'&"

gates: dict[str, threading.Event] = {}
"""Jobs in threads of this process wait for the one that their request names."""


class Fit(Service):
    """Improves `n` times, then waits for its gate."""

    version = "2"

    def prepare(self, request: Any) -> None:
        self.k = 0

    def run(self, handler: ServiceHandler) -> Any:
        data = self.request.data
        n, stop = data.get("n", 100), data.get("stop", 0)
        handler.log(f"{n} steps from here")
        error = 40.0
        while self.k < n:
            handler.ready()
            self.k += 1
            error = 40.0 * math.exp(-self.k / (n / 6)) + 0.02 * (1 + math.sin(self.k))
            if self.k % max(1, n // 12) == 0 and error > 0:
                handler.improved({"rss": round(error, 6), "k": self.k})
                handler.log(f"step {self.k}: rss {error:.4g}")
            if stop and self.k >= stop:
                self._wait(handler)
            elif "pause" in data:
                gates["never"].wait(data["pause"])
        return {"rss": round(error, 6), "steps": self.k}

    def _wait(self, handler: ServiceHandler) -> None:
        gate = gates[self.request.data.get("gate", "never")]
        while not gate.wait(0.02):
            try:
                handler.ready()
            except AbortService:
                handler.log("asked to end", "warning")
                raise

    def progress(self) -> tuple[float, float, str]:
        return self.k, self.request.data.get("n", 100), "steps"


class Simulate(Fit):
    """The same under another name."""

    version = "1"


class Hostile(Service):
    """Everything that it says wants to be markup."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        handler.log(HOSTILE, "error")
        handler.improved({HOSTILE: 1.0, "b": HOSTILE})
        handler.improved({HOSTILE: 0.5, "b": HOSTILE})
        if self.request.data.get("fail"):
            raise ValueError(HOSTILE)
        return {HOSTILE: HOSTILE}


ALL = [Fit, Simulate, Hostile]
