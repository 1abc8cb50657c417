"""A timeline as a picture: SVG, and a page of HTML around it that needs nothing else.

Lives here: texts from plain values. Pure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from grid.trace.timeline import Row, Timeline, family, merged, sums

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 1200, 210, 60, 22, 34
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#bab0ac")
_FAILED = "#e15759"


def svg(timeline: Timeline) -> str:
    """A row per server, time to the right; what a box is, it tells when the mouse is over it."""
    colours = _colours(timeline)
    height = _TOP + _ROW * len(timeline.rows) + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" font-family="sans-serif" font-size="11">',
            f"<title>{_text(timeline.title)}</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *_axis(timeline, height),
            *(part for number, row in enumerate(timeline.rows) for part in _row(timeline, number, row, colours)),
            "</svg>",
        ]
    )


def page(timeline: Timeline) -> str:
    """The picture, a legend, and what the calls took in sum."""
    colours = _colours(timeline)
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{_text(name)}</span>' for name, colour in colours.items()
    )
    rows = "".join(
        f"<tr><td>{_text(one.name)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in (one.calls, span(one.total), span(one.mean), span(one.longest)))
        + f"<td>{one.failed}</td></tr>"
        for one in sums(timeline)
    )
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timeline.began))
    dropped = f"; the first {timeline.dropped} calls are missing" if timeline.dropped else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(timeline.title)}</title><style>
body {{ font: 13px sans-serif; margin: 20px }} .picture {{ overflow-x: auto }}
table {{ border-collapse: collapse }}
td, th {{ padding: 2px 12px; text-align: right }}
td:first-child {{ text-align: left }}
span {{ margin-right: 14px }} i {{ display: inline-block; width: 11px; height: 11px; margin-right: 4px }}
</style></head><body>
<h1>{_text(timeline.title)}</h1>
<p>{began}, {span(timeline.length)}, {len(timeline.rows)} servers{dropped}. Times are the client's.</p>
<p>{legend}<span><i style="background:{_FAILED}"></i>failed or lost</span></p>
<div class="picture">{svg(timeline)}</div>
<table><tr><th></th><th>calls</th><th>in sum</th><th>mean</th><th>longest</th><th>failed</th></tr>{rows}</table>
</body></html>
"""


def span(seconds: float) -> str:
    """Time for people: `12 us`, `3.5 ms`, `4.20 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def ticks(length: float, most: int = 10) -> list[float]:
    """Round times from 0 to `length`: steps of 1, 2 or 5 times a power of ten."""
    if length <= 0:
        return [0.0]
    power: float = 10.0 ** math.floor(math.log10(length / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if length / (power * factor) <= most)
    return [number * step for number in range(int(length / step + 1e-9) + 1)]


def _text(value: str) -> str:
    from html import escape

    # what XML has no place for is shown as what it is
    return escape("".join(c if c in "\t\n" or c.isprintable() else ascii(c)[1:-1] for c in value))


def _colours(timeline: Timeline) -> dict[str, str]:
    """The names that took most have a colour each, all others share the last."""
    return {one.name: _COLOURS[min(at, len(_COLOURS) - 1)] for at, one in enumerate(sums(timeline)[:40])}


def _x(timeline: Timeline, seconds: float) -> float:
    share = seconds / timeline.length if timeline.length > 0 else 0.0
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, max(0.0, share))


def _axis(timeline: Timeline, height: int) -> Iterator[str]:
    for at in ticks(timeline.length):
        x = f"{_x(timeline, at):.1f}"
        yield f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{height - 8}" stroke="#dddddd"/>'
        yield f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle">{at:.6g} s</text>'


def _row(timeline: Timeline, number: int, row: Row, colours: dict[str, str]) -> Iterator[str]:
    y = _TOP + _ROW * number
    begin, end = _x(timeline, row.begin), _x(timeline, row.end)
    share = row.busy / (row.end - row.begin) if row.end > row.begin else 0.0
    label = row.server if len(row.server) < 20 else "..." + row.server[-17:]
    yield f'<text x="4" y="{y + 14}">{_text(label)} <tspan fill="#888888">{_text(row.host[:16])}</tspan></text>'
    yield f'<rect x="{begin:.1f}" y="{y + 2}" width="{end - begin:.1f}" height="{_ROW - 4}" fill="#eeeeee"/>'
    grain = 1.5 * timeline.length / (_WIDTH - _LEFT - _RIGHT)
    for each, count in merged(row.slices, grain):
        x = _x(timeline, each.begin)
        width = max(0.3, _x(timeline, each.end) - x)
        failed = each.outcome != "ok"
        colour = _FAILED if failed else colours.get(family(each.name), _COLOURS[-1])
        took, name = span(each.end - each.begin), family(each.name) if count > 1 else each.name
        many = f"{count} calls in " if count > 1 else ""
        at = f"at {each.begin:.3f} s{', ' + each.outcome if failed else ''}"
        yield (
            f'<rect x="{x:.2f}" y="{y + 2}" width="{width:.2f}" height="{_ROW - 4}" fill="{colour}">'
            f"<title>{_text(name)}: {many}{took} {at}</title></rect>"
        )
    if row.death:
        yield f'<text x="{end + 2:.1f}" y="{y + 15}" fill="{_FAILED}">&#10005;<title>{_text(row.death)}</title></text>'
    yield f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 14}" fill="#888888">{min(1.0, share):.0%}</text>'
