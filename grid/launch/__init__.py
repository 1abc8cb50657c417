"""Ways into hosts, and what is started there."""

from grid.hosts import Host
from grid.launch.connection import Completed, Connection, RemoteProcess
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits

__all__ = ["Completed", "ConnectLimits", "Connection", "RemoteProcess", "connect"]


def connect(host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> Connection:
    """Open a way into `host`, the one that `host.ssh` names; the caller closes it.

    Several connections to one host, or to several behind one jump host, share the ssh log-in below them.

    Raises:
        ConnectError: Name unknown, no answer, refused, or broken on the way; the message says which.
        HostKeyError: The host's key is unknown or has changed.
        LoginError: The host refused us.
    """
    # Imported here: paramiko takes a tenth of a second, and a local grid never needs it.
    if host.ssh == "local":
        from grid.launch.local import LocalConnection

        return LocalConnection(host, limits)
    if host.ssh == "openssh":
        from grid.launch.openssh import OpenSSHConnection

        return OpenSSHConnection(host, limits)
    if host.ssh != "paramiko":
        from grid.launch.tasks import connect_task

        return connect_task(host, limits)
    from grid.launch.paramiko_ssh import ParamikoConnection

    return ParamikoConnection(host, limits)
