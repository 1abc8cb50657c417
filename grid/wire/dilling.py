"""dill as it is needed here: also on a Python that is newer than it.

dill takes byte code apart field by field. Python 3.15 has one field less (`co_lnotab`, which nothing has read since
3.10), and dill up to 0.4.1 asks for it. Its table of kinds is open for such a case: our way to take byte code apart
goes there, and only where dill's own fails. What it writes is what dill writes, so that any dill reads it.

Lives here: `the_dill`, to be called where dill is about to write.
Elsewhere:  what is written by it (checkpoints of jobs, failed calls in files), code that travels (`byvalue`).
"""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Any

_FIELDS = (
    *("argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags", "code", "consts", "names"),
    *("varnames", "filename", "name", "qualname", "firstlineno", "linetable", "exceptiontable", "freevars", "cellvars"),
)


@lru_cache(maxsize=1)
def the_dill() -> Any:
    """The module `dill`, able to write byte code of this Python."""
    import dill

    try:
        dill.dumps(the_dill.__wrapped__.__code__)
    except AttributeError:
        dill.Pickler.dispatch[types.CodeType] = _save_code
    return dill


def _save_code(pickler: Any, code: types.CodeType) -> None:
    from dill._dill import _create_code

    values = (getattr(code, f"co_{name}") for name in _FIELDS)
    pickler.save_reduce(_create_code, (b"", *values), obj=code)
