"""How the sources of packages stand: a directory by its files, a branch of a git repository by its commit.

Each is looked at once: the environment's key, the wheel's key and the build mean the same commit, also where somebody
pushes in between.

Lives here: `SourceStates`.
Elsewhere:  what follows from a state (`fetching.py`), the state of a directory (`installed.py`).
"""

from __future__ import annotations

import os
import re
import subprocess
import threading

from grid.environments.installed import tree_state

GIT_ADDRESS = re.compile(r"\bgit\+([a-z+]+://[^/\s]*/[^@\s#;]*)(?:@([^\s#;]+))?")
"""An address of a repository, with what is wanted of it. An `@` before its path is of a user's name."""
_COMMIT = re.compile("[0-9a-f]{40}")
_ASK_S = 60.0


class SourceStates:
    """States as they were at the first look. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commits: dict[tuple[str, str], str] = {}  # repository and branch, tag or commit -> commit

    def of(self, source: str) -> str:
        """The same as long as a wheel that is made of it is the same."""
        path = re.split(r"[\[;]", source)[0].strip()
        if os.path.isdir(path):
            return tree_state(path)
        if GIT_ADDRESS.search(source):
            return f"{source} {self._commit(source)}"
        return f"{source} {os.stat(path).st_mtime_ns}" if os.path.exists(path) else source

    def pinned(self, source: str) -> str:
        """The source with the commit that was found in place of a branch or a tag; others as they are."""
        commit = self._commit(source)
        if not commit:
            return source
        return GIT_ADDRESS.sub(lambda found: f"git+{found[1]}@{commit}", source, count=1)

    def _commit(self, source: str) -> str:
        found = GIT_ADDRESS.search(source)
        if found is None:
            return ""
        repository, name = found[1], found[2] or "HEAD"
        with self._lock:
            if (repository, name) not in self._commits:
                self._commits[repository, name] = _look_up(repository, name)
            return self._commits[repository, name]


def _look_up(repository: str, name: str) -> str:
    """The commit that a branch or tag of a repository is at just now; empty if git does not say so."""
    if _COMMIT.fullmatch(name):
        return name
    try:
        command = ["git", "ls-remote", "--", repository, name, f"{name}^{{}}"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # building it fails as well, and says why
    lines = done.stdout.splitlines()
    return next((line.split()[0] for line in reversed(lines) if line), "")
