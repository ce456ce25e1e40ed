"""Benchmarks: what Storyloop itself costs, measured on the machine at hand. `python -m benchmarks` prints a table."""
