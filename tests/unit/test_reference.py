"""docs/reference.md says what the code says."""

from __future__ import annotations

import importlib

import pytest

from tests import reference

TEXT = reference.PAGE.read_text(encoding="utf-8")


@pytest.mark.row("D08")
@pytest.mark.parametrize("room", reference.ROOMS)
def test_every_public_name_is_on_the_page_with_a_line_about_it(room: str) -> None:
    module = importlib.import_module(room)
    for name in module.__all__:
        assert f"### `{name}" in TEXT or f"| `{name}` |" in TEXT, f"scripts/reference writes {name} onto the page"
        if name != "__version__":
            assert reference.line_of(getattr(module, name)), f"{room}.{name} has no docstring"


@pytest.mark.row("D08")
def test_the_page_is_up_to_date() -> None:
    assert reference.page() == TEXT, "scripts/reference writes docs/reference.md again"
