"""The hosts of a grid that runs: a list to read, of hosts that stay as they are.

Lives here: that list, and what it says to who changes it in place.
Elsewhere:  hosts (`host`), how more are added (`grids/grid.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from grid.errors import GridError
from grid.hosts.host import Holds, Host


class FixedHosts(list[Host]):
    """What changes it in place would change no server, so it raises GridError; slices and sums are plain lists.

    Its hosts are held by the grid, so that a change of one raises as well.
    """

    def __init__(self, hosts: Iterable[Host], grid: Holds) -> None:
        super().__init__(hosts)
        for host in self:
            host.hold(grid)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise GridError(
            "the hosts of a grid that runs can't be changed in this list",
            hint="Call add_hosts(...) for more; for fewer, make another grid",
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (list(self),)
