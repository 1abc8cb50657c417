"""A server is born with its slot: bound to its cores, with threads and devices of its own, before any library asks.

    agent    says what a server is born with (`Birth`); zygote and server do it
    zygote   has the variables of threads in force while it loads libraries for all servers (`warm`)
    server   after the fork: is bound to cores, gets its variables, and tells libraries that are loaded already how many
             threads they have: they have read their variables, so each is told by a function of its own

Source of the functions: OpenBLAS, oneMKL, BLIS and OpenMP manuals; threadpoolctl asks for the same.

Lives here: `Birth`; what is done with it.
Elsewhere:  which slot (`slots`), which variables are ours to say (`grid/slots/threads.py`), when (`zygote`, `serve`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

SHOWN = 300
"""Bytes of the words in a lock."""

_FUNCTIONS = (
    (
        re.compile(r"openblas|libblas|libcblas"),
        tuple(f"{pre}openblas_set_num_threads{post}" for pre in ("", "scipy_") for post in ("", "64_", "_64", "64")),
    ),
    (re.compile(r"mkl_rt"), ("MKL_Set_Num_Threads",)),
    (re.compile(r"libblis"), ("bli_thread_set_num_threads",)),
    (re.compile(r"libgomp|libiomp|libomp"), ("omp_set_num_threads",)),
)
"""Files of libraries, and the names that their function may have: it takes one int."""


class Birth(NamedTuple):
    """What a server is born with; plain values, because it travels to the zygote. Nobody changes what is in it."""

    threads: dict[str, str] = {}  # variables  # noqa: RUF012 - nobody changes it
    env: dict[str, str] = {}  # others: devices  # noqa: RUF012
    cores: tuple[int, ...] = ()  # to which it is bound; empty: to none
    locks: int = 0  # of devices, which come along
    who: str = ""  # to be said in those
    group: str = ""  # the memory group that it joins; empty: none


def threads_in_force(birth: Birth) -> None:
    """In the zygote, before it loads a library: it may start threads, and servers are to have no more than that."""
    os.environ.update(birth.threads)


def be_born(birth: Birth, loaded_with: dict[str, str] | None, locks: Sequence[int] = ()) -> None:
    """In a server, at once after the fork.

    Args:
        locks: Descriptors, which this process keeps open to its end: they hold its devices.
        loaded_with: The variables under which the zygote loaded libraries; None: it has loaded none.
    """
    for fd in locks:
        os.set_inheritable(fd, False)
        say_who(fd, f"{birth.who}, process {os.getpid()}")
    if birth.group and (trouble := join(birth.group)):
        print(trouble)
    if birth.cores:
        try:
            os.sched_setaffinity(0, birth.cores)
        except (AttributeError, OSError) as exc:  # a core was taken offline, or from our cpuset
            print(f"can't be bound to cores {', '.join(map(str, birth.cores))} ({exc}); going on without")
    os.environ.update(birth.threads)
    if loaded_with is not None and birth.threads and loaded_with != birth.threads:
        tell_libraries(int(next(iter(birth.threads.values()))))


# Both are here and not in the modules of locks and groups: each server would load those after its fork, for 20 ms.


def say_who(fd: int, words: str) -> None:
    """Write into a lock who holds it: for who finds it locked."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, words.encode()[:SHOWN], 0)
    except OSError:
        pass  # a full disk: then nobody knows the name, and the lock holds all the same


def join(group: str) -> str:
    """This process is in that memory group from now on, and so are all that it starts; why not, in words."""
    try:
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    except OSError as exc:
        return f"its memory group can't be joined ({exc}); its limit is watched"
    return ""


def tell_libraries(threads: int) -> list[str]:
    """Have the libraries of this process use so many threads from now on; the functions that were called."""
    told = []
    for path in _loaded():
        name = os.path.basename(path)
        for pattern, functions in _FUNCTIONS:
            if pattern.search(name):
                told += [function for function in functions if _call(path, function, threads)]
    return told


def _loaded() -> list[str]:
    """Files of shared libraries in this process."""
    try:
        with open("/proc/self/maps") as file:
            lines = file.readlines()
    except OSError:
        return []
    paths = (line.split(maxsplit=5)[5].rstrip("\n") for line in lines if "/" in line)
    return list(dict.fromkeys(path for path in paths if ".so" in path))


def _call(path: str, function: str, number: int) -> bool:
    import ctypes

    try:
        library: Any = ctypes.CDLL(path, mode=getattr(os, "RTLD_NOLOAD", 4) | ctypes.DEFAULT_MODE)
        getattr(library, function)(ctypes.c_int(number))
    except (OSError, AttributeError):
        return False
    return True
