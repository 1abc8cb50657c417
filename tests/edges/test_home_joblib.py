"""joblib and scikit-learn over a grid: the numbers of the run without one, errors, nesting."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from grid import GridError, LocalGrid

joblib = pytest.importorskip("joblib")

from grid.compat.crew import crew_of  # noqa: E402
from grid.compat.joblib import GridBackend  # noqa: E402 - registers the backend


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as made:
        crew_of(made)
        yield made


def square(value: int) -> int:
    if value == 13:
        raise ValueError("unlucky")
    return value * value


def process(_: object) -> int:
    return os.getpid()


def nested(value: int) -> tuple[int, list[int]]:
    return os.getpid(), joblib.Parallel(n_jobs=2)(joblib.delayed(square)(value + n) for n in range(3))


@pytest.mark.row("G45", "D03")
def test_a_parallel_runs_on_the_servers_and_keeps_its_order(g: LocalGrid) -> None:
    with joblib.parallel_config("grid", grid=g):
        assert joblib.Parallel()(joblib.delayed(square)(n) for n in range(20, 2000)) == [n * n for n in range(20, 2000)]
        where = set(joblib.Parallel(n_jobs=-1)(joblib.delayed(process)(n) for n in range(50)))
        assert os.getpid() not in where and 1 <= len(where) <= 2
        values = joblib.Parallel(n_jobs=2, return_as="generator_unordered")(joblib.delayed(square)(n) for n in range(9))
        assert sorted(values) == [n * n for n in range(9)]
        assert joblib.effective_n_jobs(-1) == 2


@pytest.mark.row("G47")
def test_an_error_ends_the_parallel_and_the_next_one_works(g: LocalGrid) -> None:
    with joblib.parallel_config("grid", grid=g, n_jobs=2):
        with pytest.raises(ValueError, match="unlucky"):
            joblib.Parallel()(joblib.delayed(square)(n) for n in range(100))
        with pytest.raises(multiprocessing.TimeoutError):
            joblib.Parallel(timeout=0.05)(joblib.delayed(time.sleep)(2) for n in range(2))
        assert joblib.Parallel()(joblib.delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.row("G45")
def test_a_parallel_within_a_parallel_runs_where_it_is(g: LocalGrid) -> None:
    with joblib.parallel_config("grid", grid=g, n_jobs=2):
        there = joblib.Parallel()(joblib.delayed(nested)(n) for n in range(20, 26))
    assert [values for _, values in there] == [[(n + m) ** 2 for m in range(3)] for n in range(20, 26)]
    assert os.getpid() not in {pid for pid, _ in there}


def test_the_backend_says_what_it_lacks() -> None:
    with pytest.raises(GridError, match="grid=g"), joblib.parallel_config("grid"):
        joblib.Parallel()(joblib.delayed(square)(n) for n in range(5))


@pytest.mark.row("D03")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_grid_search_of_scikit_learn_gives_the_numbers_of_the_serial_one(g: LocalGrid) -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    features, kinds = load_iris(return_X_y=True)

    def search() -> Any:
        tree = DecisionTreeClassifier(random_state=7)
        return GridSearchCV(tree, {"max_depth": [1, 2, 3], "min_samples_leaf": [1, 5]}, cv=3).fit(features, kinds)

    alone = search()
    with joblib.parallel_config("grid", grid=g):
        there = search()
    assert there.best_params_ == alone.best_params_
    for name, values in alone.cv_results_.items():
        if "time" not in name and name != "params":
            assert list(there.cv_results_[name]) == list(values), name
    assert g.servers[crew_of(g).service_id][0].load.calls > 0


def endless(depth: int) -> int:
    return endless(depth + 1)


def nested_endless(_: int) -> list[int]:
    return list(joblib.Parallel(n_jobs=2)(joblib.delayed(endless)(n) for n in range(2)))


@pytest.mark.row("E08")
@pytest.mark.parametrize("function", [endless, nested_endless])
def test_a_recursion_error_is_one_also_from_a_nested_parallel(g: LocalGrid, function: Any) -> None:
    with joblib.parallel_config("grid", grid=g), pytest.raises(RecursionError):
        joblib.Parallel(n_jobs=2)(joblib.delayed(function)(n) for n in range(2))


@pytest.mark.row("U16")
def test_arguments_that_do_not_fit_are_refused_at_once(g: LocalGrid) -> None:
    for given, said in (
        ({"retries": "2"}, "retries"),
        ({"initializer": 3}, "initializer"),
        ({"initargs": 3}, "initargs"),
    ):
        with pytest.raises(TypeError, match=said):
            GridBackend(grid=g, **given)
    with pytest.raises(TypeError, match="grid must be a grid"):
        GridBackend(grid="nonsense")
