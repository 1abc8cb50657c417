"""A file that is there whole, or not at all.

Lives here: `whole_file`. Elsewhere: whose contents it has (`commands/outcome.py`, `grids/fetching.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(path: Path, mode: int, changed_ns: int | None = None) -> Iterator[IO[bytes]]:
    """Write a file that has its name once the block has ended; where the block raises, nothing of it is left.

    Args:
        mode: Permission bits; its owner may read and write it in any case.
        changed_ns: When it was changed last, in ns since 1970; default: now.
    Raises:
        OSError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with half.open("wb") as file:
            yield file
        half.chmod(mode & 0o777 | 0o600)
        if changed_ns is not None:
            os.utime(half, ns=(changed_ns, changed_ns))
        half.replace(path)
    except BaseException:
        with suppress(OSError):
            half.unlink()
        raise
