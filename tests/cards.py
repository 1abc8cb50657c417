"""GPUs that are not there: what drivers would say of two below /proc and /sys, and what a server sees of its slot.

The class is of its own module, so that a host needs no more than grid does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

A, B = "GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-bbbbbbbb-0000-1111-2222-333333333333"


def make_devices(root: Path, cores: Sequence[str], nodes: Sequence[int] = (0, 1)) -> Path:
    """A tree for `GRID_HOST_ROOT`.

    Args:
        cores: Lists of cores of the two NUMA nodes, as the kernel writes them.
        nodes: On which node each of the two devices is.
    """
    files = {"proc/meminfo": "MemTotal: 4194304 kB"}
    for device, address, node in zip((A, B), ("0000:01:00.0", "0000:41:00.0"), nodes, strict=True):
        files[f"proc/driver/nvidia/gpus/{address}/information"] = f"Model: \t Stand-in\nGPU UUID: \t {device}"
        files[f"sys/bus/pci/devices/{address}/numa_node"] = str(node)
    for node, listed in enumerate(cores):
        files[f"sys/devices/system/node/node{node}/cpulist"] = listed
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


class Card:
    """Uses a device, as far as these tests can have one."""

    def environment(self) -> dict[str, str]:
        """What a batch system and grid say to it."""
        return {name: value for name, value in os.environ.items() if name.startswith(("SLURM", "CUDA", "GPU", "GRID"))}

    def slot(self) -> tuple[str, list[int], int]:
        """Its devices, cores and process."""
        return os.environ["CUDA_VISIBLE_DEVICES"], sorted(os.sched_getaffinity(0)), os.getpid()
