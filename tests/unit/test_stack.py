"""What faulthandler writes is read: threads, frames, whose they are; the text shows what helps."""

from __future__ import annotations

import json

import pytest

from grid.services import stack as stack_module
from grid.services.stack import Stack, StackFrame, StackThread, read_threads

SERVER = """\
Thread 0x00007f790d2fc6c0 (most recent call first):
  File "/usr/lib/python3.11/socket.py", line 706 in readinto
  File "/r/grid/kernel/serve.py", line 323 in _listen
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Current thread 0x00007f79107f4b80 (most recent call first):
  File "/home/me/fit.py", line 7 in <genexpr>
  File "/home/me/fit.py", line 5 in spin
    return self.inner(n)
  File "/r/grid/kernel/serve.py", line 211 in _perform
    value = getattr(self.instance, method)(*args, **kwargs)
  File "/r/grid/kernel/serve.py", line 153 in run
  File "/r/grid/kernel/zygote.py", line 316 in _become_server
"""


@pytest.mark.row("I01")
def test_the_thread_that_runs_calls_comes_first_with_the_frames_of_the_user() -> None:
    calls, other = read_threads(SERVER, server=True)
    assert calls.calls and not other.calls and not other.users
    assert calls.users == (
        StackFrame("/home/me/fit.py", 5, "spin", "return self.inner(n)"),
        StackFrame("/home/me/fit.py", 7, "<genexpr>"),
    )
    assert calls.frames[0].function == "_become_server" and len(calls.frames) == 5
    stack = Stack("Model.0/1", "node1", 12, (calls, other), doing="running 'spin' for 3.0 s", seconds=3.0)
    assert stack.at == "/home/me/fit.py:7 in <genexpr>"
    assert str(stack).splitlines() == [
        "Model.0/1 on node1 (process 12): running 'spin' for 3.0 s",
        '  File "/home/me/fit.py", line 5, in spin',
        "    return self.inner(n)",
        '  File "/home/me/fit.py", line 7, in <genexpr>',
    ]
    assert "_listen" in stack.text(all_threads=True)


@pytest.mark.row("I01")
def test_a_server_that_waits_for_calls_shows_nothing() -> None:
    text = SERVER.replace("/home/me/fit.py", "/r/grid/wire/zeromq.py")
    calls, _ = read_threads(text, server=True)
    assert calls.calls and not calls.users and calls.frames
    assert Stack("Model.0/1", "node1", 12, (calls,)).at == ""


@pytest.mark.row("I01")
def test_deep_recursion_hides_our_frames_and_not_its_own() -> None:
    """faulthandler stops after 100 frames: then those of grid, which come first, are missing."""
    deep = "Current thread 0x1 (most recent call first):\n" + '  File "fit.py", line 3 in f\n' * 100 + "  ...\n"
    (thread,) = read_threads(deep, server=True)
    assert thread.calls and len(thread.users) == 100


@pytest.mark.row("I01")
@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("Thread 0x00007f79107f4b80 [MainThread] (most recent call first):", "MainThread"),  # Python 3.14, and ours
        ("Current thread 0x00007f79107f4b80 [python3] (most recent call first):", "python3"),
        ("Thread 0x00007f79107f4b80 (most recent call first):", "0x00007f79107f4b80"),
        ("Thread 0x00007f79107f4b80 [grid-control] [Thread is garbage collecting] (most recent call first):", None),
    ],
)
def test_heads_of_threads_as_each_python_writes_them(head: str, name: str | None) -> None:
    (thread,) = read_threads(f'{head}\n  File "a.py", line ??? in f\n  <no Python frame>\n', server=False)
    assert thread.frames == (StackFrame("a.py", 0, "f"),)
    assert thread.name == (name or "grid-control")


@pytest.mark.row("I01")
def test_text_of_another_kind_is_no_thread() -> None:
    for text in ("", "\n\n", "Fatal Python error\n", '  File "a.py", line 3 in f\n', "    x = 1\n"):
        assert read_threads(text, server=True) == ()


@pytest.mark.row("I01")
def test_stacks_come_back_from_json() -> None:
    stack = Stack("a/0", "h", None, read_threads(SERVER, server=True), seconds=2.0, why="half of it")
    assert Stack.from_dict(json.loads(json.dumps(stack.as_dict()))) == stack
    assert Stack("a/0", "h", 1, (StackThread("x", (), True, ()),)).text() == "a/0 on h (process 1): its threads"


@pytest.mark.row("I09")
def test_threads_of_the_user_show_neither_how_they_began_nor_how_grid_waits() -> None:
    package = stack_module._PACKAGE
    began = '  File "/l/threading.py", line 9 in run\n  File "/l/threading.py", line 8 in _bootstrap\n'
    waits = f'  File "/l/threading.py", line 5 in wait\n  File "{package}wire/link.py", line 4 in wait\n'

    def users(frames: str) -> list[str]:
        (thread,) = read_threads("Thread 0x1 [x] (most recent call first):\n" + frames, server=False)
        return [frame.function for frame in thread.users]

    assert users('  File "fit.py", line 3 in write\n' + began) == ["write"]
    assert users(waits + f'  File "{package}services/result.py", line 7 in get\n  File "fit.py", line 3 in main\n') == [
        "main"
    ]
    called = f'  File "fit.py", line 5 in energy\n  File "{package}compat/quick.py", line 4 in map\n'
    assert users(called + '  File "fit.py", line 3 in main\n') == ["main", "map", "energy"]
    assert users(f'  File "{package}grids/watch.py", line 3 in run\n' + began) == users(began) == []


@pytest.mark.row("I01")
def test_threads_of_grid_in_a_server_on_another_host_are_told_from_those_of_the_user() -> None:
    began = '  File "/l/threading.py", line 9 in run\n'
    ours = f'Thread 0x2 (most recent call first):\n  File "/r/grid/kernel/rouse.py", line 51 in _watch\n{began}\n'
    theirs = f'Thread 0x3 (most recent call first):\n  File "/home/me/fit.py", line 9 in write\n{began}\n'
    _, first, second, _ = read_threads(ours + theirs + SERVER, server=True)
    assert not first.users and [frame.function for frame in second.users] == ["write"]
