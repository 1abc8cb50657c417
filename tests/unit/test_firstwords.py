"""The first words of a kernel: its report among what start-up files print, or why there is none."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from grid.errors import ConnectError, HostError, PythonError
from grid.grids import firstwords
from grid.hosts import Host
from grid.kernel import boot
from grid.limits import Limits

pytestmark = pytest.mark.row("M12", "M13")
REPORT = {"address": "10.0.0.1", "port": 5}


class Process:
    def __init__(self, *lines: object, status: int = 1, stderr: str = "", began: bool = True) -> None:
        self._lines, self._status, self._stderr, self.began = list(lines), status, stderr, began

    def read_line(self, timeout: float) -> bytes:
        assert timeout > 0
        line = self._lines.pop(0) if self._lines else b""
        if isinstance(line, Exception):
            raise line
        assert isinstance(line, bytes)
        return line

    def wait(self, timeout: float) -> int:
        return self._status

    def stderr_tail(self, timeout: float = 0.0) -> str:
        return self._stderr


def hear(process: Process, connection: Any = None) -> Any:
    home = SimpleNamespace(host=Host("n1"), limits=Limits(), connection=connection)
    return firstwords.report_of(home, process, time.monotonic() + 60)  # type: ignore[arg-type]


def said(report: Any = REPORT) -> bytes:
    return boot.MARK.encode() + json.dumps(report).encode()


@pytest.mark.parametrize(
    "lines",
    [
        [said() + b"\n"],
        [b"welcome\n", b"\xff\xfe\n", said() + b"\n"],
        [b"no end of line" + said() + b" and more behind it\n"],
        [boot.MARK.encode() + b"torn {\n", said() + b"\n"],
    ],
)
def test_the_report_is_found_whatever_else_is_printed(lines: list[bytes]) -> None:
    assert hear(Process(*lines)) == REPORT


def test_an_end_without_a_report_tells_what_was_printed_and_the_hint() -> None:
    with pytest.raises(PythonError) as caught:
        hear(Process(b"Restricted shell\n", status=127))
    assert "exit status 127" in str(caught.value) and "Restricted shell" in str(caught.value)
    assert "grid doctor n1" in str(caught.value)
    with pytest.raises(PythonError) as caught:
        hear(Process(b"motd\n", stderr="grid-note PYTHONPATH=/old PYTHONHOME=\nImportError: zmq\n"))
    assert "ImportError: zmq" in str(caught.value) and "motd" not in str(caught.value)
    assert "PYTHONPATH is '/old'" in str(caught.value) and "grid-note" not in str(caught.value)


def test_silence_and_noise_without_an_end_are_two_errors() -> None:
    with pytest.raises(HostError, match="no kernel answered within 60 s"):
        hear(Process(b"noise\n", TimeoutError()))
    with pytest.raises(HostError, match="something else than our words"):
        hear(Process(ValueError("too long")))


def test_a_command_that_never_began_is_the_connections_error() -> None:
    error = ConnectError("one session only", host="n1", hint="ask")
    connection = SimpleNamespace(no_command=lambda process, status: error)
    with pytest.raises(ConnectError, match="one session only"):
        hear(Process(began=False), connection)


@pytest.mark.parametrize(("kind", "raised"), [("PythonError", PythonError), ("NoSuchError", HostError)])
def test_an_error_that_a_kernel_reports_is_raised_as_that_kind(kind: str, raised: type[Exception]) -> None:
    with pytest.raises(raised, match="too old") as caught:
        firstwords.check({"error": "too old", "kind": kind, "hint": "another"}, Host("n1"))
    assert type(caught.value) is raised
    firstwords.check(REPORT, Host("n1"))
