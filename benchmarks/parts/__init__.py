"""What the benchmarks share: timing by turns, and the limits that grid is held against."""
