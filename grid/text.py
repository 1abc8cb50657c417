"""Text for people, whoever wrote it: as terminals, browsers and databases take it.

Lives here: `clean`, and `in_words` for exceptions of others.
Elsewhere:  values as JSON (`grid/jobs/host/plain.py`), what commands print (`grid/cli/show.py`).
"""

from __future__ import annotations

import re

TURNING = r"\u202a-\u202e\u2066-\u2069"
"""Characters that turn the direction in which a terminal or a browser shows what follows."""
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{TURNING}]")


def clean(text: object, most: int = 100_000) -> str:
    """Text without control characters.

    Control characters but line ends and tabs, those that turn the direction of writing, and lone surrogates become
    escapes as Python writes them. What is longer
    than `most` characters is cut, and the text says so. An object whose `str` fails is told by its class.
    """
    try:
        said = text if type(text) is str else str.__str__(text) if isinstance(text, str) else str(text)
    except Exception as exc:
        said = f"<{type(text).__qualname__}, and its text can't be had ({type(exc).__qualname__})>"
    if len(said) > most:
        said = f"{said[: most - 40]}... ({len(said) - most + 40:,} characters more)"
    return said if said.isprintable() else _CONTROL.sub(lambda match: escaped(match[0]), said)


def escaped(text: str) -> str:
    """Each character as Python writes it in a literal: `\\x1b`, `\\ud800`."""
    return text.encode("unicode_escape").decode("ascii")


def in_words(exc: BaseException) -> str:
    """What an exception of another library says, for a message of ours: never empty, and never a tuple or a bare key.

    `str` gives a tuple for an `ssl.SSLError` of one argument and for most that have several, and the key alone for a
    KeyError, which reads as a reason only beside its class.
    """
    said = clean(exc)
    if isinstance(exc, KeyError):
        return f"{type(exc).__name__}: {said}"
    if exc.args and said.removeprefix(type(exc).__name__) == str(exc.args):
        return ": ".join(clean(part) for part in exc.args)
    return said or type(exc).__name__
