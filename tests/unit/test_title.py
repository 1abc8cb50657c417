"""What `ps` shows of a process of ours: the words, and that they stay within their room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from grid.kernel import title

pytestmark = pytest.mark.row("N07")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/home/x/fit.py", "3"], "fit.py"),
        (["/lib/package/__main__.py"], "package"),
        (["-c"], "python"),
        (["-m"], "python"),
        ([""], "python"),
        ([], "python"),
    ],
)
def test_the_name_of_a_script(monkeypatch: pytest.MonkeyPatch, argv: list[str], name: str) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert title.script_name() == name


SHOW = """
import sys
from grid.kernel import title
title.show("server", *sys.argv[1:])
line, short = (open("/proc/self/" + name, "rb").read() for name in ("cmdline", "comm"))
sys.stdout.buffer.write(line.rstrip(b"\\0") + b"|" + short)
"""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["Model.0/3", "", "fit.py"], "grid server Model.0/3 fit.py"),
        (["a\nb\x1bc"], "grid server a?b?c"),
        (["ä" * 400], None),
    ],
)
def test_a_process_shows_its_words_and_keeps_within_its_room(words: list[str], shown: str | None) -> None:
    command = [sys.executable, "-c", SHOW, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(title.__file__).parents[2])
    line, _, short = done.stdout.rpartition(b"|")
    assert short.strip() == b"grid-server"
    assert line.decode() == shown if shown else line.decode().startswith("grid server ä")
    assert len(line) < sum(len(word.encode()) + 1 for word in command)


def test_a_system_that_does_not_let_us_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    title._room.cache_clear()
    monkeypatch.setattr("builtins.open", refuse)
    title.show("agent")
