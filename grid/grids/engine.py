"""The engine of a grid on our own kernels: its parts, put together, and how they begin and end.

    fleet     homes, the link, processes, helpers          publisher   copies of instances on servers
    stager    files                                        mover       servers that change their host
    news      what agents tell                             outages     what connections tell
    losses    what is lost                                 source      where hosts come from
    stacks    where calls are just now
    profiles  where servers spend their time

Lives here: `KernelEngine`.
Elsewhere:  each part in a file of its name; what users see (`grid.py`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grid.commands.running import GridCommands
from grid.errors import GridError
from grid.grids.fetching import FileFetcher
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.keptfiles import KeptFiles
from grid.grids.losses import Losses
from grid.grids.mover import Mover
from grid.grids.news import News
from grid.grids.outages import Outages
from grid.grids.output import Output
from grid.grids.packages import Packages
from grid.grids.profiles import Profiles
from grid.grids.publishing import Publisher
from grid.grids.resuming import Resumption
from grid.grids.settings import GridSettings
from grid.grids.silence import HostState
from grid.grids.source import HostSource
from grid.grids.stacks import Stacks
from grid.grids.stager import Stager
from grid.grids.watch import Watch, Watched
from grid.hosts import FixedHosts, Host, as_hosts
from grid.wire.link import Link

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid

_WHICH_S = 5.0

_SHOWN = {HostState.DOWN: "down", HostState.CONNECTED: "up", HostState.LOST: "gone"}


class KernelEngine:
    """See the module."""

    fleet_type: type[Fleet] = Fleet
    publisher_type: type[Publisher] = Publisher
    mover_type: type[Mover] = Mover

    def __init__(self, grid: AbstractGrid, grid_id: str, settings: GridSettings, source: HostSource) -> None:
        self.grid, self.settings, self.source = grid, settings, source
        self.output = Output(settings.output)
        # Parts that need each other are named when they are used.
        self.fleet = self.fleet_type(
            grid,
            grid_id,
            stage=lambda home, files: self.stager.stage_modules(home, files),
            warn=lambda names: self.publisher.warn_of_generators(names),
            check=lambda home: self.stager.check_shared(home),
            packages=Packages(settings.environment),
        )
        self.stager = Stager(
            self.fleet,
            lambda home: self.mover.servers_at(home),
            src_path=grid.src_path,
            workdir=None if settings.workdir is None else os.fspath(settings.workdir),
            shared=grid.shared_temp_path,
        )
        self.publisher = self.publisher_type(self.fleet, source, self.stager, settings)
        self.mover = self.mover_type(
            *(self.fleet, source, self.stager, self.publisher.wishes_of, self.publisher.needs_of),
            count_of=self.publisher.count_of,
            lose=lambda server, what: self.losses.lose_server(server, what),
        )
        self.losses = Losses(self.fleet, self.publisher, self.mover)
        self.fetcher = FileFetcher(self.fleet, self.stager)
        self.kept_files = KeptFiles(self.fleet, self.stager, grid_id)
        self.commands = GridCommands(grid, self.stager, self.kept_files, self.which)
        self.outages = Outages(self.fleet, self.mover, self.losses)
        self.news = News(self.fleet, self.publisher, self.mover, self.losses, self.output)
        self.stacks = Stacks(self.fleet)
        self.profiles = Profiles(self.fleet)
        self._watch: Watch | None = None
        self.resumption: Resumption | None = None
        self._halting = threading.Lock()

    def begin(self, watched: Watched) -> None:
        """Have the link, the homes and the watch; locked by the caller. Once more does nothing."""
        if self.fleet.has_begun:
            return
        keep = self.fleet.keep
        link = Link(self.fleet.limits) if keep is None else keep.begin(self.fleet.limits, self.fleet.grid_id)
        self.fleet.begin(link)
        self.listen(link)
        try:
            hosts = as_hosts(self.grid.hosts)  # names may have been added to it
            if keep is not None and keep.past is not None:
                self.resumption = Resumption(self, keep)
                self.resumption.make_homes()
                hosts = [home.host for home in self.fleet.homes]
                self.news.on_attached = self.resumption.attached
            else:
                self.fleet.make_homes(hosts)
            self.grid.hosts = FixedHosts(hosts, self.grid)
            self._watch = Watch(watched, link, self.fleet.limits, self.look, self.profiles)
            self.output.in_directory(watched.grid_id)
            self._watch.start()
        except BaseException:  # no socket for the watch, say: there is nobody yet who would end the link
            self.fleet.begin(None)
            link.close()
            link.destroy()
            if keep is not None:
                keep.leave() if keep.past is not None else keep.end()
            raise

    def listen(self, link: Link) -> None:
        """Hear what the link tells."""
        link.on_event, link.on_welcome = self.news.on_event, self.news.answered
        link.on_connection = self.outages.on_connection

    def look(self) -> None:
        """In the watch's thread, now and then: whose time has passed?"""
        if self.fleet.keep is not None:
            self.fleet.keep.look()  # before waste goes that the log still counts on
        self.grid._ending.look_after()
        self.publisher.look()
        self.outages.look()
        if self.resumption is not None:
            self.resumption.look()

    def add_hosts(self, hosts: str | Host | Sequence[str | Host]) -> None:
        """More hosts for a grid that runs: they get servers of every service, which join as they come up.

        Returns at once; hosts that fail are in `g.failures`.
        """
        self.grid.start()
        added = as_hosts(hosts)
        self.grid.hosts = FixedHosts([*self.grid.hosts, *added], self.grid)
        for host in added:
            home = self.fleet.make_home(host, host.use_n_cpu)
            self.stager.joins_late(home)
            self.fleet.add(home)
            self.publisher.fill(home)

    def which(self, program: str) -> dict[str, bool]:
        """Host label -> whether servers there find a program; of hosts that are up and answer in time."""
        asked = {}
        for home in self.fleet.homes:
            if home.up:
                try:
                    asked[home.host.label] = home.ask_later("which", program, timeout=_WHICH_S)
                except GridError:
                    pass  # it ends just now
        told = {}
        for label, answer in asked.items():
            try:
                told[label] = bool(answer())
            except GridError:
                pass  # it is in trouble, which is dealt with elsewhere
        return told

    def status(self) -> list[dict[str, Any]]:
        """Of each home, in plain values."""
        return [
            {
                "host": home.host.label,
                "slots": home.slots,
                "state": _SHOWN.get(home.life.state, "unreachable"),
                "transport": home.transport,
                "python": home.report.get("python"),
                "agent": home.report.get("pid"),
            }
            for home in self.fleet.homes
        ]

    # -- the end ---------------------------------------------------------------------------------------------------

    def halt(self, *, force: bool) -> None:
        """End everything, once; bounded."""
        with self._halting:
            if self.fleet.halted:
                return
            self.fleet.halted = True
        self.source.wake()
        if not force:  # else an error ends the script, and has its own words
            self.publisher.tell_at_the_end()
        for home in self._all_homes():
            home.end_starts()
        self.fleet.notify()
        self.stager.clear_up()
        if self.fleet.has_begun:
            self._end(force)
        self.source.end()
        if self.fleet.has_begun and self.fleet.keep is not None:
            self.fleet.keep.end()  # last: until now another client could have gone on with the end

    def leave(self, why: GridError) -> None:
        """The client goes, and all that runs on hosts stays for another one. `why`: the error of what it leaves."""
        with self._halting:
            if self.fleet.halted:
                return
            self.fleet.halted = True
        self.source.wake()
        fleet, keep = self.fleet, self.fleet.keep
        assert keep is not None
        for home in self._all_homes():
            home.end_starts()
        fleet.notify()
        fleet.link.flush()
        keep.settle()
        fleet.link.close(why)
        self.source.leave()
        for home in self._all_homes():
            home.leave()
        keep.leave()
        fleet.join_helpers(time.monotonic() + fleet.limits.stop_s)
        self._close_rest()

    def _all_homes(self) -> list[Home]:
        """Homes to be shut down at the end, also those that take no part yet."""
        return [*self.fleet.homes, *(home for home in self.source.standing_by() if home not in self.fleet.homes)]

    def _end(self, force: bool) -> None:
        fleet, link = self.fleet, self.fleet.link
        for server in fleet.servers():
            if server.connected:
                self.losses.left(server, "terminated")
                if not force:
                    link.bye(server.peer)
        homes = [home for home in self._all_homes() if home.up or home.connection is not None]
        deadline = time.monotonic() + 3 * fleet.limits.stop_s + 10.0
        # The kernel on our own machine is our heir: in a job, where all may be killed now, it ends last.
        in_a_job = any(home.connection is not None and home.connection.in_job for home in homes)
        first = [home for home in homes if not home.local or not in_a_job]
        for wave in (first, [home for home in homes if home not in first]):
            _shut_down(wave, force, deadline)
        # They start hosts, or publish, and have nothing left to work on. One that is just connecting sees it and stops.
        fleet.join_helpers(min(deadline, time.monotonic() + fleet.limits.stop_s))
        for home in self._all_homes():
            if home.up:  # it came up at that very moment
                home.shut_down(force=True)
        link.close()
        self._close_rest()

    def _close_rest(self) -> None:
        """After the link was closed."""
        self.commands.close()
        if self._watch is not None:
            self._watch.stop()
        if self.grid.is_alive() and threading.current_thread() is not self.grid:
            self.grid.join(5.0)
        self.fleet.link.destroy()
        self.output.close()
        self.stager.clear_up()  # what an upload that was cut off wrote in the meantime


def _shut_down(homes: Sequence[Home], force: bool, deadline: float) -> None:
    """Side by side."""
    threads = [
        threading.Thread(target=home.shut_down, kwargs={"force": force}, name="grid-shutdown", daemon=True)
        for home in homes
    ]
    for thread in list(threads):
        try:
            thread.start()
        except RuntimeError:  # Python 3.12 starts no thread once the interpreter ends
            threads.remove(thread)
            thread.run()
    for thread in threads:
        thread.join(max(0.1, deadline - time.monotonic()))
