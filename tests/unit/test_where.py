"""Which hosts are meant: words with and, or, not and brackets; Python's own grammar is the witness."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.hosts.where import Where

pytestmark = pytest.mark.row("O12")
WORDS = ["gpu", "old", "node7"]
conditions = st.recursive(
    st.sampled_from(WORDS),
    lambda each: st.one_of(
        st.builds("{} and {}".format, each, each),
        st.builds("{} or {}".format, each, each),
        st.builds("not {}".format, each),
        st.builds("({})".format, each),
    ),
    max_leaves=12,
)


@given(conditions, st.sets(st.sampled_from(WORDS)))
def test_as_python_reads_it(text: str, words: set[str]) -> None:
    # `not a and b` is (not a) and b for both; only `not` before a group of ours binds as tightly as in Python.
    witness = re.sub(r"\b(gpu|old|node7)\b", lambda found: str(found[1] in words), text)
    where = Where(text)
    assert where.means(words) == eval(witness)
    assert set(where.words) == set(re.findall(r"gpu|old|node7", text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a word is missing"),
        ("gpu and", "a word is missing"),
        ("or gpu", "a word is missing"),
        ("(gpu", "not closed"),
        ("gpu)", "')' comes unexpected"),
        ("gpu old", "'old' comes unexpected"),
        ("not", "a word is missing"),
        ("()", "a word is missing"),
    ],
)
def test_what_can_not_be_read_says_where(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        Where(text)
    assert repr(text) in str(caught.value)


def test_words_may_have_any_signs_but_brackets_and_blanks() -> None:
    assert Where("node-7.a:b").means(["node-7.a:b"]) and not Where("gpu").means(["gpus"])
    assert Where("Not").words == ["Not"]
