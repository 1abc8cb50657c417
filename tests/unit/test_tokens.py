"""Tokens of a job server: a file of hashes, changed at one stroke, looked at for every request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grid.jobs.host.errors import AccessError, RequestError, StoreError
from grid.web.tokens import DAY_S, MOST_NAMES, Tokens

pytestmark = pytest.mark.row("P03", "C35")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(tmp_path: Path, clock: Clock) -> Tokens:
    return Tokens(tmp_path, clock)


def test_a_token_says_who_somebody_is_and_the_file_has_only_its_hash(tokens: Tokens) -> None:
    token = tokens.create("mara", ["read"], jobs=["job-1"])
    who = tokens.check(token)
    assert who.user == "mara" and who.scopes == {"read"} and who.jobs == {"job-1"} and who.is_narrow
    text = tokens.path.read_text()
    assert token.rpartition("_")[2] not in text and who.token in text and tokens.path.stat().st_mode & 0o777 == 0o600
    assert "hash" not in tokens.list()[0]


@pytest.mark.parametrize("wrong", ["", "grid_", "grid_abcdefghij_" + "x" * 43, "Bearer x", "grid_ABC_x", "ä" * 60])
def test_every_wrong_token_gets_the_same_answer(tokens: Tokens, clock: Clock, wrong: str) -> None:
    good, expired, revoked = tokens.create("mara"), tokens.create("ole", lifetime_s=5.0), tokens.create("eva")
    tokens.revoke(tokens.check(revoked).token)
    clock.now += 10.0
    said = set()
    for each in (wrong, good[:-1] + ("a" if good[-1] != "a" else "b"), expired, revoked):
        with pytest.raises(AccessError) as caught:
            tokens.check(each)
        said.add(str(caught.value))
    assert len(said) == 1 and tokens.check(good).user == "mara"


def test_what_was_made_of_a_token_ends_with_it(tokens: Tokens) -> None:
    parent = tokens.check(tokens.create("mara"))
    child = tokens.check(tokens.create("mara", ["read"], 60.0, jobs=["job-1"], parent=parent.token))
    grandchild = tokens.create("mara", ["read"], 60.0, jobs=["job-1"], parent=child.token)
    assert tokens.holds(child) and tokens.check(grandchild)
    tokens.revoke(parent.token)
    assert not tokens.holds(child)
    with pytest.raises(AccessError):
        tokens.check(grandchild)
    tokens.create("ole")  # whoever changes the file clears it
    assert [entry["user"] for entry in tokens.list()] == ["ole"]


def test_another_process_changes_the_file_and_it_holds_at_once(tokens: Tokens, tmp_path: Path, clock: Clock) -> None:
    token = tokens.create("mara")
    assert tokens.check(token).user == "mara"
    Tokens(tmp_path, clock).revoke(tokens.check(token).token)
    with pytest.raises(AccessError):
        tokens.check(token)


def test_those_that_expired_a_month_ago_are_forgotten(tokens: Tokens, clock: Clock) -> None:
    tokens.create("mara", lifetime_s=5.0)
    clock.now += 29 * DAY_S
    tokens.create("ole")
    assert {entry["user"]: entry["valid"] for entry in tokens.list()} == {"mara": False, "ole": True}
    clock.now += 2 * DAY_S
    tokens.create("eva")
    assert {entry["user"] for entry in tokens.list()} == {"ole", "eva"}


@pytest.mark.parametrize("user", ["", "two words", "a\nb", "x" * 201, None])
def test_a_user_is_a_name_without_blanks(tokens: Tokens, user: str) -> None:
    with pytest.raises(RequestError, match="can't be a user"):
        tokens.create(user)


@pytest.mark.parametrize("lifetime_s", [0.0, -1.0, float("inf"), float("nan"), 1e12])
def test_a_token_ends_some_day(tokens: Tokens, lifetime_s: float) -> None:
    with pytest.raises(RequestError, match="must end some day"):
        tokens.create("mara", lifetime_s=lifetime_s)


def test_a_token_names_a_limited_number_of_things(tokens: Tokens) -> None:
    with pytest.raises(RequestError, match=f"{MOST_NAMES} services and jobs at most"):
        tokens.create("mara", jobs=[f"job-{number}" for number in range(MOST_NAMES + 1)])


def test_a_file_that_others_may_read_or_that_is_damaged_lets_nobody_in(tokens: Tokens) -> None:
    token = tokens.create("mara")
    tokens.path.chmod(0o644)
    with pytest.raises(StoreError, match="can be read or written by others"):
        Tokens(tokens.path.parent).check(token)
    tokens.path.chmod(0o600)
    tokens.path.write_text(json.dumps({"tokens": None})[:-3])
    with pytest.raises(StoreError, match="can't be read"):
        Tokens(tokens.path.parent).check(token)
