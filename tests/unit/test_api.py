"""The table of calls: what each door reads, and that nothing that is not in it can be called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import AccessError, JobManager, RequestError, Server, Settings, Store, ThreadEngine, UnknownJob
from grid.jobs.api import API, SCOPES, Call, Calls, Whose, ask, table
from grid.jobs.line.client import RemoteServer
from grid.web.caller import Caller
from grid.web.client import HttpServer
from grid.web.who import Who
from tests.edges.jobs_services import Square

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        yield manager


def arguments_of(call: Call, job: str) -> dict[str, Any]:
    """Some that fit, about that job."""
    some: dict[str, Any] = {"job": job, "jobs": [job], "race": "race-1", "expression": "x < 1", "name": "file"}
    some |= {"url": "http://x/", "archive": "aGk=", "email": None, "message": {"kind": "Pause"}}
    some |= {"submissions": [], "tree": {"atom": "completed", "job": job}, "credentials": {}}
    required = [
        name for name, each in call.signature.parameters.items() if each.default is each.empty and name != "self"
    ]
    return {name: some[name] for name in required}


@pytest.mark.row("Y03")
def test_each_row_says_who_may_call_it_about_whose_jobs() -> None:
    for call in API.values():
        assert call.scope in (*SCOPES, None) and call.about.endswith((".", "`.")), call
        named = {"job", "jobs"} & set(call.signature.parameters)
        assert not named or call.whose in (Whose.OWN, Whose.KNOWN), f"{call} names jobs, and nobody looks at whose"
        assert set(call.types) >= set(call.signature.parameters) - {"self"}, call
        assert not call.again or call.scope in (None, "read"), f"{call} changes something, and may not be repeated"


@pytest.mark.row("Y03")
def test_every_class_of_servers_has_all_calls_and_no_door_has_others() -> None:
    for cls in (Server, Caller):
        for name in API:
            assert getattr(cls, name) is not getattr(Calls, name), f"{cls.__name__} does not answer {name}"
            assert hasattr(getattr(cls, name), "__wrapped__"), f"{cls.__name__}.{name} is not guarded"
    for remote in (RemoteServer, HttpServer):
        own = {name for name in API if name in vars(remote)}
        assert own <= {"connect"}, "a client carries calls, and knows none of them"
    public = {name for name, each in inspect.getmembers(Server, callable) if name[0] != "_"}
    assert public == set(API) | {"carry", "close", "hangup", "listen", "register"}


@pytest.mark.row("Y03")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "close",
        "listen",
        "hangup",
        "register",
        "rights",
        "carry",
        "__init__",
        "__init_subclass__",
        "manager",
        "call",
    ],
)
def test_what_is_not_in_the_table_can_not_be_called(manager: JobManager, name: str) -> None:
    server = Server(manager)
    server.connect("mara")
    for asked in (name, [name], {"name": name}, None, 7):
        with pytest.raises(RequestError, match="has no call"):
            ask(server, asked, [], {})


@pytest.mark.row("Y03")
@pytest.mark.parametrize("name", sorted(API))
def test_no_call_is_answered_without_its_scope_or_about_a_job_of_somebody_else(manager: JobManager, name: str) -> None:
    call = API[name]
    (record,) = manager.submit("mara", [{"request": Square.request(value=2).to_plain()}])
    given = arguments_of(call, record.id)
    without = frozenset(SCOPES) - {call.scope, "admin"}
    if call.scope is not None:
        with pytest.raises(AccessError, match=f"scope {call.scope}"):
            Caller(manager, Who(user="mara", scopes=without)).call(name, **given)
    if call.whose is Whose.OWN:
        others = Caller(manager, Who(user="ole", scopes=frozenset(SCOPES) - {"admin"}))
        if {"job", "jobs"} & set(given):
            with pytest.raises((AccessError, UnknownJob)):
                others.call(name, **given)
        narrow = Caller(manager, Who(user="mara", scopes=frozenset(SCOPES), jobs=frozenset({"job-99"})))
        if {"job", "jobs"} & set(given):
            with pytest.raises(UnknownJob):
                narrow.call(name, **given)
    nobody = Server(manager)
    if name != "connect":
        with pytest.raises(AccessError, match="nobody has said"):
            ask(nobody, name, [], given)


@pytest.mark.row("Y03")
@pytest.mark.parametrize("name", sorted(API))
def test_arguments_of_other_types_and_sizes_are_refused_by_name(manager: JobManager, name: str) -> None:
    call = API[name]
    caller = Caller(manager, Who(user="mara", open=True))
    given = arguments_of(call, "job-1")
    with pytest.raises(RequestError, match="wrong arguments"):
        caller.call(name, **given, other=1)
    for argument in given:
        for wrong in (7, True, [[]], {"a": [{}]}, "x" * 10_000, ["y" * 10_000], None):
            try:
                call.bind([], {**given, argument: wrong})
            except RequestError as exc:
                assert argument in exc.what
            else:  # it fits by its type: then it may be long, or is what was asked for
                assert argument in call.long or argument in ("email", "tree", "message", "credentials"), (name, wrong)


@pytest.mark.row("Y03")
def test_the_table_in_the_documentation_is_this_one() -> None:
    assert table() in (DOCS / "server.md").read_text(), "put grid.jobs.api.table() between the marks of docs/server.md"
