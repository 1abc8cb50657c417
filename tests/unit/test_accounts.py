"""What a job manager knows of users."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from grid.jobs import StoreError
from grid.jobs.manager.accounts import Accounts
from grid.jobs.rules.credits import Ledger
from tests.unit.shelf import Shelf


def accounts_of(shelf: Shelf) -> Accounts:
    return Accounts(shelf)  # type: ignore[arg-type]


@pytest.mark.row("P06")
def test_a_change_is_stored_first_and_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    accounts = accounts_of(shelf)
    accounts.change("mara", email="m@x")
    accounts.change("mara", mails="hourly")
    assert accounts.find("mara") == {"email": "m@x", "mails": "hourly", "token": "", "used": 0.0, "used_at": 0.0}
    shelf.refuses = True
    with pytest.raises(StoreError):
        accounts.change("mara", email="other@x")
    assert accounts.find("mara")["email"] == "m@x" and accounts.find("nobody")["email"] == ""
    assert list(accounts.all()) == ["mara"]


@pytest.mark.row("J08")
def test_credits_fade_while_the_server_does_not_run(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.known_users = {"mara": {"used": 80.0, "used_at": time.time() - 200.0}}
    ledger = Ledger(100.0, 100.0)
    accounts_of(shelf).load(ledger, 100.0)
    assert ledger.used("mara", time.monotonic()) == pytest.approx(20.0, rel=0.05)


@pytest.mark.row("J08")
def test_credits_are_written_only_where_they_are_news(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    accounts = accounts_of(shelf)
    accounts.save_credits({"mara": 3.0, "ole": 0.001})
    assert list(shelf.known_users) == ["mara"] and accounts.find("mara")["used"] == 3.0
    shelf.refuses = True
    accounts.save_credits({"mara": 3.005})
