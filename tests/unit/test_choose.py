"""Which grid a place offers, by its variables and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.grids.choose import all_that_fit, find_place


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.mark.row("B03", "M05")
def test_a_login_comes_first_and_then_a_number_of_servers_here() -> None:
    everything = {"GRID_LOGIN": "mara@login", "GRID_RESOURCES": "nodes=2", "GRID_LOCAL": "3", "GRID_HOSTS": "a,b"}
    place = find_place(None, everything)
    assert (place.login, place.resources, place.hosts) == ("mara@login", "nodes=2", None)
    del everything["GRID_LOGIN"]
    place = find_place(8, everything)
    assert place.alone and [host.n_cpu for host in place.hosts or ()] == [3]
    for wrong in ("many", "0"):
        with pytest.raises(ValueError, match=f"GRID_LOCAL must be a number of servers, not '{wrong}'"):
            find_place(None, {"GRID_LOCAL": wrong})


@pytest.mark.row("B03", "M05")
def test_names_and_files_come_before_this_machine(tmp_path: Path) -> None:
    named = find_place(None, {"GRID_HOSTS": "a,b"})
    assert [host.name for host in named.hosts or ()] == ["a", "b"] and named.file is None and not named.alone
    path = tmp_path / "mine.yaml"
    path.write_text("hosts:\n  - name: c\n    n_cpu: 2\n")
    listed = find_place(None, {"GRID_HOSTS": str(path)})
    assert [host.name for host in listed.hosts or ()] == ["c"] and listed.file == str(path)
    alone = find_place(2, {})
    assert alone.alone and [host.n_cpu for host in alone.hosts or ()] == [2] and alone.file is None


def test_one_machine_waits_for_all_that_fit_unless_it_is_told_otherwise() -> None:
    assert all_that_fit({"output": None}) == {"missing": "ok", "output": None, "wait": "all"}
    assert all_that_fit({"wait": 1}) == {"wait": 1}
