"""Tests of the kernels: laws, and oracles that were written independently."""
