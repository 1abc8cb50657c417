"""Ensembles on real servers: rounds, states that change places, runs without a barrier."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp
from pathlib import Path
from random import Random
from typing import Any

import pytest

from grid import CallTimeout, LocalGrid, ServerLost, ServiceError, SSHGrid
from grid.ensemble import Ensemble, geometric, stream_seeds
from tests.models import Coin


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(4, output=None) as made:
        made.publish([])
        yield made


@pytest.fixture
def sid(g: LocalGrid) -> Iterator[str]:
    service_id = g.publish(Coin(), wait="all")
    yield service_id
    g.terminate(service_id)


def temperatures(count: int) -> list[float]:
    return geometric(0.5, 2.0, count)


@pytest.mark.row("D03", "G53", "G54")
def test_rounds_are_the_same_in_every_run(g: LocalGrid, sid: str) -> None:
    def run() -> Any:
        seeds = stream_seeds(5, 4)
        with Ensemble(g, sid, temperatures, rng=Random(2)) as ensemble:
            assert len(ensemble) == 4
            ensemble.each("start", lambda replica: (seeds[replica],))
            ensemble.tell()
            seen = []
            for number in range(30):
                reports = ensemble.each("walk", lambda replica: (20,))
                assert [t for t, _, _ in reports] == [ensemble.ladder.parameter(i) for i in range(4)]
                seen.append(reports)
                ensemble.exchange([level for _, level, _ in reports], first=number % 2)
            return seen, ensemble.ladder.rung, ensemble.ladder.acceptance()

    first = run()
    assert g.queues[sid].qsize() == 4, "the servers are free again"
    assert run() == first
    assert 0 < first[2][0] <= 1


@pytest.mark.row("D03", "G53")
def test_states_change_places_by_pairs(g: LocalGrid, sid: str) -> None:
    with Ensemble(g, sid, temperatures, rng=Random(2)) as ensemble:
        names = [name for name, _ in ensemble.each("get_state")]
        ensemble.swap_states([(0, 3), (2, 1)])
        assert [proxy.had[0] for proxy in ensemble.replicas] == [names[3], names[2], names[1], names[0]]
        with pytest.raises(ValueError, match="one pair only"):
            ensemble.swap_states([(0, 1), (1, 2)])
        with pytest.raises(ValueError, match="one pair only"):
            ensemble.swap_states([(1, 1)])


@pytest.mark.row("D03", "G53")
def test_without_a_barrier_the_distribution_is_right_and_all_walk_alike(g: LocalGrid, sid: str) -> None:
    upper: dict[float, list[int]] = {}
    walked = [0] * 4

    def seen(replica: int, answer: tuple[float, int, int]) -> None:
        upper.setdefault(answer[0], []).append(answer[2])
        walked[replica] += 1

    with Ensemble(g, sid, temperatures, rng=Random(3)) as ensemble:
        ensemble.each("start", lambda replica: (replica,))
        last = ensemble.run("walk", 60, lambda replica: (300,), report=lambda answer: answer[1], seen=seen, timeout=50)
        assert walked == [60] * 4 and len(last) == 4
        assert sum(ensemble.ladder.tried) > 60 and 0 < ensemble.ladder.share() <= 1
        assert sorted(ensemble.ladder.rung) == [0, 1, 2, 3]
    for temperature, counts in upper.items():
        expected = exp(-1 / temperature) / (1 + exp(-1 / temperature))
        assert sum(counts) / (300 * len(counts)) == pytest.approx(expected, abs=0.05)
    assert sorted(upper) == pytest.approx(temperatures(4))


@pytest.mark.row("D03")
def test_a_slow_replica_holds_up_its_neighbours_alone(g: LocalGrid, sid: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    done = [0] * 4

    def seen(replica: int, answer: object) -> None:
        done[replica] += 1
        if not gate.exists() and min(done[0], done[1]) >= 10:  # these two went on while replica 3 stood still
            assert done[3] == 0
            gate.touch()

    # nobody is exchanged, so that replica i stays on rung i
    with Ensemble(g, sid, temperatures, rng=Random(3), rule=lambda *_: -1e9) as ensemble:
        ensemble.each("start", lambda replica: (replica,))
        ensemble.run("walk_at", 12, lambda replica: (str(gate) if replica == 3 else "",), seen=seen, timeout=50)
    assert done == [12] * 4


@pytest.mark.row("G47", "G48")
def test_errors_end_the_run_and_free_the_servers(g: LocalGrid, tmp_path: Path) -> None:
    sid = g.publish(Coin(), wait="all")
    with pytest.raises(ServiceError, match="3 parameters for 4 servers"):
        Ensemble(g, sid, [1.0, 2.0, 3.0], rng=Random(1))
    assert g.queues[sid].qsize() == 4
    with Ensemble(g, sid, [1.0, 2.0, -3.0, 4.0], rng=Random(1)) as ensemble:
        ensemble.tell()
        with pytest.raises(ValueError, match="too cold"):
            ensemble.each("get_state")
        with pytest.raises(ValueError, match="1 or more"):
            ensemble.run("walk", 0)
        with pytest.raises(ValueError, match="too cold"):
            ensemble.run("get_state", 1, timeout=30)
    with Ensemble(g, sid, temperatures, rng=Random(1)) as ensemble:
        gate = tmp_path / "gate"
        ensemble.each("start", lambda replica: (replica,))
        with pytest.raises(CallTimeout, match="replicas have answered"):
            ensemble.run("walk_at", 2, lambda replica: (str(gate),), timeout=0.2)
        gate.touch()
        with pytest.raises(ServerLost):
            ensemble.run("die", 3, lambda replica: (0,), timeout=30)
    g.terminate(sid)


@pytest.mark.row("D03", "D07")
def test_over_ssh(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    with SSHGrid(list(lab.hosts), output=None) as g:
        sid = g.publish(Coin(), wait="all")
        with Ensemble(g, sid, temperatures, rng=Random(3)) as ensemble:
            ensemble.each("start", lambda replica: (replica,))
            ensemble.run("walk", 20, lambda replica: (50,), report=lambda answer: answer[1], timeout=50)
            assert sum(ensemble.ladder.tried) >= 10
            ensemble.swap_states([(0, 2)])
