"""Who may see and wait for whose jobs: by owner, by the scopes of a token, by what a narrow token is for."""

from __future__ import annotations

from typing import Any

import pytest

from grid.jobs import AccessError, ConditionError, IsCompleted, IsFetched, IsResult, RequestError, UnknownJob
from grid.jobs.api import API
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import JobRecord
from grid.jobs.rights import Rights
from grid.jobs.settings import Settings
from grid.web.rights import TokenRights, hide
from grid.web.who import Who
from tests.unit.shelf import record

MINE, THEIRS = record(1, owner="mara"), record(2, owner="ole", best=5, reason="secret", tags=["secret"])


class Manager:
    """The part of a job manager that rights look at."""

    def __init__(self, *, tokens: bool = True) -> None:
        self.settings = Settings(tokens=tokens)
        self.records = {each.id: each for each in (MINE, THEIRS)}

    def record(self, job: str) -> JobRecord:
        if job not in self.records:
            raise UnknownJob(f"there is no job {job!r}")
        return self.records[job]


def local(user: str | None, *, tokens: bool = True) -> Rights:
    rights = Rights(Manager(tokens=tokens))  # type: ignore[arg-type]
    rights.user = user
    return rights


def token(**who: Any) -> TokenRights:
    scopes = frozenset(who.pop("scopes", ("read", "submit", "control")))
    return TokenRights(Manager(), Who(user="mara", scopes=scopes, **who))  # type: ignore[arg-type]


@pytest.mark.row("P03", "P10")
def test_behind_a_socket_one_says_who_one_is_and_sees_all_unless_the_server_asks_for_tokens() -> None:
    with pytest.raises(AccessError, match="nobody has said"):
        local(None).may(API["jobs"])
    local(None).may(API["connect"])
    assert local("mara", tokens=False).record("job-2") is THEIRS
    with pytest.raises(UnknownJob, match="no job 'job-2'"):
        local("mara").record("job-2")
    with pytest.raises(UnknownJob):
        local("mara").may_wait(IsCompleted("job-2"))
    local("mara").may_wait(IsCompleted("job-1"))


@pytest.mark.row("Y03")
def test_each_call_is_admitted_about_the_jobs_that_it_names() -> None:
    rights = token()
    rights.admit(API["status"], {"job": "job-2"})  # that it is there may be known
    for call, given in (
        ("fetch", {"job": "job-2"}),
        ("archive", {"jobs": ["job-1", "job-2"]}),
        ("race", {"jobs": ["job-2"]}),
    ):
        with pytest.raises(AccessError, match="job-2 is somebody else's"):
            rights.admit(API[call], given)
    rights.admit(API["archive"], {"jobs": ["job-1"]})
    with pytest.raises(UnknownJob):
        rights.admit(API["status"], {"job": "job-99"})


@pytest.mark.row("P25", "Y03")
def test_a_token_may_what_its_scopes_say_and_an_admin_sees_all() -> None:
    with pytest.raises(AccessError, match="the scope control"):
        token(scopes=["read"]).may(API["abort"])
    token(scopes=["control"]).may(API["abort"])
    assert token(scopes=["read", "admin"]).record("job-2") is THEIRS and token(open=True).record("job-2") is THEIRS


@pytest.mark.row("C35")
def test_a_narrow_token_knows_of_nothing_else() -> None:
    narrow = token(jobs=frozenset({"job-1"}))
    assert narrow.known("job-1") is MINE
    for elsewhere in (narrow, token(services=frozenset({"other.Service"}))):
        with pytest.raises(UnknownJob, match="no job 'job-2'"):
            elsewhere.known("job-2")
    with pytest.raises(AccessError, match="for something else"):
        narrow.check_whole()
    with pytest.raises(AccessError, match="for jobs that there are"):
        narrow.check_submission({"request": {"service": "fits.Fit"}})


@pytest.mark.row("Y03", "C35")
def test_nobody_learns_of_a_result_by_waiting_for_it_or_by_using_it() -> None:
    rights = token()
    rights.may_wait(IsCompleted("job-2"))
    with pytest.raises(AccessError):
        rights.may_wait(IsResult("job-2", "x < 5"))
    with pytest.raises(ConditionError, match="no job 'job-99' to wait for"):
        rights.may_wait(IsCompleted("job-99"))
    used = {"request": {"service": "fits.Fit", "data": {"x": {"$ref": {"job": "job-2", "path": []}}}}}
    with pytest.raises(AccessError):
        rights.check_submission(used)


@pytest.mark.row("C33", "C34")
def test_installing_and_downloading_need_rights_of_their_own() -> None:
    with pytest.raises(AccessError, match="the scope upload"):
        token().check_submission({"request": {"service": INSTALL}})
    with pytest.raises(ConditionError, match="files of the server can't be fetched"):
        token().check_submission({"request": {"service": "grid.fetch", "data": {"url": "file:///etc/passwd"}}})
    with pytest.raises(ConditionError, match="files of the server can't be fetched"):
        token().may_wait(IsFetched("file:///etc/passwd"))
    with pytest.raises(AccessError, match="the scope submit"):
        token(scopes=["read"]).may_wait(IsFetched("https://x/y"))
    with pytest.raises(RequestError, match="no request to submit"):
        token().check_submission({"request": None})


@pytest.mark.row("P10")
def test_of_jobs_of_others_one_sees_that_they_are_there() -> None:
    rights = token()
    assert rights.shown(MINE) == MINE.summary()
    shown = rights.shown(THEIRS)
    assert shown == hide(THEIRS.summary()) and "secret" not in str(shown) and shown["owner"] == "ole"
    assert rights.standing(THEIRS)["waits_for"] is None and "secret" not in str(rights.standing(THEIRS))
