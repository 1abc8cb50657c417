"""Tags, and finding jobs by them."""

from __future__ import annotations

import pytest

from grid.jobs import RequestError
from grid.jobs.rules.tags import check_tags, matches


@pytest.mark.row("J03", "J04")
def test_tags_are_words_or_pairs_and_found_all_together_times_by_their_beginning() -> None:
    tags = check_tags(["mara", "name=first try", "started=2026-11-21T10:00:00", "mara"])
    assert tags == ["mara", "name=first try", "started=2026-11-21T10:00:00"]
    assert matches(tags, ["mara"]) and matches(tags, ["mara", "started=2026-11"]) and matches(tags, ["name=first*"])
    assert not matches(tags, ["mara", "other"]) and not matches(tags, ["name=first"])
    assert check_tags("word") == ["word"]
    for wrong in (["a,b"], [""], [" x"], [3], ["a\nb"]):
        with pytest.raises(RequestError):
            check_tags(wrong)  # type: ignore[arg-type]
