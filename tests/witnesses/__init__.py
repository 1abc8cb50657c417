"""Other projects' own tests, run with a grid in the place of what they test.

Each module is a program: it makes a grid, puts it where the suite takes its executor, pool or backend, runs what was
chosen and prints one JSON line for each test: its name, "passed", "failed" or "skipped", the error, and the seconds.
`tests/edges/test_witnesses.py` runs them and holds the lists of what does not apply.
"""
