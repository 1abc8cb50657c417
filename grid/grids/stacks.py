"""Where calls are just now, for `g.stacks()` and `grid dump`: all hosts are asked side by side.

Lives here: the questions to agents, what is known of servers besides their stacks.
Elsewhere:  reading the answers (`services/stack.py`), how a server that is deep in C code tells its stack
            (`kernel/stacks.py`), the command (`cli/dump.py`).
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from grid.errors import GridError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.kernel.stacks import own_threads
from grid.services.kernel_server import KernelServer
from grid.services.stack import Stack, StackFrame, StackThread, read_threads

ANSWER_S = 3.0
"""For the answer of a host; its agent gives servers one second."""


class Stacks:
    """Looks at all processes of a grid."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def stacks(self, service_id: str | None = None, *, host: str | None = None) -> list[Stack]:
        """Where servers are just now, also those that sit deep in C code; then agents, and the grid's own process.

        Costs a server about a millisecond. All hosts are asked side by side; what does not answer within 4 s says so in
        `why`.

        Args:
            service_id: Only the servers of this service.
            host: Only what runs on the host of this name.

        Raises:
            UnknownService, ValueError: There is no such service, no such host.
        """
        if service_id is not None:
            self._fleet.grid._services.find(service_id)
        homes = [home for home in self._fleet.homes if host is None or home.host.label == host]
        if host is not None and not homes:
            known = ", ".join(sorted({home.host.label for home in self._fleet.homes})) or "none"
            raise ValueError(f"the grid has no host {host!r}. It has: {known}")
        servers = [one for one in self._fleet.servers() if service_id is None or one.service_id == service_id]
        asked = []
        for home in homes:
            here = [server for server in servers if server.home is home]
            asked.append((home, here, _question(home, None if service_id is None else here)))
        found: list[Stack] = []
        for home, here, answer in asked:
            told, why = answer()
            found += [_stack(server, told.get(server.name, {"why": why})) for server in here]
            agent = told.get("", {"pid": home.report.get("pid"), "why": why})
            found.append(_plain("agent", home.host.label, agent))
        if host is None:
            found.append(_plain("client", "", {"pid": os.getpid(), "text": own_threads()}))
        return found


def _stack(server: KernelServer, told: dict[str, Any]) -> Stack:
    return Stack(
        *(server.name, server.host.label, told.get("pid")),
        threads=tuple(map(_with_source, read_threads(told.get("text", ""), server=True))),
        doing=server.doing(),
        seconds=server.call_s(),
        why=told["why"],
    )


def _with_source(thread: StackThread) -> StackThread:
    """The code of scripts, too, which are here and not on the host: their functions travel, their files don't."""
    frames, users = (tuple(map(_sourced, those)) for those in (thread.frames, thread.users))
    return replace(thread, frames=frames, users=users)


def _sourced(frame: StackFrame) -> StackFrame:
    if frame.source or not frame.line or not os.path.isabs(frame.file):
        return frame
    linecache.checkcache(frame.file)
    return replace(frame, source=linecache.getline(frame.file, frame.line).strip())


def _plain(name: str, host: str, told: dict[str, Any]) -> Stack:
    """Of a process that is no server."""
    return Stack(name, host, told["pid"], read_threads(told.get("text", ""), server=False), why=told.get("why", ""))


def _question(
    home: Home, servers: Sequence[KernelServer] | None
) -> Callable[[], tuple[dict[str, dict[str, Any]], str]]:
    """Ask one host; the function waits for its answer: name of each server -> what it told, or why there is nothing."""
    names = None if servers is None else [server.name for server in servers]
    if (outage := home.outage()) is not None:
        silence = f"its host has not answered for {outage:.1f} s"
        return lambda: ({}, silence)
    try:
        later = home.ask_later("stacks", names, timeout=ANSWER_S)
    except GridError as exc:
        text = str(exc)
        return lambda: ({}, text)

    def answer() -> tuple[dict[str, dict[str, Any]], str]:
        try:
            return {one["name"]: one for one in later()}, ""
        except GridError as exc:
            return {}, str(exc)

    return answer
