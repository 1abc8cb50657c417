"""What the caller holds of an acquired server.

    proxy = g.acquire_service(service_id)
    proxy.set_parameters(p)          # each call returns a Result at once; they run in this order, on this server
    energy = proxy.energy()
    g.release_service(proxy)         # at once; the server is free again when the last call has finished
    print(energy.get())

Public methods of the instance are methods here. Any other public name reads or sets the attribute on the server and
waits for it; `proxy.get(name)` and `proxy.set(name, value)` do so without waiting, unless the instance has methods of
those names. Names with an underscore belong to the proxy itself.

Lives here: names, the rule when a server is free again.
Elsewhere:  sending (`Server.submit`), the queue (`roster`).
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.errors import Released
from grid.kernel.serve import is_method
from grid.services import html

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.result import Result
    from grid.services.server import Server


class Method:
    """A method of the remote instance: calling it sends the call and returns its Result."""

    __slots__ = ("__name__", "_proxy")

    def __init__(self, proxy: Proxy, name: str) -> None:
        self._proxy = proxy
        self.__name__ = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        proxy = self._proxy
        if proxy._released:
            raise proxy._gone(self.__name__)
        return proxy._server.submit(self.__name__, args, kwargs, proxy)

    def __repr__(self) -> str:
        return f"<remote method {self.__name__} of {self._proxy!r}>"


class Proxy:
    """One acquired server; see the module. As a context manager it releases the server at its end."""

    def __init__(self, grid: AbstractGrid, server: Server, methods: frozenset[str]) -> None:
        self._grid = grid
        self._server = server
        self._methods = methods
        self._released = False  # somebody said that no more calls will come
        self._freed = False  # the server is back in its queue, or gone

    # -- names -----------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in self._methods:
            method = Method(self, name)
            self.__dict__[name] = method  # the next look-up does not come here
            return method
        if name == "get":
            return self._get
        if name == "set":
            return self._set
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
        return [*super().__dir__(), *self._methods, "get", "set"]

    def _get(self, name: str) -> Result:
        return self._call("@get", (name,), {})

    def _set(self, name: str, value: Any) -> Result:
        return self._call("@set", (name, value), {})

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        if self._released:
            raise self._gone(method)
        return self._server.submit(method, args, kwargs, self)

    def _gone(self, method: str) -> Released:
        return Released(
            f"{method!r} was called through a proxy that is released",
            service_id=self._server.service_id,
            hint="Acquire the service again",
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        """Call the instance itself, if it is callable."""
        return self._call("@call", args, kwargs)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grid.release_service(self)

    def __reduce__(self) -> Any:
        raise TypeError("a proxy belongs to its grid and can't be sent; send the service id, or the value")

    def _repr_html_(self) -> str:
        title = f"proxy of {self._server.service_id}{', released' if self._released else ''}"
        return html.table(title, html.SERVERS, [html.server(self._server)])

    def __repr__(self) -> str:
        return f"<Proxy of {self._server.name}{', released' if self._released else ''}>"


def methods_of(instance: object) -> frozenset[str]:
    """Names of the public methods of an instance, and of public attributes that can be called."""
    kind = type(instance)
    found = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name, None))}
    own = getattr(instance, "__dict__", {})
    found |= {name for name, value in own.items() if not name.startswith("_") and callable(value)}
    return frozenset(found)
