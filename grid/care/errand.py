"""A function of ours run on a host by its own Python, with nothing of ours installed there.

Lives here: sending the text of some kernel modules, and the answer.
Elsewhere:  functions worth it (`remains.py`), finding the interpreter (`launch/shell.py`).

Only modules that stand on the standard library can be sent: pyzmq and dill may be what the host lacks.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from grid import errors
from grid.errors import ConnectError, HostError, PythonError
from grid.hosts import compose_command
from grid.launch.command import python_of
from grid.launch.connection import Connection
from grid.launch.shell import FIND_BROUGHT, find_python_script, safe_program

MARK = "grid-errand "

# In the order of their imports; parents are packages without content.
_ERRORS = ("grid.causes", "grid.errors")
_MODULES = {
    "grid.kernel.remains": (
        *(*_ERRORS, "grid.trust", "grid.wire.places"),
        *("grid.kernel.held", "grid.kernel.made", "grid.kernel.lease", "grid.kernel.remains"),
    ),
    "grid.kernel.environments": (*_ERRORS, "grid.kernel.environments"),
}
_PACKAGES = ("grid", "grid.wire", "grid.kernel")

_PROGRAM = """
import json, sys, types
words = json.loads(sys.stdin.read())
def say(**answer):
    sys.stdout.write(words["mark"] + json.dumps(answer) + chr(10))
if sys.version_info < (3, 7):
    say(error="Python %d.%d is too old" % sys.version_info[:2], hint="Name a newer one with python:",
        kind="PythonError")
    sys.exit(0)
for name in words["packages"]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, text in words["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
try:
    say(value=getattr(sys.modules[words["module"]], words["function"])(*words["arguments"]))
except sys.modules["grid.errors"].GridError as exc:
    say(error=exc.what, hint=str(exc.facts.get("hint", "")), kind=type(exc).__name__)
"""


def run_there(
    connection: Connection, function: Callable[..., Any], arguments: Sequence[Any] = (), timeout: float | None = None
) -> Any:
    """Call a function of a module that can be sent on the host; arguments and value are JSON.

    Raises:
        PythonError: There is no interpreter, or the function failed there.
        HostError: What it raised on purpose.
        ConnectError: The connection broke, or there was no answer in time.
    """
    host = connection.host
    assert function.__module__ in _MODULES, function
    words = {
        "mark": MARK,
        "packages": _PACKAGES,
        "modules": [(name, inspect.getsource(importlib.import_module(name))) for name in _MODULES[function.__module__]],
        "module": function.__module__,
        "function": function.__name__,
        "arguments": list(arguments),
    }
    find = f"{find_python_script(python_of(host), sys.version_info[1])}; "
    find += f'[ -n "$PY" ] || {FIND_BROUGHT}; [ -n "$PY" ] || exit 0; '
    run = f"$PY -c {shlex.quote(safe_program(_PROGRAM))}"
    if host.init_cmd.rstrip().endswith("!"):
        command = find + compose_command(host.init_cmd, run)
    else:
        command = compose_command(host.init_cmd, find + run)
    done = connection.run(command, stdin=b"\n" * 16 + json.dumps(words).encode(), timeout=timeout)
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        _, found, said_by_us = line.partition(MARK)
        if found:
            answer, _ = json.JSONDecoder().raw_decode(said_by_us)
            if "error" in answer:
                kind = getattr(errors, answer["kind"], HostError)
                raise kind(answer["error"], host=host.label, hint=answer["hint"])
            return answer["value"]
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    hint = f"`grid doctor {host.label}` says what is wrong with it"
    if done.returncode < 0:
        raise ConnectError("the connection was cut", host=host.label, hint=hint)
    raise PythonError(f"no Python ran there{': ' + said[-1] if said else ''}", host=host.label, hint=hint)
