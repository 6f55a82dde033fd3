"""Readers of input formats: Parquet and Delta in place, CSV and JSON lines written once as Parquet."""
