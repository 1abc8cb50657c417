"""One job in this process: the order of a service's calls, safe points, messages, checkpoints, limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dill
import pytest

from grid.jobs import AbortService, Message, Request, RequestError, Service, ServiceHandler
from grid.jobs.host.messages import Abort, Pause, Resume
from grid.jobs.host.runner import JobRunner
from grid.jobs.host.worker import KEPT, UnitWorker
from grid.wire import raised

LIMIT_S = 20.0


class Job:
    """Drives a runner as the manager does, with one worker."""

    def __init__(self, service: type[Service], data: dict[str, Any] | None = None, **spec: Any) -> None:
        self.runner, self.worker = JobRunner(), UnitWorker()
        self.events: list[tuple[Any, ...]] = []
        self.units: list[int] = []
        self.dropped: list[int] = []
        self.reply: dict[str, Any] = {}
        self.incoming: list[tuple[Any, ...]] = []
        self.do_units = True
        request = service.request(**(data or {})).to_plain()
        base = {"job": "job-1", "request": request, "checkpoint": None, "inputs": None, "attempt": 1}
        self.runner.begin(service, {**base, "checkpoint_s": 1e9, "best": None, **spec})

    def pump(self, wait_s: float = 0.02) -> None:
        incoming, self.incoming = self.incoming, []
        self.reply = self.runner.exchange(incoming, wait_s)
        for event in self.reply["events"]:
            self.events.append(event)
            if event[0] == "units" and self.do_units:
                self._do(*event[1:])
            elif event[0] == "unmap":
                self.dropped.append(event[1])

    def _do(self, number: int, key: str, task: Any, work: list[tuple[int, Any]], attempts: int) -> None:
        self.worker.load(key, task)
        for index, item in reversed(work):  # not in order
            self.units.append(index)
            try:
                outcome = (index, *self.worker.do(key, item))
            except Exception as exc:
                outcome = (index, False, raised.passed_on(exc))
            self.incoming.append(("results", number, [outcome]))

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; events: {self.events}"
            self.pump()

    def end(self) -> tuple[Any, ...]:
        self.until(lambda: any(event[0] == "end" for event in self.events))
        self.runner.finish()
        return self.events[-1][1:]

    def tell(self, message: Message) -> None:
        self.incoming.append(("message", message.to_plain()))

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [event[1] for event in self.events if event[0] == "message" and event[1]["kind"] == kind]


CALLS: list[str] = []


class Recorder(Service):
    version = "1"

    def prepare(self, request: Request) -> None:
        CALLS.append(f"prepare {request.a}")  # type: ignore[attr-defined]
        if request.data.get("fail") == "prepare":
            raise ValueError("in prepare")

    def run(self, handler: ServiceHandler) -> Any:
        CALLS.append(f"run {handler.input}")
        handler.ready()
        if self.request.data.get("fail") == "run":
            raise ValueError("in run")
        return (self.request.a, handler.input)

    def cleanup(self) -> None:
        CALLS.append("cleanup")
        if self.request.data.get("fail") == "cleanup":
            raise ValueError("in cleanup")


@pytest.fixture(autouse=True)
def forget() -> None:
    CALLS.clear()


@pytest.mark.row("V01", "V02", "V03", "V04", "P08")
def test_prepare_run_cleanup_once_each_and_run_once_for_each_input() -> None:
    assert Job(Recorder, {"a": 1}).end() == ("complete", [1, None], "", "")
    assert CALLS == ["prepare 1", "run None", "cleanup"]
    CALLS.clear()
    assert Job(Recorder, {"a": 1}, inputs=[5, 6]).end()[1] == [[1, 5], [1, 6]]
    assert CALLS == ["prepare 1", "run 5", "run 6", "cleanup"]


@pytest.mark.row("V02", "V04", "J22")
@pytest.mark.parametrize("where", ["prepare", "run"])
def test_an_error_is_kept_with_a_trimmed_traceback_and_cleanup_runs(where: str) -> None:
    outcome, value, error, trace = Job(Recorder, {"a": 1, "fail": where}).end()
    assert (outcome, value, error) == ("error", None, f"ValueError: in {where}")
    assert f"in {where}" in trace and "test_runner" in trace and "host/runner.py" not in trace
    assert CALLS[-1] == "cleanup" and CALLS.count("cleanup") == 1


@pytest.mark.row("V04")
def test_an_error_in_cleanup_is_logged_and_changes_nothing() -> None:
    job = Job(Recorder, {"a": 1, "fail": "cleanup"})
    assert job.end()[0] == "complete"
    assert "in cleanup" in job.said("Log")[0]["text"]


@pytest.mark.row("V03", "V15", "R06")
def test_without_run_or_with_a_result_that_is_no_value_the_job_fails() -> None:
    class Nothing(Service):
        version = "1"

    class Odd(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            return {"x": object()}

    assert "has no run(handler)" in Job(Nothing).end()[2]
    assert "the result['x'] is a builtins.object" in Job(Odd).end()[2]


class Loop(Service):
    """Loops over safe points until told to stop or for n cycles."""

    version = "1"
    checkpoint_s = 0.0
    swallow = False

    def prepare(self, request: Request) -> None:
        self.k = 0

    def run(self, handler: ServiceHandler) -> Any:
        while self.k < self.request.data.get("n", 10**9):
            try:
                handler.ready()
            except Exception:
                raise AssertionError("AbortService must be no Exception") from None
            except AbortService:
                handler.improved({"k": self.k, "last": True})
                raise
            self.k += 1
            handler.improved({"k": self.k})
            time.sleep(0.001)
        return self.k

    def progress(self) -> tuple[float, float, str]:
        return self.k, 10, "cycles"

    def checkpoint(self) -> Any:
        return {"k": self.k}

    def restore(self, state: Any) -> None:
        CALLS.append(f"restore {state}")
        self.k = state["k"]

    def on_ready_set_k(self, message: Message) -> None:
        CALLS.append(f"set {message.k}")

    def on_ready_message(self, message: Message) -> None:
        CALLS.append(message.kind)


@pytest.mark.row("V11", "V12", "P13", "V14")
def test_abort_is_raised_at_a_safe_point_and_the_last_improvement_still_counts() -> None:
    job = Job(Loop)
    job.until(lambda: any(event[0] == "improved" for event in job.events))
    job.tell(Abort(reason="enough"))
    job.tell(Abort(reason="again"))
    outcome, _, error, _ = job.end()
    assert (outcome, error) == ("aborted", "enough")
    improved = [event for event in job.events if event[0] == "improved"]
    assert improved[-1][1]["last"] is True and improved[-1][2] is True


@pytest.mark.row("V12")
def test_a_careless_except_gets_the_abort_again() -> None:
    class Careless(Service):
        version = "1"
        caught = 0

        def run(self, handler: ServiceHandler) -> None:
            while True:
                time.sleep(0.001)
                try:
                    handler.ready()
                except BaseException:
                    Careless.caught += 1
                    if Careless.caught > 3:
                        raise

    job = Job(Careless)
    job.tell(Abort())
    assert job.end()[0] == "aborted" and Careless.caught == 4


@pytest.mark.row("V14", "V05", "V11")
def test_improvements_are_told_at_a_bounded_rate_and_the_last_one_always() -> None:
    job = Job(Loop, {"n": 300})
    assert job.end() == ("complete", 300, "", "")
    loud = [event[1]["k"] for event in job.events if event[0] == "improved" and event[2]]
    assert loud[-1] == 300 and 2 <= len(loud) <= 30
    progress = job.said("Progress")
    assert progress[-1] | {"time": 0} == {"kind": "Progress", "job": None, "number": 0, "time": 0} | {
        "k": 300,
        "n": 10,
        "units": "cycles",
    }
    assert len(progress) <= 30


@pytest.mark.row("V06", "V07", "V08")
def test_checkpoints_come_at_safe_points_not_too_often_and_restore_replaces_prepare() -> None:
    job = Job(Loop, {"n": 50}, checkpoint_s=0.01)
    job.end()
    states = [dill.loads(event[1])["k"] for event in job.events if event[0] == "checkpoint"]
    assert states and states == sorted(states) and len(states) < 50
    rare = Job(Loop, {"n": 50})
    rare.end()
    assert not [event for event in rare.events if event[0] == "checkpoint"]
    again = Job(Loop, {"n": 50}, checkpoint=dill.dumps({"k": 45}), attempt=2)
    assert again.end() == ("complete", 50, "", "")
    assert CALLS == ["restore {'k': 45}"] and again.said("Start")[0]["restored"] is True


@pytest.mark.row("V07", "V06")
def test_a_shutdown_forces_a_checkpoint_and_gives_the_job_back() -> None:
    job = Job(Loop)
    job.until(lambda: any(event[0] == "improved" for event in job.events))
    job.incoming.append(("suspend", "the server stops"))
    assert job.end()[:3] == ("suspended", None, "the server stops")
    assert [event[0] for event in job.events].count("checkpoint") == 1


@pytest.mark.row("V07", "B13")
def test_when_its_allocation_ends_a_job_checkpoints_and_goes_back() -> None:
    job = Job(Loop)
    job.until(lambda: any(event[0] == "improved" for event in job.events))
    job.runner.allocation_ends(60.0)
    assert job.end()[:3] == ("suspended", None, "its allocation ends in 60 s")
    assert [event[0] for event in job.events].count("checkpoint") == 1
    moved = JobRunner.__new__(JobRunner)
    moved.__dict__.update(Job(Loop, {"n": 1}).runner.__getstate__())
    assert moved.exchange([], 0.0)["events"][0][1] == "suspended"


@pytest.mark.row("V17", "P14")
def test_messages_wait_for_a_safe_point_and_are_handled_in_order() -> None:
    job = Job(Loop)
    for k in range(3):
        job.tell(Message("SetK", k=k))
    job.tell(Message("Unheard"))
    job.until(lambda: len(CALLS) == 4)
    job.tell(Abort())
    job.end()
    assert CALLS == ["set 0", "set 1", "set 2", "Unheard"]


@pytest.mark.row("V17", "T15")
def test_a_message_that_no_method_takes_is_told_in_the_log_and_to_who_asked() -> None:
    class Idle(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            while True:
                handler.ready()
                time.sleep(0.01)

    job = Job(Idle)
    job.tell(Message("LostOne"))
    job.tell(Message("Ask", ask="q1"))
    job.until(lambda: bool(job.said("Answer")))
    job.tell(Abort())
    job.end()
    first, _ = job.said("Log")
    assert first["level"] == "warning"
    assert first["text"] == "Idle has no on_ready_lost_one: the message LostOne was dropped"
    (answer,) = job.said("Answer")
    assert answer["to"] == "q1" and answer["value"] is None and "Idle has no on_ready_ask" in answer["error"]


@pytest.mark.row("V16", "V18", "V19")
def test_a_signal_is_handled_at_once_beside_the_computation_and_may_defer() -> None:
    class Deaf(Service):
        version = "1"
        go_on = threading.Event()

        def run(self, handler: ServiceHandler) -> None:
            assert Deaf.go_on.wait(LIMIT_S)
            handler.ready()

        def on_signal_Where(self, message: Message) -> None:
            CALLS.append(f"signal in {threading.current_thread() is not threading.main_thread()}")
            self.handler.answer(message, {"at": 7})
            self.queue.append(message)

        def on_ready_Where(self, message: Message) -> None:
            CALLS.append("ready")

        def on_signal_bad(self, message: Message) -> None:
            raise ValueError("bad signal")

    job = Job(Deaf)
    job.tell(Message("Where", ask="q-1"))
    job.tell(Message("Bad"))
    job.until(lambda: job.said("Answer") and job.said("Log"))
    assert job.said("Answer")[0]["to"] == "q-1" and job.said("Answer")[0]["value"] == {"at": 7}
    assert "bad signal" in job.said("Log")[0]["text"]
    assert CALLS == ["signal in True"]
    Deaf.go_on.set()
    assert job.end()[0] == "complete"
    assert CALLS == ["signal in True", "ready"]


@pytest.mark.row("V22")
def test_the_time_since_the_last_safe_point_is_told() -> None:
    class Silent(Service):
        version = "1"
        go_on = threading.Event()

        def run(self, handler: ServiceHandler) -> None:
            Silent.go_on.wait(LIMIT_S)

    job = Job(Silent)
    job.until(lambda: job.reply and job.reply["ready_age"] > 0.1)
    Silent.go_on.set()
    job.end()


@pytest.mark.row("V23")
def test_a_job_pauses_at_a_safe_point_and_goes_on() -> None:
    job = Job(Loop)
    job.tell(Pause())
    job.until(lambda: job.reply.get("paused"))
    assert job.reply["ready_age"] == 0.0
    job.tell(Resume())
    job.until(lambda: job.reply.get("paused") is False)
    job.tell(Pause())
    job.until(lambda: job.reply.get("paused"))
    job.tell(Abort())  # also while it is paused
    assert job.end()[0] == "aborted"


def square(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x * x


class Squares(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(self.request.data.get("task") or square, self.request.items)


@pytest.mark.row("V13", "V24")
def test_map_keeps_the_order_of_items_and_sends_its_function_once() -> None:
    class Twice(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            lazy = handler.imap(square, (x for x in range(3)))
            return [handler.map(square, range(5)), list(lazy), handler.map(square, []), self.times(handler)]

        def times(self, handler: ServiceHandler) -> Any:
            self.factor = 3
            return handler.map(self.scaled, [1, 2])

        def scaled(self, x: int) -> int:
            return self.factor * x

    job = Job(Twice)
    assert job.end()[1] == [[0, 1, 4, 9, 16], [0, 1, 4], [], [3, 6]]
    keys = [event[2] for event in job.events if event[0] == "units"]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.row("V13")
def test_an_exception_of_a_unit_comes_out_of_map() -> None:
    job = Job(Squares, {"items": [1, -2, 3]})
    assert job.end()[2] == "ValueError: -2 is negative"
    assert job.dropped == [1]


@pytest.mark.row("V13", "V12")
def test_an_abort_during_map_stops_the_handing_out() -> None:
    job = Job(Squares, {"items": list(range(100))})
    job.do_units = False
    job.until(lambda: any(event[0] == "units" for event in job.events))
    job.tell(Abort(reason="stop it"))
    assert job.end()[0] == "aborted" and job.dropped == [1]


@pytest.mark.row("V13")
def test_what_can_not_travel_is_an_error_where_map_was_called() -> None:
    class Locked(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            return handler.map(square, [(x for x in "ab")])

    assert "an item given to map" in Job(Locked).end()[2]


def test_a_worker_forgets_functions_that_it_has_not_used_for_longest() -> None:
    worker = UnitWorker()
    for n in range(KEPT + 1):
        worker.load(f"k{n}", square)
    assert worker.do("k0", 3) == (False, None) and worker.do("k1", 3) == (True, 9)


@pytest.mark.row("P07")
def test_a_job_that_notices_that_it_fails_stops_itself_with_the_reason() -> None:
    class Failing(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            handler.stop("the model diverges")

    assert Job(Failing).end()[:3] == ("error", None, "the model diverges")


@pytest.mark.row("V09")
def test_a_service_shows_its_class_and_its_job() -> None:
    class Shown(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            return str(self)

    assert Job(Shown).end()[1] == "Shown-job-1" and str(Shown()) == "Shown-idle"


@pytest.mark.row("J22")
def test_output_files_travel_with_their_names() -> None:
    class Writer(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            handler.keep("out.txt", "text")
            handler.keep("raw", b"\0\1")
            handler.log("done")

    job = Job(Writer)
    job.end()
    assert [event for event in job.events if event[0] == "kept"] == [
        ("kept", "out.txt", b"text"),
        ("kept", "raw", b"\0\1"),
    ]


@pytest.mark.row("J23")
def test_a_job_that_uses_too_much_time_or_writes_too_much_ends_with_the_limits_name(tmp_path: Any) -> None:
    class Busy(Service):
        version = "1"
        limits = {"cpu_s": 0.2}  # noqa: RUF012

        def run(self, handler: ServiceHandler) -> None:
            while True:
                handler.ready()

    class Large(Service):
        version = "1"
        limits = {"file_bytes": 1000}  # noqa: RUF012

        def run(self, handler: ServiceHandler) -> None:
            with open(self.request.path, "wb", buffering=0) as file:
                for _ in range(100):
                    file.write(b"x" * 100)

    class Wrong(Service):
        version = "1"
        limits = {"patience": 3}  # noqa: RUF012

        def run(self, handler: ServiceHandler) -> None:
            pass

    outcome, _, error, _ = Job(Busy).end()
    assert outcome == "error" and "cpu_s" in error
    outcome, _, error, _ = Job(Large, {"path": str(tmp_path / "large")}).end()
    assert outcome == "error" and "File too large" in error
    (tmp_path / "after").write_bytes(b"x" * 5000)  # the limit was lifted
    assert "no limit is called 'patience'" in Job(Wrong).end()[2]


@pytest.mark.row("R05")
def test_a_message_field_must_be_a_value() -> None:
    with pytest.raises(RequestError):
        Message("X", f=object()).to_plain()


@pytest.mark.row("V13", "V08")
def test_units_are_handed_out_as_results_come() -> None:
    class Halving(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            seen = []
            with handler.units(halve) as units:
                assert units.put([40, 3]) == range(2) and not units.put([])
                while units.under_way:
                    number, value, error = units.take()
                    seen.append([number, value, str(error) if error else None])
                    if value is not None and value > 1:
                        units.put([value])
                with pytest.raises(IndexError, match="under way"):
                    units.take()
            with pytest.raises(ValueError, match="closed"):
                units.put([1])
            return sorted(seen)

    job = Job(Halving)
    assert job.end()[:2] == (
        "complete",
        [[0, 20, None], [1, None, "3 is odd"], [2, 10, None], [3, 5, None], [4, None, "5 is odd"]],
    )
    assert not job.dropped


def halve(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@pytest.mark.row("V08", "V13")
def test_an_abort_ends_the_wait_for_units_and_drops_them() -> None:
    class Waits(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            with handler.units(halve) as units:
                units.put([2, 4])
                return units.take()

    job = Job(Waits)
    job.do_units = False
    job.until(lambda: any(event[0] == "units" for event in job.events))
    job.tell(Abort(reason="enough"))
    assert job.end()[0] == "aborted"
    assert len(job.dropped) == 1
