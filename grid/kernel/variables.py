"""Variables of a host entry (`env`) as servers get them: `~` in them is this host's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping


def expanded(env: Mapping[str, str]) -> dict[str, str]:
    """`~` and `~user` expanded at the start of a value, and after each colon of a value that is a list of paths."""
    return {name: _expand(value) for name, value in env.items()}


def _expand(value: str) -> str:
    parts = value.split(":")
    if all(re.match(r"[~/.]|\Z", part) for part in parts):
        return ":".join(os.path.expanduser(part) for part in parts)
    return os.path.expanduser(value)
