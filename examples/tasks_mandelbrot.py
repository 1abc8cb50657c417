"""The Mandelbrot set, tile by tile, as a PNG; and its area, by counting pixels.

    python examples/tasks_mandelbrot.py --size 600 --out mandelbrot.png
    python examples/tasks_mandelbrot.py --hosts node1,node2

Tiles inside of the set take hundreds of times longer than those outside: whoever is free takes the next.
Known value of the area: 1.50659177 +- 0.00000008 (V. Mitrofanov, 2012; by counting pixels, as here).
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from open_grid import add_options, open_grid

from grid.tasks import Task, TaskSystem, run_system

LEFT, TOP, WIDTH = -2.0, 1.25, 2.5  # a square with all of the set


class Tile(Task):
    """Steps until each pixel escapes (0: it does not within `deepest`), for some rows; packed as 16-bit numbers."""

    def __init__(self, first: int, rows: int, size: int, deepest: int) -> None:
        self.first, self.rows, self.size, self.deepest = first, rows, size, deepest

    def __call__(self) -> bytes:
        step = WIDTH / self.size
        counts = [
            escape(complex(LEFT + (x + 0.5) * step, TOP - (y + 0.5) * step), self.deepest)
            for y in range(self.first, self.first + self.rows)
            for x in range(self.size)
        ]
        return struct.pack(f"<{len(counts)}H", *counts)


def escape(c: complex, deepest: int) -> int:
    """After how many steps |z| > 2; 0 if it never is."""
    q = (c.real - 0.25) ** 2 + c.imag**2
    if q * (q + c.real - 0.25) < c.imag**2 / 4 or abs(c + 1) < 0.25:
        return 0  # in the main heart, or in the disc to its left
    z = 0j
    for step in range(1, deepest + 1):
        z = z * z + c
        if z.real * z.real + z.imag * z.imag > 4:
            return step
    return 0


class Mandelbrot(TaskSystem):
    """Gathers the tiles of an image of `size` x `size` pixels."""

    def __init__(self, size: int, deepest: int, rows: int = 4) -> None:
        self.size, self.deepest, self.rows = size, deepest, rows
        self.tiles: dict[int, bytes] = {}
        self.expected_tasks = -(-size // rows)

    def init_system(self, master) -> None:
        pass

    def generate_tasks(self, master) -> list[Task]:
        starts = range(0, self.size, self.rows)
        return [Tile(y, min(self.rows, self.size - y), self.size, self.deepest) for y in starts]

    def task_finished(self, master, task, result, error) -> None:
        if error is not None:
            raise error
        self.tiles[task.first] = result

    def is_complete(self, master) -> bool:
        return len(self.tiles) == self.expected_tasks

    def gather_result(self, master):
        data = b"".join(self.tiles[y] for y in sorted(self.tiles))
        return list(struct.unpack(f"<{self.size**2}H", data)), None


def area(counts: Sequence[int], size: int) -> float:
    """Of the pixels that never escape."""
    return sum(count == 0 for count in counts) * (WIDTH / size) ** 2


def write_png(path: Path, counts: Sequence[int], size: int) -> None:
    """Write escape times as an 8-bit RGB image. Source: PNG specification, W3C, sections 5 and 11."""
    colours = [bytes((0, 0, 0))] + [bytes((9 * n % 256, 5 * n % 256, 80 + 13 * n % 176)) for n in range(1, 65536)]
    rows = (b"".join(colours[count] for count in counts[y * size : (y + 1) * size]) for y in range(size))
    pixels = b"".join(b"\0" + row for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An image of the Mandelbrot set.")
    parser.add_argument("--size", type=int, default=400, help="pixels of a side (default: 400)")
    parser.add_argument("--deepest", type=int, default=1000, help="steps until a point counts as inside")
    parser.add_argument("--out", type=Path, default=Path("mandelbrot.png"))
    add_options(parser)
    options = parser.parse_args(arguments)
    with open_grid(options) as g:
        counts = run_system(Mandelbrot(options.size, options.deepest), g)
    write_png(options.out, counts, options.size)
    print(f"wrote {options.out}; area {area(counts, options.size):.4f}, known: 1.5066")
    return 0


if __name__ == "__main__":
    sys.exit(main())
