"""The door of a job server to the network, with all that can be wrong about it found before anything is started.

Lives here: `HttpDoor`.
Elsewhere:  the server that it opens (`server.py`), a job server with doors (`jobs/serving.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from grid.jobs.host.errors import AccessError
from grid.jobs.manager.job_manager import JobManager
from grid.web.limits import WebLimits
from grid.web.names import is_loopback
from grid.web.server import WebServer, address
from grid.web.tls import Certificate
from grid.web.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class HttpDoor:
    """HTTP for everybody with a token of `grid token`. Tokens lie beside the store.

    Raises:
        RequestError: `at` is no address.
        AccessError: It is open to others without tokens, or tokens would travel in clear text.
    """

    at: str = "127.0.0.1:0"
    """Address and port; port 0: any that is free."""
    tokens: bool = True
    """False: everybody on this machine may do all; at a loopback address alone."""
    certificate: tuple[str, str] | None = None
    """Files of a certificate and its private key, PEM."""
    own_certificate: bool = False
    """Use one that it makes for itself; clients pin its fingerprint."""
    limits: WebLimits | None = None
    """Of connections and requests; None: the usual ones."""

    def __post_init__(self) -> None:
        host = address(self.at)[0]
        if is_loopback(host):
            return
        if not self.tokens:
            raise AccessError(f"--no-token is for 127.0.0.1: others can reach {host}, and they need tokens")
        if not (self.certificate or self.own_certificate):
            raise AccessError(f"tokens would go to {host} in clear text. Give --cert and --key, or --tls self")

    def __call__(self, manager: JobManager) -> WebServer:
        listen, directory = address(self.at), manager.store.directory
        certificate = Certificate(*self.certificate) if self.certificate else None
        if self.own_certificate:
            certificate = Certificate.own(directory, listen[0])
        tokens = Tokens(directory) if self.tokens else None
        return WebServer(manager, listen, tokens=tokens, certificate=certificate, limits=self.limits)
