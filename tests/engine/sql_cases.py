"""Columns with edge values and expressions over them, for the tests of SQL expressions."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

Rows = dict[str, list[Any]]

TYPES = {
    "i": ("Int64", pa.int64()),
    "j": ("Int64", pa.int64()),
    "x": ("float64", pa.float64()),
    "y": ("float64", pa.float64()),
    "p": ("boolean", pa.bool_()),
    "q": ("boolean", pa.bool_()),
    "s": ("str", pa.string()),
    "u": ("str", pa.string()),
    "n": ("str", pa.string()),
    "ts": ("datetime64[us]", pa.timestamp("us")),
    "te": ("datetime64[us]", pa.timestamp("us")),
}

VALUES: dict[str, list[Any]] = {
    "i": [None, 0, 1, -1, 2, 3, -7, 12, 1250, -1234],
    "x": [None, 0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 0.1, 3.75, -7.5, 1e16, 1e-5, 123456.125],
    "p": [None, True, False],
    "s": [
        None,
        "",
        "a",
        "A",
        "ab",
        "abc",
        " a ",
        "\ta ",
        "a%b",
        "a_b",
        "a\nb",
        "a\n",
        "xax",
        "héllo",
        "ÀÉ",
        "a.*b\\",
    ],
    "n": [
        None,
        "",
        "0",
        "12",
        " 12 ",
        "-5",
        "+3",
        "007",
        "1.5",
        "2.5",
        "-2.5",
        "1e3",
        ".5",
        "abc",
        "inf",
        "1.5.5",
        "9007199254740993",
        "123456789012345678",
        "1e30",
        "true",
        "F",
        "Yes",
        "n",
        " true",
        "0.1",
        "2020-02-29",
        "2020-02-30",
        "2021-1-5",
        "2020-01-01 10:00",
        "2020-01-01T10:11:12.5",
        "2020",
        "20200101",
        "2020-01-01 10:11:12.123456",
        "9999-12-31 23:59:59",
        "0001-01-01",
    ],
    "ts": [
        None,
        dt.datetime(2024, 1, 7, 10, 11, 12, 500000),
        dt.datetime(2024, 2, 29),
        dt.datetime(2023, 12, 31, 23, 59, 59, 999999),
        dt.datetime(1969, 12, 31, 22, 30),
        dt.datetime(1970, 1, 1),
        dt.datetime(2024, 3, 31, 0, 30),
        dt.datetime(2024, 4, 1),
        dt.datetime(2400, 7, 1, 12),
        dt.datetime(1850, 10, 5, 1, 2, 3, 4),
    ],
}
LIKE = dict(zip(TYPES, ["i", "i", "x", "x", "p", "p", "s", "s", "n", "ts", "ts"], strict=True))
POOLS = {name: VALUES[like] for name, like in LIKE.items()}


def make_frame(data: Rows) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(data[name], dtype=TYPES[name][0]) for name in data})


def edge_rows(size: int = 90) -> Rows:
    """Every value of every pool, in combinations that differ from column to column."""
    shuffled = np.random.default_rng(0)
    cycles = {name: (pool * (size // len(pool) + 1))[:size] for name, pool in POOLS.items()}
    return {name: [cycle[k] for k in shuffled.permutation(size)] for name, cycle in cycles.items()}


def plain(series: pd.Series) -> list[Any]:
    return [None if pd.isna(v) else v for v in series.tolist()]


EXPRESSIONS = """
i + j
i - 2 * j + 1
i * x
x / y
i / j
1 / i
i % j
x % y
-7 % i
i % -3
-x
+x
-i
- -i
-(i + j) * 2
i + CAST(NULL AS BIGINT)
i = j
i <> x
i != j
x < y
x <= 1
1 >= i
i > 0.5
s = 'a'
s < u
s >= 'ab'
p = q
p <> TRUE
ts = te
ts < te
ts <> te
ts >= '2024-01-07'
'2024-01-07 10:11:12.5' = ts
ts < TIMESTAMP '2000-01-01 00:00:00'
ts >= DATE '2024-02-29'
p AND q
p OR q
NOT p
NOT p AND q OR p
p AND NULL
p OR NULL
x > 0 AND y < 2 OR NOT i = 1
x IS NULL
s IS NOT NULL
NULL IS NULL
p IS TRUE
p IS NOT TRUE
p IS FALSE
p IS NOT FALSE
x IS DISTINCT FROM y
s IS NOT DISTINCT FROM u
ts IS DISTINCT FROM te
i IS DISTINCT FROM NULL
i IN (1, 2, -7)
i NOT IN (1, 2, -7)
i IN (1, NULL)
i NOT IN (1, NULL)
x IN (1, 0.5)
i IN (1, 2.5)
s IN ('a', 'abc', '')
s NOT IN ('a', NULL)
p IN (TRUE)
ts IN ('2024-02-29', TIMESTAMP '1970-01-01 00:00:00')
1 IN (1, 2)
i BETWEEN 0 AND 3
i NOT BETWEEN j AND 3
x BETWEEN y AND NULL
ts BETWEEN '2024-01-01' AND te
s BETWEEN 'a' AND 'b'
s LIKE 'a%'
s LIKE '%b'
s LIKE '%a%'
s LIKE 'a_b'
s LIKE '_'
s LIKE 'a'
s LIKE ''
s LIKE '%'
s LIKE 'a.*%'
s LIKE 'h_llo'
s NOT LIKE '%a%'
s ILIKE 'A%'
s ILIKE 'àé'
s NOT ILIKE '%B'
'abc' LIKE 'a%'
CASE WHEN i > 1 THEN 'big' WHEN i > 0 THEN 'one' ELSE s END
CASE WHEN p THEN i END
CASE WHEN p THEN i ELSE x END
CASE i WHEN 1 THEN x WHEN 2 THEN y ELSE 0 END
CASE s WHEN 'a' THEN TRUE WHEN u THEN FALSE END
CASE WHEN p THEN ts ELSE te END
CASE WHEN p THEN NULL ELSE i END
CASE WHEN x > 0 THEN 1 ELSE 0 END
coalesce(x, y, 0)
coalesce(i, j)
coalesce(s, u, 'none')
coalesce(ts, te)
coalesce(NULL, i)
coalesce(i, x)
nullif(i, j)
nullif(s, 'a')
nullif(x, 0)
nullif(ts, te)
if(p, i, j)
if(i > 0, s, 'no')
CAST(x AS BIGINT)
CAST(p AS INT)
CAST(i AS DOUBLE)
i::DOUBLE
CAST(i AS BOOLEAN)
CAST(x AS BOOLEAN)
CAST(i AS VARCHAR)
CAST(x AS VARCHAR)
CAST(p AS VARCHAR)
CAST(s AS TEXT)
CAST(ts AS VARCHAR)
CAST(TRY_CAST(nullif(n, 'inf') AS TIMESTAMP) AS VARCHAR)
CAST(ts AS DATE)
CAST(DATE '2020-02-29' AS TIMESTAMP)
TRY_CAST(n AS BIGINT)
TRY_CAST(n AS DOUBLE)
TRY_CAST(n AS BOOLEAN)
TRY_CAST(nullif(n, 'inf') AS TIMESTAMP)
CAST(NULL AS DOUBLE)
CAST(NULL AS VARCHAR)
CAST('12' AS INT)
abs(i)
abs(x)
round(x)
round(x, 1)
round(x, -2)
round(i)
round(i, -2)
round(i, 2)
floor(x)
ceil(x)
ceil(i)
sqrt(x)
exp(x / 1000000)
ln(x)
log10(x)
log2(x)
power(x, 2)
power(x, y / 100000)
power(2, i)
power(1, x)
power(x, 0)
sign(i)
sign(x)
sin(x)
cos(i)
greatest(i, j, 0)
greatest(x, y)
least(i, x)
least(s, u, 'b')
greatest(ts, te)
greatest(NULL, i)
lower(s)
upper(s)
trim(s)
ltrim(s)
rtrim(s)
trim(s, 'x')
length(s)
substring(s, 1, 2)
substring(s, 2)
substring(s, 0, 2)
substring(s, -2, 1)
substring(s, -2)
substring(s, -10, 9)
substring(s, -2, 5)
substring(s, 2, 0)
concat(s, u)
concat(s, '-', i, p)
concat(s)
s || u
s || '-' || i
s || x
replace(s, 'a', 'zz')
replace(s, '', 'zz')
replace(s, '.*', '')
starts_with(s, 'a')
starts_with(s, '')
ends_with(s, 'b')
contains(s, '.*')
contains(s, '')
year(ts)
quarter(ts)
month(ts)
week(ts)
day(ts)
hour(ts)
minute(ts)
second(ts)
dayofweek(ts)
dayofyear(ts)
epoch(ts)
extract(year FROM ts)
extract(dow FROM ts)
extract(DOY FROM ts)
extract(hour FROM TIMESTAMP '2020-01-01 10:00:00')
extract(epoch FROM ts)
date_diff('day', ts, te)
date_diff('hour', ts, te)
date_diff('minute', ts, te)
date_diff('second', ts, te)
date_diff('month', ts, te)
date_diff('quarter', ts, te)
date_diff('year', ts, te)
date_diff('day', ts, '2024-01-01')
date_diff('DAY', DATE '2024-01-01', ts)
date_trunc('second', ts)
date_trunc('minute', ts)
date_trunc('hour', ts)
date_trunc('day', ts)
date_trunc('week', ts)
date_trunc('month', ts)
date_trunc('quarter', ts)
date_trunc('year', ts)
1
-1
1.5e3
'it''s'
TRUE
NOT TRUE
1 + 2 * 3
(1 + 2) * 3
2 - 3 - 4
8 / 4 / 2
i + j = 3 AND NOT p
i + j * 2 % 3
p = (x > 0)
""".strip().splitlines()
