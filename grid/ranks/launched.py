"""The client's side of `grid run --ranks`: the script and its modules go to the hosts, its status comes back.

Lives here: `run_script`. Elsewhere: what runs there (`scripts`), ranks (`launch`), the command (`cli/run.py`).
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

from grid.errors import RankError
from grid.ranks.launch import Ranks, RanksGround
from grid.ranks.rank import RankProcess
from grid.ranks.scripts import ScriptMain
from grid.staging.imports import ModuleNeeds, find_needs

_PROVIDED = ("grid", "mpi4py")


def run_script(ground: RanksGround, stage: Any, path: str, args: Sequence[str], n: int) -> int:
    """Run a script as `n` ranks; its exit status.

    Args:
        stage: Sends files to a host: `stage(home, files)`.
    Raises:
        RankLost, RankFailed: As `Ranks.get`; a status of the script's own is no error here.
    """
    with open(path, encoding="utf-8") as file:
        source = file.read()
    needs = _needs_of(path)

    def before(homes: Sequence[Any]) -> None:
        for home in homes:
            if not home.local:
                if needs.files:
                    stage(home, needs.files)
                home.needs.have_modules(set(needs.installed))

    main = ScriptMain(source, os.path.abspath(path), args)
    ranks = Ranks(ground, RankProcess(main), n, before=before)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            ranks.get()
        for each in told:
            print(f"grid: {each.message}", file=sys.stderr)
    except RankError as exc:
        status = getattr(exc.__cause__, "status", None)
        if status is not None:
            return int(status)
        raise
    return 0


def _needs_of(path: str) -> ModuleNeeds:
    """The modules that a script imports, itself or by those of its own."""
    module = types.ModuleType("__main__")
    module.__file__ = os.path.abspath(path)
    return find_needs([module], _PROVIDED)
