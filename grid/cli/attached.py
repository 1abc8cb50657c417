"""What an interpreter does at its beginning that `grid attach` has started: see `sessions.py`."""

from grid.grids.grid import Grid

g = Grid.auto()
print(f"g is {g!r}: services {', '.join(g.servers) or 'none'}, {len(g.results())} results. g.terminate() ends it.")
