"""The accounts of users at a job manager: addresses and wishes for mail, hashes of tokens, used credits.

Lives here: `Accounts`, with a lock of its own: under it the store is written, and nothing else is called.
Elsewhere:  what credits buy (`rules/credits.py`), when mails go (`rules/post.py`), tokens of the network
            (`web/tokens.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from grid.jobs.rules.credits import Ledger
from grid.jobs.store.store import Store

BLANK = {"email": "", "mails": "", "token": "", "used": 0.0, "used_at": 0.0}
ROUNDING = 0.01
"""Credits that are not worth a write."""


class Accounts:
    """See the module."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}

    def load(self, ledger: Ledger, half_life_s: float) -> None:
        """Take in what the store has; used credits have faded since they were written."""
        with self._lock:
            self._known = self._store.users()
            now, used = time.monotonic(), {}
            for user, row in self._known.items():
                age = max(0.0, time.time() - row["used_at"])
                used[user] = (row["used"] * 0.5 ** (age / half_life_s), now)
        ledger.load(used)

    def all(self) -> dict[str, dict[str, Any]]:
        """Name -> what is known."""
        with self._lock:
            return dict(self._known)

    def find(self, name: str) -> dict[str, Any]:
        """The account of one user."""
        with self._lock:
            return dict(self._known.get(name, BLANK))

    def change(self, name: str, **values: Any) -> None:
        """Other values, stored first."""
        with self._lock:
            self._store.keep_users({name: values})
            self._known[name] = {**BLANK, **self._known.get(name, {}), **values}

    def save_credits(self, used: Mapping[str, float]) -> None:
        """Store what users have used by now, where that is news."""
        for user, amount in used.items():
            if abs(amount - self.find(user)["used"]) > ROUNDING:
                self.change(user, used=amount, used_at=time.time())
