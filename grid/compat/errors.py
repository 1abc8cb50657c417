"""Errors as callers of pools, executors and joblib know them.

A program that was written for `concurrent.futures` or `multiprocessing` catches their classes. So what grid has to say
comes as a class that is both: a lost server is a `ServerLost` and a `BrokenProcessPool`. What the function itself
raised stays as it is; its cause is the class that holds the remote traceback there (`__cause__.tb`).

Lives here: the classes, and `told`. Elsewhere: the errors themselves (`grid/errors.py`).
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.process import _RemoteTraceback as FutureTraceback
from multiprocessing.pool import RemoteTraceback as PoolTraceback  # type: ignore[attr-defined]
from pickle import PicklingError

from grid.errors import NoServers, RemoteError, RemoteTraceback, SerialisationError, ServerLost
from grid.wire import raised

__all__ = ["FutureTraceback", "PoolTraceback", "told"]


class PoolServerLost(ServerLost, BrokenProcessPool):
    """A server died with a call of an executor, a pool or joblib. Others go on: the pool is not broken by it."""


class PoolWithoutServers(NoServers, BrokenProcessPool):
    """An executor, a pool or joblib has no server left, and none can be started."""


class InitializerFailed(BrokenProcessPool):
    """The `initializer` of an executor or a pool raised on a server; its cause is what it raised."""


class RemoteExit(RemoteError, SystemExit):
    """A function called `sys.exit` on its server. The server goes on."""


class RemoteInterrupt(RemoteError, KeyboardInterrupt):
    """A function raised KeyboardInterrupt on its server."""


_KINDS: dict[type[BaseException], type[BaseException]] = {ServerLost: PoolServerLost, NoServers: PoolWithoutServers}
_STAND_INS = {"builtins.SystemExit": RemoteExit, "builtins.KeyboardInterrupt": RemoteInterrupt}
_TRACEBACKS = (RemoteTraceback, FutureTraceback, PoolTraceback)
_OF_PICKLING = (TypeError, AttributeError, PicklingError, RecursionError, MemoryError)


def told(error: BaseException, traceback: type[BaseException] = FutureTraceback) -> BaseException:
    """The error as a caller of `concurrent.futures` (or, by `traceback`, of `multiprocessing`) knows it."""
    kind = _KINDS.get(type(error))
    if type(error) is RemoteError:
        kind = _STAND_INS.get(error.kind)
    if kind is not None:
        assert isinstance(error, (ServerLost, NoServers, RemoteError))
        known = kind(error.what, **error.facts)
        known.__cause__ = error.__cause__
        if isinstance(known, RemoteExit):
            known.code = error.facts.get("code")
        error = known
    elif isinstance(error, SerialisationError) and not isinstance(raised.chain(error)[-1].__cause__, RemoteTraceback):
        # An object that refused to be pickled here with an error of its own: that one is what the others raise.
        cause = error.__cause__
        if isinstance(cause, Exception) and not isinstance(cause, (*_OF_PICKLING, *_TRACEBACKS)):
            return cause
    for each in raised.chain(error):
        cause = each.__cause__
        if isinstance(cause, _TRACEBACKS) and type(cause) is not traceback:
            each.__cause__ = traceback(cause.tb)
    return error
