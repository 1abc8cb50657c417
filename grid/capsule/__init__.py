"""Records what a result depends on (sources, versions, hosts, seeds), and checks whether it comes again.

    grid run --capsule fit.capsule.json fit.py --steps 100
    grid rerun fit.capsule.json

Lives here: `record` (running a script and writing down what it was), `compare` (two capsules; pure).
Elsewhere:  the commands (`cli/run.py`, `cli/rerun.py`).
"""
