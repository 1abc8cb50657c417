"""What exceptions say on the command line and within our messages: sentences, and no tuples of Python."""

from __future__ import annotations

import ast
import builtins
import inspect
import ssl
import urllib.error
from pathlib import Path
from typing import Any

import paramiko
import pytest

import grid
import grid.jobs.host.errors
from grid.errors import GridError
from grid.text import in_words

_FACTS: dict[str, Any] = {"host": "n1", "hint": "Look there", "service_id": "Model.0", "file": "hosts.yaml", "line": 3}
_FACTS |= {"server": "Model.0/1", "last_output": "", "modules": ("m",), "failures": {"n2": "off"}, "system_id": "s"}


def _family(kind: type[GridError]) -> set[type[GridError]]:
    return {kind}.union(*map(_family, kind.__subclasses__()))


@pytest.mark.row("T15")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLError("another certificate"), "another certificate"),
        (ssl.SSLError(1, "another certificate"), "another certificate"),
        (paramiko.ChannelException(2, "Connect failed"), "2: Connect failed"),
        (RuntimeError("two", "parts"), "two: parts"),
        (KeyError("hostname"), "KeyError: 'hostname'"),
        (EOFError(), "EOFError"),
        (OSError(2, "No such file or directory", "/x"), "[Errno 2] No such file or directory: '/x'"),
        (ValueError("plain"), "plain"),
        (urllib.error.URLError("refused"), "<urlopen error refused>"),
    ],
)
def test_the_text_of_a_foreign_error_is_words(error: Exception, said: str) -> None:
    assert in_words(error) == said


@pytest.mark.row("T15")
def test_every_error_of_ours_is_a_sentence() -> None:
    family = {kind for kind in _family(GridError) if kind.__module__.startswith("grid.")}
    assert len(family) > 40
    for kind in family:
        taken = inspect.signature(kind).parameters
        open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
        facts = {name: fact for name, fact in _FACTS.items() if open_ended or name in taken}
        error = kind("it broke", **facts)
        assert "it broke" in str(error) and not str(error).startswith("("), (kind, str(error))


def _wordless(call: ast.Call) -> bool:
    """Whether the text of what is raised would be a tuple."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name.startswith("SSL") and name.endswith("Error"):
        return len(call.args) < 2
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        return False
    return not issubclass(kind, (OSError, UnicodeError, SyntaxError)) and len(call.args) > 1


@pytest.mark.row("T15")
def test_nothing_raises_an_error_whose_text_is_a_tuple() -> None:
    found = []
    for path in sorted(Path(grid.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _wordless(node):
                found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert not found
