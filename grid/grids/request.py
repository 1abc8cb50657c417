"""What a grid asks of its pilots, as one frozen value.

Lives here: `PilotRequest`. Elsewhere: submitting them (`tending.py`), what a job asks for in general (`grid/batch/`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from grid.arguments import check, check_fields, check_number
from grid.batch import JobSpec, parse_walltime
from grid.batch_systems.known import dialect_named
from grid.hosts import Host, as_hosts
from grid.hosts.host import did_you_mean

_OF_A_KIND = (
    *("nodes", "ppn", "walltime", "pilots", "queue", "account", "resources", "lines", "parallel_environment"),
    *("job_name", "python", "init_cmd", "env", "temp_path", "transport", "tags"),
)


NOTICE_S = 60.0
"""What Slurm takes for the time of `--signal` where it is not said."""


@dataclass(frozen=True, kw_only=True)
class PilotRequest:
    """What a grid asks of its pilots: see `BatchGrid` for what each means. Checked when it is made."""

    login: str | Host | None = None
    nodes: int = 1
    ppn: int = 1
    walltime: str | float = 3600
    pilots: int = 1
    renew: bool | int = False
    ahead_s: float | None = None
    handover_s: float | None = None
    queue: str | None = None
    account: str | None = None
    resources: Sequence[str] = ()
    lines: Sequence[str] = ()
    parallel_environment: str | None = None
    job_name: str = "grid"
    dialect: str | None = None
    python: str | None = None
    init_cmd: str = ""
    env: Mapping[str, str] | None = None
    temp_path: str | None = None
    transport: str = "auto"
    queue_s: float = 7 * 86400.0
    poll_s: float = 15.0
    tags: Sequence[str] = ()
    kinds: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        check_fields(self)  # the arguments are wrong now, not when a job starts
        for name, least in (("nodes", 1), ("ppn", 1), ("pilots", 0), ("renew", 0)):
            check_number(name, int(getattr(self, name)), least)
        for name in ("ahead_s", "handover_s", "queue_s", "poll_s"):
            check_number(name, getattr(self, name), 0, float | None)
        self.node("check", self.login_host())
        self.spec()
        if self.dialect is not None:
            dialect_named(self.dialect)
        if not 0 < self.terms_handover_s < self.walltime_s:
            raise ValueError(f"handover_s is {self.terms_handover_s:g}, of a walltime of {self.walltime_s:g} s")
        self.every_kind()

    def every_kind(self) -> list[PilotRequest]:
        """The request of each kind of pilots, the grid's own first."""
        return [self, *(self.kind(each) for each in self.kinds)]

    def kind(self, other: Mapping[str, Any]) -> PilotRequest:
        """The request of pilots that differ in these words.

        Raises:
            TypeError, ValueError: A word that is none, or is not a pilot's own; a value that makes no sense.
        """
        check("a kind of pilots", other, Mapping[str, Any])
        for word in other:
            if word not in _OF_A_KIND:
                known = ", ".join(_OF_A_KIND)
                raise TypeError(f"a kind of pilots has no {word!r}; it has {known}{did_you_mean(word, _OF_A_KIND)}")
        made = replace(self, **{"pilots": 1, **other, "kinds": ()})
        if self.terms_handover_s >= made.walltime_s:
            raise ValueError(f"handover_s is {self.terms_handover_s:g}, of a walltime of {made.walltime_s:g} s")
        return made

    def plain(self) -> dict[str, Any]:
        """All that it says, in plain values (JSON), for `of_plain`."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        if isinstance(self.login, Host):
            said["login"] = self.login.__getstate__()
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in said.items()
            if name != "kinds" and value is not None
        }

    @classmethod
    def of_plain(cls, said: Mapping[str, Any]) -> PilotRequest:
        """What `plain` was made of, without its `kinds`: pilots of those have been submitted."""
        login = said.get("login")
        return cls(**{**said, "login": Host.of_state(login) if isinstance(login, dict) else login})

    @property
    def walltime_s(self) -> float:
        """Of each pilot, in seconds."""
        return parse_walltime(self.walltime)

    @property
    def notice_s(self) -> float:
        """How long before its end a job of the kind hears of it, where it asks the batch system for that."""
        said = re.findall(r"--signal=\S*?@(\d+)", " ".join((*self.resources, *self.lines)))
        return float(said[-1]) if said else NOTICE_S

    @property
    def terms_handover_s(self) -> float:
        """`handover_s`, where nobody said it a tenth of the walltime."""
        return min(120.0, self.walltime_s / 10) if self.handover_s is None else self.handover_s

    def login_host(self) -> Host:
        """Where jobs are submitted."""
        return as_hosts(self.login)[0] if self.login is not None else Host("localhost", ssh="local")

    def node(self, name: str, login: Host) -> Host:
        """A node as a host."""
        python = self.python
        if python is None:
            python = sys.executable if login.ssh == "local" else "python"
        return Host(
            *(name, self.temp_path, self.ppn),
            python=python,
            init_cmd=self.init_cmd,
            env=dict(self.env or {}),
            tags=tuple(self.tags),
            transport=self.transport,  # type: ignore[arg-type]  # Host looks
        )

    def spec(self) -> JobSpec:
        """As a job, but for where it runs and what."""
        return JobSpec(
            nodes=int(self.nodes),
            ppn=int(self.ppn),
            walltime_s=self.walltime_s,
            output="/dev/null",  # the script has files of its own: what a system copies at the end may not arrive
            error="/dev/null",
            command="",
            queue=self.queue,
            account=self.account,
            resources=tuple(self.resources),
            lines=tuple(self.lines),
            parallel_environment=self.parallel_environment,
            name=self.job_name,
        )
