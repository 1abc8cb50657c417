"""Small maps of a function whose pace is known: made by the caller's own thread, a pack to each server, at once.

Samplers make thousands of maps of a few tiny items. A thread, and packs that feel their way, cost more there than the
work. So where an earlier map has told how long an item takes, and all of them are done within `QUICK_S`, the caller
sends one pack to each of as many free servers as are worth it, and waits for them. Whatever is out of the ordinary is
left to an ordinary map: no server free, others waiting, a server lost, an argument that can't travel.

Lives here: when, to how many servers, sending and collecting.
Elsewhere:  ordinary maps (`work`), packs on a server (`kernel/serve.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grid.compat.crew import Crew, Function
from grid.errors import SerialisationError, ServerLost
from grid.services.handing import NoValue
from grid.services.mapping import unpacked

if TYPE_CHECKING:
    from grid.services.proxy import Proxy

QUICK_S = 0.02
"""The work of each server takes this long, at most."""
WORTH_S = 0.0002
"""One more server is used for each this many seconds of work: a pack's way costs as much."""


def small_map(crew: Crew, function: Function, items: Sequence[Any], *, star: bool) -> list[Any] | None:
    """Outcomes of the items in their order (`NoValue` for an error); None: make an ordinary map of it."""
    service, ground = crew.service, crew.service.ground
    if function.run_s is None or not items or any(hook.hears_calls for hook in ground.hooks):
        return None
    total_s = function.run_s * len(items)
    wanted = min(len(items), 1 + int(total_s / WORTH_S))
    if total_s > QUICK_S * min(wanted, crew.size):
        return None
    proxies = _free(crew, wanted)
    if not proxies or total_s > QUICK_S * len(proxies):
        for proxy in proxies:
            service.release(proxy)
        return None
    size = math.ceil(len(items) / len(proxies))
    sent: list[tuple[int, int, Any]] = []
    try:
        for number, proxy in enumerate(proxies):
            first, last = number * size, min(len(items), (number + 1) * size)
            if first >= last:
                continue
            crew.ship(function, proxy)
            pack = (function.name, items[first:last], star)
            sent.append((first, last, proxy._server.submit("@map", pack, {}, proxy)))
    except (ServerLost, SerialisationError):
        if sent:
            return _collect(crew, function, sent, len(items))  # what was not sent is `MissingValue` there
        return None
    finally:
        for proxy in proxies:
            service.release(proxy)  # late: each is free when it has answered
    return _collect(crew, function, sent, len(items))


class MissingValue:
    """Stands for the outcome of an item that has to be mapped in the ordinary way; `lost`: its server died with it."""

    def __init__(self, lost: BaseException | None) -> None:
        self.lost = lost


def _free(crew: Crew, wanted: int) -> list[Proxy]:
    """As many free servers as there are, up to `wanted`; none where others wait for one."""
    found: list[Proxy] = []
    while len(found) < wanted and (proxy := crew.grid._service(crew.service_id).at_once()) is not None:
        found.append(proxy)
    return found


def _collect(crew: Crew, function: Function, sent: Sequence[tuple[int, int, Any]], length: int) -> list[Any]:
    outcomes: list[Any] = [_NOT_SENT] * length
    try:
        for first, last, result in sent:
            refused = None
            try:
                outcomes[first:last] = unpacked(result.get(), result._where())
                function.ran(last - first, result.seconds)
            except ServerLost as exc:
                outcomes[first:last] = [MissingValue(exc)] * (last - first)
            except Exception as exc:
                refused = crew.refusal(function, result.server) or exc
                outcomes[first:last] = [NoValue(refused)] * (last - first)
    except BaseException:  # Ctrl-C: what has not begun shall not
        for _, _, result in sent:
            result.cancel()
        raise
    return outcomes


_NOT_SENT = MissingValue(None)
