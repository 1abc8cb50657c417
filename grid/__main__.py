"""`python -m grid`: the same as `grid`."""

from grid.cli.main import main

main(prog_name="grid")
