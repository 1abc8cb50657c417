"""The grid on our own kernels: hosts by ssh or on this machine, one agent each, servers that run a copy of an instance.

Threads: the grid itself (takes replies in when no caller does, and does errands: a server came up, one died), a watch
(connections that come and go, questions from `grid status`), and one per host while it starts or is published to.
There is none per server and none per call.

Lives here: publishing, servers that come up, fail and end, what happens when a host goes silent, the end of it all.
Elsewhere:  tables and queues (`abstract.py`), one host (`home.py`), files (`files.py`), the watch (`watch.py`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from grid.errors import (
    ConnectError,
    GridError,
    HostError,
    NoServers,
    PublishError,
    ServerLost,
)
from grid.grids import generators
from grid.grids.absent import Absent, Missing, Rest, lines
from grid.grids.abstract import AbstractGrid
from grid.grids.allocation import allocation_hosts
from grid.grids.files import Files
from grid.grids.home import Home
from grid.grids.moves import Move, Moves
from grid.grids.outages import Outages
from grid.grids.output import Output
from grid.grids.processes import Processes
from grid.grids.silence import State
from grid.grids.told import end_well_when_told
from grid.grids.undisturbed import undisturbed
from grid.grids.watch import Watch
from grid.hosts import FixedHosts, Host, as_hosts, choose_hosts, find_hosts_file, load_hosts
from grid.kernel import logsetup
from grid.kernel.descriptors import left, limit, make_room
from grid.kernel.title import script_name
from grid.kernel.warm import to_warm
from grid.launch.allocation import find_allocation
from grid.launch.command import this_python
from grid.launch.cores import usable_cores
from grid.limits import Limits, checked_timeout
from grid.services.hold import Waiter
from grid.services.kernel_server import KernelServer
from grid.services.proxy import methods_of
from grid.services.result import Result
from grid.services.roster import Event
from grid.services.server import Server
from grid.services.service import Service
from grid.wire import codec
from grid.wire.codec import Dumped
from grid.wire.edited import as_they_are, code_of
from grid.wire.frames import HEAD
from grid.wire.keys import Keys, make_keys
from grid.wire.link import Link, Peer
from grid.wire.mainimage import MainImage, Packed

logger = logging.getLogger(__name__)

_SHOWN = {State.DOWN: "down", State.CONNECTED: "up", State.LOST: "gone"}
_REMEMBERED_DEATHS = 1000
DESCRIPTORS = 8
"""What a server's connection may need of this process while it comes up."""


@dataclass
class _Publication:
    """A published instance, ready to be sent to any host, once each."""

    service_id: str
    dumped: Dumped
    image: Packed | None  # what it needs of __main__
    code: object  # of the instance's class
    has: dict[Any, Any]  # what its servers have: names of __main__, editions of modules
    restarts: int
    reseed: bool | None  # whether generators get another state on each server; None: nobody said
    logging: dict[str, Any] | None  # how it is set up on servers
    blobs: dict[Home, dict[str, Any]]  # what servers there are told of it
    lock: threading.Lock
    withdrawn: bool = False

    def wishes(self) -> dict[str, Any]:
        """What the kernel of each of its servers is told."""
        return {"reseed": bool(self.reseed), "logging": self.logging, "argv": list(sys.argv)}


class Grid(Files, Moves, AbstractGrid):
    """A grid over hosts that are reached by ssh, or are this machine, or both.

    `LocalGrid` and `SSHGrid` are this with the hosts filled in. Arguments beyond those of `AbstractGrid`:

    Args:
        name: What `grid status` calls it; default: script and process id.
        output: Where lines that servers print are shown, each with its server and host; None shows them nowhere.
        wait: How many servers `publish` waits for: "first", "all", or a number.
        missing: What `publish` does where fewer come than it waited for: "fail" raises PublishError, "ok" goes on with
            the others. Default: "fail" where `wait` is given. Each host that takes no part is told on stderr.
        workdir: The directory that servers work in, so that relative names begin there: a path on every host, or
            "staging", which is removed at the end. Default: servers of this machine work where the script does until
            files are staged; all others in the staging directory.
        reseed: Whether random generators of instances, and of the script, get another state on each server; see
            `publish`. Default: they come as they are, and a line on stderr says so.
        logging: Whether levels and formats of `logging`, as they are here when something is published, hold on servers,
            too; what is logged there is shown as what is printed. Default: warnings and errors, in Python's own format.
    """

    _halted = False  # also where the constructor refuses its arguments

    def __init__(
        self,
        hosts: Sequence[str | Host],
        src_path: str | os.PathLike[str] | None = None,
        display: bool = False,
        X11_delay: float = 0.0,
        debug: bool = False,
        verbose: bool = False,
        shared_temp_path: bool = False,
        *,
        limits: Limits | None = None,
        debug_out: TextIO | None = None,
        name: str | None = None,
        output: TextIO | None = sys.stderr,
        wait: str | int = "first",
        missing: str = "fail",
        workdir: str | os.PathLike[str] | None = None,
        trace: str | os.PathLike[str] | None = None,
        keep_failures: str | os.PathLike[str] | None = None,
        reseed: bool | None = None,
        logging: bool = False,
    ) -> None:
        hosts = as_hosts(hosts)
        if shared_temp_path and hosts and not hosts[0].temp_path:
            raise ValueError(
                f"shared_temp_path needs temp_path of the first host ({hosts[0].label!r}): the shared directory"
            )
        super().__init__(
            *(hosts, src_path, display, X11_delay, debug, verbose, shared_temp_path),
            limits=limits,
            debug_out=debug_out,
            trace=trace,
            keep_failures=keep_failures,
        )
        self.grid_id = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.label = name or f"{script_name()}-{os.getpid()}"
        self.wait = wait
        self.missing = _one_word(missing)
        self.reseed, self.logging = reseed, logging
        self._absent = Absent()
        self._publishing = 0  # threads that wait in `publish`: they tell who is absent
        self.workdir = None if workdir is None else os.fspath(workdir)
        self._halting = threading.Lock()
        self._link: Link | None = None
        self._keys: tuple[Keys, Keys] | None = None
        self._homes: list[Home] = []
        self.processes = Processes()
        self._outages = Outages(self)
        self._publications: dict[str, _Publication] = {}
        self._being_published: dict[int, Any] = {}  # id of a live instance that somebody publishes just now -> it
        self._changed = threading.Condition(self._lock)
        self._helpers: list[threading.Thread] = []
        self._numbers: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._fatal: dict[bytes, int] = {}  # digest of a call -> how many servers died with it
        self._arriving: dict[str, Move] = {}
        self._homeless: dict[str, Move] = {}
        self._output = Output(output)
        self._watch: Watch | None = None

    # -- constructors ----------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], group: str | None = None, **kw: Any) -> Grid:
        """A grid over the hosts of a file (see `hosts.example.yaml`), or of one of its groups."""
        return Grid(load_hosts(path, group), **kw)

    @classmethod
    def from_allocation(
        cls,
        *,
        launcher: str | None = None,
        servers_per_node: int | None = None,
        init_cmd: str = "",
        python: str | None = None,
        temp_path: str | None = None,
        **kw: Any,
    ) -> Grid:
        """A grid over the nodes of the batch job that this script runs in (TORQUE/PBS, Slurm, SGE), a server per slot.

        Kernels start through the batch system's own launcher, so that they are accounted to the job and end with it.
        Arguments as of `allocation_hosts`; the others are those of `Grid`. SIGTERM ends the script as `sys.exit(143)`
        does from now on, unless it has a handler of its own: see `told.py`.

        Raises:
            AllocationError: There is no job, or its variables make no sense; the message names them.
        """
        hosts = allocation_hosts(
            launcher=launcher,
            servers_per_node=servers_per_node,
            init_cmd=init_cmd,
            python=python,
            temp_path=temp_path,
        )
        end_well_when_told()
        return Grid(hosts, **kw)

    @classmethod
    def auto(cls, n: int | None = None, **kw: Any) -> Grid:
        """The grid that this place offers: the same script runs on a laptop and on hosts, unchanged.

        `$GRID_HOSTS` (a hosts file, or names with commas; `grid run --hosts` sets it) decides, with `$GRID_GROUP`; then
        the batch job that we are in (`from_allocation`); then `hosts.yaml` here or in ~/.config/grid; else this machine
        with `n` servers (default: as many as it has cores).
        `$GRID_LOCAL`, a number (`grid run --local`), comes before all of that: this machine with so many servers. So
        does `$GRID_LOGIN` (`grid run --login`): a `BatchGrid` that submits there what `$GRID_RESOURCES` says.
        """
        local, named = os.environ.get("GRID_LOCAL"), os.environ.get("GRID_HOSTS")
        if os.environ.get("GRID_LOGIN"):
            from grid.grids.batch import BatchGrid  # it stands on this module

            return BatchGrid.from_text(os.environ["GRID_LOGIN"], os.environ.get("GRID_RESOURCES", ""), **kw)
        if local:
            if not local.isdecimal() or int(local) < 1:
                raise ValueError(f"the variable GRID_LOCAL must be a number of servers, not {local!r}")
            return Grid([local_host(int(local))], **all_that_fit(kw))
        if not named and find_allocation(os.environ) is not None:
            return cls.from_allocation(**kw)
        is_file = not named or os.path.isfile(os.path.expanduser(named))
        hosts = choose_hosts(named, (os.environ.get("GRID_GROUP") or None) if is_file else None)
        if hosts is not None:
            made = Grid(hosts, **kw)
            if is_file:
                path = named or find_hosts_file()
                servers = sum(host.use_n_cpu for host in hosts)
                one = "; n_cpu is 1 where it is not given" if servers == len(hosts) else ""
                made._output.say(f"hosts of {path}: {len(hosts)} with {servers} servers for each service{one}")
            return made
        return Grid([local_host(n)], **all_that_fit(kw))

    # -- life ------------------------------------------------------------------------------------------------------

    def ishalted(self) -> bool:
        return self._halted

    @property
    def halted(self) -> bool:
        """Whether the grid has stopped."""
        return self._halted

    def start(self) -> None:
        if self._launched:
            self._check_usable()
        else:
            undisturbed("grid-start", self._start_up)

    def _start_up(self) -> None:
        with self._lock:
            self._check_usable()
            if self._link is None:
                self._link = Link(self.limits)
                self._link.on_event = self._on_event
                self._link.on_welcome = self._on_welcome
                self._link.on_connection = self._outages.on_connection
                try:
                    self._homes = self._make_homes()
                    self._watch = Watch(self, self._link, self.limits)
                    self._output.in_directory(self.grid_id)
                    self._watch.start()
                except BaseException:  # no socket for the watch, say: there is nobody yet who would end the link
                    link, self._link = self._link, None
                    link.close()
                    link.destroy()
                    raise
        super().start()

    def run(self) -> None:
        """The grid's thread: takes replies in while nobody waits for one, and does the errands."""
        assert self._link is not None
        self._link.collect()

    def _make_homes(self) -> list[Home]:
        """One home for each distinct host: entries that are alike in all that matters share one, slots add up."""
        self.hosts = FixedHosts(as_hosts(self.hosts))  # names may have been added to it
        kinds: dict[tuple[Any, ...], list[Host]] = {}
        for host in self.hosts:
            kind = (
                *(host.label, host.ssh, host.python, host.init_cmd, host.niceness, host.temp_path, host.transport),
                *(host.jump, host.key, tuple(sorted(host.env.items()))),
            )
            kinds.setdefault(kind, []).append(host)
        homes = [self._make_home(alike[0], sum(host.use_n_cpu for host in alike)) for alike in kinds.values()]
        if self.shared_temp_path:
            for home in homes:
                home.host.temp_path = self.hosts[0].temp_path
        return homes

    def _make_home(self, host: Host, slots: int) -> Home:
        assert self._link is not None
        if self._keys is None and host.ssh != "local":
            self._keys = make_keys()
        return Home(
            *(host, slots, self._link, self.limits, self._keys, self.grid_id),
            shared=self.shared_temp_path,
            debug=self.debug,
            stage=self._stage_modules,
            warn=self._warn_of_generators,
        )

    def add_hosts(self, hosts: str | Host | Sequence[str | Host]) -> None:
        """More hosts for a grid that runs: they get servers of every service, which join as they come up.

        Returns at once; hosts that fail are in `g.failures`.
        """
        self.start()
        added = as_hosts(hosts)
        self.hosts = FixedHosts([*self.hosts, *added])
        for host in added:
            self._add_home(self._make_home(host, host.use_n_cpu))

    def _add_home(self, home: Home) -> None:
        """A home joins: everything that is published is published there, too."""
        self._joins_late(home)
        with self._lock:
            self._homes = [*self._homes, home]
            publications = list(self._publications.values())
        for publication in publications:
            self._publish_there(home, publication)

    def _publish_there(self, home: Home, publication: _Publication, count: int | None = None) -> None:
        service = self._services.get(publication.service_id)
        count = home.slots if count is None else count
        if service is None or count < 1:
            return
        servers = self._new_servers(publication.service_id, home, count)
        service.announce(servers)
        self.in_thread(f"grid-publish-{home.host.label}", self._publish_on, home, publication, servers)

    def _start_home(self, home: Home) -> None:
        """Start a host's agent unless it runs. Raises HostError."""
        was_up = home.up
        home.start(self._loader)
        if not was_up:
            self.processes.add_agent(home)
            self._check_shared(home)

    def _halt(self, *, force: bool) -> None:
        with self._halting:
            if self._halted:
                return
            self._halted = True
        self._tell_at_the_end(force=force)
        for home in self._all_homes():
            home.end_starts()
        with self._changed:
            self._changed.notify_all()
        link = self._link
        self._remove_scratches()
        if link is None:
            return
        for server in list(self._connected_servers()):
            self._forget_move(server, _death(server, "terminated"))
            if not force:
                link.bye(server.peer)
        homes = [home for home in self._all_homes() if home.up or home.connection is not None]
        deadline = time.monotonic() + 3 * self.limits.stop_s + 10.0
        # The kernel on our own machine is our heir: in a job, where all may be killed now, it ends last.
        first = [home for home in homes if not home.local or not _in_a_job(homes)]
        for wave in (first, [home for home in homes if home not in first]):
            threads = [
                threading.Thread(target=home.shut_down, kwargs={"force": force}, name="grid-shutdown", daemon=True)
                for home in wave
            ]
            for thread in list(threads):
                try:
                    thread.start()
                except RuntimeError:  # Python 3.12 starts no thread once the interpreter ends
                    threads.remove(thread)
                    thread.run()
            for thread in threads:
                thread.join(max(0.1, deadline - time.monotonic()))
        # They start hosts, or publish, and have nothing left to work on. Who is just connecting sees that and lets go.
        deadline = min(deadline, time.monotonic() + self.limits.stop_s)
        for thread in self._helpers:
            thread.join(max(0.1, deadline - time.monotonic()))
        for home in self._all_homes():
            if home.up:  # it came up at that very moment
                home.shut_down(force=True)
        link.close()
        if self._watch is not None:
            self._watch.stop()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(5.0)
        link.destroy()
        self._output.close()
        self._remove_scratches()  # what an upload that was cut off wrote in the meantime

    def _forked(self) -> None:
        super()._forked()
        self._changed = threading.Condition(self._lock)
        if self._link is not None:
            self._link.forked()

    def _all_homes(self) -> list[Home]:
        """Homes to be shut down at the end, also those that take no part yet."""
        return self._homes

    def _connected_servers(self) -> list[KernelServer]:
        servers = self._services.servers()
        return [server for server in servers if isinstance(server, KernelServer) and server.connected]

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        assert self._link is not None
        return self._link.wait(waiter, timeout)

    def _rouse(self, waiter: Waiter) -> None:
        if self._link is not None:
            self._link.rouse(waiter)

    def set_debug(self, debug: bool, verbose: bool | None = None) -> None:
        super().set_debug(debug, verbose)
        for home in self._homes:
            home.set_debug(debug)

    # -- publishing ------------------------------------------------------------------------------------------------

    def publish(
        self,
        instance: Any,
        *,
        wait: str | int | None = None,
        timeout: float | None = None,
        restarts: int = 0,
        republish: bool = False,
        missing: str | None = None,
        reseed: bool | None = None,
        logging: bool | None = None,
    ) -> str:
        """Put copies of `instance` on servers of all hosts and return the service id.

        Each server holds a copy of its own; this object here is not changed by their calls. The same live object again
        gives the same id, without another launch.

        Args:
            wait: Return when so many servers are ready: "first", "all", or a number; others join as they come.
                Hosts that fail are in `g.failures`, and a line on stderr names them. Default: the grid's.
            timeout: Seconds to wait for them; default `limits.publish_s`.
            restarts: How many lost servers of this service are replaced, each with a fresh copy.
            republish: Make a new service even if this object has one.
            missing: "fail" or "ok": whether fewer servers than `wait` says are an error. Default: the grid's, but
                "fail" where `wait` is given here.
            reseed: True: random generators in the instance and in what it uses of the script (`random.Random`, those of
                NumPy) get another state on each server, made from theirs and the server's number: the same in every
                run where they had a seed. False: all servers draw the same numbers. Default: the grid's; where that
                says nothing they do, too, and a line on stderr tells it.
            logging: Whether servers have the levels and formats of `logging` that are set up here. Default: the grid's.
        Raises:
            SerialisationError: The instance can't travel; the message names the part.
            PublishError: No host brought up a server, or fewer came than `wait` says; `.failures` has the reasons.
        """
        self.start()
        code = code_of(instance)
        wanted_word = self.wait if wait is None else wait
        if wanted_word not in ("first", "all") and not (isinstance(wanted_word, int) and wanted_word > 0):
            raise ValueError(f"wait must be 'first', 'all' or a number of servers, not {wanted_word!r}")
        lenient = _one_word(missing or (self.missing if wait is None else "fail")) == "ok" or wanted_word == "first"
        patience = checked_timeout(timeout)
        patience = self.limits.publish_s if patience is None else patience
        reseed = self.reseed if reseed is None else reseed
        words = logsetup.of_this_process() if (self.logging if logging is None else logging) else None
        made: list[str] = []  # the new service, if there is one

        def work() -> str:
            with self._only_publisher(instance, code, republish) as known:
                if known is not None:
                    return known
                made.append(self.create_service_id(instance))
                self._publish(instance, code, made[0], wanted_word, lenient, patience, restarts, reseed, words)
                self._services.note(instance, made[0])
                return made[0]

        def withdraw() -> None:
            for service_id in made:
                if service_id in self._services:
                    self.terminate(service_id)

        def torn() -> None:
            try:
                withdraw()
            except GridError as exc:
                logger.debug("what was published when its caller was interrupted is gone already: %s", exc)

        return undisturbed("grid-publish", work, torn)

    @contextlib.contextmanager
    def _only_publisher(self, instance: Any, code: Any, republish: bool) -> Iterator[str | None]:
        """The service that this live object has; None: nobody else publishes it until the end of the block."""
        while True:
            with self._changed:
                known = self._services.published.get(id(instance))
                if known is not None and known[0] is instance and not republish:
                    publication = self._publications.get(known[1])
                    if publication is None or publication.code == code:
                        break
                known = None
                if republish or id(instance) not in self._being_published:
                    self._being_published[id(instance)] = instance
                    break
                self._changed.wait(1.0)  # another thread is at it
                self._check_usable()
        try:
            yield None if known is None else known[1]
        finally:
            if known is None:
                with self._changed:
                    self._being_published.pop(id(instance), None)
                    self._changed.notify_all()

    def _publish(
        self,
        instance: Any,
        code: Any,
        service_id: str,
        wanted_word: str | int,
        lenient: bool,
        patience: float,
        restarts: int,
        reseed: bool | None,
        words: dict[str, Any] | None,
    ) -> None:
        """Bring up a new service, and wait for as many servers as are wanted."""
        dumped = codec.dumps_instance(instance)
        image = MainImage().pack(dumped.main_names) if dumped.main_names else None
        has = {**as_they_are(), **(image.entries if image else {})}
        publication = _Publication(
            *(service_id, dumped, image, code, has, restarts, reseed, words), {}, threading.Lock()
        )
        if reseed is None and self._size_of_a_service() > 1:
            holders = image.random if image else set()
            generators.warn(service_id, holders, instance=codec.holds_generator(instance, dumped))
        service = self._add_service(service_id, methods_of(instance))
        with self._lock:
            self._publications[service_id] = publication
            homes = [home for home in self._homes if home.slots]
        make_room(DESCRIPTORS * self._size_of_a_service())
        plan = [(home, self._new_servers(service_id, home, home.slots)) for home in homes]
        service.announce([server for _, servers in plan for server in servers])
        for home, servers in plan:
            self.in_thread(f"grid-publish-{home.host.label}", self._publish_on, home, publication, servers)
        total = self._size_of_a_service()
        wanted = total if wanted_word == "all" else 1 if wanted_word == "first" else min(int(wanted_word), total)
        with self._telling(service_id):
            try:
                self._wait_for_servers(service, wanted, patience)
                if not lenient:
                    self._insist(service, wanted, patience)
            except BaseException as exc:
                if isinstance(exc, PublishError):
                    self._absent.drop()
                self.terminate(service_id)
                raise

    def _warn_of_generators(self, names: set[str]) -> None:
        """Names of the script that hold generators go to a server with a call."""
        published = list(self._publications.values())
        if self.reseed is None and self._size_of_a_service() > 1 and any(one.reseed is None for one in published):
            generators.warn(None, names, instance=False)

    def _wishes_of(self, service_id: str) -> dict[str, Any]:
        """How servers of a service were asked for, as their kernels are told."""
        publication = self._publications.get(service_id)
        return publication.wishes() if publication is not None else {}

    def _publish_lasting(self, instance: Any, restarts: int) -> str:
        return self.publish(instance, restarts=restarts)

    def _size_of_a_service(self) -> int:
        """How many servers a service has when all homes are up."""
        return sum(home.slots for home in self._homes)

    def _new_servers(self, service_id: str, home: Home, count: int) -> list[KernelServer]:
        assert self._link is not None
        made = []
        for _ in range(count):
            with self._lock:
                number = self._numbers.get(service_id, 0)
                self._numbers[service_id] = number + 1
            name = f"{service_id}/{number}"
            server = KernelServer(service_id, name, home.host, home, self._link.number())
            self.processes.begin(server)
            made.append(server)
        return made

    def in_thread(self, name: str, body: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=body, args=args, name=name, daemon=True)
        with self._changed:  # who joins them must see none that has not started
            thread.start()
            self._helpers = [helper for helper in self._helpers if helper.is_alive()] + [thread]

    def _publish_on(self, home: Home, publication: _Publication, servers: list[KernelServer]) -> None:
        """Thread: one host's part of a publication."""
        try:
            self._start_home(home)
            self._furnish(home)
            wishes = [
                {
                    "name": server.name,
                    "service_id": server.service_id,
                    "peer": server.number,
                    "niceness": home.host.niceness,
                    "workdir": self._workdir_of(home),
                }
                for server in servers
            ]
            published = self._bring(home, publication)
            if self.X11_delay > 0:
                for wish in wishes:
                    home.ask("start", [wish], published)
                    time.sleep(self.X11_delay)  # what was asked for: distance between launches
            else:
                home.ask("start", wishes, published)
        except Exception as exc:
            if not self._halted:
                self._host_failed(home, exc, servers)

    def _bring(self, home: Home, publication: _Publication) -> dict[str, Any]:
        """Have the instance on the host, once; returns what its servers are told of it."""
        with publication.lock:
            if home not in publication.blobs:
                dumped = publication.dumped
                home.needs.check_code(dumped.by_value)
                modules = codec.modules_in(dumped.data) | dumped.modules
                image = publication.image.parts if publication.image else ()
                if publication.image:
                    home.needs.check_code(publication.image.by_value)
                    modules |= publication.image.modules
                home.needs.have_modules(modules)
                parts = [memoryview(part) for part in (dumped.data, *dumped.buffers, *image)]
                publication.blobs[home] = {
                    "blob": home.store().write(parts),
                    "sizes": [len(part) for part in parts],
                    "image": len(image),
                    "warm": to_warm(modules),
                    **publication.wishes(),
                }
            told = publication.blobs[home]
        if publication.withdrawn:  # meanwhile, and perhaps before the blob was known
            _drop(home, told)
        return told

    def _host_failed(self, home: Home, exc: Exception, servers: Sequence[KernelServer]) -> None:
        if not isinstance(exc, GridError):
            logger.exception("host %s failed", home.host.label, exc_info=exc)
        with self._changed:
            self.failures[home.host.label] = exc
        first = servers[0] if servers else None
        one = first.name if first is not None and first.name in str(exc) else None
        self._absent.add(Missing(home.host.label, exc, one, first.service_id if first is not None else None))
        for server in servers:
            self.processes.end_start(server.name)
            self._server_gone(server, Event.LOST, str(exc))
        with self._changed:
            self._changed.notify_all()

    def _expecting(self) -> bool:
        """Whether homes are on their way that nobody can name yet."""
        return False

    def _wait_for_servers(self, service: Service, wanted: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                up = len(self.servers[service.service_id])
                starting = any(self.processes.has_begun(name) for name in service.servers)
                if up >= wanted or (up and not starting and not self._expecting()):
                    return
                if self._halted:
                    raise NoServers("the grid was terminated while it published", service_id=service.service_id)
                remaining = deadline - time.monotonic()
                if (not starting and not self._expecting()) or (remaining <= 0 and not up):
                    failures = dict(self.failures)
                    late = f" within {timeout:g} s" if starting or self._expecting() else ""
                    raise PublishError(
                        f"no server came up{late}",
                        service_id=service.service_id,
                        hint="Why, host by host:" if failures else "",
                        failures=failures,
                    )
                if remaining <= 0:
                    return
                self._changed.wait(min(remaining, 1.0))

    def _insist(self, service: Service, wanted: int, timeout: float) -> None:
        """Raise PublishError where fewer servers are up than were waited for."""
        with self._lock:
            up = len(self.servers[service.service_id])
            starting = sum(self.processes.has_begun(name) is not None for name in service.servers)
        if up >= wanted:
            return
        late = f" within {timeout:g} s; {starting} were still starting" if starting else ""
        raise PublishError(
            f"{up} of {wanted} servers came up{late}",
            service_id=service.service_id,
            hint='With missing="ok" the grid goes on with those that did. Why, host by host:',
            failures=dict(self.failures),
        )

    # -- who takes no part -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _telling(self, service_id: str) -> Iterator[None]:
        """While somebody waits for servers; then it is told who takes no part."""
        with self._lock:
            self._publishing += 1
        try:
            yield
        finally:
            with self._lock:
                self._publishing -= 1
        self._tell_absent()

    def _tell_absent(self) -> None:
        """A line for each cause that keeps hosts, or servers, from taking part."""
        missing = self._absent.take()
        if missing:
            for line in lines(missing, self._rest(missing[-1].service_id)):
                logger.warning("%s", line)

    def _rest(self, service_id: str | None) -> Rest | None:
        with self._lock:
            homes = [home for home in self._homes if home.slots]
            service = self._services.get(service_id or "")
            if service is None:
                return None
            live = [server for server in service.servers.values() if isinstance(server, KernelServer)]
            starting = {id(server.home) for server in live if self.processes.is_starting(server)}
        with_servers = {id(server.home) for server in live}
        return Rest(
            hosts=len(with_servers),
            of_hosts=len(homes),
            servers=len(live),
            of_servers=max(len(live), self._size_of_a_service()),
            starting=len(starting - {id(server.home) for server in live if server.connected}),
        )

    def _tell_at_the_end(self, *, force: bool) -> None:
        """No host is missing without a word: also those that were on their way until now."""
        if force:
            return  # an error ends the script, and has its own words
        for home in self._homes:
            if home.slots and home.began is not None and not home.served and home.host.label not in self.failures:
                spent = time.monotonic() - home.began
                what = f"took no part: it was still starting when the grid ended, {spent:.1f} s after it began"
                hint = 'With wait="all" publish waits for every host'
                self._absent.add(Missing(home.host.label, HostError(what, host=home.host.label, hint=hint)))
        for line in lines(self._absent.take(), None):
            logger.warning("%s", line)

    def _withdrawn(self, service_id: str) -> None:
        publication = self._publications.pop(service_id, None)
        if publication is None:
            return
        publication.withdrawn = True
        for home, told in list(publication.blobs.items()):
            _drop(home, told)

    # -- news ------------------------------------------------------------------------------------------------------

    def _on_event(self, peer: Peer, event: tuple[Any, ...]) -> None:
        """In the grid's thread: an agent has news."""
        process = self.processes.find(peer.number)
        if process is None or process.server is not None:
            return
        home, (kind, *details) = process.home, event
        if kind == "ready":
            self._server_up(home, *details)
        elif kind == "failed":
            self._server_failed(home, *details)
        elif kind == "ended":
            self._server_ended(home, *details)
        elif kind == "output":
            for name, text in details[0]:
                self._output.show(name, home.host.label, text)
        elif kind == "farewell":
            self.lose_home(home, str(details[0]))

    def _server_up(self, home: Home, name: str, inlet: str, outlet: str, pid: int) -> None:
        server = self.processes.has_begun(name)
        assert self._link is not None
        if name in self._arriving and self._arriving[name].home is home:
            self._connect_arrival(self._arriving[name], inlet, outlet)
            return
        if server is None or server.final_state is not None or self._halted:
            if home.up:
                home.ask_later("stop", [name], True)  # it was withdrawn while it started
            return
        try:
            if left() < DESCRIPTORS:  # libzmq would try again for ever
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}; {limit()} on this machine")
            peer = home.attach(server.number, inlet, outlet)
        except Exception as exc:  # no descriptor is left, or the tunnel is gone: it would be starting for ever
            if home.up:
                home.ask_later("stop", [name], True)
            what = f"server {name} started, but can't be connected to ({exc})"
            error = HostError(what, host=home.host.label, hint="See `ulimit -n`, and `grid doctor`")
            self._host_failed(home, error, [server])
            return
        publication = self._publications.get(server.service_id)
        server.attach(self._link, peer, dict(publication.has) if publication else {})
        self.processes.add(server.number, server, home, self.limits.lost_s)

    def _on_welcome(self, peer: Peer) -> None:
        """In the grid's thread: a process on a host answered for the first time."""
        process = self.processes.find(peer.number)
        if process is None or process.server is None:
            return
        home, server = process.home, process.server
        home.life.trust(peer.number)
        if self.processes.end_start(server.name) is None:
            return
        home.has_served()
        self._absent.came(server.host.label)
        if server.name in self._arriving:
            self._arrived(server)
            return
        if self.display:
            self._output.open_window(server.name, server.host.label, self.window_size)
        if server.service_id in self._services:
            self.add_server(server)
        with self._changed:
            self._changed.notify_all()

    def _server_failed(self, home: Home, name: str, reason: str, tail: str) -> None:
        server = self.processes.end_start(name)
        self._output.forget(name)
        if name in self._arriving and server is not None:
            self.lose_server(server, f"it could not be moved to host {home.host.label!r}: {reason.strip()}")
            return
        if server is None or server.final_state is not None:
            return
        printed = f"\nLast lines that it printed:\n{tail}" if tail and tail not in reason else ""
        error = HostError(
            f"server {name} did not start: {reason.strip()}{printed}",
            host=home.host.label,
            hint="Its log is kept until the grid ends; see `grid logs`" if printed else "The others serve",
        )
        self._host_failed(home, error, [server])

    def _server_ended(self, home: Home, name: str, certificate: dict[str, Any]) -> None:
        self._output.forget(name)
        server = self.processes.named(name)
        move = self._arriving.get(name)
        if server is None or (move.home if move is not None else server.home) is not home:
            return  # it moves, or has moved, and has ended only here
        if certificate["signal"]:
            how = f"ended by {signal.Signals(certificate['signal']).name}"
        else:
            how = f"ended with exit status {certificate['exit_status']}"
        peak = f"peak memory {certificate['peak_kb'] / 1024:.0f} MB"
        self.lose_server(server, f"its process {how} ({peak})", certificate)

    def lose_server(self, server: KernelServer, what: str, certificate: dict[str, Any] | None = None) -> None:
        """A server is gone: its calls fail, it leaves the tables, it is replaced if that was asked for."""
        self._lose_servers([server], what, certificate)

    def _lose_servers(self, servers: list[KernelServer], what: str, certificate: dict[str, Any] | None = None) -> None:
        """They leave the tables together, before a call of any fails: who then asks for another gets none of them."""
        errors = [self._strike_off(server, what, certificate) for server in servers]
        assert self._link is not None
        for server, (error, replacement) in zip(servers, errors, strict=True):
            if server.connected:
                self._link.drop(server.peer, error)
                if isinstance(server.home, Home) and not server.home.gone:
                    server.home.detach(server.peer)
            if replacement is not None:
                home, publication, successors = replacement
                self.in_thread("grid-replace", self._publish_on, home, publication, successors)
        with self._changed:
            self._changed.notify_all()

    def _deaths_with(self, server: KernelServer) -> int:
        """How many servers have died now while they ran the call that this one was running."""
        oldest = server.oldest() if server.connected else None
        frame = server.peer.session.kept.get(oldest.call) if oldest is not None else None
        if frame is None:
            return 0
        with self._lock:
            digest = hashlib.blake2b(frame[HEAD.size :], digest_size=16).digest()  # the head is of this sending only
            self._fatal[digest] = deaths = self._fatal.pop(digest, 0) + 1
            while len(self._fatal) > _REMEMBERED_DEATHS:
                del self._fatal[next(iter(self._fatal))]
        return deaths

    def _strike_off(self, server: KernelServer, what: str, certificate: dict[str, Any] | None) -> tuple[Any, Any]:
        """Take a lost server off all tables; returns the error of its calls, and what is to replace it."""
        terminated = server.final_state is not None or self._halted
        deaths = 0 if terminated else self._deaths_with(server)
        error = _death(server, (server.reason or "terminated") if terminated else what, certificate, deaths=deaths)
        self.processes.remove(server.number)
        self.processes.end_start(server.name)
        if not terminated:
            logger.warning("%s", error)
            self.failures.setdefault(f"{server.name}", error)
        replacement = None if terminated else self._replacement_of(server)
        self._server_gone(server, Event.LOST, what)
        return error, replacement

    def _server_gone(self, server: Server, event: Event, reason: str) -> None:
        super()._server_gone(server, event, reason)
        if isinstance(server, KernelServer) and server.connected:
            self._forget_move(server, _death(server, reason))

    def _replacement_of(self, server: KernelServer) -> tuple[Home, _Publication, list[KernelServer]] | None:
        publication = self._publications.get(server.service_id)
        home = server.home
        service = self._services.get(server.service_id)
        if publication is None or service is None or not isinstance(home, Home) or not home.up or self._halted:
            return None
        losses = self._losses.get(server.service_id, 0)
        if losses >= publication.restarts:
            return None
        self._losses[server.service_id] = losses + 1
        servers = self._new_servers(server.service_id, home, 1)
        service.announce(servers)  # before the old one leaves, so that waiters keep hope
        return home, publication, servers

    def _end_at_once(self, servers: Sequence[Server]) -> None:
        for server in servers:
            if not isinstance(server, KernelServer) or server.final_state is not None:
                continue
            replacement = self._replacement_of(server)
            self._server_gone(server, Event.TERMINATED, "its calls were ended with their pool")
            try:
                server.end(force=True)
            except GridError as exc:
                logger.warning("server %s can't be told to end: %s", server.name, exc)
            if replacement is not None:
                home, publication, successors = replacement
                self.in_thread("grid-replace", self._publish_on, home, publication, successors)

    def servers_of(self, home: Home) -> list[KernelServer]:
        with self._lock:
            return [
                server
                for service in self._services.values()
                for server in service.servers.values()
                if isinstance(server, KernelServer) and server.home is home
                if server.name not in self._homeless and server.name not in self._arriving  # nothing of it is there
            ]

    def look_at_clock(self) -> None:
        """In the watch's thread, now and then: whose time is over?"""
        self._look_after()
        if self._absent and not self._publishing:
            self._tell_absent()
        self._outages.look(self._homes)

    def errand(self, what: Callable[[], None]) -> None:
        """Have it done by the grid's thread, in order."""
        assert self._link is not None
        self._link.errand(what)

    def lose_home(self, home: Home, reason: str) -> None:
        close = home.part()
        if close is None:
            return
        error = ConnectError(reason, host=home.host.label, hint=f"Try `grid doctor {home.host.label}`")
        self.failures[home.host.label] = error
        servers = self.servers_of(home)
        # ... and those that were terminated and had calls yet: nobody else will tell of their end
        terminated = [server for server in self.processes.servers() if server.final_state]
        servers += [server for server in terminated if server.home is home and server not in servers]
        self._lose_servers(servers, f"host {home.host.label!r} was lost: {reason}")
        if home.peer is not None:
            self.processes.remove(home.peer.number)
            self._link.drop(home.peer, error)  # type: ignore[union-attr]
        self._turned_away(home)
        self.in_thread("grid-let-go", close)

    # -- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the grid consists of and does, in plain values (JSON)."""
        return {
            **super().status(),
            "id": self.grid_id,
            "name": self.label,
            "pid": os.getpid(),
            "homes": [
                {
                    "host": home.host.label,
                    "slots": home.slots,
                    "state": _SHOWN.get(home.life.state, "unreachable"),
                    "transport": home.transport,
                    "python": home.report.get("python"),
                    "agent": home.report.get("pid"),
                }
                for home in self._homes
            ],
        }


def _drop(home: Home, told: dict[str, Any]) -> None:
    """The blob of an instance is needed no more."""
    if home.up:
        try:
            home.ask_later("drop", told["blob"])
        except GridError:
            pass  # its end takes the blob along


def _death(
    server: KernelServer, what: str, certificate: dict[str, Any] | None = None, *, deaths: int = 0
) -> ServerLost:
    """The error of all calls that a lost server had."""
    certificate = certificate or {"exit_status": None, "signal": None, "last_output": ""}
    oldest = server.oldest() if server.connected else None
    call = getattr(oldest, "method", None)
    if call == "@call":
        call = "__call__"
    left_s, kills = server.left_s, certificate.get("oom_kills", 0)
    facts = [what]
    if kills:
        plural = "processes" if kills > 1 else "a process"
        facts.append(f"meanwhile the kernel of that host killed {plural} for lack of memory: most likely this one")
    if left_s is not None:
        facts.append(f"its allocation had {left_s:.0f} s left" if left_s > 0 else "its allocation had ended")
    if call is not None:
        facts.append(f"it was running {call!r}" if not call.startswith("@") else "it was running calls of a map")
    if deaths > 1:
        facts.append(f"{deaths} servers have died with this very call: don't give it to another unchanged")
    return ServerLost(
        "; ".join(facts),
        service_id=server.service_id,
        server=server.name,
        host=server.host.label,
        hint="The call was not repeated",
        exit_status=certificate["exit_status"],
        signal=certificate["signal"],
        last_output=certificate["last_output"],
        oom_kills=kills,
        left_s=left_s,
        call=call,
        deaths=deaths,
    )


def _one_word(missing: str) -> str:
    if missing not in ("fail", "ok"):
        raise ValueError(f"missing must be 'fail' or 'ok', not {missing!r}")
    return missing


def all_that_fit(kw: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a grid on one machine: without `wait` it waits for all servers, and goes on with what fits."""
    return kw if "wait" in kw else {"missing": "ok", **kw, "wait": "all"}


def local_host(n: int | None = None, python: str | None = None) -> Host:
    """This machine as a host with `n` servers for each service (default: as many as it has cores for us).

    Args:
        python: Another interpreter than ours.
    Raises:
        PythonError: Ours is none: this is a frozen application, and `python` is not given.
    """
    if n is None:
        n = usable_cores()
    return Host("localhost", n_cpu=n, python=python or this_python(), ssh="local")


def _in_a_job(homes: list[Home]) -> bool:
    return any(home.connection is not None and home.connection.in_job for home in homes)
