"""A local front with parameters: each call goes to a free server, after the parameters have been set there.

    energy = GridService(g, service_id, {"scale": 1.0}, set_methods={"scale": "set_scale"},
                         get_methods={"scale": "get_scale"})
    energy.set_parameter("scale", 2.0)    # kept here
    result = energy.of(pose)              # on one server: set_scale(2.0), of(pose), get_scale(); then it is free again
    energy.get_parameter("scale")         # waits for that get_scale()

Servers are interchangeable and keep the state that calls leave; a front makes each call independent of who came before,
because all parameters go ahead of it, in the order of `set_methods`, on the same server. A call returns at once: it
waits for a free server and, where parameters are read back, for the call before; there is no thread for it.

What a call read back is what the next one sends: after `cool()`, which lowers the temperature on one server, the next
call goes on from there, on whichever server it is made. So a parameter that is both read and set has each call wait for
the one before. One that was set here since is sent as it was set.

Lives here: parameters, the order of calls on the server, which answer counts as the latest.
Elsewhere:  acquiring and late release (`service`), names on an acquired server (`proxy.py`).
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from grid.errors import ServiceError
from grid.services import html
from grid.services.result import Result

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.service import Service


class Acquires(Protocol):
    """What a front needs of a grid."""

    def acquire_service(self, service_id: str, timeout: float | None = None) -> Proxy:
        """Have one free server."""

    def release_service(self, proxy: Proxy) -> None:
        """Say that no more calls will come."""

    def size(self, service_id: str) -> int:
        """How many live servers a service has."""

    def _service(self, service_id: str) -> Service: ...


class FrontResult(Result):
    """The Result of a call through a front: fails also if a parameter could not be set before it."""

    _preparations: tuple[Result, ...] = ()

    def _decode(self) -> None:
        if self._decoded:
            return
        for preparation in self._preparations:  # they ran before, on the same server: answered already
            failure = preparation.exception()
            if failure is not None:
                self._failure, self._decoded = failure, True
                return
        super()._decode()


class GridService:
    """A service of a grid as if it were a local object; see the module.

    Public methods of the published instance are methods here, and return Results. One that has the name of something
    below is called with `call(name, ...)`.

    Args:
        parameters: Name -> value, to begin with.
        set_methods: Name -> method of the instance that takes the value. Before each call, every parameter that has a
            value is set, in this order. None: nothing is set.
        get_methods: Name -> method of the instance that returns the value; called after each call. What it returns is
            the parameter's value from then on.
        attributes: Whether names that are no methods can be read, from whichever server is free.
        acquire_timeout: Seconds that a call waits for a free server; None for ever.
    Raises:
        UnknownService: The grid has no such service.
        ServiceError: It has no such method; or parameters are set, and one of them has no method that sets it.
    """

    def __init__(
        self,
        grid: Acquires,
        service_id: str,
        parameters: Mapping[str, Any] | None = None,
        set_methods: Mapping[str, str] | None = None,
        get_methods: Mapping[str, str] | None = None,
        *,
        attributes: Literal["refused", "of any server"] = "refused",
        acquire_timeout: float | None = None,
    ) -> None:
        if attributes not in ("refused", "of any server"):
            raise ValueError(f"attributes must be 'refused' or 'of any server', not {attributes!r}")
        self._grid = grid
        self._service_id = service_id
        self._methods = grid._service(service_id).methods
        self._set_methods = dict(set_methods or {})
        self._get_methods = dict(get_methods or {})
        self._attributes = attributes
        self._acquire_timeout = acquire_timeout
        self._lock = threading.Lock()
        self._values: dict[str, Any] = dict(parameters or {})
        self._count = 0  # numbers what the user did, so that the latest counts, whichever thread got a server first
        self._latest: dict[str, tuple[int, Result | None]] = {}  # None: the value here is the latest
        for role, method in (*self._set_methods.items(), *self._get_methods.items()):
            if self._methods and method not in self._methods:
                raise ServiceError(
                    f"the instance has no method {method!r} for parameter {role!r}",
                    service_id=service_id,
                    hint=f"It has {', '.join(sorted(self._methods))}",
                )
        for name in {**self._values, **self._get_methods}:
            self._check_settable(name, reading=name not in self._values)

    def _check_settable(self, name: str, *, reading: bool = False) -> None:
        """A parameter without a method that sets it would be right on one server and wrong on the next."""
        if name in self._set_methods or (not self._set_methods and (reading or name not in self._get_methods)):
            return
        what = "is read back" if reading else "is given"
        raise ServiceError(
            f"parameter {name!r} {what}, and no method sets it on the next server",
            service_id=self._service_id,
            hint=f"Name one in set_methods, which has {', '.join(sorted(self._set_methods)) or 'none'}",
        )

    @property
    def service_id(self) -> str:
        """Of the service behind it."""
        return self._service_id

    @property
    def parameters(self) -> dict[str, Any]:
        """A copy of what is sent before a call."""
        with self._lock:
            return dict(self._values)

    def set_parameter(self, name: str, value: Any) -> None:
        """Keep a value for all calls from now on; calls made before are not affected.

        Raises:
            ServiceError: Parameters are set, and this one has no method that sets it.
        """
        self._check_settable(name)
        with self._lock:
            self._count += 1
            self._values[name] = value
            self._latest[name] = (self._count, None)

    def get_parameter(self, name: str, timeout: float | None = None) -> Any:
        """The value that the latest call read back, waiting for it; or the value here, if set since or never read.

        Raises:
            ServiceError: There is no such parameter.
            TimeoutError: The call has not ended within `timeout` seconds.
            Any exception that reading it raised on the server.
        """
        with self._lock:
            _, result = self._latest.get(name, (0, None))
            if result is None:
                if name in self._values:
                    return self._values[name]
                known = ", ".join(sorted({*self._values, *self._get_methods})) or "none"
                raise ServiceError(
                    f"no value of parameter {name!r} is known", service_id=self._service_id, hint=f"Parameters: {known}"
                )
        value = result.get(timeout)
        self._take_in()
        return value

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Result:
        """Call a method by name on the next free server, with the parameters set before."""
        return self._perform(self._calling(method, args, kwargs))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        """Call the instance itself, if it is callable."""
        return self._perform(self._calling("@call", args, kwargs))

    def _calling(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Proxy], Result]:
        """One that stands between calls which set and read parameters is part of a state: it is made once."""
        if self._set_methods or self._get_methods:
            return lambda proxy: proxy._call(method, args, kwargs)
        return lambda proxy: proxy._ask(method, args, kwargs)

    def _take_in(self) -> None:
        """Values that earlier calls read back become the parameters'; where reading failed, the old value stays."""
        with self._lock:
            due = {name: self._latest[name] for name in self._set_methods if name in self._latest}
        for name, (number, result) in due.items():
            if result is None or result.exception() is not None:
                continue
            with self._lock:
                if self._latest[name] == (number, result):  # else it was set, or read, since
                    self._values[name] = result.get()

    def _perform(self, act: Callable[[Proxy], Result]) -> Result:
        self._take_in()
        with self._lock:
            self._count += 1
            number = self._count
            values = [
                (method, self._values[name]) for name, method in self._set_methods.items() if name in self._values
            ]
        proxy = self._grid.acquire_service(self._service_id, self._acquire_timeout)
        try:
            preparations = tuple(proxy._call(method, (value,), {}) for method, value in values)
            result = act(proxy)
            answers = {name: proxy._call(method, (), {}) for name, method in self._get_methods.items()}
        finally:
            self._grid.release_service(proxy)  # late: the server is free once the last of these calls has ended
        with self._lock:
            for name, answer in answers.items():
                if self._latest.get(name, (0, None))[0] < number:
                    self._latest[name] = (number, answer)
        if preparations:
            # The Result itself and not a wrapper: it stays a future for `concurrent.futures.wait` and `await`. Nobody
            # else has it yet, and its reply, if there already, is read by `_decode` alone.
            result.__class__ = FrontResult
            assert isinstance(result, FrontResult)
            result._preparations = preparations
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in self._methods or not self._methods:
            return _Method(self, name)
        if self._attributes == "refused":
            raise AttributeError(
                f"{name!r} is no method of service {self._service_id!r}, and the servers' attributes may differ. "
                "Read it with a method, from one acquired server, or make the front with attributes='of any server'"
            )
        return self._perform(lambda proxy: proxy._call("@get", (name,), {})).get()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"{name!r} can't be set: it would be set on one server out of {self._grid.size(self._service_id)}. "
                "Use set_parameter, or broadcast a method that sets it"
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods]

    def __reduce__(self) -> Any:
        raise TypeError("a front belongs to its grid and can't be sent; send the service id, or the value")

    def _repr_html_(self) -> str:
        shown = {name: reprlib.repr(value) for name, value in self.parameters.items()}
        return html.facts(f"GridService of {self._service_id}", shown)

    def __repr__(self) -> str:
        return f"<GridService of {self._service_id!r}, parameters {self.parameters}>"


class _Method:
    """A method of the service: calling it performs the call."""

    __slots__ = ("__name__", "_front")

    def __init__(self, front: GridService, name: str) -> None:
        self._front = front
        self.__name__ = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        return self._front.call(self.__name__, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<method {self.__name__} of {self._front!r}>"
