"""Libraries that only some of grid needs: the line that installs them."""

from __future__ import annotations

import pytest

from grid.errors import MissingExtra
from grid.extras import need

pytestmark = pytest.mark.row("D02")


def test_what_is_there_is_no_error() -> None:
    need("this", "web", "json", "os")
    need("this", "web")


def test_the_error_names_all_that_are_missing_and_no_other() -> None:
    with pytest.raises(MissingExtra) as caught:
        need("the page", "web", "json", "no_such_module_a", "no_such_module_b")
    assert "the page needs no_such_module_a and no_such_module_b" in str(caught.value)
    assert "json" not in str(caught.value)
    assert caught.value.facts["extra"] == "web" and "pip install 'sshgrid[web]'" in str(caught.value)
