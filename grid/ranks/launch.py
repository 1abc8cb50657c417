"""The client's side of ranks: servers, ways between them, news of one for all others, and what came of it.

    publish RankProcess, RankDesk ─> open ─> try ways between hosts ─> run ─> finish ─> value
                                                             │
                     one was lost, failed, returned: told to those that run, by the desks of their hosts

Lives here: `Ranks`, with a thread of its own while programs run, and one for each host that has no straight way to
            another.
Elsewhere:  what runs over there (`rank`, `desk`), what a program calls (`comm`).
"""

from __future__ import annotations

import pickle
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from grid.arguments import check, check_number
from grid.errors import GridError, GridStopped, RankError, RankFailed, RankLost, ServerLost
from grid.limits import Limits, checked_timeout
from grid.ranks.desk import RankDesk
from grid.ranks.lane import NOTICE
from grid.ranks.rank import RankProcess
from grid.slots.needs import Needs

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.service import Service
    from grid.services.unfinished import Unfinished

_CANCEL = -1
_COLLECT_S = 1.0
_NAMED = 10


class RanksGround(Protocol):
    """A grid, as far as ranks use it."""

    limits: Limits
    unfinished: Unfinished

    @property
    def n_hosts(self) -> int: ...
    @property
    def publish(self) -> Callable[..., str]: ...
    def _service(self, service_id: str) -> Service: ...
    def terminate(self, service_id: str | None = None) -> None: ...
    def ishalted(self) -> bool: ...


class Ranks(Future[list[Any]]):
    """The future of a program that runs as ranks: its value is what they returned, a list in their order.

    `servers`: the server of each rank, by name; `hosts`: their hosts. `unreceived`: messages that nobody received, as
    (receiver, sender, tag, bytes), once it is done; `get` and `result` warn of them.
    """

    def __init__(
        self,
        ground: RanksGround,
        instance: RankProcess,
        n: int | None,
        *,
        needs: Needs | None = None,
        where: str | None = None,
        before: Callable[[Sequence[Any]], None] = lambda homes: None,
    ) -> None:
        super().__init__()
        check_number("n", n, 1, int | None)
        room = ground.n_hosts
        if n is not None and n > room:
            raise _too_few(n, room)
        self._ground, self._limits = ground, ground.limits
        self._services: list[str] = []
        self.unreceived: list[tuple[int, int, int, int]] = []
        self._warned = False
        self._ended: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
        try:
            self._proxies = self._publish(instance, "all" if n is None else n, needs=needs, where=where)[:n]
            if n is not None and len(self._proxies) < n:
                raise _too_few(n, len(self._proxies))
            servers = [proxy._server for proxy in self._proxies]
            self.servers = [server.name for server in servers]
            self.hosts = [server.host.label for server in servers]
            self._homes: list[Any] = [getattr(server, "home", None) for server in servers]
            before(list(dict.fromkeys(self._homes)))
            desks = self._publish(RankDesk(), "all", missing="ok", servers=1, needs=Needs(), where=where)
            self._desks: dict[Any, Proxy] = {proxy._server.home: proxy for proxy in desks}  # type: ignore[attr-defined]
            self._open()
        except BaseException:
            self._withdraw()
            raise
        self.set_running_or_notify_cancel()
        ground.unfinished.add(self)
        threading.Thread(target=self._work, name="grid-ranks", daemon=True).start()

    # -- before programs run ---------------------------------------------------------------------------------------

    def _publish(self, instance: Any, wait: str | int, **options: Any) -> list[Proxy]:
        service_id = self._ground.publish(instance, wait=wait, republish=True, **options)
        self._services.append(service_id)
        return list(self._ground._service(service_id).hold_group(self._limits.publish_s))

    def _open(self) -> None:
        opened = _all([proxy._call("open", (), {}) for proxy in self._proxies], self._limits.start_s)
        self._inlets = [inlets for inlets, _, _ in opened]
        self.pids = [pid for _, _, pid in opened]
        for home, label in zip(self._homes, self.hosts, strict=True):
            if home not in self._desks:
                raise RankError(f"host {label!r} has no server for news of other ranks", hint="Look at g.failures")
        first = {home: rank for rank, home in reversed(list(enumerate(self._homes)))}
        straight = self._find_ways(first)
        pairs = [(a, b) for a in first for b in first if a is not b]
        relayed = {a for a, b in pairs if (a, b) not in straight}
        self._outboxes: dict[Any, Proxy] = {}
        if relayed:
            boxes = self._publish(RankDesk(), "all", missing="ok", servers=1, needs=Needs())
            self._outboxes = {
                home: proxy
                for proxy in boxes
                if (home := proxy._server.home) in relayed  # type: ignore[attr-defined]
            }
        ends = _all([box._call("open", (), {}) for box in self._outboxes.values()], self._limits.start_s)
        boxes_at = {home: inlets["ipc"] for home, inlets in zip(self._outboxes, ends, strict=True)}

        def way(here: Any, rank: int) -> str:
            there = self._homes[rank]
            if here is there:
                return str(self._inlets[rank]["ipc"])
            kind = straight.get((here, there))
            return str(boxes_at[here] if kind is None else self._inlets[rank][kind])

        self._runs = []
        for me, proxy in enumerate(self._proxies):
            seats = [
                (host, server, opened[rank][1], way(self._homes[me], rank))
                for rank, (host, server) in enumerate(zip(self.hosts, self.servers, strict=True))
            ]
            self._runs.append(proxy._call("run", (me, seats), {}))
        self.relayed = sorted((a.host.label, b.host.label) for a, b in pairs if (a, b) not in straight)
        """Pairs of hosts, from and to, whose messages go through the client."""

    def _find_ways(self, first: Mapping[Any, int]) -> dict[tuple[Any, Any], str]:
        """Pairs of hosts whose first can write to the second, and to which kind of inlet."""
        straight: dict[tuple[Any, Any], str] = {}
        asked = []
        for here, rank in first.items():
            others = [home for home in first if home is not here]
            straight.update({(here, there): "ipc" for there in others if here.local and there.local})
            tried = [home for home in others if "tcp" in self._inlets[rank] and "tcp" in self._inlets[first[home]]]
            if tried:
                inlets = [self._inlets[first[home]]["tcp"] for home in tried]
                result = self._proxies[rank]._call("reach", (inlets, self._limits.probe_s), {})
                asked.append((here, tried, result))
        for here, tried, result in asked:
            reached = result.get(self._limits.probe_s + self._limits.control_s)
            straight.update({(here, there): "tcp" for there, yes in zip(tried, reached, strict=True) if yes})
        return straight

    # -- while they run --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            for home, box in self._outboxes.items():
                threading.Thread(target=self._relay, args=(home, box), name="grid-ranks-relay", daemon=True).start()
            outcome: Any = self._watch()
        except BaseException as exc:
            outcome = exc
        self._withdraw()
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def _watch(self) -> list[Any]:
        for rank, run in enumerate(self._runs):
            run.add_done_callback(partial(self._has_ended, rank))
        running = set(range(len(self._runs)))
        values: list[Any] = [None] * len(running)
        sent: dict[int, dict[int, int]] = {}
        failure: BaseException | None = None
        deadline: float | None = None
        while running:
            try:
                rank, error = self._ended.get(
                    timeout=None if deadline is None else max(0.0, deadline - time.monotonic())
                )
            except Empty:
                break  # they were told, and do not heed: they end with their servers
            if rank >= 0 and error is None:
                running.discard(rank)
                error = self._runs[rank].exception(0)
            if error is None:
                values[rank], sent[rank] = self._runs[rank].get(0)
                self._tell(running, {"what": "returned", "rank": rank, "sent": sent[rank]})
            elif failure is None:
                failure = error if rank < 0 else self._named(rank, error)
                deadline = time.monotonic() + self._limits.stop_s
                if isinstance(failure, GridStopped):
                    break
                lost = isinstance(failure, RankLost)
                why = _words(error) if rank >= 0 else "was cancelled"
                self._tell(running, {"what": "lost" if lost else "failed", "rank": max(0, rank), "why": why})
        if failure is not None:
            raise failure
        self._finish(sent)
        return values

    def _finish(self, sent: dict[int, dict[int, int]]) -> None:
        patience = self._limits.control_s
        asked = [
            proxy._call("finish", ({of: counts.get(me, 0) for of, counts in sent.items() if of != me}, patience), {})
            for me, proxy in enumerate(self._proxies)
        ]
        for me, left in enumerate(_all(asked, 2 * patience)):
            self.unreceived += [(me, *each) for each in left]

    def _named(self, rank: int, error: BaseException) -> BaseException:
        """An error of a rank, with the rank and its host."""
        if isinstance(error, GridStopped):
            return error
        host, server = self.hosts[rank], self.servers[rank]
        if isinstance(error, RankLost) and isinstance(error.rank, int):  # it misses another one, before we do
            return RankLost(
                f"rank {error.rank} on host {error.host!r}: {error.what}",
                rank=error.rank,
                host=error.host,
                hint="All other ranks were told",
            )
        kind: type[RankError] = RankLost if isinstance(error, ServerLost) else RankFailed
        named = kind(
            f"rank {rank} on host {host!r} (server {server}) {_words(error)}",
            rank=rank,
            host=host,
            hint="All other ranks were told",
        )
        named.__cause__ = error
        return named

    def _tell(self, ranks: set[int], news: dict[str, Any]) -> None:
        """Write news to the inlets of these ranks."""
        packed = (b"", 0, 0, NOTICE, [pickle.dumps(news)])
        at: dict[Any, list[Any]] = {}
        for rank in sorted(ranks):
            at.setdefault(self._homes[rank], []).append((self._inlets[rank]["ipc"], rank, packed))
        for home, letters in at.items():
            told = self._desks[home]._call("hand_out", (letters,), {})
            told.add_done_callback(partial(self._was_told, home))

    def _has_ended(self, rank: int, _: object) -> None:
        self._ended.put((rank, None))

    def _was_told(self, home: Any, done: Any) -> None:
        error = None if done.cancelled() else done.exception(0)
        if error is not None and not self._ground.ishalted():
            rank = self._homes.index(home)
            self._ended.put((rank, error))

    def _relay(self, home: Any, box: Proxy) -> None:
        """Thread: carry letters from one host to others, until the box is withdrawn."""
        try:
            while not self.done():
                letters = box._call("collect", (_COLLECT_S,), {}).get()
                at: dict[Any, list[Any]] = {}
                for receiver, packed in letters:
                    there = self._homes[receiver]
                    at.setdefault(there, []).append((self._inlets[receiver]["ipc"], receiver, packed))
                _all([self._desks[there]._call("hand_out", (each,), {}) for there, each in at.items()], None)
        except Exception as exc:
            if not self.done() and self._services:
                self._ended.put((self._homes.index(home), exc))

    def _withdraw(self) -> None:
        services, self._services = self._services, []
        for service_id in services:
            if not self._ground.ishalted():
                try:
                    self._ground.terminate(service_id)
                except GridError:
                    pass  # it has ended

    # -- what came of it -------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> list[Any]:
        """Wait for the values of all ranks.

        Raises:
            TimeoutError: They run on. RankLost, RankFailed: Of the first rank that was lost, or whose program raised,
                with its rank and host; `__cause__` is the error itself. CancelledError.
        """
        return self.result(timeout)

    def result(self, timeout: float | None = None) -> list[Any]:
        values = super().result(checked_timeout(timeout))
        if self.unreceived and not self._warned:
            self._warned = True
            warnings.warn(self._told_unreceived(), RuntimeWarning, stacklevel=3)
        return values

    def _told_unreceived(self) -> str:
        named = [
            f"rank {me} got {size} bytes from rank {sender} with tag {tag}"
            for me, sender, tag, size in self.unreceived[:_NAMED]
        ]
        more = len(self.unreceived) - _NAMED
        return f"messages that nobody received: {'; '.join(named)}" + (f"; and {more} more" if more > 0 else "")

    def left(self) -> list[str]:
        """See `Source.left`."""
        return [] if self.done() else [f"{len(self.servers)} ranks"]

    def join(self, timeout: float | None = None) -> bool:
        """See `Source.join`."""
        return bool(wait([self], timeout).done)

    def cancel(self) -> bool:
        """End all ranks; False if they had ended."""
        if self.done():
            return False
        self._ended.put((_CANCEL, CancelledError()))
        return True

    def cancelled(self) -> bool:
        """Whether they were ended by `cancel`."""
        return super().cancelled() or (self.done() and isinstance(self.exception(), CancelledError))


def run_ranks(
    ground: RanksGround,
    main: Callable[..., Any],
    n: int | None,
    args: Sequence[Any],
    kw: Mapping[str, Any],
    needs: Needs | None,
    where: str | None,
) -> Ranks:
    """See `Grid.ranks`."""
    check("needs", needs, Needs | None)
    check("where", where, str | None)
    if not callable(main):
        raise TypeError(f"main must be a function of a communicator, not {main!r}")
    return Ranks(ground, RankProcess(main, tuple(args), dict(kw)), n, needs=needs, where=where)


def _all(results: Sequence[Result], timeout: float | None) -> list[Any]:
    return [result.get(timeout) for result in results]


def _words(error: BaseException) -> str:
    if isinstance(error, ServerLost):
        return f"was lost: {error.what}"
    return f"raised {type(error).__name__}: {error}"


def _too_few(n: int, room: int) -> RankError:
    return RankError(
        f"{n} ranks were asked for, and this grid has {room} servers",
        hint="Ask for fewer, name more hosts, or raise n_cpu of the hosts",
    )
