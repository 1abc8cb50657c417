"""`fetch_url` as a job: the server itself downloads, into the job's own folder; nothing goes through the client.

    fetch = service.fetch_url("https://data.example.org/run7.h5", sha256="...")
    fit = Fit.submit(path=fetch.filename, when=fetch)

Lives here: `FetchURL`, the service; its request, which knows the file's name as soon as it is submitted.
Elsewhere:  downloading (`download.py`), credentials (`deposits.py`), jobs that run at the manager (`engine.HerePlace`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from grid.jobs.fetch.deposits import Deposits
from grid.jobs.fetch.download import Download, Permanent, Policy
from grid.jobs.host.errors import AccessError, RequestError
from grid.jobs.host.request import Request
from grid.jobs.host.service import Service, ServiceHandler
from grid.text import in_words

SERVICE = "grid.fetch"
ATTEMPTS = 6
PAUSE_S = 0.5


class FetchRequest(Request):
    """`url`; where wanted `sha256`, `size`, `auth` (name of a deposit), `name` (of the file)."""

    def queue(self, context: Any) -> None:
        data = self.data
        url, name = data.get("url"), data.get("name")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https", "file"):
            raise RequestError(f"{url!r} can't be fetched", hint="Give a URL that begins with http, https or file")
        if urlsplit(url).username or urlsplit(url).password:
            raise RequestError("a URL with a password would be seen in the job", hint="Use auth=")
        last = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
        plain = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in str(name or last))
        safe = plain[-100:].lstrip(".")
        self.filename = str(context.directory / (safe or "file"))


class FetchURL(Service):
    """See the module. Its result: `filename`, `bytes`, `sha256`, `resumed` (how often it went on after it broke)."""

    service = SERVICE
    version = "1"
    request_class = FetchRequest
    at_manager = True
    policy: ClassVar[Policy]
    deposits: ClassVar[Deposits]
    owner_of: ClassVar[Callable[[str], str]]

    def prepare(self, request: Request) -> None:
        self._done: tuple[int, int | None] = (0, None)

    def progress(self) -> tuple[float, float, str] | None:
        k, n = self._done
        return (k, n, "bytes") if n else None

    def run(self, handler: ServiceHandler) -> Any:
        data = self.request.data
        download = self._download(handler, data)
        try:
            for attempt in range(ATTEMPTS):
                try:
                    size, digest = download.run(data.get("sha256"), data.get("size"))
                    break
                except OSError as exc:
                    handler.ready()
                    if attempt == ATTEMPTS - 1:
                        raise RuntimeError(f"{data['url']} could not be fetched ({in_words(exc)})") from None
                    handler.log(f"{in_words(exc)}; trying again")
                    self._pause(handler, PAUSE_S * 2**attempt)
        except Permanent as exc:
            raise RuntimeError(str(exc)) from None
        except BaseException:
            download.clear()
            raise
        return {"filename": data["filename"], "bytes": size, "sha256": digest, "resumed": download.resumed}

    def _pause(self, handler: ServiceHandler, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.ready()
            time.sleep(0.05)

    def _download(self, handler: ServiceHandler, data: dict[str, Any]) -> Download:
        headers, context = {}, None
        if data.get("auth"):
            deposit = self.deposits.get(data["auth"], type(self).owner_of(handler.job))
            if not deposit.covers(data["url"]):
                raise AccessError("these credentials are for another server", hint="Make some at the one of the URL")
            if deposit.token:
                headers["Authorization"] = f"Bearer {deposit.token}"
            if deposit.fingerprint:
                from grid.jobs.line.pins import Pinned

                context = Pinned(deposit.fingerprint)

        def told(k: int, n: int | None) -> None:
            self._done = (k, n)
            handler.ready()

        return Download(data["url"], Path(data["filename"]), self.policy, headers=headers, context=context, told=told)


def downloading(policy: Policy, deposits: Deposits, owner_of: Callable[[str], str]) -> type[FetchURL]:
    """The service of one manager; `owner_of` gives the owner of a job, whose credentials it may use."""
    own = {"policy": policy, "deposits": deposits, "owner_of": staticmethod(owner_of)}
    return type(FetchURL.__name__, (FetchURL,), own)
