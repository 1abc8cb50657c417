"""One download: checked addresses, resumed where it broke, limited in time and size.

Lives here: `Download`, `Policy`.
Elsewhere:  jobs that download (`job.py`), conditions (`fetcher.py`).

Every connection is made to an address that was looked at, not to a name that is asked for again afterwards: so neither
a redirection nor a name that changes its address leads to where it may not.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.text import in_words

CHUNK = 1 << 18
TIMEOUT_S = 30.0


class Forbidden(Exception):
    """An address that is not allowed."""


class Permanent(Exception):
    """Trying again would not help."""


@dataclass(frozen=True)
class Policy:
    """From where it may be fetched, and how much. `private`: also from private and local addresses, and `file:`."""

    private: bool = True
    allow: tuple[str, ...] = ()
    """Networks that are allowed all the same, like `10.0.0.0/8`."""
    bytes: int = 100 << 30
    seconds: float = 86400.0
    """For one attempt."""
    _networks: tuple[Any, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", tuple(ipaddress.ip_network(each, strict=False) for each in self.allow))

    def check(self, address: str) -> None:
        """Raise Forbidden unless that address may be connected to."""
        ip: Any = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or _nat64(ip)
        for each in (ip, mapped):
            if each is None or self.private or any(each in network for network in self._networks):
                continue
            if not each.is_global or each.is_multicast or any(each in network for network in _LOCAL):
                raise Forbidden(f"{address} is a private or local address, which this server does not fetch from")


_LOCAL = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "fec0::/10", "5f00::/16", "100:0:0:1::/64", "3fff::/20")))
"""Networks for local use that some versions of Python take for global: NAT64, site-local, SRv6, discard, examples."""


def _nat64(ip: Any) -> Any:
    prefix = ipaddress.ip_network("64:ff9b::/96")
    return ipaddress.ip_address(int(ip) & 0xFFFFFFFF) if ip.version == 6 and ip in prefix else None


class Download:
    """From a URL into a file; `run` may be called again after it failed, and goes on where it was.

    Args:
        headers: For that URL alone, not where it redirects to.
        context: For TLS; default: the system's.
        stopped: Asked now and then; True ends it.
        told: Called with bytes there, and in all, if that is known.
    """

    def __init__(
        self,
        url: str,
        target: Path,
        policy: Policy,
        *,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        stopped: Callable[[], bool] = lambda: False,
        told: Callable[[int, int | None], None] = lambda k, n: None,
    ) -> None:
        self.url, self.target, self.policy = url, target, policy
        self._headers, self._context = headers or {}, context
        self._stopped, self._told = stopped, told
        self._part = target.with_name(f".{target.name}.part")
        self._validator = ""
        self.resumed = 0
        """How often it went on in the middle."""

    def run(self, sha256: str | None = None, size: int | None = None) -> tuple[int, str]:
        """Bytes and SHA-256 of what lies at the target then.

        Raises:
            Permanent: It can't be had.
            OSError: It broke; trying again may help.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._fetch()
        except Forbidden as exc:
            self.clear()
            raise Permanent(str(exc)) from exc
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == 416:
                self.clear()
                raise OSError("the file has changed") from exc
            if 400 <= exc.code < 500 and exc.code not in (408, 425, 429):
                raise Permanent(f"{self.url} could not be fetched ({exc.code} {exc.reason})") from exc
            raise OSError(f"{exc.code} {exc.reason}") from exc
        except urllib.error.URLError as exc:
            if isinstance(exc.reason, Forbidden):
                raise Permanent(str(exc.reason)) from exc
            if self.url.startswith("file:"):
                raise Permanent(f"{self.url} could not be fetched ({exc.reason})") from exc
            reason = exc.reason if isinstance(exc.reason, str) else in_words(exc.reason)
            raise OSError(reason) from exc  # its own text is `<urlopen error ...>`
        except http.client.HTTPException as exc:
            raise OSError(f"{type(exc).__name__}: {exc}") from exc
        found, digest = self._part.stat().st_size, sha256_of(self._part)
        wrong = ""
        if size is not None and found != size:
            wrong = f"has {found} bytes, not {size}"
        elif sha256 is not None and digest != sha256.lower():
            wrong = f"has the hash {digest}, not {sha256}"
        if wrong:
            self.clear()
            raise Permanent(f"{self.url} {wrong}")
        os.replace(self._part, self.target)
        return found, digest

    def clear(self) -> None:
        """Forget its part that has arrived."""
        self._part.unlink(missing_ok=True)

    def _fetch(self) -> None:
        request = urllib.request.Request(self.url)
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)
        have = self._part.stat().st_size if self._part.exists() else 0
        if have and not self._validator:
            self.clear()  # it may be of another version
            have = 0
        if have:
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", self._validator)
        with _opener(self.policy, self._context).open(request, timeout=TIMEOUT_S) as source:
            going_on = have > 0 and source.status == 206
            self.resumed += going_on
            have = have if going_on else 0
            validator = source.headers.get("ETag") or source.headers.get("Last-Modified") or ""
            self._validator = "" if validator.startswith("W/") else validator
            length = source.headers.get("Content-Length")
            total = have + int(length) if length is not None and length.isdecimal() else None
            if (total or 0) > self.policy.bytes:
                raise Forbidden(f"{self.url} has {total} bytes, and {self.policy.bytes} are allowed")
            self._copy(source, have, total)

    def _copy(self, source: Any, have: int, total: int | None) -> None:
        end = time.monotonic() + self.policy.seconds
        with open(self._part, "ab" if have else "wb") as file:
            while chunk := source.read1(CHUNK) if hasattr(source, "read1") else source.read(CHUNK):
                have += len(chunk)
                if have > self.policy.bytes:
                    raise Forbidden(f"{self.url} has more than the {self.policy.bytes} bytes that are allowed")
                file.write(chunk)
                self._told(have, total)
                if self._stopped():
                    raise OSError("it was told to stop")
                if time.monotonic() > end:
                    raise Forbidden(f"{self.url} takes longer than the {self.policy.seconds:g} s that are allowed")
            file.flush()
            os.fsync(file.fileno())
        if total is not None and have < total:
            raise OSError(f"{have} of {total} bytes came")


def sha256_of(path: Path) -> str:
    """Of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _opener(policy: Policy, context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """Handlers that connect to checked addresses; no proxies, which would connect to others for us."""

    def connect(address: tuple[str, int], timeout: Any = None, *_: Any) -> socket.socket:
        error: OSError | None = None
        for family, kind, number, _name, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            policy.check(str(where[0]))
            connection = socket.socket(family, kind, number)
            try:
                connection.settimeout(TIMEOUT_S)
                connection.connect(where)
            except OSError as exc:
                connection.close()
                error = exc
            else:
                return connection
        raise error or OSError(f"{address[0]} has no address")

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(_made(http.client.HTTPConnection), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            made = _made(http.client.HTTPSConnection)
            return self.do_open(made, req, context=context or ssl.create_default_context())

    def _made(cls: Any) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            connection = cls(*arguments, **options)
            connection._create_connection = connect
            return connection

        return make

    handlers: list[Any] = [Plain, Secure, urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler]
    handlers += [urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler]
    if policy.private:
        handlers.append(urllib.request.FileHandler)
    opener = urllib.request.OpenerDirector()
    for handler in handlers:
        opener.add_handler(handler())
    return opener
