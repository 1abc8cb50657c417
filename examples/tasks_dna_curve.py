"""The curve of a DNA molecule from its sequence, in two rounds: a chain of frames, cut into pieces.

    python examples/tasks_dna_curve.py                      A-tracts in phase with the helix, and out of phase
    python examples/tasks_dna_curve.py --repeats 2000

Each step from base pair to base pair turns the frame a little (twist), moves on by the rise, and, where two A follow
each other, tilts it by a wedge; all other steps are taken as straight. Round 1: each piece is followed from a frame of
its own. Then the pieces' ends are chained. Round 2: each piece is put in its place.

Wedges that recur with the turn of the helix add up, others cancel: A-tracts 10 or 11 bases apart make bent DNA, 15
apart they do not (H.-S. Koo, H.-M. Wu, D. M. Crothers, Nature 320 (1986) 501). The wedge of AA, 8.7 degrees:
L. Ulanovsky et al., Proc. Natl. Acad. Sci. USA 83 (1986) 862.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from open_grid import add_options, open_grid

from grid.tasks import Task, TaskSystem, run_system

RISE, TWIST, WEDGE = 3.38, 360 / 10.5, 8.7  # Angstrom, degrees, degrees
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Point = tuple[float, float, float]
Frame = tuple[Matrix, Point]
START: Frame = (((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.0, 0.0, 0.0))


def times(a: Matrix, b: Matrix) -> Matrix:
    return tuple(tuple(sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)) for i in range(3))  # type: ignore


def placed(frame: Frame, point: Point) -> Point:
    """A point of a piece, where the piece begins at `frame`."""
    turn, origin = frame
    return tuple(origin[i] + sum(turn[i][k] * point[k] for k in range(3)) for i in range(3))  # type: ignore


def chained(first: Frame, second: Frame) -> Frame:
    return times(first[0], second[0]), placed(first, second[1])


def step(pair: str) -> Frame:
    """From one base pair to the next."""
    twist, wedge = math.radians(TWIST), math.radians(WEDGE if pair in ("AA", "TT") else 0.0)
    roll: Matrix = ((1, 0, 0), (0, math.cos(wedge), -math.sin(wedge)), (0, math.sin(wedge), math.cos(wedge)))
    turn: Matrix = ((math.cos(twist), -math.sin(twist), 0), (math.sin(twist), math.cos(twist), 0), (0, 0, 1))
    return times(roll, turn), placed((roll, (0.0, 0.0, 0.0)), (0.0, 0.0, RISE))


def follow(sequence: str, frame: Frame = START) -> tuple[list[Point], Frame]:
    """The points of all bases but the first, and the frame at the end."""
    points = []
    for i in range(len(sequence) - 1):
        frame = chained(frame, step(sequence[i : i + 2]))
        points.append(frame[1])
    return points, frame


class Piece(Task):
    """Round 1: follow a piece from a frame of its own."""

    def __init__(self, number: int, sequence: str) -> None:
        self.number, self.sequence = number, sequence

    def __call__(self) -> tuple[list[Point], Frame]:
        return follow(self.sequence)

    def clean_up(self) -> None:
        del self.sequence


class Place(Task):
    """Round 2: put a piece where it belongs."""

    def __init__(self, number: int, frame: Frame, points: list[Point]) -> None:
        self.number, self.frame, self.points = number, frame, points

    def __call__(self) -> list[Point]:
        return [placed(self.frame, point) for point in self.points]

    def clean_up(self) -> None:
        del self.points


class Curve(TaskSystem):
    """The path of a sequence, from pieces of `size` steps."""

    def __init__(self, sequence: str, size: int = 200) -> None:
        self.sequence, self.size = sequence, size
        self.starts = range(0, len(sequence) - 1, size)
        self.pieces: dict[int, tuple[list[Point], Frame]] = {}
        self.places: dict[int, list[Point]] = {}
        self.expected_tasks = 2 * len(self.starts)

    def init_system(self, master) -> None:
        self.round = 0

    def generate_tasks(self, master) -> list[Task]:
        self.round += 1
        if self.round == 1:
            return [Piece(n, self.sequence[s : s + self.size + 1]) for n, s in enumerate(self.starts)]
        frame, tasks = START, []
        for number in range(len(self.starts)):
            points, end = self.pieces.pop(number)
            tasks.append(Place(number, frame, points))
            frame = chained(frame, end)
        return tasks

    def task_finished(self, master, task, result, error) -> None:
        if error is not None:
            raise error
        (self.pieces if isinstance(task, Piece) else self.places)[task.number] = result

    def is_complete(self, master) -> bool:
        return len(self.places) == len(self.starts)

    def gather_result(self, master):
        return [START[1]] + [point for n in range(len(self.starts)) for point in self.places[n]], None


def stretch(points: Sequence[Point]) -> float:
    """Distance of the ends over the length of the way: 1 for a straight molecule."""
    return math.dist(points[0], points[-1]) / (RISE * (len(points) - 1))


def tracts(repeats: int, *lengths: int) -> str:
    """A-tracts of six, so many bases from one to the next (in turn)."""
    return "".join("AAAAAA" + "CGCGCGCGC"[: length - 6] for _ in range(repeats) for length in lengths)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The curve of DNA molecules, in rounds.")
    parser.add_argument("--repeats", type=int, default=200)
    add_options(parser)
    options = parser.parse_args(arguments)
    molecules = {
        "no AA at all": "ACGT" * (5 * options.repeats),
        "A-tracts every 10.5 bases": tracts(options.repeats, 10, 11),
        "A-tracts every 15 bases": tracts(options.repeats, 15, 15),
    }
    with open_grid(options) as g:
        for name, sequence in molecules.items():
            points = run_system(Curve(sequence), g)
            print(f"{name:28} {len(sequence):7} bases, ends {stretch(points):.3f} of the length apart")
    return 0


if __name__ == "__main__":
    sys.exit(main())
