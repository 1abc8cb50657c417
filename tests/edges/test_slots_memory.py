"""A limit of memory that the kernel keeps: real groups, where this machine lets us make some."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from grid import LocalGrid, Needs, PublishError, ServerLost
from grid.slots.groups import find_place

PLACE, WHY = find_place(Path("/"))


class Sharing:
    """Takes memory that is not anonymous, so nobody but the kernel counts it."""

    def group(self) -> str:
        """Its memory group, as the kernel has it."""
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        wanted = "memory" if PLACE is None or PLACE.version == 1 else ""
        return next(line.split(":", 2)[2] for line in lines if wanted in line.split(":", 2)[1].split(","))

    def share(self, megabytes: int) -> int:
        """Fill shared memory."""
        self.shared = mmap.mmap(-1, megabytes << 20)
        for _ in range(megabytes):
            self.shared.write(b"x" * (1 << 20))
        return megabytes

    def die(self) -> None:
        """Without a word."""
        os.kill(os.getpid(), 9)


@pytest.mark.row("O19", "O13")
@pytest.mark.skipif(PLACE is None, reason=f"no memory groups here: {WHY}")
def test_the_kernel_keeps_the_limit_and_the_group_goes_with_its_server() -> None:
    assert PLACE is not None
    with LocalGrid(2, output=None) as g:
        service_id = g.publish(Sharing(), needs=Needs(memory="100M"), wait="all")
        with g.acquire_service(service_id) as hungry, g.acquire_service(service_id) as modest:
            groups = [Path(each.group().get(60)) for each in (hungry, modest)]
            assert len(set(groups)) == 2 and groups[0].parent.name.startswith(f"grid-{os.getuid()}-")
            lost = hungry.share(400)
            with pytest.raises(
                ServerLost, match=r"took [\d.]+M of memory, and may have 100M \(needs: memory\)"
            ) as told:
                lost.get(120)
            assert told.value.memory_limit == 100 << 20
            assert modest.share(20).get(60) == 20
        assert not (PLACE.path / groups[0].parent.name / groups[0].name).exists()
    assert not (PLACE.path / groups[0].parent.name).exists()


@pytest.mark.row("O13", "O12")
def test_a_limit_that_is_too_small_to_start_is_the_cause_that_is_told() -> None:
    with (
        LocalGrid(1, output=None) as g,
        pytest.raises(PublishError, match=r"did not start: ended because it took .* and"),
    ):
        g.publish(Sharing(), needs=Needs(memory=1))


@pytest.mark.row("O13")
def test_a_death_for_another_reason_tells_peak_and_limit_as_well() -> None:
    with LocalGrid(1, output=None) as g:
        service_id = g.publish(Sharing(), needs=Needs(memory="1G"))
        with g.acquire_service(service_id) as one, pytest.raises(ServerLost) as told:
            one.die().get(60)
    said = str(told.value)
    assert "ended by SIGKILL (peak memory" in said and "its slot was 1G of memory" in said
    assert told.value.memory_limit == 1 << 30 and 0 < (told.value.memory_peak or 0) < 1 << 30
