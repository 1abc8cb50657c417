"""The text that OpenMetrics asks for: `grid status --metrics`, and `GET /metrics` of the job server.

Names of metrics are ours; what users have named (grids, services, hosts) stands in values of labels, escaped. Source:
OpenMetrics 1.0, "Text Format". Pure: values in, text out.

Lives here: families, their text.
Elsewhere:  what a grid has to tell (`grids/metrics.py`), what a job server has (`web/metrics.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNITS = ("seconds", "bytes", "joules")
_UNSHOWN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}
_KINDS = ("gauge", "counter")


@dataclass
class Family:
    """One metric with all of its samples.

    Args:
        name: Without the `_total` of a counter. One that ends in `_seconds`, `_bytes` or `_joules` has that unit.
        kind: `gauge` or `counter`.
        help: One sentence.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name) and self.kind in _KINDS and not self.name.endswith("_total"), self

    def add(self, value: float | None, **labels: object) -> None:
        """One sample; none where the value is not known. Labels whose value is empty are left out."""
        assert all(map(_LABEL.fullmatch, labels)), labels
        if value is not None:
            self.samples.append(({name: str(text) for name, text in labels.items() if text != ""}, float(value)))


def text(families: Iterable[Family]) -> str:
    """The whole answer, with its end. Families without a sample are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# TYPE {family.name} {family.kind}")
        unit = family.name.rpartition("_")[2]
        if unit in _UNITS:
            lines.append(f"# UNIT {family.name} {unit}")
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join([*lines, "# EOF", ""])


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """As the format wants it; what no terminal shows and what UTF-8 does not have becomes a question mark."""
    return "".join(_ESCAPES.get(char, char) for char in _UNSHOWN.sub("?", value))


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
