"""The user that asks, and the rights of that user.

Lives here: `Who`.
Elsewhere:  tokens, which say who somebody is (`tokens.py`); scopes, and which call needs which (`grid/jobs/api.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from grid.jobs.api import ADMIN, CONTROL, READ, SCOPES, SUBMIT
from grid.jobs.host.errors import RequestError

USUAL = (READ, SUBMIT, CONTROL)
"""The scopes of a token by default."""


@dataclass(frozen=True, kw_only=True)
class Who:
    """A caller. `services`, `jobs`: the token is for these alone; None: for all. `open`: at a server without tokens."""

    user: str
    scopes: frozenset[str] = frozenset(SCOPES)
    services: frozenset[str] | None = None
    jobs: frozenset[str] | None = None
    expires: float | None = None
    token: str = ""
    open: bool = False

    def may(self, scope: str) -> bool:
        """Whether the scope, or admin, is among theirs."""
        return scope in self.scopes or ADMIN in self.scopes

    @property
    def is_narrow(self) -> bool:
        """For certain services or jobs only."""
        return self.services is not None or self.jobs is not None

    @property
    def sees_all(self) -> bool:
        """All about every job."""
        return (self.open or ADMIN in self.scopes) and not self.is_narrow


def check_scopes(scopes: object) -> tuple[str, ...]:
    """The scopes, each once, in our order. Raises RequestError."""
    if not isinstance(scopes, (list, tuple, set, frozenset)) or not scopes:
        raise RequestError("a token needs scopes", hint=f"There are {', '.join(SCOPES)}")
    unknown = sorted(str(scope) for scope in scopes if scope not in SCOPES)
    if unknown:
        raise RequestError(f"no scope is called {unknown[0]!r}", hint=f"There are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in scopes)
