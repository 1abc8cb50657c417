"""A grid that is ended while its ssh hosts start or publish: the end is bounded, and nothing stays on a host.

Lives here: ends in `init_cmd`, and while servers start. Elsewhere: the end of a grid that runs (`test_left_behind.py`).
"""

from __future__ import annotations

import threading
import time

import pytest

from grid import Host, Limits, SSHGrid
from grid.errors import GridError
from grid.grids.home import Home
from tests.lab import Lab
from tests.lab.host import wait_until

STOP_S = 3.0


class Model:
    def __init__(self) -> None:
        self.data = bytes(3_000_000)


@pytest.mark.lab
@pytest.mark.row("U15")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
@pytest.mark.parametrize("init_cmd", ["sleep 600;", ""])
def test_an_end_while_hosts_start_is_bounded_and_leaves_nothing(
    ssh: str, init_cmd: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    there = lab.hosts["s1"]
    raised: list[BaseException] = []
    with SSHGrid(
        [Host("s1", ssh=ssh, init_cmd=init_cmd)],
        limits=Limits(stop_s=STOP_S),
        output=None,  # type: ignore[arg-type]
    ) as g:

        def publish() -> None:
            try:
                g.publish(Model(), wait="all")
            except BaseException as exc:
                raised.append(exc)

        thread = threading.Thread(target=publish)
        thread.start()
        sign = "sleep 600" if init_cmd else "python"
        wait_until(lambda: any(sign in command for _, command in there.processes()), f"{sign} on the host")
        began = time.monotonic()
        g.terminate()
        took = time.monotonic() - began
        thread.join(10.0)
        assert not thread.is_alive() and all(isinstance(each, GridError) for each in raised), raised
    assert took < 3 * STOP_S, f"the end took {took:.1f} s"
    wait_until(lambda: not [each for each in there.processes() if "sshd" not in each[1]], "the end of all on the host")


@pytest.mark.lab
@pytest.mark.row("U15")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
def test_an_end_just_when_an_agent_has_answered_leaves_nothing(
    ssh: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    there, answered = lab.hosts["s1"], threading.Event()
    raised: list[bool] = []
    join = Home._join

    def join_and_be_late(home: Home) -> None:
        join(home)
        answered.set()
        wait_until(lambda: home._over, "the end of the grid")

    monkeypatch.setattr(Home, "_join", join_and_be_late)
    with SSHGrid([Host("s1", ssh=ssh)], output=None) as g:  # with times that outlast the test

        def publish() -> None:
            with pytest.raises(GridError):
                g.publish(Model())
            raised.append(True)

        thread = threading.Thread(target=publish)
        thread.start()
        assert answered.wait(60.0)
        g.terminate()
        thread.join(10.0)
        assert raised and not thread.is_alive()
    wait_until(lambda: not [each for each in there.processes() if "sshd" not in each[1]], "the end of all on the host")
