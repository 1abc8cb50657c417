"""What a grid is asked for when it is made, checked once.

Lives here: `CommonSettings` of every grid, `GridSettings` of those on our kernels; `takes` for their signatures.
Elsewhere:  what they mean for whom: see the classes that take them (`grid.py`), requests for pilots (`tending.py`).
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, TextIO, TypedDict, TypeVar

from typing_extensions import Self

from grid.arguments import check_fields, check_number, shown
from grid.hosts.host import did_you_mean
from grid.hosts.where import Where
from grid.keeping.places import check_name, span_s
from grid.limits import Limits
from grid.slots.needs import Needs

Path = str | os.PathLike[str]
F = TypeVar("F", bound=Callable[..., Any])


def takes(*values: type, more: bool = False) -> Callable[[F], F]:
    """`__init__` takes the fields of these values by `*args` and `**kw`: `help` and the reference are to name them.

    Args:
        more: There are others yet, which `**kw` stands for.
    """

    def named(init: F) -> F:
        stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        shown = [each for each in inspect.signature(init).parameters.values() if each.kind not in stars]
        known = {each.name for each in shown}
        for field in (field for value in values for field in fields(value) if field.name not in known):
            kind = inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
            shown.append(inspect.Parameter(field.name, kind, default=field.default, annotation=field.type))
        if more:
            shown.append(inspect.Parameter("kw", inspect.Parameter.VAR_KEYWORD))
        init.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        return init

    return named


class GridWords(TypedDict, total=False):
    """The arguments that `Grid` takes by name: those of `GridSettings`."""

    src_path: Path | None
    display: bool
    X11_delay: float
    debug: bool
    verbose: bool
    shared_temp_path: bool
    limits: Limits | None
    debug_out: TextIO | None
    name: str | None
    output: TextIO | None
    wait: str | int
    missing: str
    workdir: Path | None
    trace: Path | None
    keep_failures: Path | None
    reseed: bool | None
    logging: bool
    environment: Path | None
    needs: Needs | None
    where: str | None
    keep: str | float | None
    at_exit: str


@dataclass(frozen=True)
class CommonSettings:
    """See `AbstractGrid` for what each means. The first six may be given without their names, as ever."""

    src_path: Path | None = None
    display: bool = False
    X11_delay: float = 0.0
    debug: bool = False
    verbose: bool = False
    shared_temp_path: bool = False
    _: KW_ONLY
    limits: Limits | None = None
    debug_out: TextIO | None = None
    trace: Path | None = None
    keep_failures: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_number("X11_delay", self.X11_delay, 0, float)

    @classmethod
    def of(cls, owner: type, *args: Any, **kw: Any) -> Self:
        """Made of the arguments of a grid's class. Raises TypeError, ValueError, as if that had named them all."""
        taken = {each.name for each in fields(cls)}
        for name, value in kw.items():
            if name not in taken:
                raise TypeError(_not_taken(owner, name, value, taken))
        try:
            return cls(*args, **kw)
        except TypeError as exc:
            raise TypeError(str(exc).replace(cls.__name__, owner.__name__)) from None


@dataclass(frozen=True, kw_only=True)
class GridSettings(CommonSettings):
    """See `Grid` for what each means."""

    name: str | None = None
    output: TextIO | None = sys.stderr
    wait: str | int = "first"
    missing: str = "fail"
    workdir: Path | None = None
    reseed: bool | None = None
    logging: bool = False
    environment: Path | None = None
    needs: Needs | None = None
    where: str | None = None
    keep: str | float | None = None
    at_exit: str = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_word(self.missing)
        one_wait(self.wait)
        if self.where is not None:
            Where(self.where)
        if self.at_exit not in ("end", "detach"):
            raise ValueError(f"at_exit must be 'end' or 'detach', not {self.at_exit!r}")
        if self.keep is not None:
            span_s(self.keep)
            if self.name is None:
                raise ValueError("keep= needs a name, by which others attach: name='lab'")
            check_name(self.name)


def _not_taken(owner: type, name: str, value: object, taken: Iterable[str]) -> str:
    said = f"{owner.__name__}.__init__() got an unexpected keyword argument {name!r}"
    if name in {each.name for each in fields(Limits)}:
        return f"{said}. It is one of its limits: {owner.__name__}(..., limits=Limits({name}={shown(value)}))"
    own = inspect.signature(owner.__init__).parameters  # type: ignore[misc]
    return said + did_you_mean(name, {*taken, *own} - {"self", "args", "kw"})


def one_wait(wait: str | int) -> str | int:
    """For how many servers somebody waits, if it says that. Raises ValueError."""
    if wait in ("first", "all") or (isinstance(wait, int) and not isinstance(wait, bool) and wait > 0):
        return wait
    raise ValueError(f"wait must be 'first', 'all' or a number of servers, not {wait!r}")


def one_word(missing: str) -> str:
    """What `missing` says, if it says something. Raises ValueError."""
    if missing not in ("fail", "ok"):
        raise ValueError(f"missing must be 'fail' or 'ok', not {missing!r}")
    return missing
