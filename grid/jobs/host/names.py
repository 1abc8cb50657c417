"""Names that become files, streams and keys: their allowed forms.

Lives here: `safe_key`.
Elsewhere:  tags (`grid/jobs/rules/tags.py`).
"""

from __future__ import annotations

import re

from grid.jobs.host.errors import RequestError
from grid.text import clean

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def safe_key(key: str, what: str = "key") -> str:
    """The key, if it may be one: letters, digits, dot, dash, underscore, no leading dot, at most 128."""
    if not isinstance(key, str) or not _SAFE.fullmatch(key):
        raise RequestError(
            f"{clean(repr(key), 200)} can't be a {what}",
            hint="Letters, digits, dot, dash and underscore, not beginning with a dot",
        )
    return key
