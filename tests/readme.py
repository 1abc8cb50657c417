"""The scripts of the README's "close the laptop", as they stand there, with a test's own hosts in place of the names.

Lives here: cutting them out. Elsewhere: running them over ssh (`edges/test_sessions_ssh.py`), Slurm (`cluster/`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def closing_the_laptop(maker: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The first script, which is killed once its calls are made, and the second, which prints what they gave.

    Args:
        maker: The class of grid with `keep=`: `SSHGrid` or `BatchGrid`.
        names: What to write in place of the README's names of hosts.
    """
    text = README.read_text(encoding="utf-8")
    for name, ours in names.items():
        text = text.replace(f'"{name}"', f'"{ours}"')
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Oscillator" in block
    )
    made = re.findall(rf'{maker}\([^`\n]*keep="12h"\)', text)
    attached = re.findall(r'g = (Grid\.attach\("lab"\))', text)
    assert len(made) == len(attached) == 1, "the README says it otherwise"
    head, _, body = program.partition("    with LocalGrid(2) as g:\n")
    body = re.sub(r"\n *print\(.*", "", textwrap.indent(textwrap.dedent(body), "    "))
    head = head.replace("import LocalGrid", f"import {maker}")
    first = f"{head}    g = {made[0]}\n{body.rstrip()}\n    import os\n    os.kill(os.getpid(), 9)\n"
    second = (
        "from grid import Grid\n"
        f"g = {attached[0]}\n"
        "print(sorted((result.method, result.get(60)) for result in g.results()))\n"
        "g.terminate()\n"
    )
    return first, second


SAYS = "[('energy', 6.0), ('set_stiffness', None)]\n"
"""What the second script prints."""
