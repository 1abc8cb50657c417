"""What every way into a host must do, as checks that anybody's `Connection` can be held to.

Lives here: one function per promise of `grid.launch.connection`, each given an open connection.
Elsewhere:  faults of the network and of sshd, which need a network and an sshd (`tests/edges/test_connections.py`).

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_connection(check):
        with MyConnection(host) as connection:
            check(connection)

The host needs a POSIX shell, and Python for the forwards.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from grid.errors import ConnectError
from grid.launch.connection import Connection
from grid.launch.shell import find_python_script

_ECHO = """
import socket, sys, threading
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
def echo(c):
    with c:
        while data := c.recv(1 << 18):
            c.sendall(data)
def accept():
    while True:
        threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
"""


def run_carries_streams_and_status(connection: Connection) -> None:
    done = connection.run("read line; echo out:$line; echo err:$line >&2; exit 7", stdin=b"one\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out:one\n", b"err:one\n"), done
    assert done.text == "out:one"


def run_understands_posix_shell(connection: Connection) -> None:
    """Whatever the login shell: quotes, newlines, `!`, backslashes, variables."""
    text = "a'b\"c\\d!e $HOME `x`"
    done = connection.run(f"x={shlex.quote(text)}\nprintf '%s\\n' \"$x\"; : \\\\ !\n[ 1 = 1 ] && echo fine")
    assert done.text == f"{text}\nfine", done


def run_carries_any_byte(connection: Connection) -> None:
    every = bytes(range(256)) * 300
    assert connection.run("cat", stdin=every).stdout == every


def run_carries_much(connection: Connection) -> None:
    """Both ways at once, and standard error besides: more than any pipe or window holds."""
    much = os.urandom(8_000_000)
    done = connection.run("head -c 3000000 /dev/zero >&2; cat", stdin=much)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(much).digest()
    assert len(done.stderr) == connection.limits.stderr_bytes


def run_does_not_mind_unread_input(connection: Connection) -> None:
    assert connection.run("head -c 5", stdin=b"12345" + bytes(5_000_000)).stdout == b"12345"


def run_ends_what_takes_too_long(connection: Connection) -> None:
    file = connection.run("mktemp").text
    before = time.monotonic()
    try:
        connection.run(f"echo $$ >{file}; sleep 1000; echo never", timeout=0.5)
    except ConnectError as exc:
        assert isinstance(exc.__cause__, TimeoutError), exc.__cause__
    else:
        raise AssertionError("no error")
    assert time.monotonic() - before < 0.5 + 3 * connection.limits.close_s
    # The shell may be a zombie for a moment; nobody but its parent can tell, so look at what it waited for.
    left = connection.run(f"p=$(cat {file}); rm {file}; kill -0 $p 2>/dev/null && ps -o stat= -p $p").text
    assert left.strip() in ("", "Z"), left


def run_does_not_wait_for_daemons(connection: Connection) -> None:
    """A child that keeps standard output open after its parent has ended does not hold us up."""
    before = time.monotonic()
    pid = connection.run("sleep 1000 & echo $!", timeout=20).text
    try:
        assert time.monotonic() - before < 10
    finally:
        connection.run(f"kill {pid}")


def lines_arrive_as_they_are_written(connection: Connection) -> None:
    with connection.start('while read x; do printf "got $x"; read y; echo " and $y"; done; printf end') as process:
        process.write(b"1\n", 5)
        try:
            process.read_line(0.3)
        except TimeoutError:
            pass
        else:
            raise AssertionError("half a line came as a whole one")
        process.write(b"2\n3\n4\n", 5)
        assert process.read_line(10) == b"got 1 and 2\n"
        assert process.read_line(10) == b"got 3 and 4\n"
        assert process.poll() is None
        process.close_stdin()
        assert process.read_line(10) == b"end"
        assert process.read_line(10) == b""
        assert process.wait(10) == 0


def stderr_is_collected_and_never_blocks(connection: Connection) -> None:
    with connection.start("head -c 4000000 /dev/zero >&2; echo last words >&2; echo done; read x") as process:
        assert process.read_line(20) == b"done\n"
        assert process.wait(0) is None
        process.close_stdin()
        assert process.wait(10) is not None
        assert process.stderr_tail(10).endswith("last words")


def writing_to_who_does_not_read_has_a_limit(connection: Connection) -> None:
    with connection.start("echo ready; sleep 1000") as process:
        assert process.read_line(20) == b"ready\n"
        try:
            process.write(bytes(64_000_000), 0.5)
        except TimeoutError:
            pass
        else:
            raise AssertionError("somebody took 64 MB")
        process.kill()


def stdin_is_a_lifeline(connection: Connection) -> None:
    """Open while the process is ours, closed with it: the far side sees the end of its input."""
    file = connection.run("mktemp").text
    process = connection.start(f"echo up; read x; echo over >{file}; exit 3")
    try:
        assert process.read_line(20) == b"up\n"
        assert process.wait(0.3) is None
    finally:
        process.close()
    process.close()
    connection.run(f"until [ -s {file} ]; do sleep 0.05; done; rm {file}", timeout=10)


def many_at_once(connection: Connection) -> None:
    """More commands than sessions: they take turns."""
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda n: connection.run(f"echo {n}").text, range(20)))
    assert found == [str(n) for n in range(20)]


def forwards_carry_bytes_intact(connection: Connection) -> None:
    """10 MB there and back on each of three streams at once; the end of one direction is passed on."""
    with _echo_server(connection) as port:
        path = connection.forward("127.0.0.1", port)
        assert connection.forward("127.0.0.1", port) == path
        assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
        assert len(os.fsencode(path)) <= 107

        def there_and_back(seed: int) -> bool:
            sent = os.urandom(10_000_000)
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(60)
                stream.connect(path)

                def send() -> None:
                    stream.sendall(sent)
                    stream.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=send)
                sender.start()
                got = hashlib.sha256()
                while chunk := stream.recv(1 << 18):
                    got.update(chunk)
                sender.join()
            return got.digest() == hashlib.sha256(sent).digest()

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(there_and_back, range(3)))
        connection.unforward("127.0.0.1", port)
        connection.unforward("127.0.0.1", port)
        assert not os.path.exists(path)


def a_forward_to_nobody_closes(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    path = connection.forward("127.0.0.1", port)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(20)
        stream.connect(path)
        try:
            assert stream.recv(1) == b""
        except ConnectionResetError:
            pass
    connection.unforward("127.0.0.1", port)


def closing_ends_all_that_goes_through(connection: Connection) -> None:
    with _echo_server(connection) as port:
        path = connection.forward("127.0.0.1", port)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(20)
            stream.connect(path)
            stream.sendall(b"hello")
            assert stream.recv(5) == b"hello"
            process = connection.start("echo up; read x")
            assert process.read_line(20) == b"up\n"
            assert connection.alive()
            before = time.monotonic()
            connection.close()
            connection.close()
            assert time.monotonic() - before < 2 * connection.limits.close_s
            assert not connection.alive()
            assert not os.path.exists(path)
            try:
                assert stream.recv(1) == b""
            except ConnectionResetError:
                pass
        assert process.read_line(5) == b""
        for use in (lambda: connection.start("true"), lambda: connection.forward("127.0.0.1", port)):
            try:
                use()
            except ConnectError:
                pass
            else:
                raise AssertionError("it can still be used")


DAEMON_CHECKS = (run_does_not_wait_for_daemons,)
"""Beyond the promise: an ssh binary ends only when the last to hold its output has closed it."""

CHECKS: tuple[Callable[[Connection], None], ...] = (
    run_carries_streams_and_status,
    run_understands_posix_shell,
    run_carries_any_byte,
    run_carries_much,
    run_does_not_mind_unread_input,
    run_ends_what_takes_too_long,
    lines_arrive_as_they_are_written,
    stderr_is_collected_and_never_blocks,
    writing_to_who_does_not_read_has_a_limit,
    stdin_is_a_lifeline,
    many_at_once,
    forwards_carry_bytes_intact,
    a_forward_to_nobody_closes,
    closing_ends_all_that_goes_through,
)


@contextmanager
def _echo_server(connection: Connection) -> Iterator[int]:
    """A server on the host that sends back what it gets; it ends with its input."""
    find = find_python_script(connection.host.python, sys.version_info.minor)
    with connection.start(f"{find}; exec $PY -u -c {shlex.quote(_ECHO)}") as process:
        line = process.read_line(20)
        assert line, process.stderr_tail()
        yield int(line)
