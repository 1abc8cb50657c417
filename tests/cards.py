"""What a server sees of its slot; of its own, so that a host needs no more than grid does."""

from __future__ import annotations

import os


class Card:
    """Uses a device, as far as these tests can have one."""

    def slot(self) -> tuple[str, list[int], int]:
        """Its devices, cores and process."""
        return os.environ["CUDA_VISIBLE_DEVICES"], sorted(os.sched_getaffinity(0)), os.getpid()
