"""Commands as people write them: words, fields, names of files."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.commands.template import In, Out, fields_of, fill

pytestmark = pytest.mark.row("A01")

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


def words(template: str | list[str], **values: object) -> list[str]:
    return list(fill(template, values).words)


def test_a_value_is_one_word_whatever_it_holds() -> None:
    odd = "a b'c\"d\n$HOME;*"
    assert words("echo {x} --y={x}", x=odd) == ["echo", odd, f"--y={odd}"]
    assert words(
        "echo 'two words' {n:}",
    ) == ["echo", "two words", "{n:}"]
    assert words(["echo", "{x}", "a  b"], x=3) == ["echo", "3", "a  b"]


def test_other_braces_stay() -> None:
    assert words("awk '{print $1}' {{x}} {1}") == ["awk", "{print $1}", "{x}", "{1}"]
    assert fields_of("{a} {{b}} {c}{a}") == {"a", "c"}


@given(TEXT, TEXT)
def test_a_shell_gets_each_value_as_it_is(one: str, two: str) -> None:
    line = fill("printf %s {a}{b}", {"a": one, "b": two}, shell=True)
    assert line.text is not None and shlex.split(line.text) == ["printf", "%s", one + two]


def test_a_real_shell_prints_what_was_given() -> None:
    odd = "-n 'x' \"y\" $(id) `id` \\ \n*"
    line = fill("printf %s {a}", {"a": odd}, shell=True)
    assert subprocess.run(["/bin/sh", "-c", line.text or ""], capture_output=True, check=True).stdout == odd.encode()


def test_files_stand_for_their_names_in_the_directory_of_the_run() -> None:
    line = fill("vina --config {conf} --out {out}", {"conf": In("/data/a b.txt"), "out": Out("*.pdbqt")})
    assert line.words == ("vina", "--config", "a b.txt", "--out", "a b.pdbqt")
    assert line.ins == {"a b.txt": "/data/a b.txt"} and line.outs == ("*.pdbqt",)
    assert words("cp {i} {o}", i=In("/d/-x"), o=Out("-*")) == ["cp", "./-x", "./--x"]
    assert words("cat {all}", all=[In("/a"), In("/b")]) == ["cat", "a", "b"]
    assert words("x {i}", i=In("/a/b", name="in/deep")) == ["x", "in/deep"]
    assert words("x {o}", o=Out("*")) == ["x", "out"]
    assert fill("x", {"o": Out("**/*.y"), "i": In("z")}).ins == {"z": str(Path("z").absolute())}


@pytest.mark.parametrize(
    ("template", "values", "said"),
    [
        ("echo {x}", {}, "the field {x}, and no value"),
        ("echo", {"x": 1}, "no field of the template"),
        ("echo 'a", {}, "Close the quote"),
        ("  ", {}, "name a program"),
        ("{x}", {"x": ""}, "no program"),
        ("echo {x}", {"x": "a\0b"}, "NUL"),
        ("cat {a} {b}", {"a": In("/x/f"), "b": In("/y/f")}, "two inputs would have the name 'f'"),
        ("cat {a}", {"a": In("/x/f", name="../f")}, "no name below the directory"),
        ("cat {a}", {"a": Out("/etc/*")}, "no name below the directory"),
        ("cat {a}", {"a": Out("*/*.x")}, "no name of one file"),
    ],
)
def test_mistakes_are_named(template: str, values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        fill(template, values)


def test_a_list_is_no_text_for_a_shell() -> None:
    with pytest.raises(ValueError, match="one text"):
        fill(["a"], {}, shell=True)
