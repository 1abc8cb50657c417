"""The object by which a caller uses an acquired server.

    proxy = g.acquire_service(service_id)
    proxy.set_parameters(p)          # each call returns a Result at once; they run in this order, on this server
    energy = proxy.energy()
    g.release_service(proxy)         # at once; the server is free again when the last call has finished
    print(energy.get())

Public methods of the instance are methods here. Any other public name reads or sets the attribute on the server and
waits for it. `proxy.get(name)` and `proxy.set(name, value)` do so without waiting, and `proxy.call(Model.energy, 2.0)`
calls a method that type checkers can see; unless the instance has methods of those names. A method that yields gives a
`Stream` of its values instead of a Result (`proxy.stream`). Names with an underscore
belong to the proxy itself.

Lives here: names, and what becomes of them.
Elsewhere:  sending (`Server.submit`), who has the server and when it is free again (`hold`, `server`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Protocol, overload

from typing_extensions import ParamSpec, Self, TypeVar

from grid.arguments import check_number
from grid.errors import Released, ServiceError
from grid.kernel.serve import is_method
from grid.services import html
from grid.services.hold import Hold
from grid.services.retry import Retried, Retry
from grid.services.stream import AHEAD, Stream

if TYPE_CHECKING:
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.services.waste import Waste

T = TypeVar("T", default=Any)
P = ParamSpec("P")
R = TypeVar("R")


class ProxyOwner(Protocol):
    """The part of its grid that a proxy uses."""

    _pid: int
    _waste: Waste

    def release_service(self, proxy: Any) -> None:
        """Say that no more calls will come."""


def _calling(name: str) -> Callable[..., Result]:
    def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Result:
        if self._hold.released:
            raise self._gone(name)
        if self._failed is not None:
            self._raise_failure()
        return self._server.submit(name, args, kwargs, self)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Call {name!r} on the server; its Result comes at once."
    return call


def _streaming(name: str) -> Callable[..., Stream]:
    def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Stream:
        return self._stream(name, args, kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Call {name!r}, which yields, on the server; the Stream of its values comes at once."
    return call


def _asking(name: str) -> Callable[..., Result]:
    def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Result:
        return self._ask(name, args, kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Call {name!r} on the server, and again where it may be; its Result comes at once."
    return call


@lru_cache(maxsize=256)
def proxy_type(
    methods: frozenset[str], yielding: frozenset[str] = frozenset(), retry: Retry | None = None
) -> type[Proxy]:
    """The class of a service's proxies: their methods are methods, so that a dropped proxy is freed at once."""
    calling = _calling if retry is None else _asking
    members: dict[str, Any] = {name: calling(name) for name in methods if name.isidentifier()}
    members |= {name: _streaming(name) for name in yielding if name.isidentifier()}
    more = {"_yielding": yielding, "_retry": retry, "__module__": Proxy.__module__, "__doc__": Proxy.__doc__}
    return type("Proxy", (Proxy,), {**members, **more})


class Method:
    """A method of the remote instance: calling it sends the call and returns its Result."""

    __slots__ = ("__name__", "_proxy")

    def __init__(self, proxy: Proxy, name: str) -> None:
        self._proxy = proxy
        self.__name__ = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        return self._proxy._ask(self.__name__, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote method {self.__name__} of {self._proxy!r}>"


class Proxy(Generic[T]):
    """One acquired server of a service of `T`; see the module. At the end of `with` it is released."""

    _grid: ProxyOwner
    _server: Server
    _methods: frozenset[str]
    _hold: Hold  # its server's, as long as this is the one that has it
    _yielding: frozenset[str] = frozenset()
    _retry: Retry | None = None
    _strict = False
    _failed: Result | None = None  # of a strict one: the first call that failed and that nobody has asked about

    def __init__(self, grid: ProxyOwner, server: Server, methods: frozenset[str], *, strict: bool = False) -> None:
        # one store for all: `__setattr__` below is a function of ours
        self.__dict__.update(_grid=grid, _server=server, _methods=methods, _strict=strict, _hold=server.hold or Hold())

    # -- names -----------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in self._methods:
            return Method(self, name)
        if name == "get":
            return self._get
        if name == "set":
            return self._set
        if name == "call":
            return self._call_function
        if name == "stream":
            return self._stream_of
        value = self._get(name).get()
        return Method(self, name) if is_method(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
        elif name in self._methods:
            raise AttributeError(f"{name!r} is a method of the published instance and can't be set")
        else:
            self._set(name, value).get()

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods, "get", "set", "call", "stream"]

    def _get(self, name: str) -> Result:
        return self._call("@get", (name,), {})

    def _set(self, name: str, value: Any) -> Result:
        return self._call("@set", (name, value), {})

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        if self._hold.released:
            raise self._gone(method)
        if self._failed is not None:
            self._raise_failure()
        return self._server.submit(method, args, kwargs, self)

    def _ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        """A call that the user makes: it is made again where the service says so."""
        if self._retry is None:
            return self._call(method, args, kwargs)
        if self._hold.released:
            raise self._gone(method)
        return Retried(self, self._retry, method, args, kwargs)

    if TYPE_CHECKING:

        @overload
        def call(  # type: ignore[overload-overlap]
            self, method: Callable[Concatenate[T, P], Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
        ) -> Stream[R]: ...

        @overload
        def call(self, method: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...

        def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            """Call a method, named by the function of its class: `proxy.call(Model.energy, 2.0)`.

            Type checkers compare the arguments with those of the function, and know the type of the value.

            Raises:
                TypeError: It is no function of a class, but one of an object, or a name.
                ServiceError: The published instance has no public method of that name.
            """

        def stream(self, method: str | Callable[..., Any], *, ahead: int = AHEAD) -> Callable[..., Stream]:
            """What calls a method that gives values one by one: `proxy.stream("sample", ahead=2)(100)`.

            A generator method needs this only for `ahead`. It is the way to call a method that returns an iterator
            without being a generator itself.

            Args:
                method: Its name, or the function of its class.
                ahead: How many values may be under way or wait for the consumer, at least 1.
            """

    def _stream_of(self, method: str | Callable[..., Any], *, ahead: int = AHEAD) -> Callable[..., Stream]:
        name = method if isinstance(method, str) else self._name_of(method, "stream")
        check_number("ahead", ahead, 1)

        def call(*args: Any, **kwargs: Any) -> Stream:
            return self._stream(name, args, kwargs, ahead)

        return call

    def _stream(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], ahead: int = AHEAD) -> Stream:
        if self._hold.released:
            raise self._gone(name)
        if self._failed is not None:
            self._raise_failure()
        return Stream(self, self._grid._waste, name, args, kwargs, ahead)

    def _call_function(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        name = self._name_of(method, "call")
        if name in self._yielding:
            return self._stream(name, args, kwargs)
        return self._ask(name, args, kwargs)

    def _name_of(self, method: Callable[..., Any], word: str) -> str:
        """Of a function of the class. Raises TypeError, ServiceError."""
        name = getattr(method, "__name__", None)
        if not isinstance(name, str) or not callable(method) or getattr(method, "__self__", None) is not None:
            raise TypeError(
                f"{word} takes a method by its class, as in proxy.call(Model.energy, 2.0), not {method!r:.100}"
            )
        if name not in self._methods:
            raise ServiceError(
                f"the published instance has no public method {name!r}",
                service_id=self._server.service_id,
                hint=f"It has: {', '.join(sorted(self._methods)) or 'none'}",
            )
        return name

    def _raise_failure(self) -> None:
        """Of a strict proxy: raise what an earlier call raised, unless somebody has asked for that already."""
        failed, self._failed = self._failed, None
        if failed is not None and failed.is_untold():
            failure = failed.exception(0)
            if failure is not None:
                raise failure

    def _gone(self, method: str) -> Released:
        return Released(
            f"{method!r} was called through a proxy that is released",
            service_id=self._server.service_id,
            hint="Acquire the service again",
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        """Call the instance itself, if it is callable."""
        return self._ask("@call", args, kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._grid._pid:  # else a forked child leaves the block: the server is its parent's
            self._grid.release_service(self)

    def __reduce__(self) -> Any:
        raise TypeError("a proxy belongs to its grid and can't be sent; send the service id, or the value")

    def _repr_html_(self) -> str:
        title = f"proxy of {self._server.service_id}{', released' if self._hold.released else ''}"
        return html.table(title, html.SERVERS, [html.server(self._server)])

    def __repr__(self) -> str:
        return f"<Proxy of {self._server.name}{', released' if self._hold.released else ''}>"


def methods_of(instance: object) -> frozenset[str]:
    """Names of the public methods of an instance, and of public attributes that can be called."""
    kind = type(instance)
    found = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name, None))}
    own = getattr(instance, "__dict__", {})
    found |= {name for name, value in own.items() if not name.startswith("_") and callable(value)}
    return frozenset(found)


def yielding_of(instance: object) -> frozenset[str]:
    """Those of its public methods that are generators: a call of one gives a stream."""
    return frozenset(name for name in methods_of(instance) if inspect.isgeneratorfunction(getattr(instance, name)))
