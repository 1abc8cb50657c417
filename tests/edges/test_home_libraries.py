"""Samplers, optimisers and fitters from PyPI over a grid, on this machine and by ssh: the numbers of the serial run.

Each gets `g.pool()` where it takes a pool or a map, or joblib's backend. Same seed, same numbers, to the last bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from grid import LocalGrid, SSHGrid
from grid.compat.crew import crew_of
from grid.grids.abstract import AbstractGrid
from tests.lab import Lab, LabHost
from tests.lab.pythons import is_installed
from tests.models import banana, line, log_probability, prior

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PACKAGES = ("pyzmq", "dill", "numpy", "scipy", "emcee", "joblib", "scikit-learn", "threadpoolctl")
PACKAGES += tuple(name for name in ("cloudpickle", "dynesty", "narwhals") if is_installed(name))  # if needed


@pytest.fixture(scope="module")
def local() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as g:
        crew_of(g)
        yield g


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    """Two hosts that have what the libraries need there."""
    for name in ("emcee", "scipy", "sklearn"):
        pytest.importorskip(name)
    with Lab([LabHost("p1", packages=PACKAGES), LabHost("p2", packages=PACKAGES)]) as lab:
        yield lab


@pytest.fixture
def by_ssh(hosts: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[SSHGrid]:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(hosts.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with SSHGrid(list(hosts.hosts), output=None) as g:
        crew_of(g)
        yield g


def library(name: str) -> ModuleType:
    return pytest.importorskip(name)


def emcee_chain(pool: Any) -> Any:
    emcee, np = library("emcee"), library("numpy")
    start = np.random.default_rng(3).normal(size=(8, 2))
    sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=pool)
    sampler._random.seed(11)
    sampler.run_mcmc(start, 40)
    return sampler.get_chain().tolist(), sampler.get_log_prob().tolist()


def best_of_scipy(workers: Any) -> Any:
    optimize = library("scipy.optimize")
    found = optimize.differential_evolution(
        banana, [(-2, 2), (-2, 2)], rng=5, maxiter=12, popsize=6, workers=workers, updating="deferred", polish=False
    )
    return found.x.tolist(), found.fun, found.nfev


def dynesty_evidence(pool: Any) -> Any:
    dynesty, np = library("dynesty"), library("numpy")
    queue = {} if pool is None else {"pool": pool, "queue_size": 4}
    sampler = dynesty.NestedSampler(log_probability, prior, 2, nlive=40, rstate=np.random.default_rng(9), **queue)
    sampler.run_nested(maxiter=150, print_progress=False)
    return sampler.results


class Serial:
    """A pool that is none, with the queue of one of four."""

    size = 4
    map = staticmethod(lambda function, items: list(map(function, items)))


def search_of_sklearn() -> Any:
    datasets, selection = library("sklearn.datasets"), library("sklearn.model_selection")
    trees = library("sklearn.tree")
    features, kinds = datasets.load_iris(return_X_y=True)
    tree = trees.DecisionTreeClassifier(random_state=7)
    search = selection.GridSearchCV(tree, {"max_depth": [1, 2, 3]}, cv=3).fit(features, kinds)
    return search.cv_results_["mean_test_score"].tolist(), search.best_params_


def calls(g: AbstractGrid) -> int:
    """How many calls the grid's runner has answered: what shows that a library really went there."""
    return sum(server.load.calls for server in g.servers[crew_of(g).service_id])


@pytest.mark.row("D03", "G45")
def test_emcee_samples_the_same_chain(local: LocalGrid) -> None:
    before = calls(local)
    with local.pool() as pool:
        assert emcee_chain(pool) == emcee_chain(None)
    assert calls(local) > before + 40
    with local.executor() as executor:
        assert emcee_chain(executor) == emcee_chain(None)


@pytest.mark.row("D03", "G45")
def test_scipy_evolves_to_the_same_minimum(local: LocalGrid) -> None:
    before = calls(local)
    with local.pool() as pool:
        assert best_of_scipy(pool.map) == best_of_scipy(map)
    assert calls(local) > before + 12


@pytest.mark.row("D03", "G45")
@pytest.mark.filterwarnings("ignore:The sampling was stopped")
def test_dynesty_finds_the_evidence(local: LocalGrid) -> None:
    """Its proposals are queued, so that the numbers of a pool are those of a serial pool with the same queue."""

    before = calls(local)
    with local.pool() as pool:
        there = dynesty_evidence(pool)
    here = dynesty_evidence(Serial())
    assert there.logl.tolist() == here.logl.tolist()
    assert there.samples.tolist() == here.samples.tolist()
    assert calls(local) > before + 10
    # the integral of the likelihood over the prior is 2 pi / sqrt(det) / 100, with det = 4 - 1/4
    assert there.logz[-1] == pytest.approx(math.log(2 * math.pi / math.sqrt(3.75) / 100), abs=1.5)


@pytest.mark.row("D03", "G45")
def test_bumps_fits_the_same_line(local: LocalGrid) -> None:
    names = library("bumps.names")
    fitters, np = library("bumps.fitters"), library("numpy")

    def fit(mapper: Any) -> Any:
        x = np.linspace(0, 1, 12)
        curve = names.Curve(line, x, 3.0 * x + 1.0, dy=0.1 * np.ones(12), m=2.0, b=0.5)
        curve.m.range(0, 6)
        curve.b.range(-2, 4)
        problem = names.FitProblem(curve)
        np.random.seed(1)
        driver = fitters.FitDriver(fitters.DEFit, problem=problem, mapper=mapper(problem), steps=5, pop=4)
        best, value = driver.fit()
        return best.tolist(), value

    with local.pool() as pool:
        there = fit(lambda problem: lambda points: pool.map(problem.nllf, points))
    assert there == fit(lambda problem: lambda points: list(map(problem.nllf, points)))


@pytest.mark.row("D03", "D07", "G45")
@pytest.mark.filterwarnings("ignore:The sampling was stopped")
def test_over_ssh_the_numbers_are_the_same(hosts: Lab, by_ssh: SSHGrid) -> None:
    joblib = library("joblib")
    import grid.compat.joblib  # noqa: F401 - registers the backend

    with by_ssh.pool() as pool:
        assert emcee_chain(pool) == emcee_chain(None)
        assert best_of_scipy(pool.map) == best_of_scipy(map)
        there = dynesty_evidence(pool)
        assert there.logl.tolist() == dynesty_evidence(Serial()).logl.tolist()
    with warnings.catch_warnings():
        warnings.resetwarnings()  # scikit-learn takes the filters along, and those of the tests mention pytest
        warnings.simplefilter("ignore")
        with joblib.parallel_config("grid", grid=by_ssh):
            there = search_of_sklearn()
    assert there == search_of_sklearn()
    assert calls(by_ssh) > 100
