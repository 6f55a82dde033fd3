"""The work of benchmarks/etl.yaml by DuckDB.

    python -m treadle.benchmarks.peers.etl_duckdb DATA OUT [MEMORY_LIMIT]

DATA is what `treadle make-data transactions` wrote; the features go to OUT as zstd Parquet. A limit such as
2GB makes DuckDB spill into OUT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb

from treadle.benchmarks.peers.etl_result import described

IMPUTED = ("amount", "log_amount", "amount_ratio", "customer_std", "sum_7d", "age")
KEPT = ("credit_limit", "night", "customer_mean", "customer_max", "customer_count", "customer_merchants")
LEVELS = ("channel", "segment")
PREPARED = """
create table prepared as
with per_customer as (
    select customer_id, avg(amount) as customer_mean, stddev_samp(amount) as customer_std,
        max(amount) as customer_max, count(*) as customer_count, count(distinct merchant) as customer_merchants
    from transactions group by customer_id
)
select transaction_id, amount, channel, segment, age, credit_limit, ln(1 + amount) as log_amount,
    case when hour(ts) < 6 then 1 else 0 end as night,
    customer_mean, customer_std, customer_max, customer_count, customer_merchants,
    sum(amount) over (
        partition by customer_id order by ts
        range between interval '7 days' - interval '1 microsecond' preceding and current row
    ) as sum_7d,
    amount / customer_mean as amount_ratio
from transactions left join customers using (customer_id) left join per_customer using (customer_id)
"""


def main(data: Path, out: Path, memory: str | None = None) -> dict[str, float]:
    """Runs the work in a database file under `out`, where a limit makes it spill."""
    out.mkdir(parents=True, exist_ok=True)
    database = out / "work.duckdb"
    with duckdb.connect(str(database), config={"threads": 2, **({"memory_limit": memory} if memory else {})}) as db:
        for name in ("transactions", "customers"):
            db.sql(f"create view {name} as from read_parquet('{data}/{name}/*.parquet')")
        db.sql("set preserve_insertion_order = false")
        db.execute(PREPARED)
        medians = db.execute(f"select {', '.join(f'median({name})' for name in IMPUTED)} from prepared").fetchone()
        assert medians is not None
        columns = [f"coalesce({n}, {value!r})::float as {n}" for n, value in zip(IMPUTED, medians, strict=True)]
        columns += [f"{name}::float as {name}" for name in KEPT]
        for name in LEVELS:
            found = db.execute(f"select distinct {name} from prepared where {name} is not null order by 1").fetchall()
            columns += [f"({name} = '{level}')::int::float as \"{name}={level}\"" for (level,) in found]
        features = f"select transaction_id, {', '.join(columns)} from prepared"
        db.execute(f"copy ({features}) to '{out}/features.parquet' (compression zstd, row_group_size 131072)")
    database.unlink()
    return described(out)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
