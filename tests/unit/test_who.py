"""What a caller may, and which scopes there are."""

from __future__ import annotations

import pytest

from grid.jobs.api import ADMIN, READ, SCOPES, SUBMIT
from grid.jobs.host.errors import RequestError
from grid.web.who import USUAL, Who, check_scopes

pytestmark = pytest.mark.row("P25")


def test_one_may_what_is_among_their_scopes_and_an_admin_all() -> None:
    reader, admin = Who(user="mara", scopes=frozenset({READ})), Who(user="root", scopes=frozenset({ADMIN}))
    assert reader.may(READ) and not reader.may(SUBMIT)
    assert all(admin.may(scope) for scope in SCOPES)


def test_a_narrow_token_never_sees_all() -> None:
    everything = Who(user="root")
    assert everything.sees_all and not everything.is_narrow
    for narrow in (
        Who(user="root", jobs=frozenset({"job-1"})),
        Who(user="root", services=frozenset({"fit"})),
        Who(user="root", open=True, jobs=frozenset()),
    ):
        assert narrow.is_narrow and not narrow.sees_all
    assert not Who(user="mara", scopes=frozenset(USUAL)).sees_all
    assert Who(user="mara", scopes=frozenset(USUAL), open=True).sees_all


def test_scopes_are_told_once_and_in_our_order() -> None:
    assert check_scopes([SUBMIT, READ, SUBMIT]) == tuple(scope for scope in SCOPES if scope in (READ, SUBMIT))


@pytest.mark.parametrize("wrong", [[], (), "read", None, 7, ["raed"], [["read"]], {"read": 1}])
def test_what_is_no_list_of_scopes_is_refused(wrong: object) -> None:
    with pytest.raises(RequestError, match="scope"):
        check_scopes(wrong)
