"""The script's logging on servers, where that is asked for: levels and formats, not handlers.

Records go where all that a server prints goes: to the client, with server and host before each line. Handlers (files,
sockets) belong to the process that made them.

Lives here: both ends. Pure, but for `logging` itself. Elsewhere: who asks (`grids/grid.py`), when (`kernel/serve.py`).
"""

from __future__ import annotations

import logging
from typing import Any

_STYLES = {logging.PercentStyle: "%", logging.StrFormatStyle: "{", logging.StringTemplateStyle: "$"}


def of_this_process() -> dict[str, dict[str, Any]]:
    """The settings of this process, by logger; those of the root have the name ""."""
    known = [("", logging.getLogger()), *logging.root.manager.loggerDict.items()]
    return {
        name: {
            "level": logger.level,
            "propagate": logger.propagate,
            "disabled": logger.disabled,
            "handler": _of_handler(logger.handlers),
        }
        for name, logger in known
        if isinstance(logger, logging.Logger) and name.partition(".")[0] != "grid"
    }


def _of_handler(handlers: list[logging.Handler]) -> dict[str, Any] | None:
    """Level and format of the one that writes to a terminal, or else of the first."""
    real = [each for each in handlers if not isinstance(each, logging.NullHandler)]
    streams = [each for each in real if type(each) is logging.StreamHandler]
    for handler in [*streams, *real][:1]:
        form = handler.formatter or logging.Formatter()
        style = _STYLES.get(type(form._style), "%")
        return {"level": handler.level, "format": form._fmt, "dates": form.datefmt, "style": style}
    return None


def set_up(found: dict[str, dict[str, Any]]) -> None:
    """On a server: the same levels and formats, on its stderr."""
    for name, words in found.items():
        logger = logging.getLogger(name)
        logger.setLevel(words["level"])
        if name:
            logger.propagate, logger.disabled = words["propagate"], words["disabled"]
        if words["handler"] is None:
            continue
        handler = logging.StreamHandler()
        handler.setLevel(words["handler"]["level"])
        style = words["handler"]["style"]
        handler.setFormatter(logging.Formatter(words["handler"]["format"], words["handler"]["dates"], style))
        logger.handlers[:] = [handler]
