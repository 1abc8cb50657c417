"""Handing out work: packs to servers that are free, again where one died, back where others wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from grid.errors import ConnectError, NoServers, SerialisationError
from grid.services import handing
from grid.services.handing import Handing, ItemPack, NoValue
from grid.services.hold import Waiter
from grid.services.service import Service
from tests.grounds import service_of


class Items:
    """A supply of packs of a fixed size. What became of items is in `outcomes`."""

    name, service = "items", None

    def __init__(self, count: int, size: int = 1, retries: int = 0, ahead: int = 1) -> None:
        self.left = deque(range(count))
        self.size, self.retries, self.ahead = size, retries, ahead
        self.outcomes: dict[int, Any] = {}
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.unsendable: set[int] = set()
        self.unanswered: set[int] = set()  # items before which a host is asked something, and tells nothing

    def is_done(self, cancelled: bool) -> bool:
        return cancelled or not self.left

    def is_dry(self) -> bool:
        return not self.left

    def take(self, under_way: int, servers: int, all_busy: bool) -> ItemPack | None:
        if not self.left or under_way >= self.ahead or (under_way and not all_busy):
            return None
        return ItemPack(self.left[0], [self.left.popleft() for _ in range(min(self.size, len(self.left)))])

    def prepare(self, proxy: Any) -> None:
        pass

    def send(self, proxy: Any, pack: ItemPack) -> Any:
        if self.unsendable.intersection(pack.items):
            raise SerialisationError("it can't travel", hint="")
        if found := self.unanswered.intersection(pack.items):
            self.unanswered -= found
            raise ConnectError("it did not answer", host="here", hint="")
        return proxy._call("@map", tuple(pack.items), {})

    def refused(self, pack: ItemPack, error: BaseException) -> list[ItemPack]:
        if len(pack.items) > 1:
            return pack.singles(pack.tries)
        self.arrive(pack, [NoValue(error)])
        return []

    def check(self, server: Any) -> None:
        pass

    def read(self, pack: ItemPack, result: Any) -> list[Any]:
        return list(result.get(0))

    def arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        self.outcomes.update(zip(pack.items, outcomes, strict=True))

    def label(self, pack: ItemPack) -> str | None:
        return None

    def told(self, packs: list[ItemPack]) -> str:
        return f"items {[item for pack in packs for item in pack.items]} were"

    def look(self) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        self.error = error

    def end(self) -> None:
        self.over.set()


def start(service: Service, items: Items, most: int | None = None) -> Handing:
    made = Handing(service, items, most)
    made.start()
    return made


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def is_free(service: Service, *names: str) -> bool:
    return sorted(service.roster.free) == sorted(names)


@pytest.mark.row("G45")
def test_packs_go_to_all_that_are_free_and_servers_go_back() -> None:
    service, (one, two) = service_of("s/0", "s/1")
    items = Items(6, size=2)
    start(service, items)
    for seat in (one, two):
        due = seat.next_call()
        due.end([10 * item for item in due.args])
    until(lambda: one.running() or two.running())
    for seat in (one, two):
        if due := seat.running():
            due.end([10 * item for item in due.args])
    assert items.over.wait(20) and items.error is None
    assert items.outcomes == {item: 10 * item for item in range(6)}
    assert is_free(service, "s/0", "s/1")


@pytest.mark.row("E02", "G54")
def test_items_of_a_dead_server_are_tried_again_one_by_one_and_then_given_up() -> None:
    service, (one, two) = service_of("s/0", "s/1")
    items = Items(2, size=2, retries=1)
    start(service, items, most=1)
    assert one.next_call().args == (0, 1)
    one.die()
    again = two.next_call()
    assert again.args == (0,)
    again.end(["zero"])
    assert two.next_call().args == (1,)
    two.die()
    assert items.over.wait(20)
    assert items.outcomes[0] == "zero"
    lost = items.outcomes[1].error
    assert "items [1] were there, in attempt 2" in str(lost)


@pytest.mark.row("E02")
def test_no_server_that_is_left_ends_it_with_the_last_loss_as_its_cause() -> None:
    service, (one,) = service_of("s/0")
    items = Items(3, retries=5)
    start(service, items)
    one.next_call()
    one.die()
    assert items.over.wait(20)
    assert isinstance(items.error, NoServers) and "it died" in str(items.error.__cause__)


@pytest.mark.row("G45")
def test_one_item_that_can_not_be_sent_takes_no_others_along() -> None:
    service, (one,) = service_of("s/0")
    items = Items(3, size=3, ahead=3)
    items.unsendable = {1}
    start(service, items)
    until(lambda: len(one.made) == 2)
    for due in list(one.made):
        due.end(["fine"])
    assert items.over.wait(20)
    assert items.outcomes[0] == items.outcomes[2] == "fine"
    assert isinstance(items.outcomes[1].error, SerialisationError)


@pytest.mark.row("G45")
@pytest.mark.parametrize("who", ["the agent tells", "the server itself is quicker"])
def test_what_waits_behind_a_slow_pack_runs_elsewhere(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "_STUCK_S", 0.0)
    service, (one, two) = service_of("s/0", "s/1")
    one.tells_itself = "itself" in who
    held = service.at_once(two)
    assert held is not None
    items = Items(2, ahead=2)
    start(service, items)
    until(lambda: len(one.made) == 2)
    service.release(held)  # the second server is free now
    assert two.next_call().args == (1,)
    one.made[0].end(["slow"])
    two.made[-1].end(["moved"])
    assert items.over.wait(20) and items.outcomes == {0: "slow", 1: "moved"}


@pytest.mark.row("G45", "G46")
def test_a_host_that_is_cut_off_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind a pack there is recalled once, and nobody waits for the answer."""
    monkeypatch.setattr(handing, "_STUCK_S", 0.0)
    service, (one, two) = service_of("s/0", "s/1")
    held = service.at_once(two)
    assert held is not None
    one.tells = False
    items = Items(6, ahead=2, retries=1)
    start(service, items)
    until(lambda: len(one.made) == 2 and one.recalled)
    service.release(held)

    def work_until(count: int) -> bool:
        if (due := two.running()) is not None:
            due.end([due.args[0]])
        return len(items.outcomes) == count

    until(lambda: work_until(4))
    assert one.recalled == 1 and items.error is None
    one.die()
    until(lambda: work_until(6))
    assert items.over.wait(20) and items.outcomes == {item: item for item in range(6)}


@pytest.mark.row("G45", "G48")
def test_items_that_a_host_did_not_take_are_tried_again() -> None:
    service, (one,) = service_of("s/0")
    items = Items(3, retries=1)
    items.unanswered = {1}
    start(service, items)

    def all_done() -> bool:
        if (due := one.running()) is not None:
            due.end([due.args[0]])
        return len(items.outcomes) == 3

    until(all_done)
    assert items.over.wait(20) and items.outcomes == {0: 0, 1: 1, 2: 2}


@pytest.mark.row("G46")
def test_a_map_over_a_host_that_is_cut_off_is_cancelled_without_its_answer() -> None:
    service, (one,) = service_of("s/0")
    one.tells = False
    items = Items(4, ahead=2)
    work = start(service, items)
    until(lambda: len(one.made) == 2)
    work.cancel()
    until(lambda: one.recalled == 2)
    one.die()
    assert items.over.wait(20) and one.recalled == 2 and items.error is None


@pytest.mark.row("G45")
def test_a_server_is_given_to_others_when_its_turn_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "TURN_S", 0.0)
    service, (one,) = service_of("s/0")
    items = Items(2)
    start(service, items)
    first = one.next_call()
    granted: list[Any] = []
    service.ask(Waiter(), granted.append)
    first.end(["first"])
    until(lambda: granted)
    assert not items.over.is_set() and granted[0].granted == (one,)
    service.give_back(granted[0])
    one.next_call().end(["second"])
    assert items.over.wait(20) and items.outcomes == {0: "first", 1: "second"}


@pytest.mark.row("G46", "G55")
def test_one_can_wait_until_nothing_begins_any_more() -> None:
    service, (one,) = service_of("s/0")
    work = start(service, Items(3, ahead=3))
    calls = [one.next_call() for _ in range(3)]
    assert not work.wait_withdrawn(0), "nobody has cancelled it"
    work.cancel()
    assert work.wait_withdrawn(20) and [call.cancelled() for call in calls] == [False, True, True]
    calls[0].end(["done"])
    until(lambda: is_free(service, "s/0"))
    one.tells = False  # its host is cut off
    work = start(service, items := Items(2, ahead=2))
    calls = [one.next_call() for _ in range(2)]
    work.cancel()
    until(lambda: one.recalled >= 4)
    assert not work.wait_withdrawn(0)
    for call in calls:
        call.end(["done"])
    assert items.over.wait(20) and work.wait_withdrawn(20)


@pytest.mark.row("G46", "E08")
def test_cancelling_withdraws_what_has_not_begun_and_may_end_what_runs() -> None:
    service, (one,) = service_of("s/0")
    items = Items(5)
    work = start(service, items)
    running = one.next_call()
    work.cancel()
    running.end(["done"])
    assert items.over.wait(20) and items.outcomes == {0: "done"} and is_free(service, "s/0")
    items = Items(5)
    work = start(service, items)
    one.next_call()
    work.end_running()
    ground: Any = service.ground
    until(lambda: ground.ended == [one])
    one.die()
    assert items.over.wait(20)
