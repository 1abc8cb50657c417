"""Where memory groups can be made, in trees that a test makes. With a real kernel: `edges/test_slots_memory.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grid.kernel.born import join
from grid.kernel.memgroups import GroupEnd, MemoryGroups
from grid.slots.groups import find_place

pytestmark = pytest.mark.row("O19")


def tree(root: Path, groups: str, *places: str, **files: str) -> Path:
    """A root with a /proc/self/cgroup and such groups; files lie in each of them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for place in places:
        path = root / "sys/fs/cgroup" / place
        path.mkdir(parents=True, exist_ok=True)
        for name, text in {"cgroup.procs": "", **files}.items():
            (path / name.replace("_", ".", 1)).write_text(text)
    return root


def test_the_nearest_group_of_version_2_that_hands_memory_down(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/job/step\n", "", "job", "job/step", cgroup_subtree_control="")
    assert find_place(root)[0] is None
    (root / "sys/fs/cgroup/job/cgroup.subtree_control").write_text("cpu memory\n")
    assert find_place(root)[0] == (root / "sys/fs/cgroup/job", 2)


def test_a_group_of_systemd_is_not_touched_by_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "0::/system.slice/x.service\n", "system.slice", "system.slice/x.service",
        cgroup_subtree_control="memory",
    )  # fmt: skip
    place, why = find_place(root)
    if os.getuid() == 0:
        assert place is None and why == "no memory cgroup is delegated to us"
    else:
        assert place is not None


def test_our_own_group_of_version_1(tmp_path: Path) -> None:
    root = tree(tmp_path, "4:memory:/box\n2:cpu:/\n", "memory/box", memory_limit_in_bytes="1")
    assert find_place(root)[0] == (root / "sys/fs/cgroup/memory/box", 1)


@pytest.mark.parametrize("groups", ["", "nonsense\n", "0::/../..\n", "4:memory:/gone\n"])
def test_where_there_is_none_the_reason_is_told_and_servers_start_without(tmp_path: Path, groups: str) -> None:
    made = MemoryGroups(tree(tmp_path, groups))
    assert made.make("Model.0/1", 1 << 20) == "" and "no memory cgroup" in made.why
    assert made.end("Model.0/1") is None
    made.remove("Model.0/1")
    made.remove_all()
    assert find_place(tmp_path / "nowhere") == (None, "this system has no cgroups")


def test_a_server_has_a_group_with_its_limit_and_what_the_kernel_says_of_it_is_read(tmp_path: Path) -> None:
    made = MemoryGroups(tree(tmp_path, "0::/\n", "", cgroup_subtree_control="memory"))
    group = Path(made.make("Model.0/1", 5 << 20))
    assert group.parent.name == f"grid-{os.getuid()}-{os.getpid()}" and group.name == "Model.0.1"
    assert (group / "memory.max").read_text() == str(5 << 20)
    assert (group.parent / "cgroup.subtree_control").read_text() == "+memory"
    assert join(str(group)) == "" and (group / "cgroup.procs").read_text() == str(os.getpid())
    assert made.end("Model.0/1") == GroupEnd(0, 0)
    (group / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 2\n")
    (group / "memory.peak").write_text("5242880\n")
    assert made.end("Model.0/1") == GroupEnd(5 << 20, 2)
    assert "can't be joined" in join(str(tmp_path / "gone"))
