"""Replicas on the servers of one service: walk, exchange, go on.

Lives here: calls of all replicas, telling them their parameters, exchange of states, the run without a barrier.
Elsewhere:  the rules (`exchange`, `meeting`), servers and groups (`grids/abstract.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.ensemble.exchange import Chance, Exchange, Rule, tempering
from grid.ensemble.meeting import Meeting
from grid.errors import CallTimeout, ServiceError

if TYPE_CHECKING:
    from typing_extensions import Self

    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy
    from grid.services.result import Result

_LOOK_S = 1.0


class Ensemble:
    """All live servers of a service as replicas, reserved until the end of `with`; replica i is on server i.

    Args:
        parameters: A value for each rung, or a function of the number of replicas that makes them.
        rng: Decides about exchanges. In rounds the same one and the same servers give the same run.
        rule: Logarithm of the gain of an exchange; default: two temperatures, by energies.
        tell: Method of the instance that takes its parameter.
    Raises:
        ServiceError: Not as many parameters as servers. UnknownService, NoServers: As `acquire_service`.
    """

    def __init__(
        self,
        grid: AbstractGrid,
        service_id: str,
        parameters: Sequence[Any] | Callable[[int], Sequence[Any]],
        *,
        rng: Chance,
        rule: Rule = tempering,
        tell: str = "set_temperature",
    ) -> None:
        self._grid, self._service_id, self._tell = grid, service_id, tell
        self.replicas: list[Proxy] = grid._service(service_id).hold_group(None)
        try:
            made = list(parameters(len(self.replicas)) if callable(parameters) else parameters)
            if len(made) != len(self.replicas):
                raise ServiceError(
                    f"there are {len(made)} parameters for {len(self.replicas)} servers",
                    service_id=service_id,
                    hint="Pass a function that makes as many as it is told",
                )
        except BaseException:
            grid.release_all(service_id)
            raise
        self.ladder = Exchange(made, rng, rule)
        self._told: list[Result] = []

    def __len__(self) -> int:
        return len(self.replicas)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._grid.ishalted():
            told, self._told = self._told, []
            if kind is None:
                self._grid.gather(told)
            self._grid.release_all(self._service_id)

    # -- rounds ----------------------------------------------------------------------------------------------------

    def each(self, method: str, args: Callable[[int], Iterable[Any]] = lambda replica: ()) -> list[Any]:
        """Call `method` on every replica, with `args(i)` for replica i; wait, and return what they answered."""
        told, self._told = self._told, []
        results = [proxy._call(method, tuple(args(i)), {}) for i, proxy in enumerate(self.replicas)]
        values = self._grid.gather(results)
        self._grid.gather(told)  # done long since: they come before the calls; here an error of theirs is raised
        return values

    def exchange(self, reports: Sequence[Any], first: int = 0) -> None:
        """Try neighbours in pairs from rung `first` on, and tell all replicas their parameters, without waiting."""
        self.ladder.swap(reports, first)
        self.tell()

    def tell(self) -> None:
        """Give every replica its parameter; it has it before the calls that are made from now on."""
        self._told += [self._tell_one(i) for i in range(len(self.replicas))]

    def _tell_one(self, replica: int) -> Result:
        return self.replicas[replica]._call(self._tell, (self.ladder.parameter(replica),), {})

    def swap_states(self, pairs: Iterable[tuple[int, int]], get: str = "get_state", put: str = "set_state") -> None:
        """Exchange the states of replicas by pairs: what `get` answers on one is handed to `put` on the other.

        For rules where parameters can't be exchanged. All pairs at once. Large states go from host to host, or stay on
        theirs, and pass through the client only where hosts can't reach each other.

        Raises:
            ValueError: A replica is in two pairs, or in one with itself. Whatever `get` or `put` raised.
        """
        wanted = list(pairs)
        if len({replica for pair in wanted for replica in pair}) != 2 * len(wanted):
            raise ValueError(f"a replica can be in one pair only, with another: {wanted}")
        with ExitStack() as kept:
            states = {i: kept.enter_context(self._grid.keep(self.replicas[i], get)) for pair in wanted for i in pair}
            turned = [(of, to) for a, b in wanted for of, to in ((a, b), (b, a))]
            on_their_way = [states[of].offer(self.replicas[to], put) for of, to in turned]
            self._grid.gather([call() for call in on_their_way])

    # -- without a barrier -----------------------------------------------------------------------------------------

    def run(
        self,
        method: str,
        stretches: int,
        args: Callable[[int], Iterable[Any]] = lambda replica: (),
        *,
        report: Callable[[Any], Any] = lambda answer: answer,
        seen: Callable[[int, Any], None] = lambda replica, answer: None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Every replica walks `stretches` times and exchanges with whichever neighbour comes first, at its own pace.

        A slow replica holds up its neighbours alone. Which exchanges are tried depends on who is faster, so two runs
        differ, though each replica's own stream of random numbers is the same.

        Args:
            method, args: The method of a stretch, called with `args(i)` for replica i.
            report: Makes of an answer the value that the rule needs; by default the answer itself.
            seen: Hears of each answer, here in the caller's thread.
            timeout: Seconds for the whole; None: as long as it takes.
        Returns:
            The last answer of each replica.
        Raises:
            TimeoutError: Time is up; calls under way go on. ServerLost, or what `method` raised: it ends the run.
        """
        if stretches < 1:
            raise ValueError(f"stretches must be 1 or more, not {stretches}")
        deadline = None if timeout is None else time.monotonic() + timeout
        arrivals: SimpleQueue[tuple[int, Result]] = SimpleQueue()
        meeting = Meeting(self.ladder)
        left = [stretches] * len(self.replicas)
        last: list[Any] = [None] * len(self.replicas)

        before, self._told = self._told, []
        told: dict[int, Result] = {}

        def walk(replica: int) -> None:
            told[replica] = self._tell_one(replica)
            result = self.replicas[replica]._call(method, tuple(args(replica)), {})
            result.add_done_callback(lambda done: arrivals.put((replica, result)))

        for replica in range(len(self.replicas)):
            walk(replica)
        self._grid.gather(before)
        while len(meeting.finished) < len(self.replicas):
            replica, result = self._next(arrivals, deadline, last)
            told[replica].get(_LOOK_S)  # it came before the call, so it is there
            last[replica] = result.get(0)
            seen(replica, last[replica])
            left[replica] -= 1
            going = meeting.come(replica, report(last[replica])) if left[replica] else meeting.finish(replica)
            for other in going:
                walk(other)
        return last

    def _next(
        self, arrivals: SimpleQueue[tuple[int, Result]], deadline: float | None, last: Sequence[Any]
    ) -> tuple[int, Result]:
        while True:
            remaining = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            try:
                return arrivals.get(timeout=max(0.0, remaining))
            except Empty:
                self._grid._check_usable()
                if deadline is not None and time.monotonic() >= deadline:
                    raise CallTimeout(
                        f"{sum(answer is not None for answer in last)} of {len(last)} replicas have answered so far",
                        hint="Calls under way go on",
                    ) from None
