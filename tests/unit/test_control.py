"""Lines of words between the agent and its children: whole ones only, none waits, the end is noticed."""

from __future__ import annotations

import socket

import pytest

from grid.kernel.control import Control


@pytest.mark.row("M09")
def test_words_are_heard_when_their_line_is_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        control = Control(ours)
        assert control.hear() == []
        theirs.sendall(b'{"a": 1}\n{"b"')
        assert control.hear() == [{"a": 1}]
        theirs.sendall(b": 2}\n")
        assert control.hear() == [{"b": 2}]
        control.say({"cancel": 3})
        assert theirs.recv(100) == b'{"cancel": 3}\n'


@pytest.mark.row("M09")
def test_saying_never_waits_and_never_raises() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        control = Control(ours)
        for _ in range(10_000):  # nobody reads
            control.say({"debug": True})
        theirs.close()
        control.say({"debug": False})


@pytest.mark.row("M09")
def test_the_end_of_the_other_side_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    control = Control(ours)
    assert control.hear() == [] and control.ended
    control.close()
    assert control.fileno() == -1
    control.say({"cancel": 1})
    assert control.hear() == []
