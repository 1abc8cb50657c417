"""Ranks on servers of this machine: every call with what it must give, ranks that die, raise or return early."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import LocalGrid
from grid.errors import RankError, RankFailed, RankLost, RankReturned
from tests.ranked import OTHERS, WAITS, chatter, crossed, ends_within, tour, wait_for_nobody, wrong

np = pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(OTHERS + 1, output=None) as made:
        made.publish([])  # its processes are there before the first test
        yield made


@pytest.mark.row("Q03")
def test_every_call_gives_what_mpi_gives(g: LocalGrid) -> None:
    n = 3
    for me, told in enumerate(g.ranks(tour, n).get(60)):
        left = (me - 1) % n
        assert told == {
            "ring": {"from": left},
            "status": (left, 7, True),
            "bcast": ("a", 1),
            "scatter": me * me,
            "gather": [0, 1, 2] if me == 1 else None,
            "allgather": [0, 1, 2],
            "alltoall": [(i, me) for i in range(n)],
            "reduce": 0.1 * 1 + 0.1 * 2 + 0.1 * 3 if me == 2 else None,
            "allreduce": 2,
            "scan": ([1, 3, 6][me], [None, 1, 3][me]),
            "code": left,
            "irecv": [2, 1],
            "self": (True, "to myself", False),
            "arrays": (
                [0.0, 6.0, 12.0, 18.0],
                (np.arange(4.0) * (left + 1)).tolist(),
                [[0.0], [1.0, 2.0], [3.0, 4.0, 5.0]][me],
                [0.0, 10.0, 20.0, 30.0, 40.0, 50.0] if me == 0 else None,
            ),
            "large": (4_000_000, left),
            "split": ([1, 0, 0][me], [[2, 0], [1], [2, 0]][me]),
        }


@pytest.mark.row("Q04")
@pytest.mark.parametrize(
    ("how", "calls"),
    [("killed", tuple(WAITS)), ("raises", ("recv", "bcast", "gather")), ("returns", ("recv", "barrier", "allreduce"))],
)
def test_a_rank_that_ends_is_named_to_all_others(
    g: LocalGrid, tmp_path: Path, how: str, calls: tuple[str, ...]
) -> None:
    for which in calls:
        place = tmp_path / which
        place.mkdir()
        check_that_all_are_told(g, place, which, how)


def check_that_all_are_told(g: LocalGrid, tmp_path: Path, which: str, how: str) -> None:
    ranks = g.ranks(ends_within, OTHERS + 1, args=(which, how, str(tmp_path)))
    with pytest.raises(RankError) as caught:
        ranks.get(60)
    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(OTHERS)]
    if how == "returns":
        assert isinstance(caught.value, RankFailed) and isinstance(caught.value.__cause__, RankReturned)
        assert caught.value.__cause__.rank == OTHERS
        assert any(kind == "RankReturned" and rank == OTHERS for kind, rank, _ in told)
        assert all(f"rank {OTHERS} on host 'localhost'" in text for _, _, text in told)
        return
    assert [(kind, rank) for kind, rank, _ in told] == [("RankLost" if how == "killed" else "RankFailed", OTHERS)] * 2
    assert type(caught.value) is (RankLost if how == "killed" else RankFailed)
    assert (caught.value.rank, caught.value.host) == (OTHERS, "localhost")
    if how == "raises":
        assert isinstance(caught.value.__cause__, KeyError) and "KeyError: 'mine'" in told[0][2]


@pytest.mark.row("Q04")
def test_messages_that_nobody_received_are_named_and_what_can_not_be_is_refused(g: LocalGrid) -> None:
    ranks = g.ranks(chatter, 2)
    with pytest.warns(RuntimeWarning, match=r"rank 1 got \d+ bytes from rank 0 with tag 77"):
        assert ranks.get(60) == [0, 1]
    assert [each[:3] for each in ranks.unreceived] == [(1, 0, 77)]

    before = set(g.servers)
    with pytest.raises(RankError, match="4 ranks were asked for, and this grid has 3 servers"):
        g.ranks(chatter, 4)
    assert set(g.servers) == before, "nothing was started, and nothing is left"
    for n in (0, -1):
        with pytest.raises(ValueError, match="n must be"):
            g.ranks(chatter, n)
    with pytest.raises(TypeError, match="function of a communicator"):
        g.ranks("main", 2)  # type: ignore[arg-type]

    (told, _) = g.ranks(wrong, 2).get(60)
    patterns = ("dest is 5", "a tag is", "root 9", "1 elements for 2 ranks")
    assert [bool(re.search(p, t)) for p, t in zip(patterns, told, strict=True)] == [True] * 4


@pytest.mark.row("Q04")
def test_ranks_in_different_calls_are_told_and_cancel_ends_all(g: LocalGrid) -> None:
    with pytest.raises(RankFailed, match="is in gather, and rank 0 on host"):
        g.ranks(crossed, 2).get(60)
    ranks = g.ranks(wait_for_nobody, 2)
    assert ranks.cancel() and ranks.join(60) and ranks.cancelled() and not ranks.cancel()


def script(tmp_path: Path, text: str, n: int = 3, *args: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "grid", "run", "--local", "3", "--ranks", str(n), "script.py", *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


POOL = """
import sys
import emcee
import numpy as np
from schwimmbad import MPIPool
from beside import WIDTH

def log_prob(x):
    return -0.5 * np.sum((x / WIDTH) ** 2)

def sample(pool):
    np.random.seed(3)
    sampler = emcee.EnsembleSampler(8, 2, log_prob, pool=pool)
    sampler.run_mcmc(np.random.randn(8, 2), 10)
    return sampler.get_chain().tobytes().hex()

with MPIPool() as pool:
    if not pool.is_master():
        pool.wait()
        sys.exit(0)
    assert sample(pool) == sample(None)
    print("the serial chain", pool.size, sys.argv[1])
"""


@pytest.mark.row("Q06")
def test_emcee_and_schwimmbad_run_on_ranks_without_mpi(tmp_path: Path) -> None:
    pytest.importorskip("schwimmbad")
    pytest.importorskip("emcee")
    (tmp_path / "beside.py").write_text("WIDTH = 2.0\n")
    done = script(tmp_path, POOL, 3, "word")
    assert done.returncode == 0, done.stderr
    assert "the serial chain 2 word" in done.stdout + done.stderr


TEMPERED = """
import random
from grid.compat.imp import ReplicaExchange

replica, own = ReplicaExchange(seed=5), random.Random(1)
ladder = replica.create_temperatures(1.0, 8.0, replica.get_number_of_replicas())
replica.set_my_parameter("temp", [ladder[replica.get_my_index()]])
x = 0.0
for step in range(40):
    mine = replica.get_my_parameter("temp")[0]
    for _ in range(20):
        new = x + own.uniform(-2, 2)
        x = new if own.random() < 2.718 ** ((x * x - new * new) / mine) else x
    friend = replica.get_friend_index(step)
    theirs = replica.get_friend_parameter("temp", friend)[0]
    replica.do_exchange(x * x / mine, x * x / theirs, friend)
print("ended as", replica.get_my_index(), replica.get_exchange_array())
"""


@pytest.mark.row("Q07")
def test_a_script_of_imps_shape_runs_with_its_replicas_on_ranks(tmp_path: Path) -> None:
    done = script(tmp_path, TEMPERED, 2)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"ended as (\d) \[(\d+)\]", done.stdout + done.stderr)
    assert sorted(index for index, _ in found) == ["0", "1"] and found[0][1] == found[1][1] != "0", done


@pytest.mark.row("Q06")
def test_a_script_ends_with_its_own_status_and_traceback(tmp_path: Path) -> None:
    text = "from mpi4py import MPI\nc = MPI.COMM_WORLD\nif c.rank == 1: {}\nc.barrier()\n"
    done = script(tmp_path, text.format("raise SystemExit(3)"), 2)
    assert done.returncode == 3, done.stderr
    done = script(tmp_path, text.format("MPI.Comm_spawn"), 2)
    assert done.returncode == 1
    assert (
        "script.py" in done.stderr
        and "line 3" in done.stderr
        and "grid's MPI has no 'Comm_spawn'" in done.stderr
        and "rank 1 on host 'localhost'" in done.stderr
    )
