"""What Polars' sides do alike with the transactions of `treadle make-data`."""

from __future__ import annotations

import polars as pl


def per_customer(transactions: pl.LazyFrame) -> pl.LazyFrame:
    """One row a customer: mean, deviation, largest and number of the amounts, and different merchants."""
    return transactions.group_by("customer_id").agg(
        customer_mean=pl.col("amount").mean(),
        customer_std=pl.col("amount").std(),
        customer_max=pl.col("amount").max(),
        customer_count=pl.len(),
        customer_merchants=pl.col("merchant").n_unique(),
    )
