"""The client's view of a job server: submitting, handles, listening. The same for one in this process or elsewhere.

Lives here: `ServerProxy`, `usertag`.
Elsewhere:  the backend (`server.py`), handles (`handle.py`), options of a submission (`submission.py`), listening
            (`listening.py`), which service a script uses (`context.py`).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from grid.jobs.api import Calls
from grid.jobs.client.handle import Job, Race
from grid.jobs.client.listening import LISTENER_SIZE, Listening, Monitors
from grid.jobs.client.submission import Options, deposit, reachable
from grid.jobs.conditions.algebra import Condition, Value
from grid.jobs.conditions.tree import to_tree
from grid.jobs.fetch.deposits import Credentials
from grid.jobs.host.errors import JobError, RequestError
from grid.jobs.host.messages import ENDS, Message
from grid.jobs.host.request import Request
from grid.jobs.rules.tags import check_tags

logger = logging.getLogger(__name__)


def usertag(environment: Mapping[str, str] | None = None) -> str:
    """The submitting user, from the first of these that is set: PARKTAG; the user of PARKMAIL; LOGNAME unless it is
    root; USERNAME unless it is Administrator; the host's name.
    """
    known = os.environ if environment is None else environment
    candidates = (
        known.get("PARKTAG"),
        (known.get("PARKMAIL") or "").partition("@")[0],
        known.get("LOGNAME") if known.get("LOGNAME") != "root" else None,
        known.get("USERNAME") if known.get("USERNAME") != "Administrator" else None,
    )
    return next((tag for tag in candidates if tag), None) or socket.gethostname()


class ServerProxy:
    """A job server, connected. Base of new kinds: `server` has the calls of `Server`.

    As a context manager it is the default of what is submitted inside the block.
    """

    handles: ClassVar[dict[str, type[Job]]] = {}
    """Service name -> class of handles of its jobs, where that is not `Job`."""

    def __init__(self, server: Calls, user: str | None = None, token: str | None = None) -> None:
        self.calls = server
        """All that the server can be asked, by the table in `jobs/api.py`."""
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._last: str | None = None
        self._monitors = Monitors(server)
        self._closed = False
        self._questions = itertools.count(1)
        self._tags: list[str] = []
        self._on_close: list[Callable[[], Any]] = []
        self.connect(user, token)

    def connect(self, user: str | None = None, token: str | None = None) -> None:
        """Name the user; `user` and `queue` are set afterwards.

        Raises:
            AccessError: The token is wrong.
        """
        tag = usertag()
        answer = self.calls.connect(user or tag, token)
        self.user: str = answer["user"]
        self.queue: str = answer["queue"]
        self._tags = [tag]

    # -- settings of this connection -------------------------------------------------------------------------------

    @property
    def tags(self) -> list[str]:
        """Tags of every new job of this connection."""
        return list(self._tags)

    def set_tags(self, tags: Iterable[str]) -> None:
        """Replace them."""
        self._tags = check_tags(tags)

    def add_tags(self, tags: Iterable[str]) -> None:
        """More of them."""
        self._tags = check_tags([*self._tags, *tags])

    def set_email(self, email: str | None, mails: str | None = None) -> None:
        """Where mails about your jobs go, and when.

        Args:
            email: None: nowhere.
            mails: `immediate`, `hourly`, `daily` (at first) or `off`; None: as before.
        """
        self.calls.set_email(email, mails)

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        monitor: Any = None,
        when: Any = None,
        *,
        after: Any = None,
        tags: Iterable[str] = (),
        priority: int = 0,
        inputs: Sequence[Any] | None = None,
        memo: bool | None = None,
        notify: str | None = None,
        mails: str | None = None,
    ) -> Job:
        """Submit a request; it is stored when this returns.

        Args:
            monitor: Gets the job's messages, by its `put`.
            when: The condition of the job: a condition, a job, a URL to be fetched, or a list of these.
            after: The same, once more: both must be satisfied.
            tags: Beside those of the connection.
            priority: 0 is free; others cost credits, and bring a larger share of the workers.
            inputs: Run once for each of these; the result is the list of results.
            memo: Whether a remembered result may be used; default: as the service says.
            notify: E-mail address, for this job; default: that of `set_email`.
            mails: When a mail tells of its end: `immediate`, `hourly`, `daily`, `off`; default: as `set_email` says.
        Raises:
            RequestError, ConditionError: It can't be used; the message says why. Nothing was submitted.
        """
        options = {"when": when, "after": after, "tags": tags, "priority": priority, "inputs": inputs, "memo": memo}
        (job,) = self.submit_all([(request, {**options, "notify": notify, "mails": mails})])
        if monitor is not None:
            self.monitor(job, monitor)
        return job

    def submit_all(self, requests: Iterable[Request | tuple[Request, Mapping[str, Any]]]) -> list[Job]:
        """Submit many at once, all or none, in one transaction: requests, or pairs of a request and its options."""
        plain = []
        for each in requests:
            request, options = each if isinstance(each, tuple) else (each, {})
            service = request.__dict__.get("_service_class") if isinstance(request, Request) else None
            if service is not None and self.calls.in_process:
                self.calls.register(service)
            plain.append(Options(**options).to_plain(request, self._tags, lambda atom: reachable(atom, self.calls)))
        details = self.calls.submit(plain)
        jobs = [self._handle(detail) for detail in details]
        if jobs:
            self._last = jobs[-1].id
        return jobs

    def start(self, request: Request, inputs: Sequence[Any] | None = None) -> str:
        """Add a job, to be run once or, with inputs, once for each; returns its id."""
        return self.submit(request, inputs=inputs).id

    def register(self, *services: Any) -> None:
        """Make service classes available; for a server in this process."""
        for service in services:
            self.calls.register(service)

    def race(self, jobs: Sequence[Job | str], until: str) -> Race:
        """The first of these jobs with a result for which the expression holds ends the others."""
        race = self.calls.race([str(job) for job in jobs], until)
        return Race(self, race, [self.job(str(job)) for job in jobs])

    # -- other servers ---------------------------------------------------------------------------------------------

    def fetch_url(
        self,
        url: str,
        auth: Credentials | None = None,
        when: Any = None,
        *,
        sha256: str | None = None,
        size: int | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Job:
        """A job in which the server itself downloads a URL: http, https, or, at a server of one's own, file.

        Where the file will lie at the server is known at once: `job.filename`. It is also an output file of the job.

        Args:
            auth: Of `credentials` of the server of that URL.
            when: The condition that must be satisfied before.
            sha256, size: Hash and size that the file must have.
            name: Of the file; default: as the URL ends.
            options: As for `submit`.
        """
        from grid.jobs.fetch.job import SERVICE, FetchRequest

        left = deposit(self.calls, auth) if auth is not None else None
        given = {"sha256": sha256, "size": size, "name": name, "auth": left}
        request = FetchRequest(url=url, **{key: value for key, value in given.items() if value is not None})
        request.service, request.version = SERVICE, "1"
        return self.submit(request, when=when, **options)

    def install_service(self, module: Any, **options: Any) -> Job:
        """A job that makes the services of a module of yours available at the server, and after its restarts.

        Afterwards you submit as before, and others by the name `you/module.Class`. It needs the right to upload.

        Args:
            module: An imported module or package, or the path of a .py, of a package's folder, or of a wheel.
            options: As for `submit`.
        Raises:
            AccessError: You may not; `services()` lists the services that you may use.
            RequestError: It can't be packed.
        """
        from grid.jobs.modules.install import SERVICE, pack

        name, archive = pack(module)
        upload = self.calls.upload(base64.b64encode(archive).decode())
        request = Request(name=name, upload=upload, sha256=hashlib.sha256(archive).hexdigest())
        request.service, request.version = SERVICE, "1"
        return self.submit(request, **options)

    def modules(self) -> list[dict[str, Any]]:
        """What users have installed: `user`, `name`, `services` (name -> version), `sha256`, `bytes`, `installed`."""
        found: list[dict[str, Any]] = self.calls.modules()
        return found

    def credentials(
        self,
        service: str | None = None,
        *,
        jobs: Iterable[Job | str] | None = None,
        scopes: Sequence[str] = ("read",),
        lifetime_s: float = 3600.0,
    ) -> Credentials:
        """A token for this server that may be passed on: for one service, or for some jobs, for a time.

        Raises:
            AccessError: You have not such a right yourself.
            JobError: The server is not behind HTTP.
        """
        services = [service] if service is not None else None
        names = [str(job) for job in jobs] if jobs is not None else None
        answer = self.calls.credentials(list(scopes), services, names, lifetime_s)
        where = self.calls.where or {}
        return Credentials(**answer, url=where.get("url", ""), fingerprint=where.get("fingerprint", ""))

    # -- handles ---------------------------------------------------------------------------------------------------

    def _handle(self, detail: Mapping[str, Any]) -> Job:
        with self._lock:
            known = self._jobs.get(detail["id"])
            if known is None:
                known = self.handles.get(detail["service"], Job)(self, detail)
                self._jobs[known.id] = known
            return known

    def job(self, id: str) -> Job:
        """The handle of a job, always the same one. Raises UnknownJob."""
        with self._lock:
            known = self._jobs.get(id)
        return known if known is not None else self._handle(self.calls.fetch(id))

    def jobs(self, filter: Any = None, **wanted: Any) -> list[Job]:
        """Handles of all jobs that you may see and that are not archived.

        Args:
            filter: A callable of a summary, or a text that must be somewhere in it.
            wanted: `state`, `tags`, `service`, `owner`, `text`, `archived`, `last`; see `Server.jobs`.
        """
        return [self._handle(summary) for summary in self.summaries(filter, **wanted)]

    def summaries(self, filter: Any = None, **wanted: Any) -> list[dict[str, Any]]:
        """Summaries of the same."""
        if isinstance(filter, str):
            wanted["text"] = filter
        found: list[dict[str, Any]] = self.calls.jobs(wanted)
        return [each for each in found if filter(each)] if callable(filter) else found

    # -- asking and telling ----------------------------------------------------------------------------------------

    def fetch(self, id: str) -> Request:
        """A copy of a job's request, with what was filled in when it was queued."""
        return Request.from_plain(self.calls.fetch(id)["request"])

    def status(self, id: str) -> dict[str, Any]:
        """See `Server.status`. Raises UnknownJob (a KeyError)."""
        found: dict[str, Any] = self.calls.status(id)
        return found

    def abort(self, id: str, reason: str = "", grace_s: float | None = None) -> None:
        """See `Job.abort`."""
        self.calls.abort(str(id), reason, grace_s)

    def stop(self, id: str, reason: str = "") -> None:
        """See `Job.stop`."""
        self.calls.stop(str(id), reason)

    def control(self, id: str, message: Message | str, **fields: Any) -> None:
        """See `Job.control`. Raises RequestError if the message can't be serialised."""
        self.calls.control(str(id), _message(message, fields).to_plain())

    def ask(self, id: str, message: Message | str, timeout: float = 30.0, **fields: Any) -> Any:
        """See `Job.ask`."""
        question = _message(message, fields)
        question.__dict__["ask"] = f"q{next(self._questions)}-{secrets.token_hex(4)}"
        with self.listen(str(id)) as listener:
            self.control(id, question)
            while True:
                answer = listener.get(timeout)
                if answer.kind == "Answer" and answer.to == question.ask:
                    if why := answer.fields.get("error"):
                        raise JobError(f"job {id} does not answer: {why}", hint="See what it takes", job=str(id))
                    return answer.value
                if answer.kind in ENDS:
                    raise JobError(f"job {id} ended before it answered", hint="See its status", job=str(id))

    def wait(self, jobid: str | Job | None = None, timeout: float | None = None) -> Any:
        """The result of a job (default: the one submitted last), when it has one; see `Job.wait`."""
        name = self._last if jobid is None else str(jobid)
        if name is None:
            raise RequestError("nothing was submitted by this connection", hint="Say which job to wait for")
        return self.job(name).wait(timeout)

    def archive(self, jobs: Sequence[str | Job]) -> None:
        """Take jobs that have ended off the list."""
        self.calls.archive([str(job) for job in jobs])

    def delete(self, jobs: Sequence[str | Job]) -> None:
        """Remove jobs that have ended, and their data."""
        names = [str(job) for job in jobs]
        self.calls.delete(names)
        with self._lock:
            for name in names:
                self._jobs.pop(name, None)

    def services(self) -> dict[str, list[str]]:
        """Services that the server has: name -> versions."""
        found: dict[str, Any] = self.calls.services()
        return found

    def credits(self) -> dict[str, Any]:
        """`user`, `used`, `balance`, `allowance`."""
        found: dict[str, Any] = self.calls.credits()
        return found

    def graph(self) -> list[dict[str, Any]]:
        """Each job with the jobs that it waits for."""
        found: list[dict[str, Any]] = self.calls.graph()
        return found

    def evaluate(self, condition: Condition) -> tuple[Value, str]:
        """The state of a condition at the server now, and its reason."""
        answer = self.calls.evaluate(to_tree(condition))
        return Value(answer["state"]), answer["reason"]

    # -- listening -------------------------------------------------------------------------------------------------

    def listen(self, key: str, size: int = LISTENER_SIZE) -> Listening:
        """Messages of a stream: that of a job, `jobs` (changes of the list), `condition` (notices)."""
        return Listening(self.calls, key, size)

    def monitor(self, job: Job | str, monitor: Any) -> None:
        """Have a job's messages given to `monitor.put`, in a thread, until the job ends.

        First how things stand (`Join`), then what the job has said already, from its `Start` on, then what it says.
        Of a long job the server keeps the last messages of each kind, see `grid/jobs/manager/history.py`.
        """
        self._monitors.start(str(job), monitor)

    def close(self) -> None:
        """End this connection; jobs go on."""
        if not self._closed:
            self._closed = True
            self._monitors.close()
            self.calls.close()
            for action in reversed(self._on_close):
                action()

    @property
    def closed(self) -> bool:
        """Whether this connection was ended here."""
        return self._closed

    def __enter__(self) -> ServerProxy:
        from grid.jobs.client.context import push

        push(self)
        return self

    def __exit__(self, *_: object) -> None:
        from grid.jobs.client.context import pop

        pop(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.user}>"


def _message(message: Message | str, fields: Mapping[str, Any]) -> Message:
    if isinstance(message, str):
        return Message(message, **fields)
    if fields:
        raise RequestError("give a message, or its kind with fields, not both", hint="job.control('Kind', a=1)")
    return Message.from_plain(message.to_plain())
