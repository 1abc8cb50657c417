"""The GPUs of a machine: what drivers say below /proc and /sys, what `nvidia-smi` says, and which of them are ours.

NVIDIA      /proc/driver/nvidia/gpus/ADDRESS/information has the UUID; memory only `nvidia-smi` tells, which may hang
            for as long as its driver does, so it has a limit. In a job whose cgroup shuts devices out, /proc lists all
            of the machine; `nvidia-smi` lists those of the job, from which CUDA counts
AMD         /sys/class/kfd/kfd/topology/nodes/N/properties; a node without SIMDs is a CPU
Intel       /sys/class/drm/cardN/device, vendor 0x8086, by the `xe` or `i915` driver with memory of its own

Nothing in here raises: what can't be read is not there.

Lives here: finding devices, the share that a batch job or user has of them.
Elsewhere:  the rest of the machine (`find`), what servers see of devices (`kernel/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from grid.slots.resources import ANYWHERE, Device

SMI_S = 5.0
_ASKED = ("nvidia-smi", "--query-gpu=uuid,memory.total,name,pci.bus_id", "--format=csv,noheader,nounits")

VISIBLE = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    "intel": ("ZE_AFFINITY_MASK",),
}
"""The variables by which libraries of each kind are told which devices they see. The first one counts most."""
_BY_BATCH_SYSTEM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")


def ask_smi(limit_s: float = SMI_S) -> str:
    """What `nvidia-smi` says: a line for each device; "" where it says nothing in time."""
    import subprocess  # agents have no other need of it

    try:
        done = subprocess.run(
            _ASKED, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=limit_s
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def find_devices(root: Path, smi: Callable[[], str] = ask_smi) -> tuple[Device, ...]:
    """All devices, those of one kind after the other, each in the order of their addresses.

    Args:
        root: Where /proc and /sys are.
        smi: What `nvidia-smi` says; called only if there is a driver of NVIDIA.
    """
    return (*_nvidia(root, smi), *_amd(root), *_intel(root))


def _nvidia(root: Path, smi: Callable[[], str]) -> list[Device]:
    driver = root / "proc/driver/nvidia"
    told = {}
    for line in smi().splitlines() if driver.exists() or (root / "dev/dxg").exists() else ():  # WSL has no such /proc
        uuid, memory, name, address = [*(part.strip() for part in line.split(",")), "", "", ""][:4]
        if uuid.startswith(("GPU-", "MIG-")):
            told[uuid] = (int(memory) << 20 if memory.isdecimal() else None, name, address.lower())
    found: list[Device] = []
    reachable = frozenset(told)  # none: it did not answer
    for place in _sorted(driver / "gpus"):
        facts = dict(_facts(place / "information", ":"))
        uuid = facts.get("GPU UUID", "")
        if uuid.startswith("GPU-") and "?" not in uuid and (uuid in reachable or not reachable):
            memory_of, name, _ = told.pop(uuid, (None, "", ""))
            found.append(Device("nvidia", uuid, _node(root, place.name), memory_of, facts.get("Model", name)))
    rest = sorted(told.items(), key=lambda each: each[1][2])
    for uuid, (memory_of, name, address) in rest:  # in a container the driver's /proc may be left out
        found.append(Device("nvidia", uuid, _node(root, address[-12:]), memory_of, name))
    return found


def _amd(root: Path) -> Iterator[Device]:
    number = 0
    for place in _sorted(root / "sys/class/kfd/kfd/topology/nodes"):
        facts = dict(_facts(place / "properties", " "))
        unique = facts.get("unique_id", "0")
        if not unique.isdecimal() or facts.get("simd_count", "0") == "0":
            continue
        banks = [dict(_facts(bank / "properties", " ")) for bank in _sorted(place / "mem_banks")]
        memory = sum(int(bank["size_in_bytes"]) for bank in banks if bank.get("size_in_bytes", "").isdecimal())
        where = facts.get("location_id", "")
        domain = int(facts["domain"]) if facts.get("domain", "").isdecimal() else 0
        address = (
            f"{domain:04x}:{int(where) >> 8:02x}:{int(where) >> 3 & 31:02x}.{int(where) & 7}"
            if where.isdecimal()
            else ""
        )
        name = _text(place / "name")
        # some devices have no unique id; ROCm knows them by their place among the devices
        yield Device(
            "amd", f"GPU-{int(unique):016x}" if int(unique) else str(number), _node(root, address), memory or None, name
        )
        number += 1


def _intel(root: Path) -> Iterator[Device]:
    number = 0
    for place in _sorted(root / "sys/class/drm"):
        if not place.name.removeprefix("card").isdecimal() or _text(place / "device/vendor") != "0x8086":
            continue
        memory = [_text(place / name) for name in ("device/tile0/vram_size", "lmem_total_bytes")]
        sizes = [int(text, 0) for text in memory if text.removeprefix("0x").isalnum() and _is_number(text)]
        if not sizes:
            continue  # one that is part of the processor: nobody means that when he asks for a device
        node = _text(place / "device/numa_node")
        yield Device("intel", str(number), int(node) if _is_number(node) else ANYWHERE, sizes[0])
        number += 1


def our_share(found: Sequence[Device], environ: Mapping[str, str], read: Callable[[str], str]) -> tuple[Device, ...]:
    """Those devices that a batch system or user has left to this process.

    Args:
        read: Text of a file by its path; may raise OSError.
    """
    shares = {kind: _share_of(kind, environ, read) for kind in VISIBLE}
    kept: list[Device] = []
    for kind, words in shares.items():
        all_of_kind = [device for device in found if device.kind == kind]
        if words is None:
            kept += all_of_kind
            continue
        for word in words:
            if word.isdecimal():
                named = all_of_kind[int(word) : int(word) + 1]
            else:
                named = [device for device in all_of_kind if device.id.startswith(word)]  # CUDA takes a beginning, too
            if not named:
                break  # as CUDA does: what comes after one that it does not know is not seen
            kept += [device for device in named if device not in kept]
    return tuple(kept)


def _share_of(kind: str, environ: Mapping[str, str], read: Callable[[str], str]) -> list[str] | None:
    """The words for devices of one kind; None: nobody said anything."""
    for name in VISIBLE[kind]:
        if name in environ:
            words = [word.strip() for word in environ[name].split(",")]
            return [word.partition(".")[0] if kind == "intel" else word for word in words if word]
    if kind == "intel":
        return None
    for name in _BY_BATCH_SYSTEM:
        if name in environ:
            return [word.strip() for word in environ[name].split(",") if word.strip()]
    if "SLURM_JOB_ID" in environ and "SLURM_GPUS_ON_NODE" not in environ:
        return []  # it tells a job of each device that it gives, so those of the node are of other jobs
    if kind == "nvidia" and "PBS_GPUFILE" in environ:
        try:
            lines = read(environ["PBS_GPUFILE"]).split()
        except OSError:
            return None
        return [line.rpartition("-gpu")[2] for line in lines if "-gpu" in line]
    return None


# ---- small readers that never raise ---------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _facts(path: Path, mark: str) -> Iterator[tuple[str, str]]:
    for line in _text(path).splitlines():
        name, _, value = line.partition(mark)
        yield name.strip(), value.strip()


def _sorted(place: Path) -> list[Path]:
    """What is in a directory, numbers in their order."""
    try:
        return sorted(place.iterdir(), key=lambda each: (len(each.name), each.name))
    except OSError:
        return []


def _node(root: Path, address: str) -> int:
    """The NUMA node of a device on the PCI bus; machines with one node say -1 as well."""
    text = _text(root / "sys/bus/pci/devices" / address / "numa_node") if address else ""
    return int(text) if _is_number(text) else ANYWHERE


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True
