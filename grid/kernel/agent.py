"""The agent: one per host and grid. Receives code and instances once, starts servers, relays what they print, tells how
they ended, and cleans up behind them.

One thread runs everything that changes state; work that takes long (unpacking files) is done by helpers that hand their
outcome back. It answers calls like a server does, over the same kind of link, but out of order where an answer takes
time, and sends events that nobody asked for (`answers`).

    Agent       the loop: who is heard when, the lifeline, the end
    Children    the servers, and the zygote that forks them
    Requests    what the client may ask for
    Control     lines of words to servers and zygote

A client that is unreachable for `orphan_s` ends everything: nothing on a host outlives its grid. On the client's own
machine the end of standard input is proof enough and ends it at once. Where the grid was to be kept (`keep`), it waits
for that time instead, for this client or for another one, which comes by the door.

Lives here: the loop, the lifeline, the end.
Elsewhere:  servers (`children`, `child`), requests (`requests`), directories (`ground`), forking (`zygote`), one server
            (`serve`), first words (`boot`).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import signal
import sys
import sysconfig
import time
from collections.abc import Callable
from typing import Any, NoReturn

import zmq

from grid.errors import GridError
from grid.kernel import logs, title
from grid.kernel.address import address_towards
from grid.kernel.answers import Answers
from grid.kernel.children import Children, Nursery
from grid.kernel.door import AgentDoor
from grid.kernel.filestore import FileStore
from grid.kernel.ground import Ground
from grid.kernel.hostend import HostEnd
from grid.kernel.lease import Lease
from grid.kernel.orphans import Orphans
from grid.kernel.presence import Presence
from grid.kernel.requests import AgentRequests
from grid.kernel.slots import Slots
from grid.kernel.variables import expanded
from grid.limits import Limits
from grid.wire.codec import CACHE_TAG
from grid.wire.gatekeeper import Gatekeeper
from grid.wire.keys import Keys
from grid.wire.lane_server import LaneServer
from grid.wire.limits import REQUEST_BYTES, REQUESTS, raise_files
from grid.wire.session import first_call
from grid.wire.zeromq import HostSockets, flush

logger = logging.getLogger(__name__)

_TOLD_S = 1.5
"""Patience with servers after SIGTERM: its sender (a batch system, a machine that goes down) kills all soon after."""

_RENEW_S = 10.0
_USED_S = 3600.0
_TURN_S = 1.0
"""Between two looks at the size of our own log."""
_NEWS_S = 0.2
"""A new server enters the lease this long after its fork: hundreds at once, not each alone."""
_LOOK_MS = 5000
"""It looks at the clock at least this often; see `presence.NAP_S`."""

ORPHANED = 75
"""Exit status of an agent whose client had ended: only its starter will clean up."""


class Agent:
    """See the module.

    Args:
        nursery: Made of the same config: the fork lies behind us, so here may be sockets and threads.
    """

    def __init__(self, config: dict[str, Any], ground: Ground, lease: Lease, nursery: Nursery) -> None:
        self._limits = limits = Limits(**config["limits"])
        self._local: bool = config["local"]
        self._in_job: bool = config["in_job"]
        self._ground, self._lease, self._nursery = ground, lease, nursery
        keys = Keys.from_json(config["keys"]) if config["keys"] else None
        address: str = config["address"]
        self._poller = zmq.Poller()
        self._context: zmq.Context[Any] = zmq.Context()
        self._carrier = HostSockets(self._context, limits)
        self._carrier.bound_inlet(REQUESTS, REQUEST_BYTES)
        self._keep_s: float | None = config["keep_s"]
        self._door = AgentDoor(self._context) if self._keep_s else None
        self._end = HostEnd(self._carrier, config["peer"], config["epoch"])
        self._end.session.received = first_call(config["epoch"])
        self.lane: LaneServer | None = None  # for blobs from other machines
        if keys:
            doors = () if self._door is None else (self._door.socket,)
            self._gatekeeper = Gatekeeper(self._context, keys.other_public, (*self._carrier.listeners, *doors))
            self._carrier.guard = self._gatekeeper.guard
            self.ends = self._carrier.bind_ports(address, keys)
            self.lane = LaneServer(address, keys.tls(server=True), ground.store, FileStore(ground.root).path)
        else:
            self.ends = self._carrier.bind_sockets(ground.sockets, f"p{config['peer']}")
        self.door = "" if self._door is None else self._door.open(ground.sockets, address, keys)
        self._answers = Answers(self._end)
        common = {
            "limits": vars(limits),
            "keys": keys.to_json() if keys else None,
            "address": address,
            "sockets": str(ground.sockets),
            "blobs": str(ground.blobs),
            "root": str(ground.root),
            "path": config["path"],
            "env": expanded(config["env"]),
            "debug": config["debug"],
            "script": config["script"],
            "epoch": config["epoch"],
            "grid": config["grid"],
            "agent": config["peer"],
        }
        self._slots = slots = Slots(
            config["servers"],
            said=config["resources"],
            environ=os.environ,
            env=config["env"],
            who=f"{config['script']} of {config['owner']}",
        )
        self._children = Children(nursery, self._poller, ground, self._answers, limits, common, slots, self._renew_soon)
        self._requests = AgentRequests(
            self._children,
            ground,
            self._answers,
            limits,
            slots,
            keys=keys,
            path=config["path"],
            zygote=nursery.pid,
            shut_down=self._shut_down,
        )
        if self._keep_s:
            self._children.remember_ends()
        waits = {name: getattr(limits, name) for name in ("start_s", "orphan_s", "lost_s", "heartbeat_s")}
        self._patience_s = waits["orphan_s"] = max(limits.orphan_s, self._keep_s or 0.0)
        self._client = Presence(time.monotonic(), **waits)
        self._next_renewal = self._next_turn = 0.0
        self._asked = False  # the client counts on us, and finds us again should its connection break
        self._told = False
        self._stopping: str | None = None
        self._stop_by = 0.0
        self._farewell_call: int | None = None
        self.status = 0  # that our process ends with

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, or until the client is unreachable for good."""
        self._serve()
        if not self._client.came and self.status != ORPHANED:
            self._let_client_come()

    def _serve(self) -> None:
        done = self._requests.background.reader
        for each in (self._carrier.bell, done, 0, *(() if self._door is None else (self._door.socket,))):
            self._poller.register(each, zmq.POLLIN)
        while True:
            ready = dict(self._poller.poll(self._patience_ms()))
            if self._door is not None and self._door.socket in ready:
                self._answer_door(self._door)
            if self._carrier.bell in ready:
                self._take_calls()
            if not self._children.hear_zygote(ready):
                self._begin_stop(f"its zygote died{self._children.fault}")
                return
            self._children.start_some()
            if done in ready:
                self._requests.background.finish(self._answers)
            if 0 in ready:
                self._read_lifeline()
            self._children.hear_servers(ready)
            self._look_at_clock()
            self._children.relay(self._end.unconfirmed)
            if self._stopping and (not self._children or time.monotonic() > self._stop_by):
                return

    def _patience_ms(self) -> int:
        until = [self._next_renewal, *self._children.due]
        until.append(self._stop_by if self._stopping else self._client.over_at)
        return max(0, min(_LOOK_MS, int((min(until) - time.monotonic()) * 1000) + 1))

    def _take_calls(self) -> None:
        for _ in range(REQUESTS):  # the rest in the next round: who sends without end must not keep us from all else
            if (data := self._carrier.receive_now()) is None:
                return
            self._client.heard(time.monotonic())  # nobody else can put anything there
            for frame in self._end.take(data):
                self._asked = True
                self._requests.answer(frame)

    def _answer_door(self, door: AgentDoor) -> None:
        """Somebody would be our client; see `door`."""
        while (asked := door.hear()) is not None:
            who, words = asked
            epoch, ours = words.get("attach"), self._end.session.epoch
            if "look" in words:
                left = self._client.over_at - time.monotonic()
                door.answer(who, {"over_s": left, "servers": len(self._children.pids()), "epoch": ours})
            elif self._stopping:
                door.answer(who, {"refused": f"it ends just now: {self._stopping}"})
            elif not isinstance(epoch, int) or epoch <= ours:
                door.answer(who, {"refused": "another client has attached to it meanwhile"})
            else:
                door.answer(who, self._hand_over(epoch, str(words.get("who"))))

    def _hand_over(self, epoch: int, who: str) -> dict[str, Any]:
        self._asked = True
        self._client.heard(time.monotonic())
        last_word = pickle.dumps(("taken", who), 5)
        outlet = self._end.begin_anew(epoch, last_word, lambda event: pickle.loads(event)[0] == "output")
        self.ends = self.ends[0], outlet
        logger.info("another client: %s", who)
        return {"ends": self.ends, **self._children.hand_over(epoch)}

    def _use_environment(self) -> None:
        """The environment that it runs in is in use, if it is one of ours (`environments`)."""
        used = os.path.join(sys.prefix, ".used")
        try:
            if time.time() - os.stat(used).st_mtime > _USED_S:
                os.utime(used)
        except OSError:
            pass  # there is none; or a disk that is full, and it only looks older than it is

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now >= self._next_renewal:
            self._renew_lease()
            self._use_environment()
        if now >= self._next_turn:
            self._next_turn = now + _TURN_S
            logs.empty(self._ground.log, self._ground.log_path)
        self._children.signal_due(now)
        if self._client.is_over(now) and not self._stopping:
            if self._end.admitted():  # it is deep in C code, and its ZeroMQ answers for it
                self._client.heard(now)
                return
            self.status = ORPHANED
            self._begin_stop(f"its client was gone for {self._patience_s:g} s")

    def _renew_lease(self) -> None:
        self._next_renewal = time.monotonic() + _RENEW_S
        try:
            pids = self._children.pids()
            slots = {name: slot for name in pids if (slot := self._slots.shown(name))}
            self._lease.renew(_RENEW_S * 3 + self._limits.orphan_s, pids, self._waits_until(), slots)
        except OSError as exc:
            logger.warning("can't renew the lease %s (%s)", self._lease.path, exc)

    def _waits_until(self) -> float | None:
        """When it ends unless a client comes, by the wall clock; None: it waits for none."""
        return None if self._keep_s is None else time.time() + self._client.over_at - time.monotonic()

    def _renew_soon(self) -> None:
        self._next_renewal = min(self._next_renewal, time.monotonic() + _NEWS_S)

    def _read_lifeline(self) -> None:
        if not os.read(0, 1 << 16):
            self._poller.unregister(0)
            if self._keep_s and self._asked:
                return  # it waits for its client, or for another one
            if self._local:  # no network in between: the client is dead
                self._begin_stop("its client ended")
            elif not self._asked and not self._in_job:  # whose input may be a file
                self._begin_stop("its client ended before it asked for anything")

    def _let_client_come(self) -> None:
        """We end before the client's first word. It would find nobody, and never hear why: it may come first."""
        poller = zmq.Poller()
        for each in (self._carrier.bell, *(() if self._in_job else (0,))):
            poller.register(each, zmq.POLLIN)
        while not self._client.came and (left_s := self._stop_by - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left_s * 1000) + 1))
            if self._carrier.bell in ready:
                self._take_calls()
            elif 0 in ready and not os.read(0, 1 << 16):
                return  # it ended as well

    # -- the end ---------------------------------------------------------------------------------------------------

    def be_told(self) -> None:
        """SIGTERM: the handler of the signal calls this, between any two steps of the loop."""
        self._told = True
        self._begin_stop("it got SIGTERM", patience=_TOLD_S)

    def _shut_down(self, call: int) -> None:
        """The client said so, and all servers were condemned; the call is answered when they have ended."""
        self._farewell_call = call
        self._begin_stop("its client said so", condemned=True)

    def _begin_stop(self, reason: str, *, condemned: bool = False, patience: float | None = None) -> None:
        if self._stopping:
            return
        logger.info("ending: %s", reason)
        self._stopping = reason
        self._children.start_no_more()
        patience = self._limits.stop_s if patience is None else min(patience, self._limits.stop_s)
        self._stop_by = time.monotonic() + 2 * patience + 2.0
        if not condemned:
            self._children.condemn(patience)

    def finish(self) -> None:
        """After the loop: nothing of ours stays on this host."""
        self._children.kill_all()
        if self.lane:
            self.lane.close()
        if self._door is not None:
            self._door.socket.close(0)
        self._nursery.end(self._limits.stop_s, told=self._told)
        Orphans().end_all()
        self._slots.free_all()
        self._ground.remove()
        self._lease.end()
        try:
            if self._farewell_call is not None:
                self._answers.answer(self._farewell_call, None)
            else:
                self._answers.tell(("farewell", self._stopping))
            self._end.close()
            flush(self._context)
        except zmq.ZMQError:
            pass


def _begin(config: dict[str, Any]) -> tuple[Agent, Ground]:
    """Each step needs those before it: an address, directories, the lease that names them, the fork, threads."""
    config["address"] = config["address"] or address_towards(config["towards"])
    ground = Ground(config)
    directories = [str(path) for path in ground.ours]
    facts = {"owner": config["owner"], "run": str(ground.run_dir), "kind": "agent", "directories": directories}
    lease = Lease(config["grid"], facts)
    if config["keys"]:
        raise_files()
    return Agent(config, ground, lease, Nursery(config, ground, lease)), ground


def main(config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> NoReturn:
    """Body of the agent's process, after `boot` found everything that it needs."""
    if not config["local"] and not config["in_job"]:
        os.setsid()
    title.show("agent", config["script"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed ssh channel is not our end; `orphan_s` decides
    try:
        agent, ground = _begin(config)
    except GridError as exc:
        report({"error": exc.what, "hint": exc.facts.get("hint", ""), "kind": type(exc).__name__})
        sys.exit(1)
    except Exception as exc:
        report(
            {
                "error": f"the agent did not start ({type(exc).__name__}: {exc})",
                "hint": "Please report this",
                "kind": "HostError",
            }
        )
        raise
    report(
        {
            "ready": list(agent.ends),
            "lane_port": agent.lane.port if agent.lane else None,
            "door": agent.door,
            "blobs": str(ground.blobs),
            "root": str(ground.root),
            "run": str(ground.run_dir),
            "pid": os.getpid(),
            "hostname": os.uname().nodename,
            "cache_tag": CACHE_TAG,
            "python": sys.version.split()[0],
            "executable": sys.executable,
            "pip": importlib.util.find_spec("pip") is not None,
            "platform_tag": (sysconfig.get_config_var("EXT_SUFFIX") or "").split(".")[1:2],
        }
    )
    for fd in (1, 2):  # the launch channel must see its end when its ssh ends, and not wait for us
        os.dup2(ground.log, fd)
    logging.basicConfig(
        level=logging.DEBUG if config["debug"] else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    signal.signal(signal.SIGTERM, lambda *_: agent.be_told())
    try:
        agent.run()
    except BaseException:
        logger.exception("the agent failed")
    finally:
        agent.finish()
        os._exit(agent.status)
