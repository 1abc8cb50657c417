"""One server: one process that holds a copy of a published instance and runs its calls in order.

Threads, of which all but one sleep: the main thread runs calls; one waits for words from the agent (cancel, and the end
of the line, which means that the agent is gone); one for signals (`rouse`); over TCP one admits connections
(`wire/keys.py`). libzmq answers
heartbeats in a thread of its own, so a server deep in C code is still alive to its client.

Lives here: loading the instance, the loop, one call, what a reply says.
Elsewhere:  how this process came to be (`zygote`), messages (`hostend`), who restarts it (`grids/`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from functools import partial
from multiprocessing import process
from pathlib import Path
from typing import Any, NoReturn

import zmq

from grid.errors import GridError
from grid.kernel import logsetup, premises, saving, spawned, stacks
from grid.kernel.costs import Meter
from grid.kernel.hostend import SETTLES_S, HostEnd
from grid.kernel.rouse import Rouser
from grid.kernel.sampler import Sampler
from grid.kernel.yielding import Generators
from grid.limits import Limits
from grid.wire import bulk, codec, kept, mainimage, raised, randoms, remote_path
from grid.wire.frames import BULK, CANCELLED, COST, ERROR, IMAGE, Frame
from grid.wire.gatekeeper import Gatekeeper
from grid.wire.keys import Keys
from grid.wire.zeromq import HostSockets, flush

logger = logging.getLogger(__name__)


def main(spec: dict[str, Any], control: socket.socket) -> NoReturn:
    """Body of a server's process; `spec` is what the agent's `start` made of the client's wishes."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the client's terminal is the client's affair
    status = 1
    try:
        spawned.end_by_sigterm()
        server = Server(spec, control)
        server.run()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0
    except BaseException as exc:
        text = _without_us(exc)
        print(text, file=sys.stderr)
        _say(control, {"failed": f"{type(exc).__name__}: {exc}", "traceback": text})
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(status)  # user code may have left threads that would hold us


class Server:
    """The instance, its link, and what was withdrawn."""

    def __init__(self, spec: dict[str, Any], control: socket.socket) -> None:
        self.name: str = spec["name"]
        self._control = control
        self._limits = Limits(**spec["limits"])
        self._set_up_process(spec)
        stacks.listen(stacks.file_of(Path(spec["sockets"]), spec["peer"]))
        self._context: zmq.Context[Any] = zmq.Context()
        carrier = HostSockets(self._context, self._limits)
        carrier.patience_ms = _LOOK_MS
        self._end = HostEnd(carrier, spec["peer"], spec["epoch"])
        keys = Keys.from_json(spec["keys"]) if spec["keys"] else None
        premises.settle(premises.Premises(Path(spec["sockets"]), spec["peer"], spec["address"], keys, self._limits))
        if keys is not None:
            self._gatekeeper = Gatekeeper(self._context, keys.other_public, carrier.listeners)
            carrier.guard = self._gatekeeper.guard
            ends = carrier.bind_ports(spec["address"], keys)
        else:
            ends = carrier.bind_sockets(Path(spec["sockets"]), f"p{spec['peer']}")
        self._store = bulk.BlobStore(Path(spec["blobs"]))
        try:
            parts = self._store.read(spec["blob"], spec["sizes"], drop=False)
        except FileNotFoundError:  # that is nothing to print about
            _say(control, {"failed": "its service was withdrawn while it started", "traceback": ""})
            raise SystemExit(0) from None
        self._stream = int(self.name.rpartition("/")[2]) if spec.get("reseed") else None
        with randoms.reseeded(self._stream):
            if count := spec["image"]:  # its parts come last
                parts, image = parts[:-count], parts[-count:]
                mainimage.install(image)
            if not spec.get("moved"):
                self.instance = codec.loads(parts[0], parts[1:])
        if spec.get("moved"):  # its generators have gone on from theirs
            self.instance = codec.loads(parts[0], parts[1:])
        self._current = 0  # the call that runs, or ran last
        self._begun = 0  # the same, from when its code may have run
        self._withdrawn: set[int] = set()
        self._generators = Generators()
        self._claim = threading.Lock()
        self._took: dict[str, float] = {}  # about how long calls of a method take at most, in seconds
        self._meter = Meter()
        self._rouser = Rouser(carrier.waker())
        self._calm = False  # nothing came for a while, and we are told of signals
        threading.Thread(target=self._listen, name="grid-control", daemon=True).start()
        _say(control, {"ready": list(ends), "pid": os.getpid()})

    def _set_up_process(self, spec: dict[str, Any]) -> None:
        os.environ.update(spec["env"])
        os.environ.update(spec["birth"].env)  # its devices are some of those that the entry leaves to it
        os.environ["GRID_ROOT"] = spec["root"]
        remote_path.is_server(spec["grid"], spec["agent"])
        os.environ["GRID_SERVER"] = self.name
        os.environ["GRID_SERVICE_ID"] = spec["service_id"]
        self._root = spec["root"]
        _work_in(spec["workdir"] or spec["root"])
        # Not the place where it works: a file there may have the name of a module.
        sys.path[:] = [spec["root"], *filter(None, sys.path)]
        sys.path += [entry for entry in spec["path"] if entry not in sys.path]
        sys.argv = spec["argv"] or [self.name]
        me: Any = process.current_process()
        me.name, me._identity = self.name, (int(self.name.rpartition("/")[2]) + 1,)  # as in a pool of multiprocessing
        # new ones: those of the zygote were opened on its log
        sys.stdout, sys.stderr = (
            open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            for fd in (1, 2)
        )
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]  # the zygote's are of no use
        logging.basicConfig(level=logging.DEBUG if spec["debug"] else logging.WARNING)
        if spec.get("logging"):
            logsetup.set_up(spec["logging"])
        if spec["niceness"]:
            try:
                os.nice(spec["niceness"])
            except OSError as exc:
                logger.warning("can't take niceness %d (%s); going on without", spec["niceness"], exc)

    def run(self) -> None:
        """Take messages and run calls until a BYE.

        An exception of a handler that the user's code has installed (an alarm, say) may come anywhere in here, and not
        only in a call: it ends the call that was begun, if one was, and the loop goes on where it was.
        """
        end = self._end
        trouble: BaseException | None = None
        while trouble is not None or not end.said_bye or end.due:
            try:
                if trouble is not None:
                    self._stumbled(trouble)
                    trouble = None
                self._step()
            except _Terminated:
                raise
            except BaseException as exc:
                trouble = exc
        self._rouser.end()
        end.close()
        flush(self._context)

    def _step(self) -> None:
        """One message, and the calls that it brought."""
        end = self._end
        due = end.due
        if not due:
            data = end.carrier.receive()
            if data is None:  # signals that nobody told us of are handled now
                if self._rouser.listen() and not self._calm:  # only a call could change that
                    self._calm, end.carrier.patience_ms = True, _CALM_MS
                return
            if self._calm:
                end.carrier.patience_ms, self._calm = _LOOK_MS, False
            if not data:
                self._rouser.heard()
                return
            end.take(data)
        if len(due) == 1:
            self._perform(next(iter(due.values())))
        elif due:
            with end.holding():
                for frame in list(due.values()):
                    self._perform(frame)

    def _stumbled(self, exc: BaseException) -> None:
        """An exception that belongs to no call tore us out of the loop."""
        call = next(iter(self._end.due), 0)
        if call and call == self._begun:
            self._reply_error(call, exc, 0.0)  # it may have run; it will not run again
        else:
            print(f"Between two calls came this; server {self.name} goes on:\n{_without_us(exc)}", file=sys.stderr)
        self._end.recover()

    def _perform(self, frame: Frame) -> None:
        call = frame.call
        if call == self._begun:
            raise GridError("this call was begun, and an exception tore it off", hint="See the server's output")
        with self._claim:
            self._current = call
            withdrawn = call in self._withdrawn
            self._withdrawn.discard(call)
        if withdrawn:
            self._end.reply(call, b"", flags=CANCELLED)
            return
        self._begun = call
        began = time.perf_counter()
        method = ""
        measured = False
        try:
            method, args, kwargs = self._arguments(frame)
            expected = self._took.get(method)
            if expected is None or expected >= _SLOW_S:
                self._end.let_go()
                self._meter.begin(expected)
                measured = True
            began = time.perf_counter()
            if method[0] != "@":
                value = getattr(self.instance, method)(*args, **kwargs)
            else:
                value = self._own(method, args, kwargs)
            seconds = time.perf_counter() - began
        except _Terminated:
            raise
        except BaseException as exc:
            self._reply_error(call, exc, time.perf_counter() - began, self._meter.end() if measured else b"")
            return
        cost = self._meter.end() if measured else b""
        self._took[method] = max(seconds, 0.9 * self._took.get(method, 0.0))
        try:
            dumped = self._dumped(value, method)
            data, buffers, flags = bulk.put_apart(self._store, dumped.data, dumped.buffers, 0)
        except _Terminated:
            raise
        except BaseException as exc:  # a value's own `__reduce__` may even call `sys.exit`
            self._reply_error(call, exc, seconds, cost)
            return
        self._end.reply(call, data, buffers, flags | COST if cost else flags, seconds, cost)

    def _dumped(self, value: Any, method: str) -> codec.Dumped:
        """A value as it travels."""
        try:
            return codec.dumps(value, "the result")
        except GridError as exc:
            if isinstance(value, Generator):
                hint = f"To have its values one by one: for value in proxy.stream({method!r})(...)"
                raise type(exc)(exc.what, **{**exc.facts, "hint": hint}) from None
            if method == "@next":
                return codec.dumps(self._generators.cut(value[0], partial(codec.dumps, what="the value")))
            if method != "@map":
                raise
            return codec.dumps(_without_stowaways(*value))

    def _arguments(self, frame: Frame) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        pickle, buffers = frame.pickle, frame.buffers
        if frame.flags & IMAGE:
            with randoms.reseeded(self._stream):
                mainimage.arrive(buffers[0], self._store)
            buffers = buffers[1:]
        if frame.flags & BULK:
            pickle, buffers = bulk.bring_together(self._store, pickle, frame.flags)
        call: tuple[str, tuple[Any, ...], dict[str, Any]] = codec.loads(pickle, buffers)
        return call

    def _own(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call for the server itself and not for the instance."""
        if method == "@get":
            value = getattr(self.instance, args[0])
            if callable(value) and args[0] not in getattr(self.instance, "__dict__", {}):
                return _IsMethod()
            return value
        if method == "@set":
            return setattr(self.instance, *args)
        if method == "@workdir":
            return _work_in(args[0] or self._root)
        if method == "@ends":
            return self._before_end(*args)
        if method == "@snapshot":
            return saving.snapshot(self.instance, self.name, *args)
        if method == "@map":
            return self._map(*args)
        if method == "@call":  # an instance that is itself a function
            return self.instance(*args, **kwargs)
        if method == "@keep":
            which, its_args, its_kwargs = args
            return kept.keep(getattr(self.instance, which)(*its_args, **its_kwargs), self._store)
        if method == "@take":
            return self._take(*args, **kwargs)
        if method == "@next":
            return self._generators.step(*args)
        if method == "@stream":
            return self._open_stream(*args)
        if method == "@shut":
            return self._generators.shut(*args)
        raise GridError(f"unknown server operation {method!r}", hint="Client and host differ in version")

    def _open_stream(self, key: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call a method that gives values one by one; the client asks for them next."""
        try:
            self._generators.begin(key, method, getattr(self.instance, method)(*args, **kwargs))
        except BaseException:
            self._generators.never(key)
            raise

    def _take(self, method: str, value: kept.KeptValue, *, drop: bool) -> Any:
        """Call `method` with a value that lies in a blob of this host."""
        try:
            parts = self._store.read(value.blob, value.sizes, drop=drop)
        except FileNotFoundError:
            raise GridError("the value handed over is gone", hint="Hand it over before it is dropped") from None
        return getattr(self.instance, method)(value.rebuild(parts))

    def _map(self, method: str, items: list[Any], star: bool) -> tuple[list[Any], dict[int, tuple[bytes, str]]]:
        """Run `method` for each of `items`: values in their order, and the errors of those that have none."""
        call = self.instance if method == "__call__" else getattr(self.instance, method)
        values: list[Any] = []
        errors: dict[int, tuple[bytes, str]] = {}
        for item in items:
            try:
                values.append(call(*item) if star else call(item))
            except _Terminated:
                raise
            except BaseException as exc:
                errors[len(values)] = told(exc)
                values.append(None)
        return values, errors

    def _before_end(self, seconds: float, save: bool) -> saving.Saved | None:
        """Its allocation ends in `seconds`: tell the instance if it wants to know, give its state if that is asked."""
        hook = getattr(type(self.instance), "allocation_ends", None)
        if hook is not None:
            hook(self.instance, seconds)
        return saving.saved(self.instance, self.name) if save else None

    def withdraw(self, call: int) -> bool:
        """Whether a call will not run: it had not begun."""
        with self._claim:
            granted = call > self._current
            if granted:
                self._withdrawn.add(call)
        return granted

    def _reply_error(self, call: int, exc: BaseException, seconds: float, cost: bytes = b"") -> None:
        flags = ERROR | COST if cost else ERROR
        self._end.reply(call, codec.dumps_whole(told(exc)), flags=flags, seconds=seconds, cost=cost)

    def _change_client(self, epoch: int) -> dict[str, Any]:
        """Another client has taken the place of ours: what it has to know, whatever call runs meanwhile."""
        outlet, session = self._end.hand_over(epoch), self._end.session
        time.sleep(SETTLES_S)
        return {"attached": epoch, "outlet": outlet, "numbers": [session.received, session.posted, session.confirmed]}

    def _listen(self) -> None:
        """Thread: words from the agent. Its silence for good ends this process and all that it started."""
        try:
            with self._control.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "cancel" in message:
                        call = message["cancel"]
                        _say(self._control, {"cancelled": call, "granted": self.withdraw(call)})
                    elif "attach" in message:
                        _say(self._control, self._change_client(message["attach"]))
                    elif "profile" in message:
                        Sampler(*message["profile"]).start()
                    elif "debug" in message:
                        logging.getLogger().setLevel(logging.DEBUG if message["debug"] else logging.WARNING)
        except (OSError, ValueError):
            pass
        os.killpg(0, signal.SIGKILL)


def _work_in(place: str) -> None:
    """Have relative names begin there."""
    try:
        os.chdir(os.path.expanduser(place))
    except OSError as exc:
        raise GridError(
            f"it can't work in the directory {place!r} ({exc.strerror})",
            hint="Name one that this host has, or leave `workdir` out: then it works in the staging directory",
        ) from exc


_LOOK_MS = 500
"""An idle server checks this often for signals that code of the user takes instead of us."""
_CALM_MS = 60_000
"""The same where such code is not there: a thousand idle servers that woke twice a second took a quarter of a core."""
_SLOW_S = 0.0005
"""Replies don't wait for a call that may take longer than this."""


class _Terminated(SystemExit):
    """SIGTERM: unlike a SystemExit of the user's own this one ends the server."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated(0)


class _IsMethod:
    """The answer when a method is read as an attribute: the proxy makes its own method from it."""


def is_method(value: object) -> bool:
    """Whether a remote attribute turned out to be a method."""
    return isinstance(value, _IsMethod)


def _without_stowaways(
    values: list[Any], errors: dict[int, tuple[bytes, str]]
) -> tuple[list[Any], dict[int, tuple[bytes, str]]]:
    """The outcome of a map, with an error for each value that can't travel."""
    for at, value in enumerate(values):
        try:
            codec.dumps(value, "the result")
        except Exception as exc:
            values[at], errors[at] = None, told(exc)
    return values, errors


def told(exc: BaseException) -> tuple[bytes, str]:
    """An exception as it travels, and its traceback."""
    text = _without_us(exc)
    return raised.told(exc, text), text


def _without_us(exc: BaseException) -> str:
    """The traceback of an exception of the user's code, without grid's own frames at its top."""
    return raised.text_of(exc, os.path.dirname(__file__))


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # the agent is gone; `_listen` ends us
