"""Jobs: computations that can be watched, steered, aborted, that wait for others, and that survive a power cut.

    from grid.jobs import Service, local_service

    class Square(Service):
        version = "1"

        def run(self, handler):
            return handler.map(square, self.request.values)

    with local_service() as service:
        job = Square.submit(values=[1, 2, 3])
        print(job.wait())

Names are loaded when they are first used: what a service needs on a host (`host/`) is there, the rest is not. Keeping
jobs takes the extra `jobs` (SQLAlchemy, Alembic): `pip install 'sshgrid[jobs]'`.
"""

from __future__ import annotations

from grid.lazy import lazily

_WHERE = {
    "grid.jobs.host.errors": (
        "AccessError",
        "ConditionError",
        "ExpressionError",
        "JobAborted",
        "JobCancelled",
        "JobError",
        "JobFailed",
        "MoveError",
        "RequestError",
        "StoreError",
        "StoreFull",
        "StoreLocked",
        "StoreTooNew",
        "UnknownJob",
        "UnknownJobService",
        "WaitTimeout",
        "WireError",
    ),
    "grid.jobs.host.messages": ("Message", "Monitor"),
    "grid.jobs.host.request": ("Request",),
    "grid.jobs.host.service": ("AbortService", "Service", "ServiceHandler", "request"),
    "grid.jobs.conditions.algebra": ("And", "Atom", "Cancelled", "Condition", "Not", "Or", "all_of"),
    "grid.jobs.conditions.atoms": (
        "HasServers",
        "IsCancelled",
        "IsComplete",
        "IsCompleted",
        "IsElsewhere",
        "IsFetched",
        "IsMessage",
        "IsResult",
    ),
    "grid.jobs.conditions.depends": ("Depends",),
    "grid.jobs.client.context": ("default_service", "local_service", "make_service", "open_service", "remote_service"),
    "grid.jobs.fetch.deposits": ("Credentials",),
    "grid.jobs.fetch.download": ("Policy",),
    "grid.jobs.manager.engine": ("GridEngine", "ThreadEngine"),
    "grid.jobs.client.handle": ("Job", "Race"),
    "grid.jobs.host.references": ("Reference",),
    "grid.jobs.client.joblist": ("JobList",),
    "grid.jobs.manager.job_manager": ("JobManager",),
    "grid.jobs.client.proxy": ("ServerProxy", "usertag"),
    "grid.jobs.rules.states": ("JobState",),
    "grid.jobs.server": ("Server", "add_user"),
    "grid.jobs.serving": ("JobServer", "SocketDoor", "open_server"),
    "grid.jobs.settings": ("Settings",),
    "grid.jobs.client.shortcuts": ("proxy", "race", "submit"),
    "grid.jobs.store.store": ("Store",),
}
__all__, __getattr__, __dir__ = lazily(__name__, _WHERE)
