"""Publishing: copies of an instance on servers of all hosts, those that take its place when they are lost, its end.

A publication stays ready for hosts that join later and for servers that are replaced. Each host has the instance once,
as a blob, whichever of its servers start from it.

Threads: one for each host while it starts servers. Who publishes waits in the meantime, and goes on as soon as there
are as many servers as he wanted.

Lives here: `Publisher`: which servers publications get, waiting for them, who takes no part.
Elsewhere:  what a publication is (`publication.py`), starting a host (`fleet.py`, `home.py`), what becomes of servers
            (`news.py`, `losses.py`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from grid.arguments import check, check_number
from grid.errors import DiskError, GridError, HostError, NeedsError, NoServers, PublishError
from grid.grids import generators
from grid.grids.absent import Missing, Rest, lines
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.processes import home_of
from grid.grids.publication import ANYWHERE, NOBODY, Place, Publication, Wish
from grid.grids.reserving import reserve
from grid.grids.settings import GridSettings, one_wait, one_word
from grid.grids.snapshots import Snapshots, home_for, rule_of
from grid.grids.source import HostSource
from grid.grids.stager import Stager
from grid.grids.undisturbed import undisturbed
from grid.hosts.host import did_you_mean
from grid.hosts.where import Where
from grid.kernel import logsetup
from grid.kernel.descriptors import make_room
from grid.kernel.warm import to_warm
from grid.limits import checked_timeout
from grid.services.kernel_server import KernelServer
from grid.services.proxy import methods_of, yielding_of
from grid.services.retry import Retry
from grid.services.roster import Event
from grid.services.service import Service
from grid.slots.needs import Needs
from grid.wire import codec
from grid.wire.edited import as_they_are, code_of
from grid.wire.mainimage import MainImage
from grid.wire.mentions import modules_in

logger = logging.getLogger(__name__)

DESCRIPTORS = 8
"""What a server's connection may need of this process while it comes up."""


class Publisher:
    """The publications of one grid."""

    def __init__(self, fleet: Fleet, source: HostSource, stager: Stager, settings: GridSettings) -> None:
        self._fleet, self._source, self._stager, self._settings = fleet, source, stager, settings
        self._publications: dict[str, Publication] = {}
        self._earlier: dict[str, tuple[Place, dict[str, Any]]] = {}  # what earlier clients have asked for
        self._being_published: dict[int, Any] = {}  # id of a live instance that somebody publishes just now -> it
        self._waiting = 0  # threads that wait in `publish`: they tell who is absent

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
        needs: Needs | None = None,
        where: str | None = None,
        servers: int | None = None,
        busy: str = "fail",
        retry: Retry | None = None,
        snapshot_s: float | None = None,
        snapshot_calls: int | None = None,
    ) -> str:
        """See `Grid.publish`."""
        grid, settings = self._fleet.grid, self._settings
        check("retry", retry, Retry | None)
        rule = rule_of(snapshot_s, snapshot_calls, restarts)
        if self._fleet.keep is not None and (rule or retry is not None):
            what = "retry=" if retry is not None else "snapshot_s= and snapshot_calls="
            raise ValueError(f"a grid with keep= has no {what}, as a later client could not know of it: leave it out")
        check("needs", needs, Needs | None)
        check("where", where, str | None)
        check_number("servers", servers, 1, int | None)
        if busy not in ("fail", "wait"):
            raise ValueError(f"busy must be 'fail' or 'wait', not {busy!r}")
        grid.start()
        code = code_of(instance)
        wanted = settings.wait if wait is None else one_wait(wait)
        patience = checked_timeout(timeout)
        if patience is None:
            patience = self._source.patience_s or self._fleet.limits.publish_s
        needs, where = needs or settings.needs, settings.where if where is None else where
        condition = None if where is None else Where(where)
        wish = Wish(
            wait=wanted,
            lenient=one_word(missing or (settings.missing if wait is None else "fail")) == "ok" or wanted == "first",
            patience_s=patience,
            restarts=restarts,
            reseed=settings.reseed if reseed is None else reseed,
            logging=logsetup.of_this_process() if (settings.logging if logging is None else logging) else None,
            place=Place(needs=needs, where=condition, servers=servers, waits_s=patience if busy == "wait" else 0.0),
            retry=retry,
            snapshots=rule,
        )
        self._check_meant(wish.place)
        given: list[str] = []  # the service that we got

        def work() -> str:
            with self._only_publisher(instance, code, republish) as known:
                if known is not None:
                    given.append(known)
                    return known
                given.append(grid.create_service_id(instance))
                self._publish(instance, code, given[0], wish)
                grid._services.note(instance, given[0])
                return given[0]

        return undisturbed("grid-publish", work, lambda: self._give_back(given))

    def _give_back(self, given: list[str]) -> None:
        """The caller who was to get these services was torn off. Nobody else has one that another caller did not get.

        One lock decides: either another caller of `publish` has found the service before, and keeps it, or he finds
        none and makes another.
        """
        grid = self._fleet.grid
        for service_id in given:
            with self._fleet.changed:
                publication = self._publications.get(service_id)
                if publication is None:
                    continue
                publication.callers -= 1
                if publication.callers:
                    continue
                grid._services.disown(service_id)
            try:
                if service_id in grid._services:
                    grid.terminate(service_id)
            except GridError as exc:
                logger.debug("what was published when its caller was interrupted is gone already: %s", exc)

    def _check_meant(self, place: Place) -> None:
        """Raise NeedsError unless there are hosts that `where` means. Hosts of pilots are not known beforehand."""
        if place.where is None or self._source.homes_to_be() is not None:
            return
        known = {word for home in self._fleet.homes for word in home.host.words}
        for word in place.where.words:
            if word not in known:
                listed = f"There are: {', '.join(sorted(known))}"
                raise NeedsError(
                    f"no host has the name, tag or group {word!r}", hint=listed + did_you_mean(word, known)
                )
        if not any(place.count(home) for home in self._fleet.homes):
            hosts = ", ".join(home.host.label for home in self._fleet.homes)
            raise NeedsError(f"where={place.where.text!r} means none of the hosts ({hosts})", hint="Say it otherwise")

    @contextlib.contextmanager
    def _only_publisher(self, instance: Any, code: Any, republish: bool) -> Iterator[str | None]:
        """The service that this live object has; None: nobody else publishes it until the end of the block."""
        changed, grid = self._fleet.changed, self._fleet.grid
        while True:
            with changed:
                known = grid._services.published.get(id(instance))
                if known is not None and known[0] is instance and not republish:
                    publication = self._publications.get(known[1])
                    if publication is not None and publication.code == code:
                        publication.callers += 1
                        break
                known = None
                if republish or id(instance) not in self._being_published:
                    self._being_published[id(instance)] = instance
                    break
                changed.wait(1.0)  # another thread is at it
                grid._check_usable()
        try:
            yield None if known is None else known[1]
        finally:
            if known is None:
                with changed:
                    self._being_published.pop(id(instance), None)
                    changed.notify_all()

    def _publish(self, instance: Any, code: Any, service_id: str, wish: Wish) -> None:
        """Bring up a new service, and wait for as many servers as are wanted."""
        fleet, total = self._fleet, self.size(wish.place)
        dumped = codec.dumps_instance(instance)
        image = MainImage().pack(dumped.main_names) if dumped.main_names else None
        publication = Publication(
            service_id=service_id,
            dumped=dumped,
            image=image,
            code=code,
            has={**as_they_are(), **(image.entries if image else {})},
            restarts=wish.restarts,
            reseed=wish.reseed,
            logging=wish.logging,
            place=wish.place,
            snapshots=wish.snapshots,
        )
        if wish.reseed is None and total > 1:
            holders = image.random if image else set()
            generators.warn(service_id, holders, instance=codec.holds_generator(instance, dumped))
        service = fleet.grid._services.add(service_id, methods_of(instance), yielding_of(instance), wish.retry)
        if fleet.keep is not None:
            asked = {"place": wish.place.plain(), "wishes": publication.wishes()}
            fleet.keep.service(service_id, service.methods, service.yielding, asked)
        with fleet.changed:
            service.roster.expect(self._source.is_hoping())
            self._publications[service_id] = publication
            homes = [home for home in fleet.homes if wish.place.count(home)]
        make_room(DESCRIPTORS * total)
        plan = [(home, self._new_servers(publication, home, wish.place.count(home))) for home in homes]
        service.announce([server for _, servers in plan for server in servers])
        for home, servers in plan:
            self._begin_on(home, publication, servers)
        with self._telling(service_id):
            try:
                self.wait_for(
                    service, lambda: wish.servers(self.size(wish.place) - publication.surplus), wish.patience_s
                )
                if not wish.lenient:
                    wanted = wish.servers(self.size(wish.place) - publication.surplus)
                    self._insist(service, wanted, wish.patience_s)
            except BaseException as exc:
                if isinstance(exc, PublishError):
                    fleet.absent.drop()
                fleet.grid.terminate(service_id)
                raise

    def warn_of_generators(self, names: set[str]) -> None:
        """Names of the script that hold generators go to a server with a call."""
        published = list(self._publications.values())
        if self._settings.reseed is None and self.size() > 1 and any(one.reseed is None for one in published):
            generators.warn(None, names, instance=False)

    def wishes_of(self, service_id: str) -> dict[str, Any]:
        """How servers of a service were asked for, as their kernels are told."""
        publication = self._publications.get(service_id)
        return publication.wishes() if publication is not None else self._earlier.get(service_id, NOBODY)[1]

    def remember(self, service_id: str, asked: Mapping[str, Any]) -> None:
        """An earlier client has published it, and asked for this: its servers may move."""
        self._earlier[service_id] = Place.of_plain(asked["place"]), asked["wishes"]

    def _place_of(self, service_id: str) -> Place:
        publication = self._publications.get(service_id)
        return publication.place if publication is not None else self._earlier.get(service_id, NOBODY)[0]

    def needs_of(self, service_id: str) -> Needs | None:
        """What each server of a service needs of its host."""
        return self._place_of(service_id).needs

    def count_of(self, service_id: str, home: Home) -> int:
        """How many servers a service wants on a host, as far as that has room."""
        return self._place_of(service_id).count(home)

    def has(self, service_id: str) -> dict[Any, Any]:
        """What a fresh server of a service has: names of `__main__`, editions of modules."""
        publication = self._publications.get(service_id)
        return dict(publication.has) if publication is not None else {}

    def size(self, place: Place = ANYWHERE) -> int:
        """How many servers a service has when all hosts are up and have room for it."""
        homes = self._source.homes_to_be()
        return sum(place.count(home) for home in (self._fleet.homes if homes is None else homes))

    def withdraw(self, service_id: str) -> None:
        """The service is gone: free what hosts hold for it."""
        publication = self._publications.pop(service_id, None)
        if self._fleet.keep is not None:
            self._fleet.keep.service_gone(service_id)
        if publication is None:
            return
        publication.withdrawn = True
        for home, told in list(publication.blobs.items()):
            _drop(home, told)

    # -- servers on one host ---------------------------------------------------------------------------------------

    def _new_servers(self, publication: Publication, home: Home, count: int) -> list[KernelServer]:
        made = []
        for _ in range(count):
            name = f"{publication.service_id}/{next(publication.numbers)}"
            server = KernelServer(publication.service_id, name, home.host, home, self._fleet.link.number())
            if publication.snapshots:
                server.snapshots = Snapshots(self._fleet, server, publication.snapshots, publication.told)
            self._fleet.processes.begin(server)
            made.append(server)
        return made

    def _begin_on(self, home: Home, publication: Publication, servers: Sequence[KernelServer]) -> None:
        self._fleet.in_thread(f"grid-publish-{home.host.label}", self._publish_on, home, publication, servers)

    def fill(self, home: Home, room: Callable[[Home, str], int] | None = None) -> None:
        """A home takes part: everything that is published is published there, too. `room`: for so many servers."""
        with self._fleet.changed:
            publications = list(self._publications.values())
        for publication in publications:
            with self._fleet.changed:
                count = publication.place.count(home)
                if room is not None and count:
                    count = room(home, publication.service_id)
            service = self._fleet.grid._services.get(publication.service_id)
            if service is not None and count > 0:
                servers = self._new_servers(publication, home, count)
                service.announce(servers)
                self._begin_on(home, publication, servers)

    def replace(self, server: KernelServer, *, avoid: bool = False) -> Callable[[], None] | None:
        """Another one for a server that is about to leave the tables; None: there is none to be.

        It is announced at once, before the old one leaves, so that who waits keeps hope; the answer starts it.
        With snapshots it goes on from the last one, and on another host where its own is lost, or could not start it
        (`avoid`).
        """
        publication, home = self._publications.get(server.service_id), home_of(server)
        if publication is not None and publication.snapshots:
            home = home_for(home, self._room(publication), avoid=avoid) or home
        service = self._fleet.grid._services.get(server.service_id)
        if publication is None or service is None or home.gone or self._fleet.halted:
            return None
        if publication.restarts < 1:
            return None
        publication.restarts -= 1
        successors = self._new_servers(publication, home, 1)
        if server.snapshots is not None:
            successors[0].snapshots.last = server.snapshots.last
        service.announce(successors)
        return lambda: self._fleet.in_thread("grid-replace", self._publish_on, home, publication, successors)

    def _room(self, publication: Publication) -> list[tuple[Home, int]]:
        """The homes that a service may have servers on, and for how many more each has room."""
        here = Counter(id(s.home) for s in self._fleet.servers() if s.service_id == publication.service_id)
        counts = [(home, publication.place.count(home)) for home in self._fleet.homes]
        return [(home, count - here[id(home)]) for home, count in counts if count]

    def _publish_on(self, home: Home, publication: Publication, servers: Sequence[KernelServer]) -> None:
        """Thread: one host's part of a publication."""
        try:
            self._fleet.start(home)
            servers = self._with_slots(home, publication, servers)
            self._stager.furnish(home)
            workdir = self._stager.workdir_of(home)
            wishes = [
                {
                    "name": server.name,
                    "service_id": server.service_id,
                    "peer": server.number,
                    "niceness": home.host.niceness,
                    "workdir": workdir,
                }
                for server in servers
            ]
            own = servers[0].snapshots if len(servers) == 1 else None
            if own is not None and own.last is not None:
                published = own.bring(home, publication.wishes())
            else:
                published = self._bring(home, publication)
            distance_s = self._fleet.grid.X11_delay
            if distance_s > 0:
                for wish in wishes:
                    home.ask("start", [wish], published)
                    time.sleep(distance_s)  # what was asked for: distance between launches
            else:
                home.ask("start", wishes, published)
        except Exception as exc:
            if publication.place.needs is not None and home.up:
                with contextlib.suppress(GridError):
                    home.ask_later("stop", [server.name for server in servers], True)  # their slots are free again
            if not self._fleet.halted:
                self.host_failed(home, self._cause(home, exc), servers)

    def _with_slots(
        self, home: Home, publication: Publication, servers: Sequence[KernelServer]
    ) -> Sequence[KernelServer]:
        """Those of the servers that have slots there; the others are as if they had never been wanted.

        Raises:
            NeedsError: None has one.
        """
        needs, label = publication.place.needs, home.host.label
        if needs is None:
            return servers
        names = [server.name for server in servers]
        granted, why, later = reserve(home, names, needs, publication.place.waits_s, self._fleet)
        service = self._fleet.grid._services.get(publication.service_id)
        if len(granted) < len(names) and service is not None:
            service.note_short(label, why)
        if not granted and not self._has_some_at(home, servers):
            raise NeedsError(why, host=label, hint=f"Each server needs {needs}", later=later)
        for server in servers:
            server.slot = granted.get(server.name, "")
        surplus = [server for server in servers if server.name not in granted]
        with self._fleet.changed:
            publication.surplus += len(surplus)
        for server in surplus:
            self._fleet.processes.end_start(server.name)
            self._fleet.gone(server, Event.TERMINATED, f"host {label!r} has no slot for it: {why}")
        self._fleet.notify()
        return [server for server in servers if server.name in granted]

    def _has_some_at(self, home: Home, besides: Sequence[KernelServer]) -> bool:
        """Whether this service has other servers there already."""
        known = {server.name for server in besides}
        one = besides[0].service_id
        return any(s.home is home and s.service_id == one and s.name not in known for s in self._fleet.servers())

    def _cause(self, home: Home, exc: Exception) -> Exception:
        """A host that ends removes its directories first, and says why last: a failing write is not the cause then."""
        if not isinstance(exc, DiskError):
            return exc
        try:
            home.ask("status")
        except GridError as end:
            logger.debug("host %s: %s", home.host.label, end)
        return self._fleet.grid.failures.get(home.host.label, exc) if home.gone else exc

    def _bring(self, home: Home, publication: Publication) -> dict[str, Any]:
        """Have the instance on the host, once; returns what its servers are told of it."""
        with publication.lock:
            if home not in publication.blobs:
                dumped = publication.dumped
                home.needs.check_code(dumped.by_value)
                modules = modules_in(dumped.data) | dumped.modules
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

    def host_failed(self, home: Home, exc: Exception, servers: Sequence[KernelServer]) -> None:
        """These servers will not come up there."""
        if not isinstance(exc, GridError):
            logger.exception("host %s failed", home.host.label, exc_info=exc)
        with self._fleet.changed:
            self._fleet.grid.failures[home.host.label] = exc
        first = servers[0] if servers else None
        one = first.name if first is not None and first.name in str(exc) else None
        self._fleet.absent.add(Missing(home.host.label, exc, one, first.service_id if first is not None else None))
        for server in servers:
            self._fleet.processes.end_start(server.name)
            start_another = None
            if server.snapshots is not None and server.snapshots.last is not None and server.final_state is None:
                server.snapshots.drop_blob()
                start_another = self.replace(server, avoid=True)  # its state is not lost with this host
            self._fleet.gone(server, Event.LOST, str(exc))
            if start_another is not None:
                start_another()
        self._fleet.notify()

    # -- waiting for them ------------------------------------------------------------------------------------------

    def _starting(self, service: Service) -> int:
        return sum(self._fleet.processes.has_begun(name) is not None for name in list(service.servers))

    def wait_for(self, service: Service, wanted: Callable[[], int], timeout: float) -> None:
        """Wait until so many are up, or no more will come. Raises PublishError, NoServers."""
        deadline = time.monotonic() + timeout
        grid, changed, source = self._fleet.grid, self._fleet.changed, self._source
        with changed:
            while True:
                up, starting = len(grid.servers[service.service_id]), self._starting(service)
                coming = starting or source.is_expecting()
                if up >= wanted() or (up and not coming):
                    return
                if self._fleet.halted:
                    raise NoServers("the grid was terminated while it published", service_id=service.service_id)
                remaining = deadline - time.monotonic()
                if not coming or (remaining <= 0 and not up):
                    raise PublishError(
                        f"no server came up{f' within {timeout:g} s' if coming else ''}",
                        service_id=service.service_id,
                        hint="Why, host by host:" if grid.failures else "",
                        failures=dict(grid.failures),
                    )
                if remaining <= 0:
                    return
                changed.wait(min(remaining, 1.0))

    def _insist(self, service: Service, wanted: int, timeout: float) -> None:
        """Raise PublishError where fewer servers are up than were waited for."""
        with self._fleet.changed:
            up, starting = len(self._fleet.grid.servers[service.service_id]), self._starting(service)
        if up >= wanted:
            return
        late = f" within {timeout:g} s; {starting} were still starting" if starting else ""
        raise PublishError(
            f"{up} of {wanted} servers came up{late}",
            service_id=service.service_id,
            hint='With missing="ok" the grid goes on with those that did. Why, host by host:',
            failures=dict(self._fleet.grid.failures),
        )

    # -- who takes no part -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _telling(self, service_id: str) -> Iterator[None]:
        """While somebody waits for servers; then it is told who takes no part."""
        with self._fleet.changed:
            self._waiting += 1
        try:
            yield
        finally:
            with self._fleet.changed:
                self._waiting -= 1
        self._tell_absent()

    def look(self) -> None:
        """Now and then: of whom is a snapshot due; who takes no part, and nobody waits any more who would tell?"""
        if self._fleet.absent and not self._waiting:
            self._tell_absent()
        if any(one.snapshots for one in list(self._publications.values())):
            now = time.monotonic()
            for server in self._fleet.servers():
                if server.snapshots is not None:
                    server.snapshots.look(now)

    def _tell_absent(self) -> None:
        """A line for each cause that keeps hosts, or servers, from taking part."""
        missing = self._fleet.absent.take()
        if missing:
            for line in lines(missing, self._rest(missing[-1].service_id)):
                logger.warning("%s", line)

    def _rest(self, service_id: str | None) -> Rest | None:
        with self._fleet.changed:
            publication = self._publications.get(service_id or "")
            place = Place() if publication is None else publication.place
            homes = [home for home in self._fleet.homes if place.count(home)]
            service = self._fleet.grid._services.get(service_id or "")
            if service is None:
                return None
            failed = self._fleet.grid.failures  # told before its servers leave the table
            live = [
                server
                for server in service.servers.values()
                if isinstance(server, KernelServer) and (home_of(server).up or home_of(server).host.label not in failed)
            ]
            starting = {id(server.home) for server in live if self._fleet.processes.is_starting(server)}
        with_servers = {id(server.home) for server in live}
        return Rest(
            hosts=len(with_servers),
            of_hosts=len(homes),
            servers=len(live),
            of_servers=max(len(live), self.size(place) - (publication.surplus if publication else 0)),
            starting=len(starting - {id(server.home) for server in live if server.connected}),
        )

    def tell_at_the_end(self) -> None:
        """No host is missing without a word: also those that were on their way until now."""
        for home in self._fleet.homes:
            label = home.host.label
            if home.slots and home.began is not None and not home.served and label not in self._fleet.grid.failures:
                spent = time.monotonic() - home.began
                what = f"took no part: it was still starting when the grid ended, {spent:.1f} s after it began"
                hint = 'With wait="all" publish waits for every host'
                self._fleet.absent.add(Missing(label, HostError(what, host=label, hint=hint)))
        for line in lines(self._fleet.absent.take(), None):
            logger.warning("%s", line)


def _drop(home: Home, told: dict[str, Any]) -> None:
    """The blob of an instance is needed no more."""
    if home.up:
        try:
            home.ask_later("drop", told["blob"])
        except GridError:
            pass  # its end takes the blob along
