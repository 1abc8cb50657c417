"""Tags: their allowed forms, and finding jobs by them.

Lives here: tags as bare words or `key=value`, the tags a job gets by itself, matching.
Elsewhere:  the index of tags (`store/`), ids and keys (`host/names.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from grid.jobs.host.errors import RequestError
from grid.text import clean

_TAG = re.compile(r"[^\s=,][^,\n]{0,199}")


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags, each once, in order.

    Raises:
        RequestError: One is no text, is empty or too long, or holds a comma, a line end or a control character.
    """
    if isinstance(tags, str):
        tags = [tags]
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag) or not tag.isprintable():
            raise RequestError(
                f"{clean(repr(tag), 100)} can't be a tag",
                hint="Use a word, or key=value: at most 200 characters, without commas and control characters",
            )
    return list(dict.fromkeys(found))


def matches(tags: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether it has all wanted tags; `started=2026-11` and other values ending in `*` match by their beginning."""
    have = set(tags)
    return all(any(map(_fits(want), have)) if _is_prefix(want) else want in have for want in wanted)


def _is_prefix(want: str) -> bool:
    return want.endswith("*") or want.startswith(("started=", "created="))


def _fits(want: str) -> Callable[[str], bool]:
    start = want.removesuffix("*")
    return lambda tag: tag.startswith(start)
