"""How grids, services, results and proxies look in a notebook. All text is escaped: it may come from hosts and users.

Lives here: pieces of HTML, from plain values. Pure.
Elsewhere:  the values (`_repr_html_` of each class), the same for terminals (`cli/show.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_CELL = "text-align:left;padding:2px 10px;vertical-align:top"
_LONGEST = 400  # characters of a cell


def text(value: object) -> str:
    """Any value as harmless text of a bounded length."""
    from html import escape  # 3 ms that `import grid` need not pay

    shown = str(value)
    return escape(shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "...")


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text."""
    head = "".join(f'<th style="{_CELL}">{text(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{text(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    return f"<div><b>{text(title)}</b><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def facts(title: str, values: Mapping[str, object]) -> str:
    """Names and values, a line each."""
    body = "".join(
        f'<tr><th style="{_CELL}">{text(name)}</th><td style="{_CELL}">{text(value)}</td></tr>'
        for name, value in values.items()
    )
    return f"<div><b>{text(title)}</b><table><tbody>{body}</tbody></table></div>"


def bar(title: str, done: int, total: int | None) -> str:
    """How far something is."""
    of = "?" if total is None else str(total)
    value = f' value="{done}" max="{max(1, total)}"' if total is not None else ""
    return f"<div><b>{text(title)}</b> <progress{value}></progress> {done} of {of}</div>"


def grid(status: Mapping[str, Any]) -> str:
    """The answer of a grid to `status()`."""
    homes = status.get("homes") or [{"host": host, "state": ""} for host in status["hosts"]]
    name = f" {status['name']}" if "name" in status else ""
    parts = [
        table(
            f"{status['grid']}{name}",
            ("host", "state", "Python", "way"),
            [(h["host"], h["state"], h.get("python") or "", h.get("transport") or "") for h in homes],
        ),
        table(
            "services",
            ("service", "servers", "free", "acquired", "starting", "waiting", "calls"),
            [
                (
                    *(service_id, len(service["servers"]), service["free"], service["acquired"]),
                    *(service["starting"], service["waiting"], sum(each["calls"] for each in service["servers"])),
                )
                for service_id, service in status["services"].items()
            ],
        ),
    ]
    if status["failures"]:
        parts.append(table("failures", ("where", "why"), list(status["failures"].items())))
    return "".join(parts)


SERVERS = ("server", "host", "state", "doing", "calls", "mean of calls")


def server(one: Any) -> tuple[object, ...]:
    """A row of `SERVERS`."""
    load = one.load
    return one.name, one.host.label, one.state.value, one.doing(), load.calls, f"{load.mean:.3g} s"
