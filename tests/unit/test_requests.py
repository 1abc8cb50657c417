"""What a client may ask of an agent: answered at once, later, or with the error."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grid.errors import DiskError, GridError
from grid.kernel.answers import Answers
from grid.kernel.requests import AgentRequests, Background
from grid.kernel.slots import Slots
from grid.limits import Limits
from grid.wire import bulk, codec, raised
from grid.wire.frames import ERROR, Kind, pack, unpack


class End:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any, int]] = []

    def reply(self, call: int, data: bytes, flags: int = 0) -> None:
        value = codec.loads(data)
        self.replies.append((call, raised.heard(*value) if flags & ERROR else value, flags))


class Ground:
    def __init__(self, root: Path) -> None:
        self.root, self.store = root, bulk.BlobStore(root)

    def below_root(self, subroot: str) -> Path:
        return self.root / subroot


class Children:
    def cancel(self, name: str, which: int, asked: int) -> bool:
        return name == "ready"


@contextmanager
def requests(end: End, root: Path) -> Iterator[AgentRequests]:
    of: Any = AgentRequests
    asked: AgentRequests = of(
        Children(),
        Ground(root),
        Answers(end),
        Limits(),
        Slots(1, said={}, environ={}, env={}, who=""),
        keys=None,
        path=[],
        zygote=7,
        shut_down=None,  # type: ignore[arg-type]
    )
    yield asked
    close(asked.background)


def close(background: Background) -> None:
    for thread in threading.enumerate():
        if thread.name == "grid-background":  # it writes after its outcome can be taken
            thread.join()
    os.close(background.reader)
    os.close(background._writer)


def ask(asked: AgentRequests, call: int, method: str, *args: Any) -> None:
    asked.answer(unpack(pack(Kind.CALL, 1, call, 0, call, codec.dumps_whole((method, args, {})))))


@pytest.mark.row("G69")
def test_a_request_is_answered_and_an_error_travels(tmp_path: Path) -> None:
    end = End()
    with requests(end, tmp_path) as asked:
        ask(asked, 1, "make_directory", "sub")
        ask(asked, 2, "missing_modules", ["sys", "no_such_module_at_all"])
        ask(asked, 3, "probe", "x", True)
        ask(asked, 4, "probe", "x", False)
        ask(asked, 5, "no_such_request")
    assert [reply[:2] for reply in end.replies[:4]] == [
        (1, str(tmp_path / "sub")),
        (2, ["no_such_module_at_all"]),
        (3, True),
        (4, True),
    ]
    call, error, flags = end.replies[4]
    assert call == 5 and isinstance(error, AttributeError) and flags == ERROR


@pytest.mark.row("G14")
def test_a_withdrawal_is_answered_by_the_server_where_there_is_one(tmp_path: Path) -> None:
    end = End()
    with requests(end, tmp_path) as asked:
        ask(asked, 1, "cancel", "ready", 9)
        ask(asked, 2, "cancel", "unknown", 9)
    assert end.replies == [(2, False, 0)]


@pytest.mark.row("G69")
def test_work_in_the_background_answers_when_it_is_done(tmp_path: Path) -> None:
    end = End()
    with requests(end, tmp_path) as asked:
        store = asked._ground.store
        name, fd = store.create(10)
        os.close(fd)
        ask(asked, 1, "unpack", name, "")
        assert end.replies == []
        select.select([asked.background.reader], [], [], 60)
        asked.background.finish(Answers(end))  # type: ignore[arg-type]
    (call, error, flags) = end.replies[0]
    assert (call, flags) == (1, ERROR) and isinstance(error, GridError)
    assert not store.path(name).exists()


@pytest.mark.row("G69")
def test_an_error_arrives_as_it_was_raised() -> None:
    end = End()
    answers = Answers(end)  # type: ignore[arg-type]
    answers.fail(1, KeyError("x"))
    answers.fail(2, DiskError("full", host="h", hint=""))
    assert [type(error) for _, error, _ in end.replies] == [KeyError, DiskError]


@pytest.mark.row("G69")
def test_outcomes_of_many_threads_all_arrive() -> None:
    background, end = Background(), End()
    for call in range(50):
        background.start(call, lambda call=call: call)  # type: ignore[misc]
    while len(end.replies) < 50:
        select.select([background.reader], [], [], 60)
        background.finish(Answers(end))  # type: ignore[arg-type]
    assert sorted(reply[:2] for reply in end.replies) == [(call, call) for call in range(50)]
    close(background)
