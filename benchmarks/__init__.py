"""Benchmarks, and the same work done by other tools: `treadle bench`."""
