"""What every grid has before anything runs: construction, tables, words, spacing of launches."""

from __future__ import annotations

import io
import logging
import time

import pytest

from grid import AbstractGrid, Host, LocalGrid
from grid.services.roster import State
from grid.services.server import Server
from grid.testing.probe import Probe


@pytest.mark.row("G01")
def test_the_abstract_grid_leaves_publishing_to_others() -> None:
    g = AbstractGrid(["node1"])
    with pytest.raises(NotImplementedError):
        g.publish(Probe())
    with pytest.raises(NotImplementedError):
        g.ishalted()


@pytest.mark.row("G03", "G28", "G29")
def test_a_constructor_stores_what_it_gets_and_names_what_is_wrong() -> None:
    g = LocalGrid(3, src_path="/somewhere", verbose=True)
    assert g.src_path == "/somewhere" and g.verbose and not g.debug
    assert dict(g.servers) == {} and dict(g.queues) == {} and g.others == {}
    assert g.n_hosts == 3
    with pytest.raises(ValueError, match=r"bad host"):
        AbstractGrid(["bad host"])
    with pytest.raises(ValueError, match="temp_path"):
        LocalGrid(1, shared_temp_path=True)


@pytest.mark.row("G09", "G10", "G57")
def test_tables_are_to_look_at() -> None:
    with LocalGrid(2, output=None) as g:
        g.start()  # twice is harmless
        sid = g.publish(Probe())
        with pytest.raises(TypeError):
            g.servers[sid] = []  # type: ignore[index]
        assert list(g.servers) == [sid] and g.size(sid) == 2 == len(g.queues[sid])
        g.servers[sid].clear()
        assert g.size(sid) == 2, "a look changed the table"
        gone = g.servers[sid][0]
        gone.terminate()
        assert gone.state is State.TERMINATED
        assert g.size(sid) == 1 == g.queues[sid].qsize()


@pytest.mark.row("G11", "G40")
def test_a_server_of_another_kind_can_be_added() -> None:
    class Handmade(Server):
        @property
        def idle(self) -> bool:
            return True

        def end(self, *, force: bool = False) -> None:
            pass

    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        g.add_server(Handmade(sid, f"{sid}/made", Host("elsewhere")))
        assert [server.host.name for server in g.servers[sid]] == ["localhost", "elsewhere"]
        assert g.queues[sid].qsize() == 2


@pytest.mark.row("G20", "G21")
def test_words_go_where_they_are_wanted() -> None:
    out = io.StringIO()
    with LocalGrid(1, debug_out=out, output=None) as g:
        g.dp("a line")
        assert out.getvalue() == "a line\n"
        sid = g.publish(Probe())
        try:
            g.set_debug(True)
            assert logging.getLogger("grid").level == logging.DEBUG and not g.verbose
            with g.acquire_service(sid) as proxy:
                assert proxy.add().get(10) == 1
        finally:
            g.set_debug(False, verbose=True)
        assert g.verbose


@pytest.mark.row("G32")
def test_launches_can_be_spaced_out() -> None:
    with LocalGrid(3, X11_delay=0.1, output=None) as g:
        g.publish([])
        began = time.monotonic()
        assert len(g.servers[g.publish(Probe())]) == 3
        assert time.monotonic() - began >= 0.2
