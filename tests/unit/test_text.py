"""Text for people: what is made of control characters, of long text, and of exceptions of others."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.text import clean, escaped, in_words

pytestmark = pytest.mark.row("T10")


@given(st.text(st.characters(codec=None)))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    said = clean(text)
    left = [c for c in said if c not in "\n\t" and (c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff")]
    assert left == [] and not set(said) & set("\u202a\u202e\u2066\u2069\u2028\u2029")
    said.encode()  # no half of a character


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_escapes_are_those_of_python() -> None:
    assert clean("a\x1b[2J\ud800\u202eb\n\t") == "a\\x1b[2J\\ud800\\u202eb\n\t"
    assert escaped("\x1b\ud800") == "\\x1b\\ud800"


@pytest.mark.parametrize(("length", "cut"), [(100, False), (101, True), (100_000, True)])
def test_long_text_is_cut_and_says_by_how_much(length: int, cut: bool) -> None:
    said = clean("x" * length, 100)
    assert (said == "x" * length) is not cut
    if cut:
        assert said == "x" * 60 + f"... ({length - 60:,} characters more)"


def test_an_object_without_text_is_told_by_its_class() -> None:
    class Mute:
        def __str__(self) -> str:
            raise OSError("no")

    class Liar(str):
        def __str__(self) -> str:
            return "\x1b"

    assert "Mute" in clean(Mute()) and "OSError" in clean(Mute())
    assert clean(Liar("true")) == "true"


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError(), "ValueError"),
        (ValueError("a", 2), "a: 2"),
        (ValueError("a"), "a"),
        (ssl.SSLError("bad record"), "bad record"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
    ],
)
def test_exceptions_in_words(exc: Exception, said: str) -> None:
    assert in_words(exc) == said
