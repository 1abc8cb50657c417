"""Calls that failed, and whose error nobody has asked for: each is told once on the log, which stands on stderr.

    model.set_temperature(3.0)             # raises on the server; nobody looks at its Result
    print(model.energy().get())            # the energy of the old state

It is told when the Result is dropped, or when the grid ends; not if `get`, `exception` or a call-back has asked.

Lives here: `Untold`, the line. Elsewhere: results (`result`), proxies that raise it at the next call (`proxy`, strict).
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING

from grid.wire import codec
from grid.wire.frames import unpack

if TYPE_CHECKING:
    from grid.services.waste import Waste

logger = logging.getLogger(__name__)

_LINE = re.compile(r'File "([^"]+)", line (\d+)')


class Untold:
    """An error that is here and that nobody has asked for."""

    __slots__ = ("__weakref__", "_facts", "_raw", "_waste")

    def __init__(self, raw: bytes, facts: tuple[str, str, str], waste: Waste) -> None:
        self._raw: bytes | None = raw
        self._facts, self._waste = facts, waste

    @property
    def armed(self) -> bool:
        """Whether nobody knows of it yet."""
        return self._raw is not None

    def asked(self) -> None:
        """Somebody has it now."""
        self._raw = None

    def tell(self) -> None:
        """Write the line, unless somebody knows."""
        raw, self._raw = self._raw, None
        if raw is not None:
            _tell(raw, self._facts)

    def __del__(self) -> None:
        if self._raw is not None:
            self._waste.put(partial(_tell, self._raw, self._facts))  # any thread, any lock held: so no more than that


def _tell(raw: bytes, facts: tuple[str, str, str]) -> bool:
    method, server, host = facts
    what, where = "an error that can't be read here", ""
    try:
        _, text = codec.loads(unpack(raw).pickle)
        lines = text.strip().splitlines()
        what = lines[-1] if lines else what
        places = _LINE.findall(text)
        where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    except Exception as exc:
        logger.debug("an error that nobody asked for can't be read: %s", exc)
    logger.warning(
        "call %r on server %s at host %r failed, and nobody asked for its result: %s%s. %s",
        *(method, server, host, what, where),
        "Ask with .get(), or acquire with strict=True to have the next call raise it",
    )
    return True
