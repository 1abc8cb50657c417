"""The CURVE sockets of one process let the client's key in, and nobody else for long.

A thread answers libzmq's question "may this key come in?" (ZAP, ZeroMQ RFC 27). It also sees to it that connections
which have not proved who they are stay few: libzmq itself knows no bound for them, and once a process has no descriptor
left it burns a core (measured: 900 idle strangers, soft limit 1,024).

libzmq tells (socket monitor) the descriptor of each connection that it accepts. Whether its other end has proved who it
is, the kernel knows: READY, the last word of the handshake, goes to the admitted key alone (RFC 26), so whoever was
sent more than comes before it is in. Others are hung up on when their time is over, when too many wait (`strangers`),
and when they send more than any handshake takes. Descriptors are used again by libzmq and by the user's code, so each
is duplicated and its two addresses are compared before anything is done to it.

Where the kernel does not tell (only Linux does), libzmq's own limit for handshakes is all there is.

Lives here: the thread, ZAP, counting what was sent.
Elsewhere:  keys (`keys`), whom a crowd pushes out (`strangers`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from typing import Any

import zmq
from zmq.utils import z85

from grid.wire import monitor
from grid.wire.limits import HANDSHAKE_BYTES, LINE, SPEAKERS, STRANGER_S, strangers
from grid.wire.strangers import Strangers

ZAP = "inproc://zeromq.zap.01"  # fixed by RFC 27
_BEFORE_READY = 256
"""Most that is sent before READY: a greeting of 64 bytes, WELCOME with 170, or instead of READY an ERROR with 12."""
_COUNTERS = struct.Struct("=QQ")  # tcpi_bytes_acked and tcpi_bytes_received (RFC 4898), in <linux/tcp.h>
_COUNTERS_AT = 120


def patient(listener: zmq.Socket[Any]) -> None:
    """Options of a socket that strangers can reach; before bind."""
    listener.handshake_ivl = int(STRANGER_S * 1000)
    listener.backlog = LINE  # a rightful client stands in line behind a crowd


class Gatekeeper:
    """For all sockets of a context.

    Args:
        listeners: Those that strangers can reach; not yet bound.
    """

    def __init__(self, context: zmq.Context[Any], admitted: bytes, listeners: tuple[zmq.Socket[Any], ...] = ()) -> None:
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP)
        self._admitted = admitted
        self._context, self._told = context, threading.Lock()
        self._doors = [_Door(context, listener) for listener in listeners] if sys.platform == "linux" else []
        self._bell = context.socket(zmq.PULL)  # rings when there is another door
        self._bell.bind(self._bell_at)
        self._rope: zmq.Socket[Any] | None = None
        self._coming: deque[_Door] = deque()
        self._thread = threading.Thread(target=self._serve, name="grid-gatekeeper", daemon=True)
        self._thread.start()

    @property
    def _bell_at(self) -> str:
        return f"inproc://grid-gatekeeper-{id(self)}"

    def guard(self, listener: zmq.Socket[Any]) -> None:
        """There will be another listener; before it is bound. Any thread."""
        if sys.platform != "linux":
            return
        with self._told:
            self._coming.append(_Door(self._context, listener))
            if self._rope is None:
                self._rope = self._context.socket(zmq.PUSH)
                self._rope.linger = 0
                self._rope.connect(self._bell_at)
            self._rope.send(b"")

    def _take_doors(self, poller: zmq.Poller) -> None:
        while self._bell.poll(0):
            self._bell.recv()
        while self._coming:
            self._doors.append(self._coming.popleft())
            self._watch(poller, self._doors[-1])

    @staticmethod
    def _watch(poller: zmq.Poller, door: _Door) -> None:
        poller.register(door.news, zmq.POLLIN)
        poller.register(door.talk.fileno(), zmq.POLLIN)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        for door in self._doors:
            self._watch(poller, door)
        try:
            while True:
                now = time.monotonic()
                patience = [left for door in self._doors if (left := door.strangers.patience(now)) is not None]
                ready = dict(poller.poll(int(min(patience) * 1000) + 1 if patience else None))
                if self._bell in ready:
                    self._take_doors(poller)
                if self._socket in ready:
                    self._answer()
                for door in self._doors:
                    door.look()
        except zmq.ZMQError:  # the context was ended
            self._socket.close(0)
            self._bell.close(0)
            if self._rope is not None:
                self._rope.close(0)
            for door in (*self._doors, *self._coming):
                door.close()

    def _answer(self) -> None:
        message = self._socket.recv_multipart()
        version, request = message[0], message[1]
        mechanism, key = message[5], message[6] if len(message) > 6 else b""
        ok = mechanism == b"CURVE" and z85.encode(key) == self._admitted
        status = [b"200", b"welcome", b"client", b""] if ok else [b"400", b"no", b"", b""]
        self._socket.send_multipart([version, request, *status])


class _Door:
    """One listener, as its monitor tells of it: the gatekeeper's thread owns it."""

    def __init__(self, context: zmq.Context[Any], listener: zmq.Socket[Any]) -> None:
        address = f"inproc://grid-door-{id(listener)}"
        listener.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.news = context.socket(zmq.PAIR)
        self.news.rcvhwm = 0  # with a bound libzmq would wait for us in its own thread, and its heartbeats with it
        self.news.connect(address)
        self.strangers: Strangers[_Line] = Strangers(strangers(), STRANGER_S)
        self._speakers: Strangers[_Line] = Strangers(SPEAKERS, STRANGER_S)  # of them
        self.talk = select.epoll()  # tells which of them say something
        self._by_fd: dict[int, _Line] = {}

    def close(self) -> None:
        """After the context was ended."""
        self.news.close(0)
        self.talk.close()

    def look(self) -> None:
        """Take the news, and hang up on those who have to go."""
        while (news := monitor.read_value(self.news)) is not None:
            event, fd = news
            if event == zmq.EVENT_ACCEPTED:
                self._came(fd)
            elif fd in self._by_fd:
                self._forget(self._by_fd[fd])
        for fd, _ in self.talk.poll(0):
            line = self._by_fd.get(fd)
            if line is not None:
                self._judge(line)
        for line in self.strangers.overdue(time.monotonic()):
            self._go(line)

    def _came(self, fd: int) -> None:
        line = _Line.of(fd)
        if line is not None:
            self._by_fd[fd] = line
            try:
                self.talk.register(fd, select.EPOLLIN | select.EPOLLET)
            except OSError:
                pass  # it ended just now, or is watched since before its number was used again
            for victim in self.strangers.came(line, line.theirs[0], time.monotonic()):
                self._go(victim)

    def _judge(self, line: _Line) -> None:
        """It has said something."""
        counters = line.counters()
        if counters is None or counters[0] > _BEFORE_READY:
            self._forget(line)
        elif counters[1] > HANDSHAKE_BYTES:
            self._go(line)
        elif not line.speaks:
            line.speaks = True
            for victim in self._speakers.came(line, line.theirs[0], time.monotonic()):
                self._go(victim)

    def _go(self, line: _Line) -> None:
        self._forget(line)
        line.hang_up_on_a_stranger()

    def _forget(self, line: _Line) -> None:
        self.strangers.left(line)
        self._speakers.left(line)
        if self._by_fd.get(line.fd) is line:
            del self._by_fd[line.fd]
            try:
                self.talk.unregister(line.fd)
            except OSError:
                pass  # its end has done so


class _Line:
    """A connection of libzmq's: a descriptor that may mean something else by now."""

    def __init__(self, fd: int, ours: Any, theirs: Any) -> None:
        self.fd, self.ours, self.theirs = fd, ours, theirs
        self.speaks = False

    @classmethod
    def of(cls, fd: int) -> _Line | None:
        """None if it is closed already."""
        try:
            with socket.socket(fileno=os.dup(fd)) as line:
                return cls(fd, line.getsockname(), line.getpeername())
        except OSError:
            return None

    def hang_up_on_a_stranger(self) -> None:
        """End it, unless its other end has proved who it is."""
        try:
            with self._again() as line:
                if _counters(line)[0] <= _BEFORE_READY:
                    line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself

    def counters(self) -> tuple[int, int] | None:
        """Bytes that were sent and acknowledged, and received; None if it has ended."""
        try:
            with self._again() as line:
                return _counters(line)
        except OSError:
            return None

    def _again(self) -> socket.socket:
        """A descriptor of our own of the same connection. OSError: it has ended, and its number may mean another."""
        line = socket.socket(fileno=os.dup(self.fd))
        try:
            if line.getsockname() != self.ours or line.getpeername() != self.theirs:
                raise OSError(errno.ENOTCONN, "another connection has its number")
        except BaseException:
            line.close()
            raise
        return line


def _counters(line: socket.socket) -> tuple[int, int]:
    """Bytes that were sent and acknowledged, and received. OSError where the kernel does not tell."""
    info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _COUNTERS_AT + _COUNTERS.size:
        raise OSError(errno.ENOSYS, "Linux before 4.1")
    sent, received = _COUNTERS.unpack_from(info, _COUNTERS_AT)
    return sent, received
