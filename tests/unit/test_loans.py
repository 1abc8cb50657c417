"""A loan of a shared ssh log-in by itself: sessions are taken and given back once, and a closed loan starts nothing."""

from __future__ import annotations

import threading

import pytest

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.connection import RemoteProcess
from grid.launch.limits import ConnectLimits
from grid.launch.loans import LoanConnection

LIMITS = ConnectLimits(sessions=2, channel_s=0.0)


class LogIn:
    def __init__(self) -> None:
        self.sessions = threading.BoundedSemaphore(LIMITS.sessions)
        self.up = True

    def alive(self) -> bool:
        return self.up

    @property
    def free(self) -> int:
        return self.sessions._value


class Process(RemoteProcess):
    def __init__(self, owner: Loan, command: str) -> None:
        super().__init__(command, owner.limits)
        self.owner = owner

    def write(self, data: bytes, timeout: float) -> None: ...
    def read(self, timeout: float) -> bytes:
        return b""

    def close_stdin(self) -> None: ...
    def poll(self) -> int | None:
        return 0

    def wait(self, timeout: float) -> int | None:
        return 0

    def kill(self) -> None: ...
    def close(self) -> None:
        self.owner._ended(self)


class Loan(LoanConnection):
    closes_meanwhile = False

    def _begin(self, command: str) -> RemoteProcess:
        if command == "no":
            raise ConnectError("refused", host="h", hint="")
        process = Process(self, command)
        self._processes.add(process)
        self._closed = self._closed or self.closes_meanwhile
        return process

    def forward(self, address: str, port: int) -> str:
        return ""

    def unforward(self, address: str, port: int) -> None: ...
    def server_address(self) -> str | None:
        return None

    def close(self) -> None:
        self._closed = True


def a_loan() -> tuple[Loan, LogIn]:
    log_in = LogIn()
    return Loan(Host("node17"), LIMITS, log_in), log_in


@pytest.mark.row("H11")
def test_a_session_is_taken_by_each_command_and_given_back_once() -> None:
    loan, log_in = a_loan()
    one, two = loan.start("a"), loan.start("b")
    with pytest.raises(ConnectError, match="2 commands run on this connection already"):
        loan.start("c")
    one.close()
    one.close()
    assert log_in.free == 1
    loan.start("c").close()
    two.close()
    assert log_in.free == 2


@pytest.mark.row("H11")
def test_a_command_that_does_not_start_keeps_no_session() -> None:
    loan, log_in = a_loan()
    with pytest.raises(ConnectError, match="refused"):
        loan.start("no")
    assert log_in.free == 2


@pytest.mark.row("H11")
def test_a_loan_that_was_closed_or_cut_says_which_and_starts_nothing() -> None:
    loan, log_in = a_loan()
    log_in.up = False
    with pytest.raises(ConnectError, match=r"no connection any more: it was cut.*grid doctor node17"):
        loan.start("a")
    loan.close()
    with pytest.raises(ConnectError, match="it was closed"):
        loan.start("a")
    loan.kill_session(17)  # says nothing: no way leads in any more


@pytest.mark.row("H11")
def test_a_loan_that_is_closed_while_a_command_starts_ends_the_command() -> None:
    loan, log_in = a_loan()
    loan.closes_meanwhile = True
    with pytest.raises(ConnectError, match="it was closed"):
        loan.start("a")
    assert log_in.free == 2 and not loan._processes
