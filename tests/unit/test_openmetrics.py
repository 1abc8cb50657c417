"""Metrics are read by another parser: labels come back as they were, each family has its kind and unit."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from grid.grids.metrics import of_grids
from grid.openmetrics import Family, text
from grid.services.load import Load

pytestmark = pytest.mark.row("I05")


def read(families: list[Family]) -> dict[str, Any]:
    """What the witness makes of it: name -> its family."""
    return {family.name: family for family in text_string_to_metric_families(text(families))}


def grid(name: str = "fit", **services: Any) -> dict[str, Any]:
    homes = [{"host": "a", "state": "up"}, {"host": "b", "state": "lost"}, {"host": "c", "state": "up"}]
    return {
        "id": f"id-{name}", "name": name, "began": 1.7e9,
        "status": {"homes": homes, "failures": {"b": "no route"}, "services": services},
    }  # fmt: skip


def service(**costs: Any) -> dict[str, Any]:
    return {"free": 1, "acquired": 2, "starting": 0, "waiting": 3, "costs": {**Load().costs(), **costs}}


def _is_unshown(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


@given(st.text(max_size=30), st.floats(allow_nan=False))
def test_what_users_have_named_comes_back_as_it_was(label: str, value: float) -> None:
    family = Family("grid_x", "gauge", label)
    family.add(value, service=label, other="")
    ((sample,),) = [one.samples for one in read([family]).values()]
    told = "".join("?" if _is_unshown(char) else char for char in label)
    assert sample.labels == ({"service": told} if told else {}) and sample.value == value


def test_numbers_that_are_none_and_halves_of_characters_are_told() -> None:
    family = Family("grid_x", "counter", "h")
    family.add(None, a="unknown")
    family.add(math.inf, a='"\\\n\ud800')
    family.add(2.5e20, a="large")
    (read_one,) = read([family]).values()
    assert [(one.name, one.labels["a"], one.value) for one in read_one.samples] == [
        ("grid_x_total", '"\\\n?', math.inf),
        ("grid_x_total", "large", 2.5e20),
    ]


def test_a_grid_tells_its_hosts_servers_calls_and_costs() -> None:
    costs = {"calls": 7, "cpu_s": 1.25, "running_s": 2.0, "bytes_out": 10, "bytes_in": 20, "peak_memory": 5_000_000}
    hostile = 'E"{}\\\n.0'
    mute = {"id": "m", "name": "mute", "status": None}
    old = {"free": 1, "acquired": 0, "starting": 0, "waiting": 0}
    found = read(of_grids([grid(**{hostile: service(**costs)}), mute, grid("older", A=old)]))
    values = {
        (name, *(one.labels.get(key, "") for key in ("grid", "service", "state"))): one.value
        for name, family in found.items()
        for one in family.samples
    }
    assert values["grid_up", "fit", "", ""] == 1 and values["grid_up", "mute", "", ""] == 0
    assert values["grid_hosts", "fit", "", "up"] == 2 and values["grid_failures", "fit", "", ""] == 1
    assert values["grid_servers", "fit", hostile, "acquired"] == 2
    assert values["grid_calls", "fit", hostile, ""] == 7 and values["grid_call_cpu_seconds", "fit", hostile, ""] == 1.25
    assert values["grid_sent_bytes", "fit", hostile, ""] == 10
    assert ("grid_calls", "older", "A", "") not in values and "grid_call_energy_joules" not in found
    assert found["grid_call_cpu_seconds"].unit == "seconds" and found["grid_call_cpu_seconds"].type == "counter"


def test_without_a_grid_there_is_a_valid_answer() -> None:
    assert text(of_grids([])) == "# EOF\n"
