"""The front with parameters, on real servers of this machine."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from grid import AcquireTimeout, LocalGrid, ServiceError, UnknownService
from grid.services.front import GridService


class Model:
    """Keeps a log of what was called on this very copy."""

    def __init__(self) -> None:
        self.scale, self.shift = 1.0, 0.0
        self.log: list[tuple] = []

    def set_scale(self, value):
        if value < 0:
            raise ValueError("a scale is positive")
        self.scale = value
        self.log.append(("scale", value))

    def set_shift(self, value):
        self.shift = value
        self.log.append(("shift", value))

    def get_scale(self):
        self.log.append(("get", self.scale))
        return self.scale

    def of(self, x, times=1):
        self.log.append(("of", x))
        return times * (self.scale * x + self.shift)

    def grow(self, factor, after=None):
        deadline = time.monotonic() + 30
        while after is not None and not after.exists():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.scale *= factor
        return self.scale

    def history(self):
        log, self.log = self.log, []
        return log

    def fail(self):
        self.scale = -1.0
        raise KeyError("as asked")

    def call(self):
        return "the instance's own"

    def __call__(self, x):
        return self.scale + x


SETTERS = {"scale": "set_scale", "shift": "set_shift"}


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(2) as g:
        yield g


@pytest.fixture
def sid(grid) -> str:
    return grid.publish(Model())


@pytest.mark.row("G49", "G50")
def test_parameters_go_ahead_of_each_call_in_their_order_on_the_same_server(grid, sid):
    front = GridService(grid, sid, {"shift": 3.0, "scale": 2.0}, SETTERS)
    for x in range(6):
        assert front.of(x).get() == 2.0 * x + 3.0
    front.set_parameter("scale", 10.0)
    assert front.of(1, times=2).get() == 26.0
    logs = grid.gather(grid.broadcast(sid, "history"))
    grid.release_all()
    for log in logs:
        assert [name for name, _ in log] == ["scale", "shift", "of"] * (len(log) // 3)
    assert sum(len(log) for log in logs) == 7 * 3


@pytest.mark.row("G50")
def test_without_set_methods_nothing_is_set(grid, sid):
    front = GridService(grid, sid, {"scale": 2.0})
    assert front.of(5).get() == 5.0
    assert front.parameters == {"scale": 2.0}


@pytest.mark.row("G50")
def test_a_parameter_without_value_is_not_sent(grid, sid):
    front = GridService(grid, sid, {"shift": 1.0}, SETTERS)
    assert front.of(5).get() == 6.0


@pytest.mark.row("G49")
def test_an_unknown_service_fails_at_creation(grid):
    with pytest.raises(UnknownService):
        GridService(grid, "Nobody.7")


@pytest.mark.row("G50", "G51")
@pytest.mark.parametrize("which", ["set_methods", "get_methods"])
def test_an_unknown_method_fails_at_creation(grid, sid, which):
    with pytest.raises(ServiceError, match="set_skale"):
        GridService(grid, sid, **{which: {"scale": "set_skale"}})


@pytest.mark.row("G49")
def test_a_call_returns_at_once_and_its_server_is_free_when_it_has_ended(grid, sid, tmp_path):
    front = GridService(grid, sid, {"scale": 1.0}, SETTERS)
    results = [front.grow(2.0, after=tmp_path / "go") for _ in range(2)]  # as many as there are servers
    assert not any(result.done() for result in results)
    assert grid.queues[sid].empty()
    (tmp_path / "go").touch()
    assert [result.get(10) for result in results] == [2.0, 2.0]
    assert grid.acquire_service(sid, timeout=5).get_scale().get() == 2.0


@pytest.mark.row("G49")
def test_with_all_servers_busy_a_call_waits_as_long_as_it_was_told(grid, sid, tmp_path):
    front = GridService(grid, sid, acquire_timeout=0.1)
    results = [front.grow(1.0, after=tmp_path / "go") for _ in range(2)]
    with pytest.raises(AcquireTimeout):
        front.of(1)
    (tmp_path / "go").touch()
    assert [result.get(10) for result in results] == [1.0, 1.0]


@pytest.mark.row("G51")
def test_get_parameter_waits_for_the_latest_read_back(grid, sid, tmp_path):
    front = GridService(grid, sid, {"scale": 3.0}, SETTERS, {"scale": "get_scale"})
    assert front.get_parameter("scale") == 3.0  # nothing was called yet
    front.grow(2.0)
    front.grow(5.0, after=tmp_path / "go")
    with pytest.raises(TimeoutError):
        front.get_parameter("scale", timeout=0.05)
    (tmp_path / "go").touch()
    assert front.get_parameter("scale") == 30.0  # the second call went on from where the first ended
    assert front.parameters == {"scale": 30.0}  # and so does the next one
    front.set_parameter("scale", 4.0)
    assert front.get_parameter("scale") == 4.0  # set since
    assert front.grow(1.0).get() == 4.0


@pytest.mark.row("G51")
def test_an_unknown_parameter_is_an_error_that_names_those_there_are(grid, sid):
    front = GridService(grid, sid, {"scale": 3.0}, SETTERS, {"shift": "get_scale"})
    with pytest.raises(ServiceError, match="scale, shift"):
        front.get_parameter("skale")


@pytest.mark.row("G49")
def test_errors_of_the_method_and_of_setting_reach_the_caller(grid, sid):
    front = GridService(grid, sid, {"scale": 2.0}, SETTERS, {"scale": "get_scale"})
    with pytest.raises(KeyError, match="as asked"):
        front.fail().get()
    assert front.get_parameter("scale") == -1.0  # read back all the same
    front.set_parameter("scale", -5.0)
    result = front.of(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="a scale is positive"):
            result.get()
    assert isinstance(result.exception(), ValueError)
    front.set_parameter("scale", 5.0)
    assert front.of(1).get() == 5.0


@pytest.mark.row("G49")
def test_results_are_futures(grid, sid):
    front = GridService(grid, sid, {"scale": 2.0}, SETTERS)
    results = [front.of(x) for x in range(10)]
    done, pending = wait(results, timeout=10)
    assert not pending
    assert sorted(result.result() for result in done) == [2.0 * x for x in range(10)]


@pytest.mark.row("G52")
def test_attributes_are_refused_unless_asked_for(grid, sid):
    front = GridService(grid, sid, {"scale": 7.0}, SETTERS)
    with pytest.raises(AttributeError, match="of any server"):
        _ = front.scale
    assert not hasattr(front, "scale")
    with pytest.raises(AttributeError, match="set_parameter"):
        front.scale = 3.0
    allowed = GridService(grid, sid, {"scale": 7.0}, SETTERS, attributes="of any server")
    assert allowed.scale == 7.0
    with pytest.raises(AttributeError):
        _ = allowed.nothing_of_the_kind
    with pytest.raises(ValueError, match="of any server"):
        GridService(grid, sid, attributes=True)


@pytest.mark.row("G49")
def test_names_that_the_front_has_itself(grid, sid):
    front = GridService(grid, sid, {"scale": 7.0}, SETTERS)
    assert front.call("call").get() == "the instance's own"
    assert front(1).get() == 8.0
    assert {"of", "grow", "get_parameter"} <= set(dir(front))
    assert sid in repr(front)
    with pytest.raises(TypeError, match="belongs to its grid"):
        pickle.dumps(front)


@pytest.mark.row("G49", "G50")
def test_many_calls_from_many_threads_need_no_more_threads(grid, sid):
    fronts = [GridService(grid, sid, {"scale": float(i), "shift": 1.0}, SETTERS) for i in range(8)]
    before = threading.active_count()
    counts = []

    def work(front):
        results = [front.of(x) for x in range(150)]
        counts.append(threading.active_count())
        return [result.get(30) for result in results]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, fronts))
    assert answers == [[i * x + 1.0 for x in range(150)] for i in range(8)]
    assert max(counts) <= before + 8


class Bath:
    """Its temperature is changed by a call."""

    temperature = 30.0

    def set_temperature(self, value):
        self.temperature = value

    def get_temperature(self):
        return self.temperature

    def cool(self):
        self.temperature /= 2

    def energy(self):
        return 2 * self.temperature

    def echo(self, /, *args, **words):
        return args, words


@pytest.mark.row("E09")
def test_a_call_goes_on_from_what_the_call_before_it_read_back(grid):
    sid = grid.publish(Bath())
    front = GridService(
        grid, sid, {"temperature": 30.0}, {"temperature": "set_temperature"}, {"temperature": "get_temperature"}
    )
    front.cool()
    assert [front.energy().get(10) for _ in range(4)] == [30.0] * 4  # on both servers
    assert front.parameters == {"temperature": 15.0} and front.get_parameter("temperature") == 15.0
    front.cool()
    front.set_parameter("temperature", 100.0)  # later than the call
    assert front.energy().get(10) == 200.0


@pytest.mark.row("E09")
def test_a_parameter_that_no_method_sets_is_refused(grid):
    sid = grid.publish(Bath())
    setters, getters = {"temperature": "set_temperature"}, {"temperature": "get_temperature"}
    with pytest.raises(ServiceError, match="'pressure' is given, and no method sets it"):
        GridService(grid, sid, {"temperature": 1.0, "pressure": 2.0}, setters)
    with pytest.raises(ServiceError, match="no method sets it"):
        GridService(grid, sid, {"temperature": 1.0}, get_methods=getters)
    with pytest.raises(ServiceError, match="'pressure' is read back"):
        GridService(grid, sid, {}, setters, {"pressure": "get_temperature"})
    with pytest.raises(ServiceError, match="'presure'"):
        GridService(grid, sid, {"temperature": 1.0}, setters).set_parameter("presure", 3.0)


@pytest.mark.row("E10")
def test_names_of_keywords_never_collide_with_ours(grid):
    sid = grid.publish(Bath())
    words = {"method": 1, "self": 2, "service_id": 3, "proxy": 4, "grid": 5, "timeout": 6, "fn": 7, "args": 8}
    with grid.acquire_service(sid) as bath:
        assert bath.echo(0, **words).get(10) == ((0,), words)
        assert grid.keep(bath, "echo", **words).get(10) == ((), words)
    assert GridService(grid, sid).echo(**words).get(10) == ((), words)
    assert GridService(grid, sid).call("echo", **words).get(10) == ((), words)
    assert grid.gather(grid.broadcast(sid, "echo", 1, **words), 10) == [((1,), words)] * 2
    grid.release_all()
    with grid.executor(sid) as executor:
        assert executor.submit("echo", **words).result(10) == ((), words)
    with grid.executor() as executor, grid.pool() as pool:
        assert executor.submit(dict, **words).result(10) == words
        assert pool.apply(dict, (), words) == words
