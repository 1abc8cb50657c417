"""Whether the service of a pending job is here, and as it was when its version got its name.

A job may come before its service: while a job of `grid.install` that brings the service has not ended. Its request is
made to fit when the service is here, or the job is cancelled when it can't come any more.

Lives here: `Fitting`. `Book.lock` is held by whoever calls, but for `installing`.
Elsewhere:  which services there are, whose files changed (`registry.py`); making requests fit (`admission.py`).
"""

from __future__ import annotations

import logging
import time
from typing import Any

from grid.jobs.conditions.tree import atoms_in
from grid.jobs.host.errors import RequestError, UnknownJobService
from grid.jobs.host.plain import from_plain
from grid.jobs.manager.admission import fit_late
from grid.jobs.manager.book import Book
from grid.jobs.manager.registry import ServiceRegistry
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from grid.text import clean

logger = logging.getLogger(__name__)


class Fitting:
    """See the module."""

    def __init__(self, book: Book, registry: ServiceRegistry) -> None:
        self._book, self._registry = book, registry
        self._late: dict[str, bool | None] = {}  # jobs that came before their service -> what they want of memory
        self._edited: dict[str, str] = {}  # file -> service that waits, since the file is not as it was

    def came_early(self, job: str, memo: bool | None) -> None:
        """That job was submitted before its service was here; `memo`: whether it may use a remembered result."""
        self._late[job] = memo

    def why_not(self, record: JobRecord) -> str:
        """Why a pending job can't start, though there is room; empty: it can. It may cancel the job."""
        try:
            service = self._registry.find(record.service, record.version)
        except UnknownJobService:
            why = self._fit(record)
            if why:
                return why
            service = self._registry.find(record.service, record.version)
        path = self._registry.edited(service)
        if not path:
            return ""
        why = f"waits: {path} was edited after {record.service} {service.version} was loaded from it"
        if self._edited.get(path) is None:
            self._edited[path] = record.service
            logger.warning(
                "jobs of %s wait: %s was edited after version %s was loaded from it. Start the job server again, with "
                "another version if results differ; or undo the change",
                record.service,
                path,
                service.version,
            )
        return f"{why}; start the job server again, or undo the change"

    def _fit(self, record: JobRecord) -> str:
        """Its service was being installed when it was submitted, perhaps: then it is here now, or never."""
        book = self._book
        try:
            values = fit_late(record, book.store.directory, self._registry, self._late.get(record.id))
        except UnknownJobService:
            installed = [
                book.records[job]
                for job in (str(atom.get("job")) for atom in atoms_in(record.condition))
                if job in book.records and book.records[job].service == INSTALL
            ]
            if not installed:
                return f"waits until the service {record.service} {record.version} is registered"
            last = installed[-1]
            have = from_plain(last.result) or {}
            names = ", ".join(f"{name} {version}" for name, version in have.get("services", {}).items()) or "none"
            wanted = f"{record.service} {record.version}"
            why = f"{last.id} installed {have.get('name')}, which has no service {wanted}, but {names}"
            return self._decline(record, why)
        except RequestError as exc:
            return self._decline(record, str(exc))
        self._late.pop(record.id, None)
        book.change(record, values)
        return ""

    def _decline(self, record: JobRecord, reason: str) -> str:
        """A pending job that can't run is cancelled."""
        self._late.pop(record.id, None)
        self._book.move(record, JobState.CANCELLED, reason=clean(reason, 2_000), ended=time.time())
        return "cancelled"

    def mended(self) -> list[str]:
        """Services whose files are again as they were."""
        found = []
        for path, service in list(self._edited.items()):
            if not any(self._registry.edited(cls) == path for cls in self._registry.classes(service)):
                del self._edited[path]
                found.append(service)
        return found

    def installing(self, owner: str, service: str, tree: Any) -> str | None:
        """The job that installs the module of a service which is not here yet: the newest of those that the condition
        names, and of those of the owner's that have not ended and are for a module of that name.
        """
        named = {str(atom.get("job")) for atom in atoms_in(tree) if atom.get("atom") == "completed"}
        installs = [record for record in self._book.all() if record.service == INSTALL]
        module = service.rpartition("/")[2].partition(".")[0]
        mine = [each for each in installs if each.id in named or (each.owner == owner and not each.state.ended)]
        for record in reversed(mine):
            if record.id in named or record.request["data"].get("name") == module:
                return record.id
        return None
