"""Which function is which, and how long servers keep one.

A plain function is known by itself, as long as its code is what it was: a cell of a notebook may bind names anew that
it uses, a module may be edited. Other callables (bound methods, partials, closures over data, instances with
`__call__`) may change between two maps, so they are known by what they look like pickled: one that changed is shipped
again, and what it was before is dropped on the servers.

Whatever is kept goes when the function goes: an entry holds the function itself only while somebody uses it, so data
that a callable carries is freed, here and on the servers, when the caller's last reference to it is gone.

Lives here: names, identity, use counts, which entries are to be dropped.
Elsewhere:  sending and dropping them (`crew`), what identifies code (`wire/edited`).
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import types
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grid.wire import codec
from grid.wire.edited import Mark

if TYPE_CHECKING:
    from grid.services.result import Result
    from grid.services.server import Server

KEPT = 32
"""Functions that servers keep although nothing uses them; the one that was not used for longest is dropped."""
KEPT_BYTES = 64 << 20
"""The data that they carry may take this much memory on each server, in all."""

_ATOMS = (int, float, complex, str, bytes, bool, type(None), types.ModuleType, types.BuiltinFunctionType, type)


class Function:
    """A function that servers can have. `uses`: maps and calls that need it now."""

    def __init__(self, name: str, function: Callable[..., Any], size: int = 0) -> None:
        self.name, self.size = name, size
        self.function: Callable[..., Any] | None = function
        self.title = str(getattr(function, "__name__", type(function).__name__))
        self.uses = 0
        self.item_s: float | None = None
        """About how long an item of a map takes; the next map begins with that."""
        self.tried = 1
        """Items of the largest pack that came back."""
        self.run_s: float | None = None
        """How long an item runs on its server, without the way there and back."""
        self.mark = Mark(function)
        self.on: weakref.WeakKeyDictionary[Server, Result] = weakref.WeakKeyDictionary()

    def ran(self, items: int, seconds: float) -> None:
        """A pack of this many items ran for this time."""
        each = seconds / max(1, items)
        self.run_s = each if self.run_s is None else 0.5 * self.run_s + 0.5 * each

    def is_stale(self, function: Callable[..., Any] | None) -> bool:
        """Whether its code was edited: a name of `__main__` bound anew (a cell of a notebook), a module reloaded.

        Args:
            function: Itself, where it is known by itself: variables of its closure may be bound anew.
        """
        return self.mark.is_stale(function)


class _Seen:
    """A callable that carries data, when it was last looked at: under which key it was known then."""

    __slots__ = ("anchor", "at", "key")

    def __init__(self, anchor: weakref.ref[Any]) -> None:
        self.anchor = anchor
        self.key: object = None
        self.at = 0.0


class Functions:
    """All that one crew's servers have or had; see the module. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names = (f"f{number}" for number in itertools.count())
        self._known: OrderedDict[object, Function] = OrderedDict()
        self._seen: dict[object, _Seen] = {}
        self._shares: Counter[object] = Counter()
        self._dropped: list[Function] = []
        self._plain: dict[object, weakref.ref[Any]] = {}
        self._dead: deque[tuple[dict[object, Any], object]] = deque()  # destructors run under any lock: they leave word

    def is_new(self, function: Callable[..., Any]) -> bool:
        """Whether it carries data and was never seen before: needed once, perhaps. From now on it was seen."""
        if _is_plain(function):
            return False
        with self._lock:
            return self._look(function) is None

    def take(self, function: Callable[..., Any], since: float | None = None) -> tuple[Function, list[Function]]:
        """The entry of a function, in use until `give_back`, and those that are to be dropped.

        Args:
            since: What it looked like then or later (monotonic time) will do; None: as it is now.
        Raises:
            SerialisationError: It can't travel; the message names the part.
        """
        if _is_plain(function):
            with self._lock:
                return self._take_plain(function), self._owed()
        with self._lock:
            seen = self._look(function) or self._look(function)  # the first look makes it seen
            if seen is not None and since is not None and seen.at >= since and seen.key in self._known:
                return self._use(seen.key, function), self._owed()
        at = time.monotonic()
        key, size = _digest(function)
        with self._lock:
            if seen is not None:
                if seen.key != key:
                    self._shares[key] += 1
                    self._unshare(seen.key)
                seen.key, seen.at = key, at
            return self._use(key, function, size), self._owed()

    def share(self, function: Function) -> None:
        """One more use of what is in use."""
        with self._lock:
            assert function.uses > 0, function.name
            function.uses += 1

    def give_back(self, function: Function) -> list[Function]:
        """One use of it has ended; returns the entries to drop."""
        with self._lock:
            function.uses -= 1
            if not function.uses:
                function.function = None
                if not any(known is function for known in self._known.values()):
                    self._dropped.append(function)
                self._thin_out()
            return self._owed()

    def bury(self) -> list[Function]:
        """Entries of functions that nobody can call any more."""
        with self._lock:
            return self._owed()

    def on_death(self, leave_word: Callable[[], None]) -> None:
        """`leave_word` is called when a function has died: in any thread, under any lock."""
        self._leave_word = leave_word

    _leave_word: Callable[[], None] | None = None

    # -- with the lock held ----------------------------------------------------------------------------------------

    def _take_plain(self, function: Callable[..., Any]) -> Function:
        key = ("plain", id(function))
        ref = self._plain.get(key)
        if ref is None or ref() is not function:
            self._let_go(key)
            self._plain[key] = weakref.ref(function, self._mourner(self._plain, key))
        return self._use(key, function)

    def _use(self, key: object, function: Callable[..., Any], size: int = 0) -> Function:
        known = self._known.get(key)
        if known is not None and known.is_stale(function if isinstance(key, tuple) else None):
            size = size or known.size
            self._let_go(key)
            known = None
        if known is None:
            known = self._known[key] = Function(next(self._names), function, size)
        self._known.move_to_end(key)
        known.uses += 1
        known.function = function
        self._thin_out()
        return known

    def _look(self, function: Callable[..., Any]) -> _Seen | None:
        """The entry of a callable that carries data; None the first time, which records it."""
        anchor, key = _anchor(function)
        seen = self._seen.get(key)
        if seen is not None:
            if seen.anchor() is anchor:
                return seen
            self._unshare(seen.key)
        try:
            self._seen[key] = _Seen(weakref.ref(anchor, self._mourner(self._seen, key)))
        except TypeError:  # nobody will tell of its end: it is dropped when others need the room
            pass
        return None

    def _mourner(self, table: dict[object, Any], key: object) -> Callable[[Any], None]:
        def note(_: object) -> None:
            self._dead.append((table, key))
            if self._leave_word is not None:
                self._leave_word()

        return note

    def _owed(self) -> list[Function]:
        """The entries that servers are to drop, since the last question."""
        while self._dead:
            table, key = self._dead.popleft()
            entry = table.get(key)
            ref = entry.anchor if isinstance(entry, _Seen) else entry
            if ref is None or ref() is not None:
                continue  # another one has its place, and its id
            del table[key]
            if isinstance(entry, _Seen):
                self._unshare(entry.key)
            else:
                self._let_go(key)
        dropped, self._dropped = self._dropped, []
        return dropped

    def _unshare(self, key: object) -> None:
        """A callable that looked so does not any more; equal ones are one entry, which goes with the last."""
        if key is None:
            return
        self._shares[key] -= 1
        if self._shares[key] <= 0:
            del self._shares[key]
            self._let_go(key)

    def _let_go(self, key: object) -> None:
        """An entry that nobody will ask for again. Its present users continue with it, and drop it then."""
        known = self._known.pop(key, None)
        if known is not None and not known.uses:
            self._dropped.append(known)

    def _thin_out(self) -> None:
        idle = [(key, known) for key, known in self._known.items() if not known.uses]
        carried = sum(known.size for _, known in idle)
        spare = len(self._known) - KEPT
        for key, known in idle:
            if spare <= 0 and carried <= KEPT_BYTES:
                break
            spare, carried = spare - 1, carried - known.size
            self._dropped.append(self._known.pop(key))


def _is_plain(function: Callable[..., Any]) -> bool:
    """Whether it is known by itself: nothing that it carries can change."""
    if isinstance(function, type):
        return True
    if isinstance(function, types.FunctionType):
        held = [*_cells(function), *(function.__defaults__ or ()), *function.__dict__.values()]
        return all(map(_is_fixed, [*held, *(function.__kwdefaults__ or {}).values()]))
    if isinstance(function, types.BuiltinFunctionType):
        return function.__self__ is None or isinstance(function.__self__, types.ModuleType)
    return False


def _is_fixed(value: object, depth: int = 2) -> bool:
    if isinstance(value, tuple) and depth:
        return len(value) <= 100 and all(_is_fixed(each, depth - 1) for each in value)
    return isinstance(value, _ATOMS) or (isinstance(value, types.FunctionType) and depth > 0 and _is_plain(value))


def _cells(function: types.FunctionType) -> list[object]:
    found: list[object] = []
    for cell in function.__closure__ or ():
        try:
            if cell.cell_contents is not function:  # one that calls itself
                found.append(cell.cell_contents)
        except ValueError:  # not bound yet
            found.append(cell)
    return found


def _anchor(function: Callable[..., Any]) -> tuple[object, object]:
    """Whose end is that of the callable, and a key while that lives: a bound method is made anew at each look."""
    if isinstance(function, types.MethodType):
        return function.__self__, (id(function.__self__), id(function.__func__))
    return function, id(function)


def _digest(function: Callable[..., Any]) -> tuple[object, int]:
    dumped = codec.dumps(function, f"the function {function!r:.200}")
    digest = hashlib.blake2b(dumped.data, digest_size=20)
    for buffer in dumped.buffers:
        digest.update(buffer)
    return digest.digest(), dumped.nbytes
