"""The profile of a service: what its servers sampled, as speedscope's JSON and as a flame graph (pure).

Source of the format: https://www.speedscope.app/file-format-schema.json.

Lives here: `Profile`, `ServerProfile`, both forms.
Elsewhere:  sampling (`kernel/sampler.py`), who asks servers (`grids/profiles.py`), the command (`cli/profile.py`).
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid._version import __version__

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_IDLE = -1
_LEAST = 0.001
"""Parts of a flame graph that are less than this share of it are left out."""


@dataclass(frozen=True)
class ServerProfile:
    """What one server did for some seconds.

    `frames`: (function, file, first line). `stacks`: numbers of frames, the outermost first. `threads`: name of each,
    and its runs (number of a stack or -1 for none, seconds), in their order; `MainThread` is the one that runs calls.
    `slowed`: the share of its speed that looking took from the server. `why`: there is no profile.
    """

    server: str
    host: str
    pid: int | None = None
    seconds: float = 0.0
    slowed: float = 0.0
    frames: tuple[tuple[str, str, int], ...] = ()
    stacks: tuple[tuple[int, ...], ...] = ()
    threads: tuple[tuple[str, tuple[tuple[int, float], ...]], ...] = ()
    why: str = ""

    @classmethod
    def read(cls, server: str, host: str, told: dict[str, Any]) -> ServerProfile:
        """What the agent told of it."""
        if told["why"]:
            return cls(server, host, told.get("pid"), why=told["why"])
        return cls(
            *(server, host, told["pid"], told["seconds"]),
            slowed=told["slowed"],
            frames=tuple((name, file, line) for name, file, line in told["frames"]),
            stacks=tuple(map(tuple, told["stacks"])),
            threads=tuple(
                (one["name"], tuple((int(stack), seconds) for stack, seconds in one["runs"])) for one in told["threads"]
            ),
        )

    @property
    def busy_s(self) -> float:
        """For how long its thread for calls ran the user's code."""
        return sum(
            seconds for name, runs in self.threads if name == "MainThread" for at, seconds in runs if at != _IDLE
        )


@dataclass
class _Node:
    """A function below the ones that called it."""

    label: str
    seconds: float = 0.0
    below: dict[str, _Node] = field(default_factory=dict)

    def add(self, labels: Iterable[str], seconds: float) -> None:
        node = self
        node.seconds += seconds
        for label in labels:
            node = node.below.setdefault(label, _Node(label))
            node.seconds += seconds


@dataclass(frozen=True)
class Profile:
    """The servers of one service over the same seconds. `write` makes a file of it."""

    service_id: str
    servers: tuple[ServerProfile, ...]

    @classmethod
    def from_plain(cls, told: dict[str, Any]) -> Profile:
        """What `plain` gave, after JSON."""
        return cls(told["service_id"], tuple(ServerProfile.read(*one) for one in told["servers"]))

    @property
    def slowed(self) -> float:
        """By which share looking slowed the servers down, at most."""
        return max((one.slowed for one in self.servers if not one.why), default=0.0)

    def _sampled(self) -> Iterator[tuple[ServerProfile, str, Sequence[tuple[int, float]]]]:
        for one in self.servers:
            for thread, runs in one.threads:
                yield one, thread, runs

    def speedscope(self) -> dict[str, Any]:
        """For https://www.speedscope.app: a profile for each server, and each thread that its code has started."""
        frames: dict[tuple[str, str, int], int] = {}
        profiles = []
        for one, thread, runs in self._sampled():
            numbers = [frames.setdefault(frame, len(frames)) for frame in one.frames]
            samples = [[numbers[at] for at in one.stacks[stack]] if stack != _IDLE else [] for stack, _ in runs]
            who = f"{one.server} on {one.host}" + ("" if thread == "MainThread" else f", thread {thread}")
            profiles.append(
                {
                    "type": "sampled",
                    "name": who,
                    "unit": "seconds",
                    "startValue": 0,
                    "endValue": sum(seconds for _, seconds in runs),
                    "samples": samples,
                    "weights": [seconds for _, seconds in runs],
                }
            )
        return {
            "$schema": _SCHEMA,
            "name": f"{self.service_id}: {self.summary()}",
            "exporter": f"grid {__version__}",
            "activeProfileIndex": 0,
            "shared": {"frames": [{"name": name, "file": file, "line": line} for name, file, line in frames]},
            "profiles": profiles,
        }

    def flame_graph(self) -> str:
        """One page of HTML, without a script and without anything from elsewhere: all servers together."""
        root = _Node(self.service_id)
        for one, thread, runs in self._sampled():
            for stack, seconds in runs:
                if stack != _IDLE:
                    labels = [_label(one.frames[at]) for at in one.stacks[stack]]
                    root.add(labels if thread == "MainThread" else [f"thread {thread}", *labels], seconds)
        missing = "".join(
            f"<p>{_text(f'{one.server} on {one.host}: {one.why}')}</p>" for one in self.servers if one.why
        )
        body = "".join(_drawn(root, root.seconds)) if root.seconds else "<p>No server ran a call meanwhile.</p>"
        title = _text(f"{self.service_id}: {self.summary()}")
        return _PAGE.format(title=title, missing=missing, body=body)

    def summary(self) -> str:
        """How many servers, for how long, and by how much they were slowed down."""
        told = [one for one in self.servers if not one.why]
        seconds, busy = max((one.seconds for one in told), default=0.0), sum(one.busy_s for one in told)
        whole = sum(one.seconds for one in told)
        share = f"{100 * busy / whole:.0f} % of it in calls" if whole else "nothing"
        who = f"{len(told)} of {len(self.servers)} servers for {seconds:.1f} s"
        return f"{who}, {share}, slowed by {100 * self.slowed:.1f} %"

    def write(self, path: str | os.PathLike[str]) -> None:
        """A flame graph where the name ends in `.html`, JSON for speedscope otherwise; whole, or not at all."""
        text = self.flame_graph() if str(path).endswith((".html", ".htm")) else json.dumps(self.speedscope())
        place = Path(path)
        new = place.with_name(f".{place.name}.{os.getpid()}.new")
        try:
            new.write_text(text, encoding="utf-8", errors="backslashreplace")
            new.replace(place)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _label(frame: tuple[str, str, int]) -> str:
    name, file, line = frame
    return f"{name} ({os.path.basename(file)}:{line})"


def _drawn(node: _Node, whole: float) -> Iterator[str]:
    """Boxes within boxes, the widest first. Without recursion: stacks are deep."""
    pending: list[_Node | str] = [node]
    parents: list[float] = [whole]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            parents.pop()
            yield one
            continue
        width, share = 100 * one.seconds / parents[-1], one.seconds / whole
        said = _text(one.label)
        hue = 20 + sum(map(ord, one.label)) % 40
        yield f'<div class="f" style="width:{width:.4f}%"><p style="background:hsl({hue} 90% 70%)" '
        yield f'title="{said}: {one.seconds:.2f} s, {100 * share:.1f} %">{said}</p><div class="r">'
        pending.append("</div></div>")
        parents.append(one.seconds)
        below = sorted(one.below.values(), key=lambda each: each.seconds)
        pending += [each for each in below if each.seconds >= _LEAST * whole]


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 12px system-ui, sans-serif; margin: 1em }}
.r {{ display: flex; align-items: flex-start }}
.f {{ min-width: 0; box-sizing: border-box }}
.f > p {{ margin: 0 1px 1px 0; padding: 1px 3px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  border-radius: 2px }}
.f > p:hover {{ outline: 1px solid #333 }}
</style></head><body><h1 style="font-size:14px">{title}</h1>{missing}{body}</body></html>
"""
