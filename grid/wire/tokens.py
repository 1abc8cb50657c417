"""Functions and classes that travel by value are known again by a token: what comes back is what went.

Lives here: who has which token in this process, and what has come from elsewhere.
Elsewhere:  what is made of it (`byvalue`, `rebuilt`, `kinds`).
"""

from __future__ import annotations

import threading
import uuid
import weakref
from typing import Any

registry = threading.RLock()
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_by_token: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
received: weakref.WeakSet[Any] = weakref.WeakSet()


def token_of(obj: Any) -> str:
    """By which a function or class is known again, wherever it is sent to."""
    with registry:
        try:
            token = _tokens.get(obj)
            if token is None:
                token = _tokens[obj] = uuid.uuid4().hex
                _by_token[token] = obj
        except TypeError:  # it can't be referred to weakly, so it has no identity to keep
            return ""
        return token


def known(token: str) -> Any:
    """What has this token here; None for nothing."""
    with registry:
        return _by_token.get(token)


def enter(obj: Any, token: str) -> None:
    """It has come, and keeps its token."""
    if not token:
        return
    with registry:
        _tokens[obj] = token
        _by_token[token] = obj
        received.add(obj)


def forget_all() -> None:
    """As if nothing had come or gone by value; for tests that play both sides in one process."""
    with registry:
        _tokens.clear()
        _by_token.clear()
        received.clear()
