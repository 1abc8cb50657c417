"""Which hosts a word means, or words with `and`, `or`, `not` and brackets: `gpu and not (old or node7)`.

Lives here: reading such a condition, asking it of a host.
Elsewhere:  the words of a host: its name, tags and groups (`host.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
Meant = Callable[[Collection[str]], bool]


class Where:
    """A condition on the words of a host.

    Raises:
        ValueError: It can't be read; the message says where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[str] = []
        """Names, tags and groups in it."""
        self._rest = _TOKEN.findall(text)
        self._meant = self._either()
        if self._rest:
            raise self._wrong(f"{self._rest[0]!r} comes unexpected")

    def means(self, words: Collection[str]) -> bool:
        """Whether a host of these words is meant."""
        return self._meant(words)

    def _either(self) -> Meant:
        sides = [self._both()]
        while self._next("or"):
            sides.append(self._both())
        return lambda words: any(side(words) for side in sides)

    def _both(self) -> Meant:
        sides = [self._one()]
        while self._next("and"):
            sides.append(self._one())
        return lambda words: all(side(words) for side in sides)

    def _one(self) -> Meant:
        if self._next("not"):
            inner = self._one()
            return lambda words: not inner(words)
        if self._next("("):
            within = self._either()
            if not self._next(")"):
                raise self._wrong("a bracket is not closed")
            return within
        if not self._rest or self._rest[0] in ("and", "or", ")"):
            raise self._wrong("a word is missing")
        word = self._rest.pop(0)
        self.words.append(word)
        return lambda words: word in words

    def _next(self, token: str) -> bool:
        if self._rest[:1] != [token]:
            return False
        del self._rest[0]
        return True

    def _wrong(self, why: str) -> ValueError:
        return ValueError(f"where: {self.text!r} can't be read: {why}. Say `gpu`, or `gpu and not (old or node7)`")
