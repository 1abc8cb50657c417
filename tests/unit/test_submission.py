"""What a submission consists of, as the client sends it."""

from __future__ import annotations

from typing import Any

import pytest

from grid.jobs import ConditionError, IsCompleted, IsElsewhere, Request, RequestError
from grid.jobs.client.submission import Options, reachable
from grid.jobs.conditions.atoms import KnownAtom
from grid.jobs.fetch.deposits import Credentials


def request() -> Request:
    made = Request(value=1)
    made.service, made.version = "fits.Fit", "1"
    return made


def same(atom: KnownAtom) -> KnownAtom:
    return atom


class Calls:
    """A server's calls, as far as a submission uses them."""

    def __init__(self, where: dict[str, str] | None) -> None:
        self.where, self.left = where, list[Any]()

    def deposit(self, credentials: Any) -> str:
        self.left.append(credentials)
        return "credentials-1"


class Handle:
    """A job of a server, as atoms know it."""

    id = "job-7"

    def __init__(self, calls: Calls) -> None:
        self._service = self
        self.calls = calls

    def credentials(self, jobs: list[str], lifetime_s: float) -> Credentials:
        return Credentials("https://there", f"for {jobs[0]}", lifetime_s)


@pytest.mark.row("P04", "P05", "J03")
def test_options_become_plain_values_and_tags_of_the_connection_come_first() -> None:
    plain = Options(tags="mine", priority=3, inputs=(1, 2), notify="m@x").to_plain(request(), ["theirs"], same)
    assert plain["request"]["data"] == {"value": 1} and plain["when"] is None
    assert plain["tags"] == ["theirs", "mine"] and plain["inputs"] == [1, 2]
    assert (plain["priority"], plain["memo"], plain["notify"], plain["mails"]) == (3, None, "m@x", None)


@pytest.mark.row("C31", "C23")
def test_when_and_after_must_both_hold() -> None:
    plain = Options(when="job-1", after=["job-2"]).to_plain(request(), [], same)
    assert plain["when"]["op"] == "and" and [each["job"] for each in plain["when"]["of"]] == ["job-1", "job-2"]
    assert Options(after="job-2").to_plain(request(), [], same)["when"]["job"] == "job-2"


@pytest.mark.row("P08")
@pytest.mark.parametrize("inputs", ["text", {"a": 1}, 7])
def test_inputs_that_are_no_list_are_refused(inputs: Any) -> None:
    with pytest.raises(RequestError, match="which is no list of inputs"):
        Options(inputs=inputs).to_plain(request(), [], same)


@pytest.mark.row("P04")
def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(RequestError, match="is no request"):
        Options().to_plain({"service": "fits.Fit"}, [], same)  # type: ignore[arg-type]


@pytest.mark.row("C37", "C35")
def test_a_job_of_another_server_is_waited_for_with_credentials_for_that_job() -> None:
    here, there = Calls({"url": "https://here"}), Calls({"url": "https://there"})
    own = IsCompleted(Handle(here))
    assert reachable(own, here) is own  # type: ignore[arg-type]
    other = reachable(IsCompleted(Handle(there)), here)  # type: ignore[arg-type]
    assert isinstance(other, IsElsewhere) and other.server == "https://there" and other.auth == "credentials-1"
    assert here.left[0]["token"] == "for job-7" and there.left == []
    with pytest.raises(ConditionError, match="can't be reached by others"):
        reachable(IsCompleted(Handle(Calls(None))), here)  # type: ignore[arg-type]
