"""Whatever is handed to a public constructor is taken, or refused at once by an error that names the argument."""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grid import BatchGrid, Grid, Host, Limits, LocalGrid, SSHGrid
from grid.arguments import check
from grid.compat.executor import GridExecutor
from grid.compat.pool import GridPool
from grid.errors import GridError
from grid.grids.request import PilotRequest
from grid.grids.settings import CommonSettings, GridSettings

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "minus": -3,
    "zero": 0,
    "two": 2,
    "half": 0.5,
    "nan": float("nan"),
    "numpy": np.int64(2),
    "complex": 2j,
    "word": "nonsense",
    "number in text": "2",
    "path": Path("/nonsense"),
    "bytes": b"nonsense",
    "texts": ["a", "b"],
    "things": [1, object()],
    "mapping": {"A": "b"},
    "object": object(),
    "class": Host,
    "function": len,
    "file": io.StringIO(),
    "limits": Limits(),
}
"""One of each kind of thing that may be handed over."""

FLAG = {"true", "zero"}
COUNT = {"two", "numpy"}
TEXT = {"word", "number in text"}
PATH = {"none", "path", *TEXT}

OF_GRIDS: dict[str, set[str]] = {
    "src_path": PATH,
    "display": FLAG,
    "X11_delay": {"zero", "half", *COUNT},
    "debug": FLAG,
    "verbose": FLAG,
    "limits": {"none", "limits"},
    "debug_out": {"none", "file"},
    "keep_failures": PATH,
}
OF_OUR_GRIDS: dict[str, set[str]] = {
    **OF_GRIDS,
    "name": {"none", *TEXT},
    "output": {"none", "file"},
    "wait": {"two"},
    "missing": set(),
    "workdir": PATH,
    "reseed": {"none", *FLAG},
    "logging": FLAG,
    "needs": {"none"},
    "where": {"none", *TEXT},
    "keep": {"none"},
    "at_exit": set(),
    "environment": {"none"},
}
SECONDS = {"none", "zero", "half", *COUNT}
OF_PILOTS: dict[str, set[str]] = {
    "login": {"none", *TEXT},
    "nodes": COUNT,
    "ppn": COUNT,
    "walltime": {"half", "number in text", *COUNT},
    "pilots": {"zero", *COUNT},
    "renew": {"true", "zero", *COUNT},
    "ahead_s": SECONDS,
    "handover_s": {"none", "half", *COUNT},
    "queue": {"none", *TEXT},
    "account": {"none", *TEXT},
    "resources": {"texts"},
    "lines": {"texts"},
    "parallel_environment": {"none", *TEXT},
    "job_name": {"word"},
    "dialect": {"none"},
    "python": {"none", *TEXT},
    "init_cmd": TEXT,
    "env": {"none", "mapping"},
    "temp_path": {"none"},
    "transport": set(),
    "queue_s": SECONDS - {"none"},
    "poll_s": SECONDS - {"none"},
    "tags": {"texts"},
    "kinds": set(),
}
OF_HOSTS: dict[str, set[str]] = {
    "name": TEXT,
    "temp_path": {"none"},
    "n_cpu": COUNT,
    "niceness": {"minus", "zero", *COUNT},
    "python": TEXT,
    "init_cmd": TEXT,
    "user": {"none", *TEXT},
    "port": {"none", *COUNT},
    "key": PATH,
    "jump": {"none", *TEXT},
    "env": {"mapping"},
    "environment": PATH,
    "python_archive": PATH,
    "ssh": set(),
    "transport": set(),
    "groups": {"texts", *TEXT},
    "tags": {"texts", *TEXT},
    "cores": {"none", "number in text", *COUNT},
    "memory": {"none", "number in text", *COUNT},
    "gpus": {"none", "zero", "texts", *COUNT},
    "use_n_cpu": {"none", "zero"},
}
OF_LIMITS = {each.name: {"half", *COUNT} for each in dataclasses.fields(Limits)}
OF_POOLS: dict[str, set[str]] = {
    "retries": {"zero", *COUNT},
    "initializer": {"none", "function", "class"},
    "initargs": {"none", "texts", "things", "mapping", "bytes", "file", *TEXT},
}


class Handed:
    """A grid as far as executors look before their first call."""

    n_hosts = 1

    def _publish_lasting(self, instance: Any, restarts: int) -> str:
        raise GridError("nothing is published here")

    def _check_usable(self) -> None:
        raise GridError("nothing is called here")


def _pool(kind: Any) -> Callable[..., object]:
    def make(**given: Any) -> object:
        try:
            return kind(Handed(), **given)
        except GridError:  # by then it has taken its arguments
            return None

    return make


MAKERS: dict[str, tuple[Callable[..., object], dict[str, set[str]]]] = {
    "Grid": (lambda **given: Grid([], **given), OF_OUR_GRIDS),
    "SSHGrid": (lambda **given: SSHGrid(["one"], **given), OF_OUR_GRIDS),
    "LocalGrid": (LocalGrid, {**OF_OUR_GRIDS, "n": {"none", *COUNT}, "python": {"none", *TEXT}}),
    "BatchGrid": (BatchGrid, {**OF_OUR_GRIDS, **OF_PILOTS}),
    "Host": (lambda **given: Host(**{"name": "one", **given}), OF_HOSTS),
    "Limits": (Limits, OF_LIMITS),
    "executor": (_pool(GridExecutor), OF_POOLS),
    "pool": (_pool(GridPool), OF_POOLS),
}


EACH = [(maker, argument) for maker, (_, table) in MAKERS.items() for argument in table]


@pytest.mark.row("U16")
@pytest.mark.parametrize(("maker", "argument"), EACH)
def test_what_does_not_fit_is_refused_by_name_before_anything_begins(
    maker: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, table = MAKERS[maker]
    taken = set()
    for kind, value in VALUES.items():
        try:
            make(**{argument: value})
        except (TypeError, ValueError, GridError) as exc:
            assert argument.removeprefix("job_") in str(exc), (kind, exc)
            assert "\n" not in str(exc) and len(str(exc)) < 300, exc
        else:
            taken.add(kind)
    assert taken == table[argument]


@pytest.mark.row("U16")
def test_the_tables_name_every_argument() -> None:
    for kind, table in ((CommonSettings, OF_GRIDS), (GridSettings, OF_OUR_GRIDS), (PilotRequest, OF_PILOTS)):
        left_out = {each.name for each in dataclasses.fields(kind)} - set(table)
        assert left_out <= {"trace", "shared_temp_path"}, left_out  # see the next test
    assert set(OF_HOSTS) == {each.name for each in dataclasses.fields(Host)}
    for kind in (GridExecutor, GridPool):
        assert set(OF_POOLS) <= set(inspect.signature(kind).parameters)


@pytest.mark.row("U16")
def test_arguments_that_need_another_are_refused_by_name_as_well(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="trace must be text, a path or None, not 3"):
        LocalGrid(1, trace=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="shared_temp_path must be True or False, not 'yes'"):
        SSHGrid(["one"], shared_temp_path="yes")
    with pytest.raises(TypeError, match="hosts must be names or Host objects, in a list, not 3"):
        SSHGrid(3)  # type: ignore[arg-type]
    for made in (GridExecutor, GridPool):
        with pytest.raises(TypeError, match="grid must be a grid, as LocalGrid"):
            made("nonsense")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"output must be a file to write text to \(sys.stderr, say\) or None, not 'x'"):
        LocalGrid(1, output="x")


@pytest.mark.row("U16")
@pytest.mark.parametrize("kind", [Grid, SSHGrid, LocalGrid, BatchGrid])
def test_a_limit_that_is_given_as_an_argument_is_told_its_place(kind: Any) -> None:
    hosts: list[Any] = [["one"]] if kind in (Grid, SSHGrid) else []
    for each in dataclasses.fields(Limits):
        with pytest.raises(TypeError) as told:
            kind(*hosts, **{each.name: 2})
        assert str(told.value) == (
            f"{kind.__name__}.__init__() got an unexpected keyword argument {each.name!r}. "
            f"It is one of its limits: {kind.__name__}(..., limits=Limits({each.name}=2))"
        )
    with pytest.raises(TypeError, match=rf"{kind.__name__}.__init__\(\) got .*'outptu'\. Did you mean 'output'\?"):
        kind(*hosts, outptu=None)


class Mine(LocalGrid):
    """A user's own."""


@pytest.mark.row("U16")
def test_a_class_of_the_user_is_named_as_that() -> None:
    with pytest.raises(TypeError, match=r"Mine\.__init__\(\) got an unexpected keyword argument 'pyhton'.*'python'"):
        Mine(pyhton="x")
    with pytest.raises(TypeError, match=r"BatchGrid\.__init__\(\) got .*'ndoes'\. Did you mean 'nodes'"):
        BatchGrid(ndoes=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^SSHGrid\.__init__\(\) takes"):
        Grid.__init__(SSHGrid.__new__(SSHGrid), ["one"], *range(9))  # type: ignore[arg-type]


@pytest.mark.row("U16")
def test_variables_are_named_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_ORPHAN_S", "soon")
    with pytest.raises(ValueError, match="the variable GRID_ORPHAN_S must be a number of seconds, not 'soon'"):
        Limits()


@pytest.mark.row("U16")
def test_an_object_whose_text_fails_is_refused_all_the_same() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match="name must be text or None, not <Odd"):
        check("name", Odd(), str | None)
    check("path", Path("/"), str | os.PathLike[str])
