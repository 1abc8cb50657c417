"""What a run is known by: its command, the contents of its inputs, and the versions that were declared.

Lives here: the key; pure. Elsewhere: which keys are done (`many`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from grid.commands.template import CommandLine

_FORM = 1
"""Is in each key: another way to run commands counts another number."""


def key_of(
    line: CommandLine,
    hashes: Mapping[str, str],
    *,
    versions: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """64 hexadecimal digits: equal for equal runs, whatever the inputs are called here.

    Args:
        hashes: Place of each input in the run's directory -> SHA-256 of its contents.
        stdin: Which of the inputs its standard input is.
        versions: Of programs, as the user declares them; another version is another run.
    """
    facts = [
        _FORM,
        list(line.words),
        line.text,
        sorted(hashes.items()),
        list(line.outs),
        sorted((versions or {}).items()),
        sorted((variables or {}).items()),
        stdin,
    ]
    return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()
