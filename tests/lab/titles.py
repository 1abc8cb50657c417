"""Which processes on a host are kernels, by what `ps` calls them (`grid/kernel/title.py`)."""

from __future__ import annotations

from tests.lab.host import RunningHost


def is_kernel(command: str) -> bool:
    """An agent, a zygote or a server."""
    return command.startswith(("grid agent ", "grid zygote ", "grid server "))


def is_of_kernel(command: str) -> bool:
    """One of these, or what starts them: the interpreter at first, and shells."""
    return is_kernel(command) or "i=getattr" in command


def agent_on(host: RunningHost) -> int:
    """Pid of the one agent on a host, as this machine sees it."""
    [pid] = [pid for pid, command in host.processes() if command.startswith("grid agent ")]
    return pid
