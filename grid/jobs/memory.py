"""What a result is remembered by: the request, its files' contents, the service's version, and versions of software.

Lives here: `memo_key`.
Elsewhere:  where results are remembered (`store/`), who wants that (`Service.memo`).
"""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from grid.jobs.host.errors import RequestError
from grid.jobs.host.plain import dumps
from grid.jobs.host.service import Service

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def memo_key(service: type[Service], plain: dict[str, Any], inputs: list[Any] | None = None) -> str:
    """A key that changes when anything that the result depends on does.

    Args:
        plain: The saved request, all references resolved.
    Raises:
        RequestError: A distribution in `requires` is not installed, or a file in `files` can't be read.
    """
    facts = {
        "service": plain["service"],
        "version": plain["version"],
        "data": plain["data"],
        "inputs": inputs,
        "software": versions(service.requires),
        "files": {name: _contents(plain["data"].get(name), name) for name in service.files},
    }
    return hashlib.sha256(dumps(facts).encode()).hexdigest()


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Versions of these distributions, and of all that they need and that is installed."""
    found: dict[str, str] = {}
    waiting = [(name, True) for name in distributions]
    while waiting:
        name, asked_for = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if asked_for:
                raise RequestError(
                    f"the service requires the distribution {name!r}, which is not installed here", hint="Install it"
                ) from None
            continue
        found[key] = distribution.version
        for line in distribution.requires or ():
            match = _NAME.match(line)
            if match and "extra ==" not in line:
                waiting.append((match.group(), False))
    return found


def _contents(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_contents(item, name) for item in value]
    if value is None:
        return None
    try:
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    except (OSError, TypeError) as exc:
        raise RequestError(f"the file in request.{name} can't be read ({exc})", hint="Give its path") from exc
