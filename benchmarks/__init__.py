"""How fast, and against what: one question per file, grid and its limit side by side in one run.

These machines are shared and noisy: what counts is the ratio. Run one with `python -m benchmarks.small_call`, or all of
them with `scripts/bench`.
"""
