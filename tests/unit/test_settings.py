"""What a grid is asked for: frozen values behind keyword arguments, checked before anything is begun."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from grid import BatchGrid, Grid
from grid.grids.request import PilotRequest
from grid.grids.settings import CommonSettings, GridSettings


@pytest.mark.row("G03")
def test_an_unknown_argument_is_named_as_one_of_the_class() -> None:
    with pytest.raises(
        TypeError, match=r"^Grid.__init__\(\) got an unexpected keyword argument 'wiat'\. Did you mean 'wait'"
    ):
        Grid(["a"], wiat="all")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"BatchGrid.__init__\(\) got an unexpected keyword argument 'ndoes'"):
        BatchGrid(ndoes=2)  # type: ignore[call-arg]


@pytest.mark.row("G03")
def test_signatures_name_each_argument() -> None:
    of_grid = inspect.signature(Grid).parameters
    assert list(of_grid)[:7] == ["hosts", *[each.name for each in dataclasses.fields(CommonSettings)][:6]]
    assert {each.name for each in dataclasses.fields(GridSettings)} < set(of_grid)
    assert {each.name for each in dataclasses.fields(PilotRequest)} < set(inspect.signature(BatchGrid).parameters)


@pytest.mark.row("G03")
def test_what_is_asked_for_can_not_be_changed_behind_the_back() -> None:
    settings = GridSettings.of(Grid, "/src", True, wait="all")
    assert (settings.src_path, settings.display, settings.wait) == ("/src", True, "all")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.wait = "first"  # type: ignore[misc]
    with pytest.raises(ValueError, match="missing must be 'fail' or 'ok'"):
        GridSettings(missing="perhaps")


@pytest.mark.row("B01")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"nodes": 0}, "nodes must be at least 1, not 0"),
        ({"pilots": -1}, "pilots must be at least 0, not -1"),
        ({"ppn": "2"}, "ppn must be a whole number, not '2'"),
        ({"walltime": 100, "handover_s": 200}, "handover_s is 200, of a walltime of 100 s"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_at_once(words: dict[str, object], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        PilotRequest(**words)  # type: ignore[arg-type]


@pytest.mark.row("B01")
def test_a_request_says_what_each_job_and_node_is() -> None:
    request = PilotRequest(login="mara@login", nodes=2, ppn=4, walltime="2:00:00", queue="long", env={"A": "b"})
    spec = request.spec()
    assert (spec.nodes, spec.ppn, spec.walltime_s, spec.queue) == (2, 4, 7200, "long")
    node = request.node("grid-1.0", request.login_host())
    assert (node.n_cpu, node.python, node.env) == (4, "python", {"A": "b"})
    assert request.terms_handover_s == 120.0
