"""Each word that the code uses often stands in docs/glossary.md, or is a plain word of English or Python.

A reader of one file must be able to look up its words. A new word of this kind either gets its row in the glossary, or
a plainer name; `plain_words.txt` is for words that everybody who reads Python knows.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFTEN = 50
"""A word that names in `grid/` have more often than this must be known."""
PLAIN = set((ROOT / "tests" / "data" / "plain_words.txt").read_text(encoding="utf-8").split())
HABITS = {"told", "held"}
"""Words that are used often, and that are neither plain nor defined: to be replaced. This set only shrinks."""


def words_of(name: str) -> list[str]:
    """`_hand_out` -> hand, out; `KernelServer` -> kernel, server."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def used() -> Counter[str]:
    """How often each word is part of a name in `grid/`, without the fakes and stand-ins of `grid/testing`."""
    count: Counter[str] = Counter()
    for path in (ROOT / "grid").rglob("*.py"):
        if "testing" not in path.parts:
            for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
                if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                    count.update(word for word in words_of(token.string) if len(word) > 2)
    return count


def defined() -> list[str]:
    """The words of the glossary, each as often as it is defined."""
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| **")]
    return [word.strip(" *").lower() for row in rows for word in row.split(",")]


def forms(word: str) -> set[str]:
    """A word and what it may be the plural of."""
    return {word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y"}


@pytest.mark.row("D08")
def test_each_word_that_the_code_uses_often_is_defined_or_plain() -> None:
    known = {part for term in defined() for part in term.replace("-", " ").split()} | PLAIN | HABITS
    unknown = {word: n for word, n in used().items() if n > OFTEN and not forms(word) & known}
    assert not unknown, f"define them in docs/glossary.md, or choose plainer names: {unknown}"


@pytest.mark.row("D08")
def test_each_word_is_defined_once() -> None:
    terms = Counter(defined())
    assert len(terms) > 90
    twice = {term for term, n in terms.items() if n > 1}
    assert not twice


@pytest.mark.row("D08")
def test_no_exception_is_left_without_need() -> None:
    known = {part for term in defined() for part in term.split()} | PLAIN
    count = used()
    assert not {word for word in HABITS if word in known or count[word] <= OFTEN}, "take them off the list"
