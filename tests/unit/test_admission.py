"""What is checked of a submission: addresses and wishes for mail."""

from __future__ import annotations

import pytest

from grid.jobs import RequestError
from grid.jobs.manager.admission import check_email, check_mails
from grid.jobs.rules.post import MAILS


@pytest.mark.row("P06", "J13")
def test_an_address_that_is_none_is_refused() -> None:
    wrong = ["no", "@x", "a@", "a@b@c", "a b@x", "a@x\r\nBcc: b@x", "a@x\x00", '"a"@x', "-f@x", "a@x,b@x", "<a@x>", 7]
    for address in (*wrong, "a" * 250 + "@host"):
        with pytest.raises(RequestError, match="e-mail"):
            check_email(address)  # type: ignore[arg-type]
    assert check_email("") == "" and check_email("mara+grid@lab.example") == "mara+grid@lab.example"


@pytest.mark.row("P06", "J13")
def test_wishes_are_known_words() -> None:
    assert [check_mails(each) for each in ("", *MAILS)] == ["", *MAILS]
    with pytest.raises(RequestError, match="immediate, hourly, daily, off"):
        check_mails("weekly")
