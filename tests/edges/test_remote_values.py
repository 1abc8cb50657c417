"""Values that stay on their host: which way they take, and that their memory is given back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from grid import CallTimeout, ConnectError, Limits, LocalGrid, SerialisationError, SSHGrid
from grid.ensemble import Ensemble
from grid.testing.probe import Probe
from grid.wire import bulk
from tests.lab import Lab, LabHost
from tests.models import Replica

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=6.0, stop_s=1.0, start_s=20.0, control_s=8.0)
SIZE = 1_000_000


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def forbid(monkeypatch: pytest.MonkeyPatch, *ways: Any) -> None:
    """No blob may be read or written by this process."""

    def trap(*_: Any, **__: Any) -> None:
        raise AssertionError("it came through the client")

    for way in ways:
        monkeypatch.setattr(way, "read", trap)
        monkeypatch.setattr(way, "write", trap)


def blobs(g: LocalGrid) -> list[str]:
    store = g._engine.fleet.homes[0].blobs
    assert isinstance(store, bulk.BlobStore)
    return sorted(path.name for path in store.directory.iterdir())


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(3, output=None) as made:
        made.publish([])  # its processes are there before the first test
        yield made


@pytest.fixture
def sid(g: LocalGrid) -> Iterator[str]:
    service_id = g.publish(Probe(), wait="all")
    yield service_id
    g.terminate(service_id)


@pytest.mark.row("D03", "G53")
def test_large_states_change_places_on_one_host_without_the_client(
    g: LocalGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    service_id = g.publish(Replica(), wait="all")
    before = blobs(g)
    with Ensemble(g, service_id, [1.0, 2.0, 3.0], rng=Random(1)) as ensemble:
        ensemble.each("start", lambda replica: (replica,))
        with monkeypatch.context() as patched:
            forbid(patched, bulk.BlobStore)
            ensemble.swap_states([(0, 2)])
        assert ensemble.each("ends") == [(SIZE, 102, 2), (SIZE, 1, 1), (SIZE, 100, 0)]
        until(lambda: blobs(g) == before)
    g.terminate(service_id)


@pytest.mark.row("G53", "G46")
def test_memory_goes_with_the_value_but_not_before_the_calls_that_it_was_handed_to(
    g: LocalGrid, sid: str, tmp_path: Path
) -> None:
    before = blobs(g)
    with g.group(sid) as (one, two, _):
        with g.keep(one, "make_bytes", 1_000_000) as kept:
            assert "make_bytes" in repr(kept) and sid in repr(kept)
            two.wait_for(str(tmp_path / "go"))
            taken = kept.to(two, "echo")
        assert len(blobs(g)) == len(before) + 1, "the call has yet to read it"
        (tmp_path / "go").touch()
        assert taken.get(20) == bytes(1_000_000)
        until(lambda: blobs(g) == before)

        kept = g.keep(one, "wait_for", str(tmp_path / "later"))
        with pytest.raises(CallTimeout, match="wait_for"):
            kept.to(two, "echo", timeout=0.05)
        assert not kept.done()
        kept.drop()
        kept.drop()
        assert "dropped" in repr(kept)
        (tmp_path / "later").touch()

        late = g.keep(one, "make_bytes", 1_000_000)
        late.drop()  # before it is there
        one.add().get(20)
        until(lambda: blobs(g) == before)

        assert g.keep(one, "make_bytes", 1_000_000).to(two, "echo").get(20) == bytes(1_000_000)
        g.keep(one, "make_bytes", 1_000_000)  # nobody holds it
        one.add().get(20)
        until(lambda: blobs(g) == before)

        for wrong in (late, one.add()):
            with pytest.raises(SerialisationError, match=r"hand it over|keep"):
                two.echo(wrong)


@pytest.mark.row("G45", "G46")
def test_large_results_that_nobody_asks_for_use_no_memory(g: LocalGrid, sid: str) -> None:
    before = blobs(g)
    with g.acquire_service(sid) as proxy:
        held = [proxy.make_bytes(1_000_000) for _ in range(20)]
        for _ in range(20):
            proxy.make_bytes(1_000_000)
        proxy.add().get(20)
        assert len(blobs(g)) >= len(before) + 20
        assert [len(result.get(20)) for result in held[:10]] == [1_000_000] * 10
        until(lambda: len(blobs(g)) == len(before) + 10)
        del held
        until(lambda: blobs(g) == before)


@pytest.mark.row("G53", "G43")
def test_a_value_that_was_removed_under_our_hands_is_an_error_that_says_so(g: LocalGrid, sid: str) -> None:
    with g.group(sid) as (one, two, _):
        kept = g.keep(one, "make_bytes", 1_000_000)
        kept.to(two, "echo").get(20)
        store = g._engine.fleet.homes[0].blobs
        assert isinstance(store, bulk.BlobStore)
        store.drop(kept._result.get().blob)
        with pytest.raises(Exception, match="handed over is gone"):
            kept.to(two, "echo").get(20)
        kept.drop()


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [LabHost("one"), LabHost("two"), LabHost("walled", open_ports=(22,)), LabHost("inner", behind="one")]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture
def over_ssh(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def shared_memory(net: Lab) -> int:
    """Blobs on the two hosts."""
    return sum(bool(re.search(r"/[0-9a-f]{32}$", path)) for name in ("one", "two") for path in net.hosts[name].litter())


@pytest.mark.lab
@pytest.mark.row("D03", "G53", "H08")
@pytest.mark.usefixtures("over_ssh")
def test_large_states_go_straight_from_host_to_host(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with SSHGrid(["one", "two"], limits=QUICK, output=None) as g:
        service_id = g.publish(Replica(), wait="all")
        published = shared_memory(net)
        with Ensemble(g, service_id, [1.0, 2.0], rng=Random(1)) as ensemble:
            ensemble.each("start", lambda replica: (replica,))
            with monkeypatch.context() as patched:
                forbid(patched, bulk.Lane)
                ensemble.swap_states([(0, 1)])
            assert ensemble.each("ends") == [(SIZE, 101, 1), (SIZE, 100, 0)]
            assert not any(home.unreached for home in g._engine.fleet.homes)
            for proxy in ensemble.replicas:
                proxy.get_state()
            g.gather([proxy.ends() for proxy in ensemble.replicas])
            until(lambda: shared_memory(net) == published)


@pytest.mark.lab
@pytest.mark.row("D03", "G53", "H11")
@pytest.mark.usefixtures("over_ssh")
@pytest.mark.parametrize("other", ["walled", "inner"])
def test_where_hosts_cannot_reach_each_other_states_pass_through_the_client(net: Lab, other: str) -> None:
    with SSHGrid(["two", other], limits=QUICK, output=None) as g:
        service_id = g.publish(Replica(), wait="all")
        with Ensemble(g, service_id, [1.0, 2.0], rng=Random(1)) as ensemble:
            ensemble.each("start", lambda replica: (replica,))
            for expected in ([(SIZE, 101, 1), (SIZE, 100, 0)], [(SIZE, 200, 0), (SIZE, 201, 1)]):
                ensemble.swap_states([(0, 1)])
                assert ensemble.each("ends") == expected


@pytest.mark.lab
@pytest.mark.row("G53", "G48")
@pytest.mark.usefixtures("over_ssh")
def test_a_value_whose_host_is_lost_is_lost(net: Lab) -> None:
    with SSHGrid(["one", "two"], limits=QUICK, output=None) as g:
        service_id = g.publish(Probe(), wait="all")
        with g.group(service_id) as (one, two):
            kept = g.keep(one, "make_bytes", 1_000_000)
            kept.to(two, "note").get(20)
            host = net.hosts[one._server.host.label]
            host.cut()
            try:
                with pytest.raises(ConnectError):
                    kept.to(two, "note").get(30)
                assert two.add().get(20) == 1, "the other one is as it was"
                kept.drop()
            finally:
                host.mend()
            until(lambda: not host.processes())
