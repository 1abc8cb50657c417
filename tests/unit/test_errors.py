"""Errors: one tree, each with its facts, none lost on the way home, and those that callers of pools catch."""

from __future__ import annotations

import concurrent.futures
import inspect
import pickle
from concurrent.futures.process import BrokenProcessPool

import pytest

from grid import errors
from grid.compat.errors import FutureTraceback, InitializerFailed, PoolServerLost, PoolTraceback, RemoteExit, told
from grid.errors import GridError, HostError, InventoryError, NoServers, RemoteError, RemoteTraceback, StagingError
from grid.jobs.host import errors as of_jobs


def all_kinds() -> list[type[GridError]]:
    found = [each for module in (errors, of_jobs) for each in vars(module).values() if isinstance(each, type)]
    return sorted({each for each in found if issubclass(each, GridError)}, key=lambda kind: kind.__name__)


def made(kind: type[GridError], what: str = "it broke") -> GridError:
    """One with what its class asks for: of every fact that has no default, one."""
    given = {"host": "h", "file": "f", "kind": "builtins.ValueError", "extra": "web", "service_id": "Model.0"}
    given |= {"modules": ["scipy"], "hint": "do this"}
    asked = inspect.signature(kind.__init__).parameters.values()
    facts = {each.name: given[each.name] for each in asked if each.kind is each.KEYWORD_ONLY and each.name in given}
    if kind is errors.ServerLost:
        facts |= {"server": "Model.0/0", "host": "h"}
    return kind(what, **facts)


@pytest.mark.row("G47", "T15")
@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_each_error_says_what_and_travels_with_its_facts(kind: type[GridError]) -> None:
    exc = made(kind)
    back = pickle.loads(pickle.dumps(exc))
    assert type(back) is kind and str(back) == str(exc) and back.facts == exc.facts and "it broke" in str(exc)
    for name, value in exc.facts.items():
        assert getattr(exc, name) == value == getattr(back, name)
    assert str(exc) != repr("it broke")  # one that is a KeyError as well does not show the repr


@pytest.mark.row("T15")
def test_no_name_is_in_two_trees() -> None:
    names = [kind.__name__ for kind in all_kinds()]
    assert len(names) == len(set(names))


@pytest.mark.row("H08", "M03")
def test_how_they_read() -> None:
    assert str(HostError("no way", host="n1", hint="Is it on?")) == "host 'n1': no way. Is it on?"
    assert str(InventoryError("no key", file="h.yaml", line=3)) == "h.yaml:3: no key."
    failures = {"n1": "n1 is down", "n2": "n2 is down", "n3": "no Python"}
    text = str(StagingError("two failed", hint="look", failures=failures))
    assert text.startswith("two failed. look\n  2 hosts with one cause (n1, n2); ") and text.endswith("'n3': no Python")


@pytest.mark.row("C41", "P15")
@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (of_jobs.UnknownJob, KeyError),
        (of_jobs.UnknownJobService, of_jobs.RequestError),
        (of_jobs.UnknownJobService, KeyError),
        (of_jobs.WaitTimeout, TimeoutError),
        (of_jobs.WaitTimeout, concurrent.futures.TimeoutError),
        (of_jobs.AccessError, PermissionError),
        (of_jobs.RequestError, ValueError),
        (of_jobs.StoreFull, of_jobs.StoreError),
        (PoolServerLost, BrokenProcessPool),
        (RemoteExit, SystemExit),
    ],
)
def test_what_else_they_are(kind: type[BaseException], also: type[BaseException]) -> None:
    assert issubclass(kind, also)


def lost() -> GridError:
    return errors.ServerLost("it died", service_id="a.0", server="a.0/1", host="h", hint="others go on")


@pytest.mark.row("E08")
def test_callers_of_pools_get_the_classes_that_they_catch() -> None:
    found = told(lost())
    assert isinstance(found, PoolServerLost) and isinstance(found, errors.ServerLost) and "it died" in str(found)
    assert isinstance(told(NoServers("none", service_id="a.0", hint="start some")), BrokenProcessPool)
    plain = ValueError("x")
    assert told(plain) is plain and not issubclass(InitializerFailed, GridError)


@pytest.mark.row("E08")
@pytest.mark.parametrize("kind", [FutureTraceback, PoolTraceback])
def test_the_traceback_of_a_server_is_that_of_the_imitated(kind: type[BaseException]) -> None:
    error = ValueError("x")
    error.__cause__ = RemoteTraceback("Traceback ...")
    found = told(error, kind)
    assert found is error and type(found.__cause__) is kind and "Traceback ..." in str(found.__cause__)


@pytest.mark.row("E08")
def test_an_exit_on_a_server_is_an_exit_with_its_code() -> None:
    found = told(RemoteError("SystemExit: 3", kind="builtins.SystemExit", code=3, hint=""))
    assert isinstance(found, RemoteExit) and found.code == 3
