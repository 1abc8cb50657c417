"""Other projects' tests over a grid: nothing fails but what is listed here with its reason, and that does fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.lab import MissingPart
from tests.witnesses import cpython

LIMIT_S = 400.0

PROCESSES = "it looks at the standard executor's own table of processes"
TASKS = "max_tasks_per_child: servers hold a user's state, and are not replaced by count"
BETTER = "one call fails with its own error; there it breaks the whole pool"
QUEUE = "a multiprocessing.Queue is handed over by inheritance alone; Manager().Queue() travels"
FUTURES = {
    "GridExecutor.test_idle_process_reuse_multiple": PROCESSES,
    "GridExecutor.test_idle_process_reuse_one": PROCESSES,
    "GridExecutor.test_killed_child": PROCESSES,
    "GridExecutor.test_saturation": PROCESSES,
    "GridDeadlock.test_shutdown_deadlock_pickle": "it looks at a private thread of the standard executor",
    "GridExecutor.test_max_tasks_early_shutdown": TASKS,
    "GridExecutor.test_max_tasks_per_child": TASKS,
    "GridExecutor.test_max_tasks_per_child_defaults_to_spawn_context": TASKS,
    "GridExecutor.test_max_workers_negative": "the number of servers is the grid's, there is no max_workers",
    "GridDeadlock.test_error_at_task_unpickle": BETTER,
    "GridDeadlock.test_error_during_result_unpickle_in_result_handler": BETTER,
    "GridDeadlock.test_exit_at_task_unpickle": BETTER,
    "GridDeadlock.test_exit_during_result_unpickle_in_result_handler": BETTER,
    "GridFailingInitializer.test_initializer": QUEUE,
}
FUTURES_NOT_RUN = {
    "test_cancel_futures": "all 50 may be withdrawn, as none has begun; it wants one that ran",
    "test_timeout": "sleeps for 6 s to see that 5 s are over",
    "test_map_timeout": "sleeps for 6 s to see that 5 s are over",
}
POOL = {
    "GridPool.test_make_pool": "the number of servers is the grid's, there is no `processes`",
    "GridPool.test_resource_warning": "a pool that is dropped leaves nothing open: its processes are the grid's",
    "GridPoolErrors.test_unpickleable_result": "its lambda does travel",
    "GridPoolLifetime.test_pool_maxtasksperchild_invalid": TASKS,
    "GridPoolLifetime.test_pool_worker_lifetime": TASKS,
    "GridPoolLifetime.test_pool_worker_lifetime_early_close": TASKS,
}
NO_GRID = "it names the backend where no grid is: on a server, or in a new process"
JOBLIB = {
    "test_nested_loop[grid-grid]": NO_GRID,
    "test_backend_nesting_level[parallel_config-grid-grid]": NO_GRID,
    "test_backend_nesting_level[parallel_backend-grid-grid]": NO_GRID,
    "test_parallel_with_interactively_defined_functions[grid]": NO_GRID,
    "test_backend_context_manager[parallel_backend-grid]": "it knows the classes of joblib's own backends only",
    "test_backend_context_manager[parallel_config-grid]": "it knows the classes of joblib's own backends only",
    "test_auto_memmap_on_arrays_from_generator[grid]": "arrays travel through shared memory, not as np.memmap",
    "test_memmapping_leaks[grid]": "arrays travel through shared memory, not as np.memmap",
}
JOBLIB_NOT_RUN = {
    "test_parallel_with_unpicklable_functions_in_args": NO_GRID,
    "test_simple_parallel": "twelve times the same but for how much is printed",
}


def outcomes(module: str, *words: str, without: dict[str, str]) -> dict[str, list[str]]:
    environment = {**os.environ, "WITNESS_WITHOUT": " ".join(without), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"tests.witnesses.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    lines = [line[line.index('["') :] for line in done.stdout.splitlines() if '["' in line]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return {name: [outcome, why] for name, outcome, why, _ in map(json.loads, lines)}


def judge(found: dict[str, list[str]], expected: dict[str, str], least: int) -> None:
    failed = {name: why for name, (outcome, why) in found.items() if outcome == "failed"}
    assert not {name: why for name, why in failed.items() if name not in expected}
    assert not [name for name in expected if name not in failed], "they pass now: take them off the list"
    passed = [name for name, (outcome, _) in found.items() if outcome == "passed"]
    assert len(passed) >= least, sorted(found)


def need(name: str) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Debian's copy of CPython's tests is for Python 3.11")
    if cpython.find(name) is None:
        raise MissingPart("CPython's own tests are missing (Debian's libpython3.11-testsuite)")


@pytest.mark.row("E14")
def test_cpythons_tests_of_executors_pass_but_for_what_does_not_apply() -> None:
    need(cpython.FUTURES)
    judge(outcomes("cpython", "futures", without=FUTURES_NOT_RUN), FUTURES, least=36)


@pytest.mark.row("E14")
def test_cpythons_tests_of_pools_pass_but_for_what_does_not_apply() -> None:
    need(cpython.POOL)
    judge(outcomes("cpython", "pool", without={}), POOL, least=25)


@pytest.mark.row("E14")
def test_joblibs_tests_of_parallel_pass_but_for_what_does_not_apply() -> None:
    joblib = pytest.importorskip("joblib")
    if tuple(map(int, joblib.__version__.split(".")[:2])) < (1, 6):
        pytest.skip("joblib's tests are read as of 1.6")
    judge(outcomes("joblib_parallel", without=JOBLIB_NOT_RUN), JOBLIB, least=75)
