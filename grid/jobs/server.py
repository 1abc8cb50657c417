"""The calls of a job manager for clients: one `Server` per client, the same in this process and behind a socket.

Every argument and every answer is a plain value (`host/plain.py`), so that a wire has nothing to do but carry them.
Who may call what about whose jobs is said by the table of calls alone, and is checked before a method here runs
(`rights.py`).

Lives here: `Server`.
Elsewhere:  the table of calls (`api.py`), the client's view (`client/proxy.py`), the wire (`line/door.py`), the work
            (`manager/`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from grid.jobs.api import CONDITIONS, LAST, QUEUE, Calls, guarded
from grid.jobs.conditions.tree import from_tree
from grid.jobs.host.errors import AccessError, JobError, RequestError
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key
from grid.jobs.manager.history import KEPT
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.record import JobRecord
from grid.jobs.rights import Rights
from grid.jobs.rules.tags import matches

FILE_PIECE = 8 << 20
"""Bytes of a file that one call reads; the route of files has no such limit, and keeps none of it in memory."""
WAIT_S = 2.0
"""Longest single wait of a call; clients ask again."""


def add_user(manager: JobManager, name: str) -> str:
    """Give a user a new token, which is shown this once: the store keeps its hash."""
    token = secrets.token_urlsafe(32)
    manager.change_user(name, token=_hash(token))
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Server(Calls):
    """See the module. `connect` comes first."""

    in_process = True

    def __init_subclass__(cls) -> None:
        guarded(cls)

    def __init__(self, manager: JobManager, rights: Rights | None = None) -> None:
        self.manager = manager
        self.rights = rights or Rights(manager)
        self.queue = QUEUE

    # -- the asking user -------------------------------------------------------------------------------------------

    def register(self, service: Any) -> None:
        """Make a service class of this process available."""
        self.manager.register(service)

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """Say who is asking.

        Raises:
            AccessError: The server wants tokens, and this is none of this user.
        """
        if not isinstance(user, str) or not user or len(user) > 200:
            raise AccessError(f"{user!r} can't be a user", hint="Give a name")
        if self.manager.settings.tokens:
            known = self.manager.user(user)["token"]
            if not token or not known or not hmac.compare_digest(known, _hash(token)):
                raise AccessError(f"this token is not one of {user!r}", hint="Ask who runs the server for a token")
        self.rights.user = user
        return {"user": user, "queue": self.queue, "tokens": self.manager.settings.tokens}

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """New jobs, all or none; each as `admission.admit` says. Returns their details."""
        owner = self.rights.check()
        return [record.detail() for record in self.manager.submit(owner, submissions, self.rights.may_wait)]

    def jobs(self, wanted: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Summaries, oldest first, of jobs that are not archived and fit all that is wanted.

        Args:
            wanted: `state` (one or a list), `tags` (all of them), `service`, `owner`, `text` (anywhere in it),
                `archived` (True: these instead), `last` (this many, the newest).
        """
        wanted = check_wanted(wanted)
        found = [record for record in self.manager.book.all() if self.rights.may_see(record) and fits(record, wanted)]
        if wanted.get("last") is not None:
            found = found[-int(wanted["last"]) :]
        return [record.summary() for record in found]

    def fetch(self, job: str) -> dict[str, Any]:
        """All about a job, with the request to make it again."""
        return self.manager.record(job).detail()

    def status(self, job: str) -> dict[str, Any]:
        """State, progress, times, reason, what it waits for, seconds since the last safe point."""
        return self.manager.status(job)

    def abort(self, job: str, reason: str = "", grace_s: float | None = None) -> None:
        """Ask a job to end, by force after the grace time; harmless if it has ended."""
        self.manager.abort(job, reason, grace_s)

    def stop(self, job: str, reason: str = "") -> None:
        """End a job at once. Raises UnknownJob (a KeyError) if it is unknown or has ended."""
        self.manager.stop_job(job, reason)

    def cancel(self, job: str, reason: str = "cancelled") -> None:
        """A job that does not run yet shall never run."""
        self.manager.cancel(job, reason)

    def control(self, job: str, message: Mapping[str, Any]) -> None:
        """A message for a job; dropped if it has ended."""
        self.manager.control(job, Message.from_plain(message))

    def wait(self, job: str, timeout: float | None = None) -> dict[str, Any] | None:
        """The details of a job once it has ended; None if that takes longer than `timeout` (and `WAIT_S`)."""
        record = self.manager.wait(job, WAIT_S if timeout is None else min(timeout, WAIT_S))
        if record is None and self.manager.stopped:
            raise JobError("the job server stops", hint="The job goes on when it is back", job=job)
        return None if record is None else record.detail()

    def archive(self, jobs: Sequence[str], archived: bool = True) -> None:
        """Take jobs that have ended off the list, or put them back."""
        self.manager.archive(jobs, archived)

    def delete(self, jobs: Sequence[str]) -> None:
        """Remove jobs that have ended, and their data."""
        self.manager.delete(jobs)

    def forget(self, job: str | None = None) -> int:
        """Forget the remembered result of a job, or all; returns how many there were."""
        return self.manager.store.forget(job)

    def race(self, jobs: Sequence[str], expression: str) -> str:
        """See `JobManager.race`."""
        return self.manager.race(jobs, expression)

    def race_status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`."""
        return self.manager.race_status(race)

    # -- conditions ------------------------------------------------------------------------------------------------

    def evaluate(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """A condition now: `state` (satisfied, pending, cancelled), `reason`, `explain`.

        It starts nothing: a download is satisfied if its file is there, a job elsewhere is known if some job waits
        for it.
        """
        condition = self.manager.evaluate(tree, self.rights.may_wait)
        culprits = condition.responsible()
        return {
            "state": condition.state.value,
            "reason": "; ".join(dict.fromkeys(atom.reason for atom in culprits if atom.reason)),
            "explain": condition.explain(),
        }

    def explain(self, job: str) -> str:
        """Why a job is not running yet, or ended as it did."""
        return self.manager.explain(self.manager.record(job))

    def graph(self) -> list[dict[str, Any]]:
        """Each job with the jobs that it waits for, or waited for: `id`, `state`, `service`, `after`, `condition`."""
        return [
            {
                "id": record.id,
                "state": record.state.value,
                "service": record.service,
                "after": sorted(jobs_of(record.condition)),
                "condition": from_tree(record.condition).text(8) if record.condition else None,
            }
            for record in self.manager.book.all()
            if not record.archived and self.rights.may_see(record)
        ]

    # -- other -----------------------------------------------------------------------------------------------------

    def services(self) -> dict[str, list[str]]:
        """The services of the server: name -> versions."""
        return self.manager.registry.services()

    def set_email(self, email: str | None, mails: str | None = None) -> None:
        """Where mails about this user's jobs go (None: nowhere), and when (None: as before, at first `daily`)."""
        from grid.jobs.manager.admission import check_email, check_mails

        values = {"email": check_email(email or ""), **({} if mails is None else {"mails": check_mails(mails)})}
        self.manager.change_user(self.rights.check(), **values)

    def credits(self) -> dict[str, Any]:
        """`user`, `used`, `balance`, `allowance`."""
        user = self.rights.check()
        return {"user": user, **self.manager.desk.credits(user)}

    def files(self, job: str) -> dict[str, int]:
        """Output files that a job kept: name -> bytes."""
        folder = self.manager.store.directory / "jobs" / safe_key(job)
        if not folder.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name[0] != "."}

    def read_file(self, job: str, name: str, start: int = 0) -> str:
        """The contents of one from a byte on, in base64: at most `FILE_PIECE` of them; empty at the end."""
        path = self.manager.store.directory / "jobs" / safe_key(job) / safe_key(name, "name of a file")
        if not path.is_file():
            raise RequestError(f"job {job} has kept no file {name!r}", hint=f"It has {', '.join(self.files(job))}")
        if start < 0:
            raise RequestError(f"a file has no byte {start}", hint="Begin at 0")
        with open(path, "rb") as file:
            file.seek(start)
            return base64.b64encode(file.read(FILE_PIECE)).decode()

    def upload(self, archive: str) -> str:
        """Put down a module's archive (base64), to be installed by a job of the service `grid.install`; its name."""
        user = self.rights.check()
        try:
            data = base64.b64decode(archive, validate=True)
        except (TypeError, ValueError) as exc:
            raise RequestError("an archive comes in base64", hint="Use install_service") from exc
        return self.manager.modules.keep(user, data)

    def modules(self) -> list[dict[str, Any]]:
        """Modules that users have installed: `user`, `name`, `services` (name -> version), `sha256`, `bytes`, when."""
        shown = ("user", "name", "services", "sha256", "bytes", "installed")
        return [{name: each[name] for name in shown} for each in self.manager.modules.list()]

    def deposit(self, credentials: Mapping[str, Any]) -> str:
        """Leave credentials for another server here, for jobs of this user; their name. See `fetch/deposits.py`."""
        user = self.rights.check()
        return self.manager.deposits.keep(user, credentials)

    def credentials(
        self,
        scopes: Sequence[str] = ("read",),
        services: Sequence[str] | None = None,
        jobs: Sequence[str] | None = None,
        lifetime_s: float = 3600.0,
    ) -> dict[str, Any]:
        """`token` and `expires` of a token for certain services or jobs, for a time; see `grid/web/caller.py`."""
        raise JobError("a job server behind a socket gives no credentials", hint="Reach it by HTTP: grid serve --http")

    def history(self, job: str, kind: str = "Log") -> list[dict[str, Any]]:
        """The last messages of a kind, `Log` or `Improved`, that a job said; see `manager/history.py`."""
        if kind not in KEPT:
            raise RequestError(f"no messages of the kind {kind!r} are kept", hint=f"There are {', '.join(KEPT)}")
        return [message.to_plain() for message in self.manager.book.kept(job, kind)]

    def said(self, job: str, number: int = LAST) -> list[dict[str, Any]]:
        """The messages of a job up to that number of its stream, as far as they are kept."""
        return [message.to_plain() for message in self.manager.book.said(job, number)]

    def fetched(self, url: str) -> str:
        """Where the file of a URL lies at the server, once it is fetched."""
        return str(self.manager.conditions.fetched(url))

    def listen(self, key: str, target: Any) -> Any:
        """Header, then messages of a stream, into a queue: a job's, `jobs` or `condition`."""
        self.rights.check()
        if key not in (QUEUE, CONDITIONS):
            self.rights.record(key)
        elif self.manager.settings.tokens:
            target = _Sieve(self.rights, target)
        return self.manager.listen(key, target)

    def hangup(self, key: str, target: Any) -> None:
        """No more."""
        self.manager.streams.hangup(key, target)

    def close(self) -> None:
        """Nothing to do: the manager is somebody else's."""


guarded(Server)


class _Sieve:
    """Lets pass what a user may see of the list of jobs."""

    def __init__(self, rights: Rights, target: Any) -> None:
        self._rights, self.target = rights, target
        self._number = 0

    def put_nowait(self, message: Message) -> None:
        mine = self._rights.user
        if message.kind == "JobChanged" and message.summary["owner"] != mine:
            return
        if message.kind == "Gap":
            self.target.put_nowait(message)
            return
        own = Message.from_plain(message.to_plain())
        if own.kind == "Jobs":
            own.__dict__["jobs"] = [each for each in message.jobs if each["owner"] == mine]
        else:
            self._number += 1
        own.number = self._number  # what the user may not see must not look like a gap
        self.target.put_nowait(own)


def check_wanted(wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The filter of a list of jobs. Raises RequestError."""
    checked = dict(wanted or {})
    known = {"state", "tags", "service", "owner", "text", "archived", "last"}
    if set(checked) - known:
        raise RequestError(
            f"jobs can't be filtered by {sorted(set(checked) - known)[0]!r}", hint=f"By {', '.join(sorted(known))}"
        )
    last = checked.get("last")
    if last is not None and (type(last) is not int or last < 1):
        raise RequestError(f"last must be a whole number from 1, not {last!r}", hint="Leave it out for all jobs")
    for name in ("service", "owner", "text"):
        if not isinstance(checked.get(name), (str, type(None))):
            raise RequestError(f"{name} must be text, not {checked[name]!r}", hint="Leave it out for all jobs")
    for name in ("state", "tags"):
        value = checked.get(name)
        if not (value is None or isinstance(value, str) or _is_texts(value)):
            raise RequestError(f"{name} must be a text or a list of texts, not {value!r}", hint="Leave it out for all")
    return checked


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def fits(record: JobRecord, wanted: Mapping[str, Any]) -> bool:
    """Whether a job is one of those that `check_wanted` has let through."""
    if record.archived is not bool(wanted.get("archived", False)):
        return False
    states = wanted.get("state")
    if states is not None and record.state.value not in ([states] if isinstance(states, str) else states):
        return False
    if wanted.get("service") not in (None, record.service, record.service.rpartition(".")[2]):
        return False
    if wanted.get("owner") not in (None, record.owner):
        return False
    tags = wanted.get("tags")
    if tags and not matches(record.all_tags(), [tags] if isinstance(tags, str) else tags):
        return False
    text = wanted.get("text")
    return not text or text.lower() in str(record.summary()).lower()


def jobs_of(tree: Any) -> set[str]:
    """Jobs that a condition is about."""
    if not isinstance(tree, Mapping):
        return set()
    found = {tree["job"]} if "job" in tree else set()
    for part in tree.get("of", ()):
        found |= jobs_of(part)
    return found
