"""The options that say which grid an example runs on, and the grid that they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from grid import Grid, LocalGrid, SSHGrid


def add_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where to run; else where $GRID_HOSTS or hosts.yaml says, else on this machine")
    where.add_argument("--servers", type=int, metavar="N", help="N servers on this machine")
    where.add_argument("--hosts", metavar="FILE|NAMES", help="hosts reached by ssh: a hosts.yaml, or names with commas")
    where.add_argument("--group", help="only this group of the hosts file")


def open_grid(options: argparse.Namespace, fewest: int = 2) -> Grid:
    """A grid that starts in its `with` block and takes its servers down at the end of it.

    Args:
        fewest: Servers on this machine where nothing else is said, even if it has fewer cores.
    """
    if options.servers:
        return LocalGrid(options.servers)
    if not options.hosts:
        return Grid.auto(max(fewest, os.cpu_count() or 1))
    if Path(options.hosts).is_file():
        return SSHGrid.from_file(options.hosts, group=options.group)
    return SSHGrid(options.hosts.split(","))
