"""Numerics on arrays only: hashing, moments, sketches, metrics, forests and their explanations."""
