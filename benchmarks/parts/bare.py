"""The limit that calls are measured against: pyzmq and pickle with nothing around them.

A process with a PULL and a PUSH socket unpickles (method, args, kwargs), does what is asked, pickles the answer: no
numbering, no acknowledgement, no futures, no identity of classes, one caller, one connection, and nothing if it breaks.

Lives here: that process, over UNIX sockets or TCP, with CURVE or without, and its caller.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq


class Bare:
    """The caller's end. `command` starts Python somewhere; the two meet at `address` (None: UNIX sockets)."""

    def __init__(
        self,
        *,
        address: str | None = None,
        curve: bool = False,
        arrays: bool = False,
        command: Sequence[str] = (sys.executable,),
    ) -> None:
        self._arrays = arrays
        self._folder = tempfile.TemporaryDirectory()
        self._context = zmq.Context()
        self.push, self.pull = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
        server, client = zmq.curve_keypair(), zmq.curve_keypair()
        place = f"tcp://{address}" if address else f"ipc://{self._folder.name}"
        told = {"place": place, "secret": server[1].decode() if curve else "", "public": server[0].decode()}
        told["arrays"] = arrays
        path = str(Path(__file__).resolve())
        self._process = subprocess.Popen(
            [*command, path, json.dumps(told)], stdout=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        )
        assert self._process.stdout is not None
        ends = json.loads(self._process.stdout.readline())
        for socket, end in zip((self.push, self.pull), ends, strict=True):
            socket.sndhwm = socket.rcvhwm = 0
            if curve:
                socket.curve_serverkey, (socket.curve_publickey, socket.curve_secretkey) = server[0], client
            socket.connect(end)

    def call(self, method: str, *args: Any) -> Any:
        """One call and its answer."""
        self.send(method, *args)
        return self.receive()

    def send(self, method: str, *args: Any) -> None:
        """A call. With `arrays` they go out of band, as frames that are not copied; without, no thought is given."""
        if not self._arrays:
            self.push.send(pickle.dumps((method, args, {}), 5))
            return
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps((method, args, {}), 5, buffer_callback=buffers.append)
        self.push.send_multipart([data, *buffers], copy=False)

    def receive(self) -> Any:
        """The answer that comes next."""
        if not self._arrays:
            return pickle.loads(self.pull.recv())
        data, *buffers = self.pull.recv_multipart(copy=False)
        return pickle.loads(data.buffer, buffers=[frame.buffer for frame in buffers])

    def __enter__(self) -> Bare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self.push.close(0)
        self.pull.close(0)
        self._context.term()
        self._folder.cleanup()


def serve(place: str, secret: str, public: str, arrays: bool) -> None:
    """The other end, in its own process."""
    context = zmq.Context()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    ends = []
    for socket, name in (pull, "i"), (push, "o"):
        socket.sndhwm = socket.rcvhwm = 0
        if secret:
            socket.curve_server, socket.curve_secretkey, socket.curve_publickey = 1, secret.encode(), public.encode()
        if place.startswith("tcp"):
            ends.append(f"{place}:{socket.bind_to_random_port(place)}")
        else:
            ends.append(f"{place}/{name}")
            socket.bind(ends[-1])
    print(json.dumps(ends), flush=True)
    if arrays:
        serve_arrays(pull, push)
    count = 0
    while True:
        _, args, _ = pickle.loads(pull.recv())
        count += args[0]
        push.send(pickle.dumps(count, 5))


def serve_arrays(pull: zmq.Socket[bytes], push: zmq.Socket[bytes]) -> None:
    """Swallow an array, make one, or echo it."""
    while True:
        data, *frames = pull.recv_multipart(copy=False)
        method, args, _ = pickle.loads(data.buffer, buffers=[frame.buffer for frame in frames])
        value: Any = args[0]
        if method == "swallow":
            value = len(memoryview(value))
        elif method == "make":
            value = pickle.PickleBuffer(bytearray(value))
        buffers: list[pickle.PickleBuffer] = []
        answer = pickle.dumps(value, 5, buffer_callback=buffers.append)
        push.send_multipart([answer, *buffers], copy=False)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
