"""An agent's answers and events as they travel; and what the web makes of errors."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from grid.errors import HostError
from grid.jobs.host import errors
from grid.jobs.host.errors import AccessError, RequestError
from grid.kernel.answers import Answers
from grid.web import answers as web
from grid.web.events import Busy
from grid.wire import codec
from grid.wire.frames import ERROR


class End:
    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.replies: list[tuple[int, Any, int]] = []

    def event(self, data: bytes) -> None:
        self.events.append(data)

    def reply(self, call: int, dumped: bytes, flags: int = 0) -> None:
        self.replies.append((call, codec.loads(dumped, ()), flags))


@pytest.mark.row("G59")
def test_events_travel_whole() -> None:
    end = End()
    Answers(end).tell(("ready", "a.0/1", "ipc://x", "ipc://y", 7))  # type: ignore[arg-type]
    assert pickle.loads(end.events[0]) == ("ready", "a.0/1", "ipc://x", "ipc://y", 7)


@pytest.mark.row("G43", "G47")
def test_a_value_and_an_error_are_told_apart_by_the_flag(caplog: pytest.LogCaptureFixture) -> None:
    end = End()
    answers = Answers(end)  # type: ignore[arg-type]
    answers.answer(3, {"a": [1]})
    answers.fail(4, HostError("no room", host="h", hint="make some"))
    assert end.replies[0] == (3, {"a": [1]}, 0)
    call, _, flags = end.replies[1]
    assert (call, flags) == (4, ERROR) and not caplog.records  # an error of ours is no news for the log
    answers.fail(5, ZeroDivisionError("oh"))
    assert len(caplog.records) == 1 and end.replies[2][::2] == (5, ERROR)


@pytest.mark.row("T09")
@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (AccessError("no", hint="ask"), 403),
        (errors.UnknownJob("no", hint="ask"), 404),
        (errors.UnknownJobService("no", hint="ask"), 404),  # a RequestError as well: the first that fits counts
        (KeyError("x"), 404),
        (RequestError("no", hint="ask"), 422),
        (errors.ExpressionError("no", hint="ask"), 422),
        (errors.MoveError("no", hint="ask"), 409),
        (errors.WaitTimeout("no", hint="ask"), 408),
        (errors.StoreFull("no", hint="ask"), 507),
        (errors.StoreLocked("no", hint="ask"), 503),
        (errors.JobFailed("no", hint="ask"), 409),
        (ZeroDivisionError(), 500),
    ],
)
def test_each_error_has_its_status(exc: Exception, status: int) -> None:
    assert web.status_of(exc) == status and web.refuse(exc).status_code == status


@pytest.mark.row("T09", "Y06")
def test_callers_learn_nothing_of_what_nobody_foresaw() -> None:
    said = json.loads(bytes(web.refuse(ZeroDivisionError("secret/path")).body))
    assert "secret" not in json.dumps(said) and said["kind"] == "JobError"
    said = json.loads(bytes(web.refuse(RequestError("bad", hint="do this", limit=3)).body))
    assert said == {"error": "bad", "kind": "RequestError", "hint": "do this", "facts": {"limit": 3}}


@pytest.mark.row("T09")
def test_headers_say_how_to_go_on() -> None:
    assert web.say(401, "AccessError", "who?").headers["www-authenticate"] == "Bearer"
    assert web.say(503, "JobError", "busy").headers["retry-after"] == "2"
    assert web.refuse(Busy("full", hint="wait")).headers["retry-after"] == "2"
    with pytest.raises(ValueError):
        web.Json(float("nan"))  # not JSON for every parser
    assert bytes(web.Json("\ud800").body) == b'"?"'
