"""Which modules a message refers to, whatever stands in its data."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import io
import pathlib
import pickle
import random
import uuid
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.grids.needs import HostNeeds
from grid.hosts import Host
from grid.wire import bulk, codec
from grid.wire.mentions import may_mention, modules_in

pytestmark = pytest.mark.row("G43")
LOOKS_SO = b"\x8c\x01I\x94\x8c\x01x\x94\x93"
"""As 5 MB of `os.urandom` held it, in one of some twenty runs of a test."""


class Witness(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Python's own, in Python: it makes the objects, and says what it has imported for them."""

    def __init__(self, dumped: codec.Dumped) -> None:
        super().__init__(io.BytesIO(dumped.data), buffers=dumped.buffers)
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


def told_by_python(obj: object) -> set[str]:
    witness = Witness(codec.dumps(obj))
    witness.load()
    return witness.modules - {"__main__"}


LEAVES = (
    st.none()
    | st.integers()
    | st.text()
    | st.binary().map(lambda some: some + LOOKS_SO)
    | st.sampled_from(["numpy", "no_module.of_this_name", "fractions", LOOKS_SO.decode("latin-1")])
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.uuids()
    | st.just(pathlib.PurePosixPath("a/b"))
    | st.sampled_from([collections.OrderedDict(a=1), collections.Counter("ab"), collections.deque([1]), range(3), int])
    | st.sampled_from([numpy.arange(5), numpy.float64(2.0), numpy.zeros(9000), numpy.dtype("f4")])
    | st.sampled_from([ValueError("x"), random.Random(1), slice(1), 1j, frozenset({1}), bytearray(LOOKS_SO)])
)


@given(st.recursive(LEAVES, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4)))
def test_the_modules_are_those_that_python_imports_for_it(obj: object) -> None:
    assert modules_in(codec.dumps(obj).data) == told_by_python(obj)


@pytest.mark.parametrize(
    ("obj", "modules"),
    [
        (fractions.Fraction(1, 3), {"fractions"}),
        ({"numpy": "yaml", "os.path": b"\x93"}, set()),
        (LOOKS_SO, set()),
        (LOOKS_SO.decode("latin-1"), set()),
        ([LOOKS_SO, decimal.Decimal(1)], {"decimal"}),
        (pickle.dumps(uuid.UUID(int=1), 5), set()),  # one's own pickle is data
        ([pickle.dumps(uuid.UUID(int=1), 5), datetime.date(2026, 1, 1)], {"datetime"}),
    ],
)
def test_data_that_look_like_a_reference_are_none(obj: object, modules: set[str]) -> None:
    assert modules_in(codec.dumps(obj).data) == modules


def test_code_by_value_is_read_as_well() -> None:
    data = codec.dumps([lambda x: fractions.Fraction(x), LOOKS_SO]).data
    assert "I" in may_mention(data) and "I" not in modules_in(data)


class FarHost:
    """A host that says which modules it was asked for, and has none but those of Python itself."""

    host, python, report, local = Host("far"), None, {"cache_tag": codec.CACHE_TAG}, False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def store(self) -> bulk.Blobs:
        raise NotImplementedError

    def forget(self, blob: str) -> None:
        raise NotImplementedError

    def ask(self, method: str, *args: Any) -> Any:
        if method == "missing_modules":
            self.asked += args[0]
            return []
        return {}


def test_a_host_is_not_asked_for_what_only_stands_in_an_argument() -> None:
    far = FarHost()
    needs = HostNeeds(far, lambda home, files: None, lambda names: None)
    needs.prepare(codec.dumps_call("echo", (LOOKS_SO,), {}), {})
    assert far.asked == []
    needs.prepare(codec.dumps_call("echo", (numpy.float64(1.0), LOOKS_SO), {}), {})
    assert far.asked and all(name.partition(".")[0] == "numpy" for name in far.asked)
