"""Credentials that are left at a server: bounded, for their owner, for one URL, until they expire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.jobs.fetch import deposits as module
from grid.jobs.fetch.deposits import LIFETIME_S, Credentials, Deposit, Deposits
from grid.jobs.host.errors import AccessError, RequestError

pytestmark = pytest.mark.row("C35", "C36", "Y12")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(tmp_path: Path, clock: Clock) -> Deposits:
    return Deposits(tmp_path, clock)


GOOD: dict[str, Any] = {"url": "https://h:1/a", "token": "secret", "expires": 1100.0, "fingerprint": "ab"}


def test_they_are_their_owners_until_they_expire(kept: Deposits, clock: Clock, tmp_path: Path) -> None:
    name = kept.keep("mara", GOOD)
    assert kept.get(name, "mara") == kept.get(name) == Deposit("mara", "https://h:1/a", "secret", "ab", 1100.0)
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    again = Deposits(tmp_path, clock)
    assert again.get(name, "mara").token == "secret"
    said = set()
    for deposits, wrong, owner in ((kept, name, "ole"), (kept, "none", "mara")):
        with pytest.raises(AccessError) as caught:
            deposits.get(wrong, owner)
        said.add(str(caught.value))
    clock.now = 1100.0
    with pytest.raises(AccessError) as caught:
        kept.get(name, "mara")
    assert len(said | {str(caught.value)}) == 1  # nobody learns which


@pytest.mark.parametrize(
    "change",
    [{"url": None}, {"url": "ftp://h"}, {"url": "https://"}, {"url": "https://h/" + "x" * 2048}, {"token": 5},
     {"token": "x" * 513}, {"fingerprint": "x" * 101}, {"fingerprint": 5}, {"expires": None}, {"expires": True},
     {"expires": 1000.0}, {"expires": float("nan")}, {"expires": 1000.0 + LIFETIME_S + 1}, {"expires": float("inf")}],
)  # fmt: skip
def test_what_are_no_credentials(kept: Deposits, change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        kept.keep("mara", {**GOOD, **change})
    assert not (tmp_path / "credentials.json").exists()


def test_a_user_and_all_have_a_bound_and_expired_ones_make_room(
    kept: Deposits, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EACH", 2)
    monkeypatch.setattr(module, "MOST", 3)
    for owner in ("mara", "mara", "ole"):
        kept.keep(owner, GOOD)
    for owner in ("mara", "eva"):
        with pytest.raises(RequestError, match="too many"):
            kept.keep(owner, {**GOOD, "expires": 1200.0})
    clock.now = 1150.0
    kept.keep("mara", {**GOOD, "expires": 1200.0})


@pytest.mark.parametrize(
    ("url", "covered"),
    [
        ("https://h:1/a", True), ("https://h:1/a/b?c", True), ("https://h:1/ab", False), ("https://h:1/", False),
        ("https://h:2/a", False), ("http://h:1/a", False), ("https://h:1@evil/a", False), ("https://evil/h:1/a", False),
    ],
)  # fmt: skip
def test_for_which_urls_they_are(url: str, covered: bool) -> None:
    assert Deposit("m", "https://h:1/a", "t", "", 1.0).covers(url) is covered
    assert Deposit("m", "https://h:1/a/", "t", "", 1.0).covers(url) is covered


def test_a_token_is_in_no_text_and_in_no_request() -> None:
    mine = Credentials("https://h", "secret", 5.0)
    assert "secret" not in repr(mine) and "secret" not in repr(Deposit("m", "u", "secret", "", 1.0))
    with pytest.raises(RequestError, match="auth="):
        mine.__grid_plain__()
    assert mine.to_plain() == {"url": "https://h", "token": "secret", "expires": 5.0, "fingerprint": ""}
