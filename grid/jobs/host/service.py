"""Services: classes that do what a request asks for, and the handler that `run` is given.

    class Fit(Service):
        version = "1"

        def prepare(self, request):
            self.model = load(request.model)

        def run(self, handler):
            best = None
            for cycle in range(self.request.cycles):
                handler.ready()                                        # a safe point: messages, checkpoint, abort
                found = handler.map(self.model.fit, self.starts(cycle))   # on the free workers, in item order
                if best is None or min(found) < best:
                    best = min(found)
                    handler.improved({"rss": best})
            return {"rss": best}

Order of calls, each at most once: `prepare(request)` or, where a checkpoint is there, `restore(state)`; `run(handler)`
(once for each input, where there are inputs); `cleanup()`, if prepare or restore was begun, whatever happened.

Lives here: `Service`, `request` for one, `ServiceHandler` as it looks to `run`, `AbortService`.
Elsewhere:  who calls them (`runner.py`), what they are asked to do (`request.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

from grid.jobs.host.messages import Message, snake
from grid.jobs.host.request import Request
from grid.slots.needs import Needs

if TYPE_CHECKING:
    from grid.jobs.client.handle import Job
    from grid.jobs.host.units import Units

T = TypeVar("T")
R = TypeVar("R")


class AbortService(BaseException):
    """Raised out of `ready` and `map` inside `run` when the job shall end.

    Not an Exception, so that `except Exception` in a service does not swallow it; whoever catches it all the same gets
    it again at the next safe point. Before it is let through, `handler.improved(value)` may still be called.
    """


class ServiceHandler(Protocol):
    """What `run` is given; also `self.handler`, from `prepare` on."""

    job: str
    """The job's id."""
    input: Any
    """The current one, for jobs with inputs; else None."""
    attempt: int
    """1, and one more after each recovery."""

    def ready(self) -> None:
        """A safe point: handle waiting messages in order, perhaps take a checkpoint, pause, send due progress.

        Costs some microseconds when there is nothing to do.

        Raises:
            AbortService: The job shall end.
        """

    def map(self, task: Callable[[T], R], items: Iterable[T], *, attempts: int = 3) -> list[R]:
        """Apply `task` to each item on the workers of the grid; results in item order.

        The task is sent once to each worker that gets a unit; items are handed out one by one.

        Args:
            attempts: How often a unit is tried when the worker that had it dies.
        Raises:
            The exception of the first item (in order of arrival) that failed; the map does not wait for the others.
            AbortService: The job shall end; no more units are handed out.
        """

    def imap(self, task: Callable[[T], R], items: Iterable[T], *, attempts: int = 3) -> Iterator[R]:
        """As `map`, but each result comes when it and all before it have arrived: in the order of the items.

        Items are read as they are needed, so `items` may be endless. For results in the order in which they become
        ready use `units`.
        """

    def units(self, task: Callable[[T], R], *, attempts: int = 3) -> Units:
        """Hand out items as it suits, and take results as they come: where results decide what is to be done next.

            with handler.units(self.evaluate) as units:
                units.put(first)
                while units.under_way:
                    number, value, error = units.take()
                    units.put(self.next_ones(value))

        `take` waits for the next one; `AbortService` as in `map`. Leaving the block drops what nobody has begun.
        """

    def command(self, template: str | Sequence[str], /, *, attempts: int = 3, keep: bool = False, **about: Any) -> Any:
        """Run an executable on a worker of the grid, in a directory of its own, and wait for it.

            run = handler.command("mafft {i} > {o}", i=In(self.request.path), o=Out("*.aln"), shell=True, keep=True)
            handler.improved({"alignment": run.contents["seqs.aln"].decode()})

        Args:
            template: As of `g.command`, with `In(path)` for files of the machine where the job runs.
            attempts: How often it is tried when the worker that had it dies.
            keep: Store each output with the job, as `handler.keep` does.
            about: Values of fields, and of `timeout_s`, `shell`, `check`, `env`, `keep_bytes`: as of `g.command`;
                `values`: the same, for fields with the name of another argument.
        Returns:
            A `CommandRun`; `contents` has the outputs: name -> bytes.
        Raises:
            CommandFailed: As `g.command`, or its outputs have more than 64 MB. StagingError: An input is not there.
            RequestError: A file that is to be kept has no name for that. AbortService: The job shall end.
        """

    def map_commands(
        self,
        template: str | Sequence[str],
        inputs: Iterable[Any],
        /,
        *,
        attempts: int = 3,
        keep: bool = False,
        **about: Any,
    ) -> Iterator[Any]:
        """Run a command for each input, as `imap` does: runs in the order of the inputs, which are read as needed.

        Args:
            inputs: Of each run: values by name, or one value for the one field that has none yet.
            attempts, keep, about: As of `command`; values that all runs share.
        """

    def improved(self, value: Any) -> None:
        """Publish a partial result; it is the job's best from now on.

        Raises:
            RequestError: It is no primitive value.
        """

    def log(self, text: str, level: str = "info") -> None:
        """Publish a line for people."""

    def keep(self, name: str, data: bytes | str) -> None:
        """Store an output file with the job; it stays until the job is deleted."""

    def stop(self, reason: str) -> NoReturn:
        """End the job with an error: it noticed itself that it fails."""

    def answer(self, question: Message, value: Any) -> None:
        """Answer a message that came by `job.ask`."""

    def refuse(self, question: Message, why: str) -> None:
        """There is no answer to a message that came by `job.ask`: the caller of `ask` gets a JobError."""


def request(cls: type[Service], /, **data: Any) -> Request:
    """A request for the service `cls`.

    Raises:
        AttributeError: The class has no version.
        RequestError: A name is taken.
    """
    if cls.version is None:
        raise AttributeError(f"the service class {cls.__qualname__} has no version: set one, e.g. version = '1'")
    made = cls.request_class(**data)
    made._service_class = cls  # type: ignore[attr-defined]  # stays at home: a server in this process learns of it
    if made.service is None:
        made.service = cls.name()
    if made.version is None:
        made.version = str(cls.version)
    return made


class Service:
    """One computation; see the module. Derive from it, give it a `version`, and register it with a server."""

    service: ClassVar[str | None] = None
    """Its name; None: module and class."""
    version: ClassVar[str | None] = None
    request_class: ClassVar[type[Request]] = Request
    """A class of its own if requests fill something in when they are queued."""
    memo: ClassVar[bool] = False
    """Whether results are remembered: the same request again is answered without running."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions, with those that they need, are part of what a result is remembered by."""
    files: ClassVar[tuple[str, ...]] = ()
    """Values of the request that name files: remembered by the files' contents."""
    checkpoint_s: ClassVar[float | None] = None
    """Seconds between checkpoints at least; None: the server's setting."""
    at_manager: ClassVar[bool] = False
    """Whether it runs in the job server's own process: for services of grid itself."""
    limits: ClassVar[Mapping[str, float]] = {}
    """`cpu_s`, `memory_bytes`, `file_bytes`, for one job."""
    needs: ClassVar[Needs | None] = None
    """What each worker needs that does units of such a job: cores, memory, devices of its own."""

    request: Request  # the classmethod below makes one, the attribute is the one at work
    handler: ServiceHandler
    queue: deque[Message]
    """Messages that wait for the next safe point; `on_signal_...` may put one here."""

    def __init__(self) -> None:
        self.queue = deque()

    # -- what a service is -----------------------------------------------------------------------------------------

    def prepare(self, request: Request) -> None:
        """Get ready; the job's condition is satisfied. The default keeps nothing but `self.request`."""

    def run(self, handler: ServiceHandler) -> Any:
        """Do the work; the returned value is the job's result."""
        raise NotImplementedError(f"{type(self).__name__} has no run(handler)")

    def cleanup(self) -> None:
        """After completion, failure or abort."""

    def progress(self) -> tuple[float, float, str] | None:
        """(k, n, units): k of n are done. None: unknown."""
        return None

    def checkpoint(self) -> Any:
        """A state that `restore` can go on from: anything that dill can carry.

        None: not possible now; the last one stays, and this is asked again after `checkpoint_s`.
        """
        return None

    def restore(self, state: Any) -> None:
        """Instead of `prepare`, when the job goes on after a failure or a restart."""
        raise NotImplementedError(f"{type(self).__name__} gave a checkpoint and has no restore(state)")

    def on_ready_message(self, message: Message) -> None:
        """A message without an `on_ready_<Kind>` of its own: the log says so, and a caller of `ask` gets an error."""
        why = f"{type(self).__name__} has no on_ready_{snake(message.kind)}: the message {message.kind} was dropped"
        self.handler.log(why, "warning")
        if "ask" in message.fields:
            self.handler.refuse(message, why)

    @classmethod
    def accepts(cls, version: str) -> bool:
        """Whether requests of that version can be used as they are. Default: of the same version only."""
        return version == str(cls.version)

    @classmethod
    def upgrade(cls, version: str, data: dict[str, Any]) -> dict[str, Any] | None:
        """Data of a request of an older version, made fit for this one; None if that can't be done."""
        return None

    # -- conveniences ----------------------------------------------------------------------------------------------

    @classmethod
    def submit(
        cls,
        *,
        service: Any = None,
        when: Any = None,
        after: Any = None,
        monitor: Any = None,
        tags: Iterable[str] = (),
        priority: int = 0,
        inputs: list[Any] | None = None,
        memo: bool | None = None,
        notify: str | None = None,
        mails: str | None = None,
        **data: Any,
    ) -> Job:
        """Submit a request made of `data`: to `service`, else to that of the `with` block, else to the default one.

        The other arguments are those of `ServerProxy.submit`.
        """
        # By the front door, which loads the client's side when it is first used: nothing of that comes along to hosts,
        # where this is never called.
        from grid import jobs

        options = {"after": after, "tags": tags, "priority": priority, "inputs": inputs, "memo": memo}
        options.update(notify=notify, mails=mails)
        job: Job = jobs.submit(request(cls, **data), monitor, when, service=service, **options)
        return job

    @classmethod
    def name(cls) -> str:
        """Its name as requests have it."""
        return cls.service or f"{cls.__module__}.{cls.__qualname__}"

    def __getstate__(self) -> dict[str, Any]:
        """You may give a bound method to `map`: the parts of the running job stay behind."""
        return {name: value for name, value in self.__dict__.items() if name not in ("handler", "queue")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.queue = deque()

    def __str__(self) -> str:
        handler = self.__dict__.get("handler")
        return f"{type(self).__name__}-{handler.job if handler is not None else 'idle'}"


def _request(cls: type[Service], /, **data: Any) -> Request:
    """A request for this service; see `grid.jobs.request`."""
    return request(cls, **data)


# `self.request` is the request at work, `MyService.request(a=1)` makes one: instances shadow what the class has.
Service.request = classmethod(_request)  # type: ignore[assignment]
