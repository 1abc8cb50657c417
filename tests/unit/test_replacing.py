"""Replacement strings, beside those of GNU parallel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from grid.commands.replacing import combined, needs_shell, replaced, results_folder, sources_of

pytestmark = pytest.mark.row("A07")

ARGUMENTS = ["/x/y.z/q.tar.gz", "a b", ".hid", "x\\y", "it's", "../..", "x.", "a;b", "$HOME", "a/b.c/d", "plain", "*"]
COMMAND = "printf '%s|' {} {.} {/} {//} {/.} {#}"


def test_a_shell_gets_the_values() -> None:
    for argument in [*ARGUMENTS, "new\nline", "", "-n"]:
        ran = subprocess.run(
            ["sh", "-c", replaced("printf '%s|' {} {#}", [argument], 7)], capture_output=True, text=True
        )
        assert ran.stdout == f"{argument}|7|"


def test_the_witness_replaces_the_same(tmp_path: Path) -> None:
    if shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed: apt-get install parallel")

    def run(command: str, *words: str) -> list[str]:
        ask = ["parallel", "-k", command, *words]
        done = subprocess.run(ask, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
        return done.stdout.split("|")

    def ours(command: str, *sources: list[str]) -> list[str]:
        texts = [replaced(command, each, number) for number, each in enumerate(combined(sources), 1)]
        script = "\n".join(texts)
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout.split("|")

    assert run(COMMAND, ":::", *ARGUMENTS) == ours(COMMAND, ARGUMENTS)
    run("--results", str(tmp_path / "r"), "true", ":::", *ARGUMENTS)
    names = {str(path.parent.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("seq")}
    assert names == {results_folder([argument]) for argument in ARGUMENTS}
    two = "printf '%s|' {2} {1.} {}"
    assert run(two, ":::", "a.b", "c", ":::", "d", "e f") == ours(two, ["a.b", "c"], ["d", "e f"])
    assert run("printf '%s|'", ":::", "a b") == ours("printf '%s|'", ["a b"])


def test_sources() -> None:
    lines = {"f": ["one\n", "two"], "-": ["in\n"]}
    assert sources_of(["a", "{}", ":::", "x", "y"], lines.__getitem__) == (["a", "{}"], [["x", "y"]])
    assert sources_of(["a", "::::", "f", ":::", "z", "::::", "-"], lines.__getitem__)[1] == [
        ["one", "two"],
        ["z"],
        ["in"],
    ]
    for words, said in ((["a"], "::: ARGUMENTS"), ([":::", "x"], "name a command")):
        with pytest.raises(ValueError, match=said):
            sources_of(words, lines.__getitem__)
    with pytest.raises(ValueError, match="source 3"):
        replaced("a {3}", ["x", "y"], 1)


def test_plain_commands_need_no_shell() -> None:
    assert not any(map(needs_shell, ["true", "gzip -k9 a.txt", "echo 'a b;c' x", "a --b=c", "./x '$HOME'"]))
    assert all(
        map(needs_shell, ["a > b", "a | b", "echo $HOME", 'echo "$HOME"', "A=b c", "a; b", "ls *", "a\nb", "a\\ b"])
    )


def test_a_folder_never_leads_out() -> None:
    for argument in ("..", ".", "../..", "/etc"):
        parts = results_folder([argument]).split("/")
        assert len(parts) == 2 and parts[1] not in ("..", ".")
