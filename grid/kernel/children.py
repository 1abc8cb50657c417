"""The servers of one agent: started a few at a time by its zygote, heard, told, ended, and reported when they end.

    Nursery     the zygote and the line to it. To have one is to have forked: its maker has no thread and no ZeroMQ
    Children    the table of servers; everything that one of them prints, says or suffers ends up here

Both are of the agent's one thread. What the client is to know leaves by `Answers`: events, and answers to `cancel`.

Lives here: the table, wishes for servers, news of the zygote and of servers, what is told of them.
Elsewhere:  one server (`child`), lines of words (`control`), forking (`zygote`), who asks for servers (`requests`),
            how much output may be under way (`outgoing`).
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from grid.kernel import descriptors, sampler
from grid.kernel.answers import Answers
from grid.kernel.child import Child, how_it_ended
from grid.kernel.control import Control
from grid.kernel.ground import Ground
from grid.kernel.lease import Lease
from grid.kernel.orphans import adopt
from grid.kernel.outgoing import Outgoing
from grid.kernel.slots import Slots
from grid.kernel.stacks import LookedAt, file_of
from grid.kernel.zygote import TOLD, Zygote
from grid.limits import Limits

_AT_ONCE = 8
"""Servers that are started between two looks at everybody else."""
_REMEMBERED = 1000
"""Ends of servers, for a client to come."""
_DESCRIPTORS = 8
"""Descriptors that one more server may need here while it starts."""


class Nursery:
    """The zygote, as its agent has it. Making one forks.

    Only what must be on this side of the fork is done before: directories, the lease. What must not be shared with
    the zygote takes a `Nursery` as an argument, or is done here after the fork.
    """

    def __init__(self, config: dict[str, Any], ground: Ground, lease: Lease) -> None:
        adopt()  # should the zygote be killed
        ours, theirs = socket.socketpair()
        will = {name: config[name] for name in ("client", "in_job", "script")}
        will["base"] = str(ground.base or "")
        will["ours"] = [str(path) for path in [*ground.ours, lease.path]]
        # a batch system that kills its job at one stroke must leave one to clean up; that ends by itself
        self._zygote = Zygote(theirs, will, ground.log, new_session=config["in_job"])
        theirs.close()
        self.pid = config["heir"] = self._zygote.pid
        lease.name_zygote(self.pid)
        self.socket = ours
        self.line = Control(ours)
        descriptors.raise_limit()  # servers keep the limit that their user knows; here is room for strangers
        ground.hold(self._zygote)

    def ask(self, spec: dict[str, Any], output: int, control: int, locks: Sequence[int] = ()) -> None:
        """Have a server forked, which keeps `locks` open. Raises OSError."""
        data = pickle.dumps(spec, 5)
        socket.send_fds(self.socket, [struct.pack("<I", len(data))], [output, control, *locks])
        self.socket.sendall(data)

    def end(self, limit_s: float, *, told: bool) -> None:
        """End the zygote, which kills what is left and removes our directories.

        Args:
            told: A signal told us to end; whoever sent it may be about to kill our client as well.
        """
        if told:
            try:
                self.socket.sendall(TOLD)
            except OSError:
                pass  # it is dead
        self.line.close()
        self._zygote.end(limit_s)


class Children:
    """See the module.

    Args:
        common: What the spec of every server says besides the client's wish.
        slots: What each is born with.
        forked: Called when there is a new process, for the lease.
    """

    def __init__(
        self,
        nursery: Nursery,
        poller: zmq.Poller,
        ground: Ground,
        answers: Answers,
        limits: Limits,
        common: dict[str, Any],
        slots: Slots,
        forked: Callable[[], None],
    ) -> None:
        self._nursery, self._poller, self._ground, self._answers = nursery, poller, ground, answers
        self._limits, self._common, self._slots, self._forked = limits, common, slots, forked
        self._wishes: deque[dict[str, Any]] = deque()  # servers to be started
        self._after: dict[str, dict[str, Any]] = {}  # the same, once their earlier process has ended
        self._servers: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._outgoing = Outgoing()
        self.fault = ""  # what the zygote died of, if it could say
        self._epoch: int = common["epoch"]  # of the client
        self._certificates: dict[str, dict[str, Any]] | None = None  # of servers that have ended, for a client to come
        poller.register(nursery.line.fileno(), zmq.POLLIN)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._servers)

    # -- what the client asks for ----------------------------------------------------------------------------------

    def wish(self, wishes: list[dict[str, Any]], published: dict[str, Any]) -> None:
        """Servers are to be started. Each wish: name, service_id, peer, niceness; `published`: blob, sizes, image."""
        self._wishes += ({**wish, **published} for wish in wishes)

    def stop(self, names: list[str], force: bool) -> None:
        """End servers: at once if `force`, else after a polite word (they were said BYE) and some patience."""
        now, wanted = time.monotonic(), set(names)
        never = [wish["name"] for wish in self._wishes if wish["name"] in wanted]
        if never:
            self._wishes = deque(wish for wish in self._wishes if wish["name"] not in wanted)
        never += [name for name in names if self._after.pop(name, None) is not None]
        for name in wanted - self._servers.keys():  # perhaps its slot was reserved, and no more
            self._slots.free(name)
        for name in never:
            self._answers.tell(("failed", name, "it was ended before it was started", ""))
        patience = 0.0 if force else self._limits.stop_s
        first = signal.SIGKILL if force else signal.SIGTERM
        for name in names:
            if name in self._servers:
                self._slots.leaving(name)
                self._servers[name].condemn([(now + patience, first), (now + 2 * patience, signal.SIGKILL)])

    def stop_all(self, force: bool) -> None:
        """End all of them in that way."""
        self.stop(list(self._servers), force)

    def cancel(self, name: str, which: int, asked: int) -> bool:
        """Ask a server to withdraw its call `which`; call `asked` of the client is answered when it has told."""
        server = self._servers.get(name)
        if server is None or not server.ready:
            return False
        server.cancels[which] = asked
        server.control.say({"cancel": which})
        return True

    def remember_ends(self) -> None:
        """Another client may come, and ask how servers have ended."""
        self._certificates = {}

    def hand_over(self, epoch: int) -> dict[str, Any]:
        """Another client has taken the place of ours: what it has to know. Each server's own word follows later."""
        self._common["epoch"] = self._epoch = epoch
        for server in self._servers.values():
            if server.ready:
                server.control.say({"attach": epoch})
        wished = [(wish["name"], wish["peer"]) for wish in (*self._wishes, *self._after.values())]
        return {
            "servers": {**dict(wished), **{server.name: server.peer for server in self._servers.values()}},
            "ended": self._certificates or {},
        }

    def set_debug(self, debug: bool) -> None:
        """Change the log level of all servers, and of those started later."""
        self._common["debug"] = debug
        for server in self._servers.values():
            server.control.say({"debug": debug})

    def tail(self, name: str, lines: int) -> str:
        """Last lines that a server printed; empty if there is none of that name."""
        server = self._servers.get(name)
        return server.tail(lines) if server else ""

    def to_be_looked_at(self, names: list[str] | None) -> list[LookedAt]:
        """Those of these servers (None: of all) that are ready, for a look at their stacks."""
        return [
            LookedAt(server.name, server.pid, file_of(self._ground.sockets, server.peer))
            for server in self._servers.values()
            if server.ready and (names is None or server.name in names)
        ]

    def sample(self, names: list[str], seconds: float, interval_s: float) -> list[LookedAt]:
        """Have those of these servers that are ready sample their stacks, each into a file."""
        chosen = self.to_be_looked_at(names)
        for one in chosen:
            path = sampler.file_of(one.path)
            path.unlink(missing_ok=True)
            self._servers[one.name].control.say({"profile": [seconds, interval_s, str(path)]})
        return chosen

    def has_ended(self, name: str) -> bool:
        """Whether there is no server of that name any more. Any thread may ask."""
        return name not in self._servers

    def status(self) -> list[dict[str, Any]]:
        """For the client: each server's name, pid, whether it is ready, its log."""
        return [
            {
                "name": s.name,
                "pid": s.pid,
                "ready": s.ready,
                "log": str(self._ground.log_of(s.name)),
                "slot": self._slots.shown(s.name),
            }
            for s in self._servers.values()
        ]

    # -- the loop --------------------------------------------------------------------------------------------------

    def hear_zygote(self, ready: dict[Any, int]) -> bool:
        """News of processes, if there are any; false once the zygote is dead, or has failed and waits for our end."""
        line = self._nursery.line
        if ready.get(line.fileno(), 0) & zmq.POLLIN:
            for words in line.hear():
                self._hear_of(words)
        return not (line.ended or self.fault)

    def _hear_of(self, words: dict[str, Any]) -> None:
        if "forked" in words:
            server = self._servers[words["forked"]]
            server.pid = words["pid"]
            self._by_pid[server.pid] = server
            self._forked()
        elif "died" in words:
            self.fault = f": {words['died']}"
        elif "refused" in words:
            refused = self._servers[words["refused"]]
            refused.failed = words["why"]
            refused.exit = {"status": 0, "peak_kb": 0}
            self._maybe_ended(refused)
        else:
            ended = self._by_pid.pop(words["exited"], None)
            if ended is not None:
                ended.exit = words
                self._maybe_ended(ended)

    def start_some(self) -> None:
        """Start some of the wanted servers: others come up meanwhile, and their messages have to be read."""
        for _ in range(_AT_ONCE):
            if not self._wishes:
                break
            wish = self._wishes.popleft()
            if wish["name"] in self._servers:  # it comes back, and has not quite left
                self._after[wish["name"]] = wish
                continue
            try:
                self._start(wish)
            except OSError as exc:
                self._slots.free(wish["name"])
                why = f"this host has no room for it ({exc.strerror}; {descriptors.limit()})"
                self._answers.tell(("failed", wish["name"], why, ""))
        # looked at again as soon as the zygote takes more
        self._poller.modify(self._nursery.line.fileno(), zmq.POLLIN | (zmq.POLLOUT if self._wishes else 0))

    def _start(self, wish: dict[str, Any]) -> None:
        if descriptors.left() < _DESCRIPTORS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        name = wish["name"]
        server = Child(name, wish["peer"], reader, Control(ours), self._ground.log_of(name), self._slots.limit(name))
        server.epoch = self._epoch
        birth, locks = self._slots.birth(name)
        try:
            self._nursery.ask({**wish, **self._common, "birth": birth}, writer, theirs.fileno(), locks)
        finally:
            os.close(writer)
            theirs.close()
            for fd in locks:
                os.close(fd)
        self._servers[name] = server
        self._poller.register(reader, zmq.POLLIN)
        self._poller.register(ours.fileno(), zmq.POLLIN)

    def hear_servers(self, ready: dict[Any, int]) -> None:
        """The output and words of servers."""
        for server in list(self._servers.values()):
            if server.output in ready:
                self._take_output(server, server.read)
                self._maybe_ended(server)
            if server.control.fileno() in ready:
                self._hear(server)

    def _take_output(self, server: Child, read: Callable[[], str | None]) -> None:
        fd = server.output
        if (printed := read()) is not None:
            self._outgoing.add(server.name, printed)
        if server.output < 0:
            self._poller.unregister(fd)

    def _hear(self, server: Child) -> None:
        fd = server.control.fileno()
        for words in server.control.hear():
            if "ready" in words:
                server.ready, server.inlet = True, words["ready"][0]
                if server.epoch == self._epoch:
                    self._answers.tell(("ready", server.name, *words["ready"], words["pid"]))
                else:
                    server.control.say({"attach": self._epoch})
            elif "attached" in words:
                server.epoch = words["attached"]
                if server.epoch == self._epoch:
                    told = (server.name, server.peer, server.inlet, words["outlet"], words["numbers"])
                    self._answers.tell(("attached", *told))
            elif "failed" in words:
                server.failed = words["failed"] + "\n" + words["traceback"]
            elif "cancelled" in words:
                asked = server.cancels.pop(words["cancelled"], None)
                if asked is not None:
                    self._answers.answer(asked, words["granted"])
        if server.control.ended:  # the zygote tells when its process ends
            self._poller.unregister(fd)
            server.control.close()

    def relay(self, unconfirmed: int) -> None:
        """Pass on what servers printed, as much as the client takes: it has `unconfirmed` bytes under way."""
        if printed := self._outgoing.take(unconfirmed):
            self._answers.tell(("output", printed))

    # -- ends ------------------------------------------------------------------------------------------------------

    def _maybe_ended(self, server: Child) -> None:
        """Once its process is reaped and its output read to the end."""
        if server.exit is None or server.name not in self._servers:
            return
        if server.output >= 0:
            self._take_output(server, server.last_words)
        if not server.control.ended:
            self._hear(server)
            if not server.control.ended:
                self._poller.unregister(server.control.fileno())
        del self._servers[server.name]
        server.forget()
        if (group := self._slots.memory_end(server.name)) is not None:
            server.killed_by_kernel(group.kills, group.peak)
        self._slots.free(server.name)
        if (wish := self._after.pop(server.name, None)) is not None:
            self._wishes.append(wish)
            self._poller.modify(self._nursery.line.fileno(), zmq.POLLIN | zmq.POLLOUT)  # `start_some` comes soon
        self._ground.drop_sockets(server.peer, server.pid)
        for asked in server.cancels.values():
            self._answers.answer(asked, False)
        certificate = server.certificate(self._limits.output_lines)
        if self._certificates is not None:
            self._certificates[server.name] = certificate
            while len(self._certificates) > _REMEMBERED:
                del self._certificates[next(iter(self._certificates))]
        if printed := self._outgoing.take_all():
            self._answers.tell(("output", printed))
        if server.ready:
            self._answers.tell(("ended", server.name, certificate))
        else:
            why = server.failed or how_it_ended(certificate)
            self._answers.tell(("failed", server.name, why, certificate["last_output"]))

    @property
    def due(self) -> list[float]:
        """When servers get their next signals, and when to look at their memory."""
        servers = self._servers.values()
        return [at for server in servers for at in (server.due, server.look_at) if at is not None]

    def signal_due(self, now: float) -> None:
        """Send what is due to servers that are to end, and end those that take more memory than they may."""
        for server in self._servers.values():
            server.look(now)
            server.signal_due(now)

    def start_no_more(self) -> None:
        """The agent ends: forget what was wished for."""
        self._wishes.clear()
        self._after.clear()

    def condemn(self, patience: float) -> None:
        """Have all of them end now, and kill them after `patience` seconds."""
        now = time.monotonic()
        for server in self._servers.values():
            server.condemn([(now, signal.SIGTERM), (now + patience, signal.SIGKILL)])
        self.signal_due(now)

    def pids(self) -> dict[str, int]:
        """For the lease: name -> pid of those that have a process."""
        return {server.name: server.pid for server in self._servers.values() if server.pid}

    def kill_all(self) -> None:
        """Whatever state they are in."""
        for server in self._servers.values():
            server.signal(signal.SIGKILL)
