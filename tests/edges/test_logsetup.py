"""The script's logging on servers: what it has set up holds there, where that is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging
import sys

from grid import LocalGrid


def say(_=None):
    logging.getLogger("model.part").debug("fine detail")
    logging.getLogger("model").info("progress")
    logging.getLogger("noisy").info("noise")
    logging.getLogger("alone").info("apart")
    logging.warning("careful")
    return 1


class Model:
    def run(self):
        return say()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="<{levelname:.1} {name}> {message}", style="{")
    logging.getLogger("model.part").setLevel(logging.DEBUG)
    logging.getLogger("noisy").disabled = True
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("alone: %(message)s"))
    logging.getLogger("alone").addHandler(handler)
    logging.getLogger("alone").propagate = False
    with LocalGrid(1, **eval(sys.argv[1])) as g:
        if sys.argv[2] == "pool":
            g.pool().map(say, [1])
        else:
            with g.acquire_service(g.publish(Model(), **eval(sys.argv[2]))) as model:
                model.run().get()
"""
FULL = ["<D model.part> fine detail", "<I model> progress", "alone: apart", "<W root> careful"]


@pytest.mark.row("M24")
@pytest.mark.parametrize(
    ("grid", "publish", "wanted"),
    [
        ("{'logging': True}", "pool", FULL),
        ("{}", "{'logging': True}", FULL),
        ("{'logging': True}", "{'logging': False}", ["WARNING:root:careful"]),
    ],
)
def test_levels_and_formats_of_the_script_hold_on_servers(
    grid: str, publish: str, wanted: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "logs.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, grid, publish], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line.partition("] ")[2] for line in done.stderr.splitlines() if line.startswith("[")] == wanted
