"""Notebooks, with a real IPython kernel: what cells define travels, what they show is HTML, Ctrl-C ends no server."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.services import html

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROOT = Path(__file__).parents[2]

START = """
from grid import LocalGrid

class Model:
    scale = 2
    def energy(self, x): return self.scale * x
    def fail(self): raise ValueError("<b>bold</b>")
    def point(self, x): return Point(x)

class Point:
    def __init__(self, x): self.x = x

def double(x): return helper(x)
def helper(x): return factor * x
factor = 2

g = LocalGrid(2, output=None)
sid = g.publish(Model())
proxy = g.acquire_service(sid)
pool = g.pool()
"""

CELLS = [
    START,
    "print(proxy.energy(3).get(), list(g.map(sid, 'energy', range(3))), isinstance(proxy.point(1).get(), Point))",
    "print(pool.map(double, [1, 2]))",
    "def helper(x): return 100 * factor * x",
    "print(pool.map(double, [1, 2]))",
    "factor = 3",
    "print(pool.map(double, [1, 2]), g.executor().submit(lambda x: helper(x), 1).result())",
    # the class anew, as one does
    "class Model:\n    def energy(self, x): return -x",
    "with g.acquire_service(g.publish(Model())) as other: print(other.energy(3).get(), proxy.energy(3).get())",
    "print(await proxy.energy(5), await g.map(sid, 'energy', range(3)))",
    "g",
    "g.servers",
    "proxy",
    "g.queues[sid]",
    "result = proxy.fail(); result.exception(); result",
    "result = proxy.energy('<i>'); result.get(); result",
    "values = g.map(sid, 'energy', range(3)); values.get(); values",
    "from grid import GridService\nGridService(g, sid, {'scale': '<u>'})",
    "pool.terminate(); g.terminate()",
]


def execute(cells: list[str], where: Path) -> list[Any]:
    """Run a notebook with a kernel of its own; the outputs of each cell."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(where)}}
    client = nbclient.NotebookClient(book, timeout=60, kernel_name="python3", resources=place)
    client.execute()
    return [cell.outputs for cell in book.cells]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing of the user's own Jupyter and IPython; the kernel finds the package."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = loops()
        yield tmp_path
        for loop in loops():
            if not any(loop is other for other in before):  # the libraries leave theirs open
                loop.close()


def loops() -> list[asyncio.AbstractEventLoop]:
    return [thing for thing in gc.get_objects() if isinstance(thing, asyncio.AbstractEventLoop)]


@pytest.mark.row("D03", "G45", "G47")
def test_what_cells_define_travels_and_what_they_show_is_html(quiet: Path) -> None:
    outputs = execute(CELLS, quiet)
    printed = ["".join(output["text"] for output in each if output["output_type"] == "stream") for each in outputs]
    assert printed[1] == "6 [0, 2, 4] True\n"
    assert printed[2] == "[2, 4]\n"
    assert printed[4] == "[200, 400]\n", "a function that was bound anew is the one that is called"
    assert printed[6] == "[300, 600] 300\n"
    assert printed[8] == "-3 6\n"
    assert printed[9] == "10 [0, 2, 4]\n"
    shown = [output["data"]["text/html"] for each in outputs[10:18] for output in each]
    assert len(shown) == 8
    for text in shown:
        assert "<b>" in text and "<b>bold" not in text and "<i>" not in text and "<u>" not in text
    grid, servers, proxy, queue, failed, value, values, front = shown
    assert "LocalGrid" in grid and "Model.0" in grid and "localhost" in grid
    assert servers.count("Model.0/") == 2 and "Runner." in servers
    assert "acquired" in proxy and "Model.0/" in queue
    assert "ValueError: &lt;b&gt;bold" in failed and "&lt;i&gt;" in value
    assert 'value="3" max="3"' in values and "&lt;u&gt;" in front


@pytest.mark.row("G45", "G47", "G55")
def test_ctrl_c_ends_the_wait_and_the_grid_goes_on(quiet: Path) -> None:
    """The cell is interrupted, not its server; what a map has not begun is withdrawn; the next cell works."""
    manager, client = jupyter.manager.start_new_kernel(kernel_name="python3", cwd=str(quiet))
    try:

        def run(code: str, status: str = "ok") -> Any:
            reply = client.execute_interactive(code, timeout=60, output_hook=lambda message: None)["content"]
            assert reply["status"] == status, reply
            return reply

        def interrupted(code: str, begun: Path) -> None:
            asked = client.execute(code, stop_on_error=False)  # or the kernel drops what comes right after
            wait_for(begun)
            manager.interrupt_kernel()
            while True:
                reply = client.get_shell_msg(timeout=60)
                if reply["parent_header"]["msg_id"] == asked:
                    break
            assert reply["content"]["status"] == "error" and reply["content"]["ename"] == "KeyboardInterrupt", reply

        run(
            "import os, time\nfrom grid import LocalGrid\n"
            "def stand(name):\n"
            "    open(f'{name}.begun', 'w').close()\n"
            "    while not os.path.exists(os.path.join(os.path.dirname(name), 'gate')): time.sleep(0.01)\n"
            "    return name\n"
            "class Model:\n    def stand(self, name): return stand(name)\n"
            "g = LocalGrid(1, output=None); sid = g.publish(Model()); proxy = g.acquire_service(sid)\n"
            f"def there(name): return stand({str(quiet)!r} + '/' + name)"
        )
        run(f"result = proxy.stand({str(quiet / 'call')!r})")
        wait_for(quiet / "call.begun")
        interrupted(f"open({str(quiet / 'waits')!r}, 'w').close(); result.get()", quiet / "waits")
        run("assert not result.done() and not g.ishalted()")
        interrupted(
            "with g.pool() as pool: pool.map(there, [f'map{n}' for n in range(4)], chunksize=1)", quiet / "map0.begun"
        )
        (quiet / "gate").touch()
        run("assert result.get(30).endswith('call')")
        run("with g.pool() as pool: assert pool.map(abs, [-1]) == [1]")
        assert not (quiet / "map3.begun").exists(), "what had not begun was withdrawn"
        run("g.terminate()")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def test_pieces_of_html_are_escaped_and_bounded() -> None:
    assert html.text("<script>") == "&lt;script&gt;"
    assert len(html.text("x" * 10_000)) == 400
    status = {
        "grid": "Grid",
        "hosts": ["<h>"],
        "failures": {"<f>": "<why>"},
        "services": {"<s>": {"free": 1, "acquired": 0, "starting": 0, "waiting": 0, "servers": []}},
    }
    shown = html.grid(status)
    for raw in ("<h>", "<f>", "<why>", "<s>"):
        assert raw not in shown and raw.replace("<", "&lt;").replace(">", "&gt;") in shown
    assert "max" not in html.bar("map", 3, None) and "3 of ?" in html.bar("map", 3, None)
