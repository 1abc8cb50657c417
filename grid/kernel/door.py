"""The door of an agent that waits for its client: by it another client takes the place of the one that was here.

    client -> door    {"attach": epoch, "who": text}        | {"look": true}
    door -> client    {"ends": [inlet, outlet], "servers": {name: peer}, "ended": {name: certificate}}
                      | {"refused": why}            | {"over_s": seconds, "servers": number, "epoch": epoch}

Each client of a grid has an epoch, a number that grows. Who attaches names the next one. From the answer on the agent
and its servers take nothing from the old client and tell it nothing: all send from new outlets, and a message that
carries another epoch is dropped. So two clients at once are impossible, also if the old one was only asleep.

A socket of its own, because who comes does not know the numbers of the old link. Only holders of the grid's keys get
in; on the client's own machine it is a UNIX socket in a directory of mode 0700.

Lives here: the socket, words over it; both ends.
Elsewhere:  what follows from them (`agent`), the sockets that change (`wire/zeromq`, `hostend`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zmq

from grid.wire.keys import Keys
from grid.wire.zeromq import bind_port

_LONGEST = 1 << 16


class AgentDoor:
    """The agent's end; its thread alone touches it. `socket`: for a poller, and for a gatekeeper before it is bound."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.maxmsgsize = _LONGEST
        self.socket.sndtimeo = 0

    def open(self, sockets: Path, address: str, keys: Keys | None) -> str:
        """Listen; returns the endpoint."""
        if keys is not None:
            return bind_port(self.socket, address, keys)
        end = f"ipc://{sockets / 'door'}"
        self.socket.bind(end)
        return end

    def hear(self) -> tuple[Any, dict[str, Any]] | None:
        """Who asks, and what; None: nobody, or nothing that makes sense."""
        try:
            who, *_, words = self.socket.recv_multipart(zmq.NOBLOCK)
            asked = json.loads(words)
        except (zmq.Again, ValueError):
            return None
        return (who, asked) if isinstance(asked, dict) else None

    def answer(self, who: Any, words: dict[str, Any]) -> None:
        """Answer who asked; nothing happens if he has left."""
        try:
            self.socket.send_multipart([who, json.dumps(words).encode()])
        except zmq.ZMQError:
            pass


def ask(endpoint: str, keys: Keys | None, words: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The client's end: ask at a door.

    Raises:
        TimeoutError: Nobody answers there.
    """
    context: zmq.Context[Any] = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.ipv6 = True
            socket.rcvtimeo = int(timeout_s * 1000)
            if keys is not None:
                keys.call(socket)
            socket.connect(endpoint)
            socket.send(json.dumps(words).encode())
            try:
                answer: dict[str, Any] = json.loads(socket.recv())
            except zmq.Again as exc:
                raise TimeoutError(f"nobody answers at {endpoint}") from exc
            return answer
    finally:
        context.term()
