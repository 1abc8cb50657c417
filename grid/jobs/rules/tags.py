"""Tags, ids and keys: what they may look like, and finding jobs by tags.

Lives here: rules for ids (J24), tags as bare words or `key=value`, the tags a job gets by itself, matching.
Elsewhere:  the index of tags (`store/`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from grid.jobs.host.errors import RequestError

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_TAG = re.compile(r"[^\s=,][^,\n]{0,199}")


def safe_key(key: str, what: str = "key") -> str:
    """The key, if it may be one: letters, digits, dot, dash, underscore, no leading dot, at most 128."""
    if not isinstance(key, str) or not _SAFE.fullmatch(key):
        raise RequestError(
            f"{key!r} can't be a {what}", hint="Letters, digits, dot, dash and underscore, not beginning with a dot"
        )
    return key


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags, each once, in order.

    Raises:
        RequestError: One is no text, is empty, or holds a comma or line end.
    """
    if isinstance(tags, str):
        tags = [tags]
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            raise RequestError(f"{tag!r} can't be a tag", hint="Use a word, or key=value, without commas")
    return list(dict.fromkeys(found))


def matches(tags: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether all wanted tags are there; `started=2026-11` and other values ending in `*` match by their beginning."""
    have = set(tags)
    return all(any(map(_fits(want), have)) if _is_prefix(want) else want in have for want in wanted)


def _is_prefix(want: str) -> bool:
    return want.endswith("*") or want.startswith(("started=", "created="))


def _fits(want: str) -> Callable[[str], bool]:
    start = want.removesuffix("*")
    return lambda tag: tag.startswith(start)


def prefix_of(want: str) -> str | None:
    """What a tag must begin with, where it need not be equal; None where it must be equal."""
    return want.removesuffix("*") if _is_prefix(want) else None
