"""Who listens to a grid is told what happens, and others pay nothing."""

from __future__ import annotations

from typing import Any

import pytest

from grid.hooks import Hook, Reporter
from grid.services.roster import Event
from tests.grounds import Ground, service_of


class Noted(Hook):
    hears_calls = True

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def came(self, server: str, host: str) -> None:
        self.heard.append(("came", server, host))

    def went(self, server: str, end: str) -> None:
        self.heard.append(("went", server, end))


@pytest.mark.row("D03")
def test_servers_tell_those_who_want_to_hear_of_them() -> None:
    ground, noted = Ground(), Noted()
    ground.hooks += [Reporter("things", lambda: 3), noted]
    service, (one,) = service_of("s/0", ground=ground)
    assert one.hooks == (noted,), "a reporter does not hear of calls"
    service.gone(one, Event.LOST, "it died")
    service.gone(one, Event.LOST, "it died once more")
    assert noted.heard == [("came", "s/0", "here"), ("went", "s/0", "it died")]
    assert ground.hooks[0].report() == {"things": 3} and noted.report() == {} and noted.hint() == ""
