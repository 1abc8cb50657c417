"""The grid on our own kernels: hosts by ssh or on this machine, one agent each, servers that run a copy of an instance.

Threads: the grid itself (takes replies in when no caller does, and does errands: a server came up, one died), a watch
(connections that come and go, questions from `grid status`), and one per host while it starts or is published to.
There is none per server and none per call.

Lives here: `Grid`, what users see of it.
Elsewhere:  what all grids can do (`abstract.py`), what this one does (`engine.py` names the parts), which grid a place
            offers (`choose.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from typing_extensions import Unpack

from grid.commands.running import GridCommands
from grid.errors import GridStopped, SessionError
from grid.grids.abstract import AbstractGrid
from grid.grids.allocation import allocation_hosts
from grid.grids.choose import all_that_fit, find_place
from grid.grids.engine import KernelEngine
from grid.grids.fetching import FileFetcher
from grid.grids.keep import Keep
from grid.grids.parts import held, verb
from grid.grids.profiles import Profiles
from grid.grids.resuming import open_session
from grid.grids.settings import GridSettings, GridWords, takes
from grid.grids.source import HostSource
from grid.grids.stacks import Stacks
from grid.grids.stager import Stager
from grid.grids.told import end_well_when_told
from grid.grids.undisturbed import undisturbed
from grid.hosts import Host, as_hosts, load_hosts
from grid.keeping.places import SessionPlace, span_s
from grid.kernel.title import script_name
from grid.limits import Limits
from grid.ranks.launch import Ranks, run_ranks
from grid.services.hold import Waiter
from grid.services.kernel_server import KernelServer
from grid.services.result import Result
from grid.services.retry import Retry
from grid.services.roster import Event
from grid.services.server import Server
from grid.services.table import ServiceId, reserve_ids
from grid.slots.needs import Needs

T = TypeVar("T")


class Grid(AbstractGrid):
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
        environment: The packages that servers have on hosts: "here" (what is installed in this process's environment),
            or a file: requirements.txt, pylock.toml, uv.lock. They are sent to each host once, and no host asks an
            index. Default: `$GRID_ENVIRONMENT`, else what is installed there. The entry of a host comes before it.
        needs: What each server of every service needs of its host, those of pools, executors and task systems, too.
        where: Which hosts services go to; see `publish`.
        keep: How long hosts wait for their client when it has gone without an end (`detach`, `kill -9`, a laptop that
            is closed): "12h", "1d12h", "90m" or seconds. Until then servers keep their state, calls go on, and results
            wait for `Grid.attach(name)`. Default: they end with their client. See docs/sessions.md.
        at_exit: What becomes of a grid with `keep` when the interpreter ends and nobody has ended it: "end" (the
            default), or "detach".
    """

    _engine_type = KernelEngine

    @takes(GridSettings)
    def __init__(self, hosts: Sequence[str | Host], *args: Any, **kw: Unpack[GridWords]) -> None:
        self._begin(hosts, GridSettings.of(type(self), *args, **kw), HostSource())

    def _begin(
        self, hosts: Sequence[str | Host], settings: GridSettings, source: HostSource, keep: Keep | None = None
    ) -> None:
        hosts = as_hosts(hosts)
        if settings.shared_temp_path and hosts and not hosts[0].temp_path:
            raise ValueError(
                f"shared_temp_path needs temp_path of the first host ({hosts[0].label!r}): the shared directory"
            )
        super().__init__(hosts, settings)
        self.grid_id = f"{os.getpid()}-{os.urandom(4).hex()}"
        if keep is None and settings.keep is not None:
            keep = Keep(SessionPlace(str(settings.name)), span_s(settings.keep))
        elif keep is not None and keep.past is not None:
            self.grid_id = keep.past.facts["grid"]["id"]
        self.label = settings.name or f"{script_name()}-{os.getpid()}"
        self._engine = self._engine_type(self, self.grid_id, settings, source)
        self._engine.fleet.keep = keep
        self._leaves_at_exit = keep is not None and settings.at_exit == "detach"

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
        `$GRID_ATTACH` (`grid attach` sets it) comes before all of that: a session that waits, as by `Grid.attach`.
        `$GRID_LOCAL`, a number (`grid run --local`), comes before all of that: this machine with so many servers. So
        does `$GRID_LOGIN` (`grid run --login`): a `BatchGrid` that submits there what `$GRID_RESOURCES` says.
        """
        if os.environ.get("GRID_ATTACH"):
            return cls.attach(os.environ["GRID_ATTACH"], steal="GRID_STEAL" in os.environ, at_exit="detach")
        place = find_place(n, os.environ)
        if place.login:
            from grid.grids.batch import BatchGrid  # it stands on this module

            return BatchGrid.from_text(place.login, place.resources, **kw)
        if place.in_job:
            return cls.from_allocation(**kw)
        hosts = place.hosts or []
        made = Grid(hosts, **(all_that_fit(kw) if place.alone else kw))
        if place.file is not None:
            servers = sum(host.use_n_cpu for host in hosts)
            one = "; n_cpu is 1 where it is not given" if servers == len(hosts) else ""
            made._engine.output.say(f"hosts of {place.file}: {len(hosts)} with {servers} servers for each service{one}")
        return made

    @classmethod
    def attach(cls, name: str, *, steal: bool = False, at_exit: str = "end", timeout: float = 10.0) -> Grid:
        """Go on with a grid that was made with `name=` and `keep=`, and whose client has gone.

        Its services have the same ids, its servers their state; `results` and `named` give what was called before. A
        host that does not answer joins when it comes.

        Args:
            steal: A client that lives is asked to hand over.
            at_exit: What becomes of it when the interpreter ends and nobody has ended it: "end", or "detach".
            timeout: Seconds to wait for servers; those that come later join then.
        Raises:
            SessionError: There is none of that name, its time has passed, another client has it, its file is damaged.
        """
        keep = open_session(name, steal=steal)
        try:
            assert keep.past is not None
            facts = keep.past.facts["grid"]
            settings = GridSettings(name=name, limits=Limits(**facts["limits"]), at_exit=at_exit)
            if "pilots" in keep.past.facts:
                from grid.grids.batch import BatchGrid  # it stands on this module

                made = BatchGrid._again(keep, settings)
            else:
                made = Grid._again(keep, settings)
            reserve_ids(keep.past.facts_of("service"))
        except BaseException:
            keep.leave()
            raise
        try:
            made.start()
        except BaseException:
            made._ending.leave(made._engine, GridStopped("its grid could not be taken up"))
            raise
        resumption = made._engine.resumption
        assert resumption is not None
        resumption.begin()
        resumption.wait(timeout)
        return made

    @classmethod
    def _again(cls, keep: Keep, settings: GridSettings) -> Grid:
        """The grid of a session, over the hosts that it had."""
        made = cls.__new__(cls)
        made._begin([], settings, HostSource(), keep)
        return made

    def detach(self) -> None:
        """Go, and leave everything as it is on the hosts: `Grid.attach` takes it up again, until `keep` has passed.

        Results that are not here yet raise GridStopped in this process; another one has them.

        Raises:
            SessionError: The grid was not made with `keep=`.
        """
        if os.getpid() != self._pid or self.ishalted():
            return
        self._kept()
        self.start()
        why = GridStopped("its grid was detached", hint=f"Grid.attach({self.label!r}) has its result")
        undisturbed("grid-detach", lambda: self._ending.leave(self._engine, why))

    def results(self) -> list[Result]:
        """Of a grid that is kept: calls of earlier clients, and named ones of this one, that nobody has fetched.

        Raises:
            SessionError: The grid was not made with `keep=`.
        """
        self.start()
        return self._kept().claims.all()

    def named(self, name: str) -> Result:
        """The result of the call that `proxy.energy(x).named(name)` gave this name, here or in an earlier process.

        Raises:
            SessionError: There is none, or it was fetched and dropped; or the grid was not made with `keep=`.
        """
        self.start()
        try:
            result: Result = self._kept().claims.named(name)
        except KeyError as exc:
            known = str(exc.args[0]) or "none"
            raise SessionError(f"no result is named {name!r}", hint=f"There are: {known}") from None
        return result

    def _kept(self) -> Keep:
        keep = self._engine.fleet.keep
        if keep is None:
            raise SessionError("this grid is not kept", hint="Make it with name='lab' and keep='12h'")
        return keep

    # -- life ------------------------------------------------------------------------------------------------------

    def ishalted(self) -> bool:
        return self._engine.fleet.halted

    halted = held("_engine.fleet", "halted")
    """Whether the grid has stopped."""

    def start(self) -> None:
        def start_up() -> None:
            with self._lock:
                self._check_usable()
                self._engine.begin(self)
            super(Grid, self).start()

        if self._launched:
            self._check_usable()
        else:
            undisturbed("grid-start", start_up)
        self._engine.source.begin()

    def run(self) -> None:
        """The grid's thread: takes replies in while nobody waits for one, and does the errands."""
        self._engine.fleet.link.collect()

    add_hosts = verb("_engine", KernelEngine.add_hosts)

    def _halt(self, *, force: bool) -> None:
        self._engine.halt(force=force)

    def _forked(self) -> None:
        super()._forked()
        self._engine.fleet.forked(self._lock)

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        return self._engine.fleet.link.wait(waiter, timeout)

    def _rouse(self, waiter: Waiter) -> None:
        if self._engine.fleet.has_begun:
            self._engine.fleet.link.rouse(waiter)

    def set_debug(self, debug: bool, verbose: bool | None = None) -> None:
        super().set_debug(debug, verbose)
        for home in self._engine.fleet.homes:
            home.set_debug(debug)

    # -- services --------------------------------------------------------------------------------------------------

    def publish(
        self,
        instance: T,
        *,
        wait: str | int | None = None,
        timeout: float | None = None,
        restarts: int = 0,
        republish: bool = False,
        missing: str | None = None,
        reseed: bool | None = None,
        logging: bool | None = None,
        needs: Needs | None = None,
        where: str | None = None,
        servers: int | None = None,
        busy: str = "fail",
        retry: Retry | None = None,
        snapshot_s: float | None = None,
        snapshot_calls: int | None = None,
    ) -> ServiceId[T]:
        """Put copies of `instance` on servers of all hosts and return the service id.

        Each server holds a copy of its own; this object here is not changed by their calls. The same live object again
        gives the same id, without another launch.

        Args:
            wait: Return when so many servers are ready: "first", "all", or a number; others join as they come.
                Hosts that fail are in `g.failures`, and a line on stderr names them. Default: the grid's.
            timeout: Seconds to wait for them; default `limits.publish_s`.
            restarts: How many lost servers of this service are replaced, each with a fresh copy, or as
                the last snapshot has it.
            republish: Make a new service even if this object has one.
            missing: "fail" or "ok": whether fewer servers than `wait` says are an error. Default: the grid's, but
                "fail" where `wait` is given here.
            reseed: True: random generators in the instance and in what it uses of the script (`random.Random`, those of
                NumPy) get another state on each server, made from theirs and the server's number: the same in every
                run where they had a seed. False: all servers draw the same numbers. Default: the grid's; where that
                says nothing they do, too, and a line on stderr tells it.
            logging: Whether servers have the levels and formats of `logging` that are set up here. Default: the grid's.
            needs: What each server needs of its host; default: the grid's. Each host gets as many servers as it has
                room for, at most as many as it would get without needs; see docs/slots.md.
            where: Which hosts: a name, a tag or a group, or several with `and`, `or`, `not` and brackets. Default: the
                grid's.
            servers: How many servers each of these hosts gets, at most. Default: `use_n_cpu` of the host.
            busy: "wait": wait for devices, cores and memory that others have there, `timeout` at most, and say who has
                them. "fail": such a host takes no part.
            retry: Which calls of its proxies are made again, and how often: those of methods that may run twice.
                Default: none. See docs/retry.md.
            snapshot_s: Save the state of each server after so many seconds, behind the calls that it has, if it was
                called since. One that takes the place of a lost server (`restarts`) goes on from there, on another host
                if that was lost as well. See docs/snapshots.md.
            snapshot_calls: The same after so many calls.
        Raises:
            NeedsError: `where` means no host.
            SerialisationError: The instance can't travel; the message names the part.
            PublishError: No host brought up a server, or fewer came than `wait` says; `.failures` has the reasons.
        """
        service_id = self._engine.publisher.publish(
            instance,
            wait=wait,
            timeout=timeout,
            restarts=restarts,
            republish=republish,
            missing=missing,
            reseed=reseed,
            logging=logging,
            needs=needs,
            where=where,
            servers=servers,
            busy=busy,
            retry=retry,
            snapshot_s=snapshot_s,
            snapshot_calls=snapshot_calls,
        )
        return ServiceId(service_id)

    def _publish_lasting(self, instance: Any, restarts: int) -> str:
        return self.publish(instance, restarts=restarts)

    def _withdrawn(self, service_id: str) -> None:
        self._engine.publisher.withdraw(service_id)

    def _server_gone(self, server: Server, event: Event, reason: str) -> None:
        super()._server_gone(server, event, reason)
        if isinstance(server, KernelServer):
            self._engine.losses.left(server, reason)

    def _end_at_once(self, servers: Sequence[Server]) -> None:
        self._engine.losses.end_at_once(servers)

    def _on_their_way(self) -> list[str]:
        return self._engine.source.on_their_way()

    # -- files -----------------------------------------------------------------------------------------------------

    copy_files = verb("_engine.stager", Stager.copy_files)
    initialise = verb("_engine.stager", Stager.initialise)
    create_subroot = verb("_engine.stager", Stager.create_subroot)
    fetch_files = verb("_engine.fetcher", FileFetcher.fetch_files)
    temp_paths = held("_engine.stager", "temp_paths")
    """Host label -> directories that the grid made there."""
    copied_files = held("_engine.stager", "copied_files")
    """What the last `copy_files` did."""
    src_files = held("_engine.stager", "src_files")
    """Names of all files that `initialise` has staged."""
    workdir = held("_engine.stager", "workdir")
    """The directory that servers work in, where that was said."""

    wait, missing = held("_engine.settings", "wait"), held("_engine.settings", "missing")
    needs, where = held("_engine.settings", "needs"), held("_engine.settings", "where")
    reseed, logging = held("_engine.settings", "reseed"), held("_engine.settings", "logging")

    # -- commands --------------------------------------------------------------------------------------------------

    command = verb("_engine.commands", GridCommands.command)
    map_commands = verb("_engine.commands", GridCommands.map_commands)
    commands = held("_engine", "commands")
    """The part that runs commands."""

    # -- ranks -----------------------------------------------------------------------------------------------------

    def ranks(
        self,
        main: Callable[..., Any],
        n: int | None = None,
        *,
        args: Sequence[Any] = (),
        kw: Mapping[str, Any] | None = None,
        needs: Needs | None = None,
        where: str | None = None,
    ) -> Ranks:
        """Run `main(comm, *args, **kw)` on `n` servers that send each other messages, as under MPI; returns at once.

        `comm` has mpi4py's names (`grid.ranks.comm.Comm`). Messages go straight from server to server where there is
        a way, else through this process. When a rank is lost or raises, all others are told and raise, too.

        Args:
            n: How many ranks; default: all servers.
            needs, where: As of `publish`.
        Returns:
            A future whose value is what the ranks returned, in their order. It raises RankLost or RankFailed with the
            rank and host of the first that was lost or raised.
        Raises:
            RankError: There are more ranks than servers. PublishError, SerialisationError: As `publish`.
        """
        return run_ranks(self, main, n, args, kw or {}, needs, where)

    # -- looking ---------------------------------------------------------------------------------------------------

    stacks = verb("_engine.stacks", Stacks.stacks)
    profile = verb("_engine.profiles", Profiles.profile)

    def status(self) -> dict[str, Any]:
        """What the grid consists of and does, in plain values (JSON)."""
        return {
            **super().status(),
            "id": self.grid_id,
            "name": self.label,
            "pid": os.getpid(),
            "homes": self._engine.status(),
            **self._engine.source.status(),
        }
