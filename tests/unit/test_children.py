"""The table of servers, with a zygote that the test plays: what is started, told, stopped, and said of each end."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from grid.kernel.born import Birth
from grid.kernel.children import Children
from grid.kernel.control import Control
from grid.kernel.slots import Slots
from grid.limits import Limits

WISH = {"name": "Model.0/1", "service_id": "Model.0", "peer": 5, "niceness": 0}


class Ground:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dropped: list[tuple[int, int]] = []

    def log_of(self, name: str) -> Path:
        return self.directory / name.replace("/", ".")

    def drop_sockets(self, peer: int, pid: int) -> None:
        self.dropped.append((peer, pid))


class Answers:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def tell(self, event: tuple[Any, ...]) -> None:
        self.said.append(event)

    def answer(self, call: int, value: Any) -> None:
        self.said.append((call, value))


class Nursery:
    """The agent's end of a line; `zygote` is the other one."""

    def __init__(self) -> None:
        self.socket, self.zygote = socket.socketpair()
        self.line = Control(self.socket)

    def ask(self, spec: dict[str, Any], output: int, control: int, locks: Sequence[int] = ()) -> None:
        data = pickle.dumps(spec, 5)
        socket.send_fds(self.socket, [struct.pack("<I", len(data)) + data], [output, control])


class Stage:
    def __init__(self, directory: Path) -> None:
        self.nursery, self.answers, self.ground = Nursery(), Answers(), Ground(directory)
        self.poller, self.forks = zmq.Poller(), 0
        limits = Limits(stop_s=100.0)
        self.children = Children(
            self.nursery,
            self.poller,
            self.ground,
            self.answers,
            limits,
            {"debug": False, "epoch": 0},
            Slots(1, said={}, environ={}, env={}, who=""),
            self._forked,  # type: ignore[arg-type]
        )

    def _forked(self) -> None:
        self.forks += 1

    def start(self) -> tuple[dict[str, Any], int, socket.socket]:
        """One server: its spec, its output, its line."""
        self.children.wish([WISH], {"blob": "b"})
        self.children.start_some()
        data, fds, _, _ = socket.recv_fds(self.nursery.zygote, 1 << 16, 2)
        return pickle.loads(data[4:]), fds[0], socket.socket(fileno=fds[1])

    def zygote_says(self, **words: Any) -> None:
        self.nursery.zygote.sendall(json.dumps(words).encode() + b"\n")
        self.turn()

    def turn(self) -> bool:
        """One turn of the loop, for what has arrived."""
        ready = dict(self.poller.poll(0))
        alive = self.children.hear_zygote(ready)
        self.children.hear_servers(ready)
        self.children.relay(0)
        return alive

    def said(self) -> list[Any]:
        said, self.answers.said = self.answers.said, []
        return said


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for server in stage.children._servers.values():
        server.forget()
    stage.nursery.line.close()
    stage.nursery.zygote.close()


@pytest.mark.row("G65", "G69")
def test_a_server_is_started_heard_and_its_end_is_told_after_its_last_words(stage: Stage) -> None:
    spec, output, line = stage.start()
    assert spec == {**WISH, "blob": "b", "debug": False, "epoch": 0, "birth": Birth()}
    assert stage.children.status()[0]["ready"] is False
    stage.zygote_says(forked=WISH["name"], pid=1 << 30)
    assert stage.forks == 1 and stage.children.pids() == {WISH["name"]: 1 << 30}
    line.sendall(b'{"ready": ["in", "out"], "pid": 77}\n')
    os.write(output, b"hello\n")
    stage.turn()
    assert stage.said() == [("ready", WISH["name"], "in", "out", 77), ("output", [(WISH["name"], "hello")])]
    os.write(output, b"a last word")
    os.close(output)
    line.close()
    stage.zygote_says(exited=1 << 30, status=signal.SIGKILL, peak_kb=9)
    (spoken, told) = stage.said()
    assert spoken == ("output", [(WISH["name"], "a last word")])
    assert told[:2] == ("ended", WISH["name"]) and told[2]["signal"] == 9
    assert not stage.children and stage.ground.dropped == [(5, 1 << 30)]


@pytest.mark.row("G65")
def test_one_that_did_not_come_up_fails_with_its_own_words_though_a_grandchild_holds_its_output(stage: Stage) -> None:
    _, output, line = stage.start()
    stage.zygote_says(forked=WISH["name"], pid=1 << 30)
    line.sendall(b'{"failed": "ValueError: no", "traceback": "..."}\n')
    os.write(output, b"why\n")
    stage.zygote_says(exited=1 << 30, status=1 << 8, peak_kb=9)
    os.close(output)  # only now
    line.close()
    assert stage.said()[-1] == ("failed", WISH["name"], "ValueError: no\n...", "why")


@pytest.mark.row("M10")
def test_what_the_zygote_refuses_is_told_with_the_reason(stage: Stage) -> None:
    _, output, line = stage.start()
    os.close(output)
    line.close()
    stage.zygote_says(refused=WISH["name"], why="no process can be made there")
    assert stage.said() == [("failed", WISH["name"], "no process can be made there", "")]


@pytest.mark.row("G58")
def test_a_server_that_is_stopped_before_its_start_is_never_started(stage: Stage) -> None:
    stage.children.wish([WISH, {**WISH, "name": "Model.0/2"}], {})
    stage.children.stop(["Model.0/2"], force=False)
    assert stage.said() == [("failed", "Model.0/2", "it was ended before it was started", "")]
    stage.children.start_no_more()
    stage.children.start_some()
    assert not stage.children


@pytest.mark.row("G24")
def test_one_that_is_stopped_gets_time_unless_it_is_forced(stage: Stage) -> None:
    _, output, line = stage.start()
    stage.children.stop([WISH["name"]], force=False)
    assert stage.children.due == []  # there is no process yet
    stage.zygote_says(forked=WISH["name"], pid=1 << 30)
    (later,) = stage.children.due
    stage.children.stop_all(force=True)
    (now,) = stage.children.due
    assert later - now > 50.0
    stage.children.signal_due(now)
    assert stage.children.due == []
    os.close(output)
    line.close()


@pytest.mark.row("G14")
def test_a_call_is_withdrawn_if_the_server_grants_it_and_not_if_it_ends_first(stage: Stage) -> None:
    assert not stage.children.cancel(WISH["name"], 1, 10), "nobody of that name"
    _, output, line = stage.start()
    assert not stage.children.cancel(WISH["name"], 1, 10), "not ready"
    line.sendall(b'{"ready": ["in", "out"], "pid": 77}\n')
    stage.turn()
    assert stage.children.cancel(WISH["name"], 1, 10) and stage.children.cancel(WISH["name"], 2, 11)
    assert line.recv(100) == b'{"cancel": 1}\n{"cancel": 2}\n'
    stage.said()
    line.sendall(b'{"cancelled": 1, "granted": true}\n')
    stage.zygote_says(forked=WISH["name"], pid=1 << 30)
    assert stage.said() == [(10, True)]
    os.close(output)
    line.close()
    stage.zygote_says(exited=1 << 30, status=0, peak_kb=9)
    assert stage.said()[0] == (11, False)


@pytest.mark.row("G69")
def test_a_dead_zygote_is_noticed_with_what_it_died_of(stage: Stage) -> None:
    assert stage.turn()
    stage.zygote_says(died="OSError: no memory")  # and waits for the agent's end
    assert not stage.turn() and stage.children.fault == ": OSError: no memory"


@pytest.mark.row("G69")
def test_a_killed_zygote_is_noticed(stage: Stage) -> None:
    stage.nursery.zygote.close()
    assert not stage.turn() and stage.children.fault == ""


@pytest.mark.row("O17")
def test_a_server_that_comes_back_starts_after_its_earlier_process_has_ended(stage: Stage) -> None:
    _, output, line = stage.start()
    stage.zygote_says(forked=WISH["name"], pid=1 << 30)
    stage.children.stop([WISH["name"]], force=False)
    stage.children.wish([{**WISH, "peer": 6}], {})
    stage.children.start_some()
    stage.children.start_some()
    assert [server.peer for server in stage.children._servers.values()] == [5]
    os.close(output)
    line.close()
    stage.zygote_says(exited=1 << 30, status=0, peak_kb=9)
    assert stage.said()[-1][:2] == ("failed", WISH["name"]) and not stage.children  # it was never ready
    stage.children.start_some()
    assert [server.peer for server in stage.children._servers.values()] == [6]
