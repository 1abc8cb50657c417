"""`~` in variables of a host entry, where paths are meant; and the shell's text for the same."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.kernel.variables import expanded
from grid.launch.command import assignments

pytestmark = pytest.mark.row("M04")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("~/a", "/home/me/a"),
        ("~/a:~/b:/c", "/home/me/a:/home/me/b:/c"),
        ("~/a::./b", "/home/me/a::./b"),
        ("~/a:b", "/home/me/a:b"),  # no list of paths: the beginning alone
        ("b:~/a", "b:~/a"),
        ("1:~", "1:~"),
        ("http://~/x", "http://~/x"),
        ("", ""),
    ],
)
def test_where_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, value: str, found: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded({"X": value}) == {"X": found}


@given(st.text(st.characters(codec="utf-8", exclude_characters="~\x00")))
def test_what_has_no_tilde_stays(value: str) -> None:
    assert expanded({"X": value}) == {"X": value}


@pytest.mark.parametrize("value", ["~/a:~/b", "a'b $x `y`", "~:/x", "b:~/a", "", '"', "a;b&c|d", "~root/x"])
def test_the_shell_that_starts_an_interpreter_says_the_same(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    done = subprocess.run(["sh", "-c", assignments({"X": value}) + ' printf %s "$X"'], stdout=subprocess.PIPE)
    assert done.stdout.decode() == expanded({"X": value})["X"]
