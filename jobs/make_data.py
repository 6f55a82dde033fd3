"""Made-up card transactions and their customers, to try Treadle on at any scale: `treadle make-data`.

Rows are drawn in blocks of fixed size, each from a counter-based generator (Philox) that is keyed
by the seed and the number of the block. So a row depends on its number and never on the file that
it lands in, and memory is bounded by a few blocks however many rows there are.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from treadle.errors import RequestError, StorageError

BLOCK = 131_072
"""Rows that are drawn together; also the most that a row group holds."""
PART = re.compile(r"part-\d{5,}\.parquet")
CUSTOMERS, MERCHANTS, PAYMENTS = range(3)
"""Streams of random numbers that do not depend on each other."""
START = np.datetime64("2025-01-01", "us")
DAYS = 180
DAY = 86_400_000_000
HOUR = DAY // 24
BIG_COUNTRIES = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "BR", "MX")
COUNTRIES = (*BIG_COUNTRIES, "CA", "AU", "IN", "JP", "SE", "CH", "PT", "IE", "TR", "ZA")
CHANNELS = ("chip", "online", "contactless", "swipe")
CHANNEL_SHARES = (0.40, 0.30, 0.20, 0.10)
SEGMENTS = ("student", "standard", "gold", "business")
MISSING_AMOUNTS = 0.03
MISSING_AGES = 0.04
# People buy around noon and after work; few cards are used between midnight and six.
HOURLY = (7, 6, 5, 4, 4, 5, 9, 20, 30, 35, 40, 50, 60, 55, 45, 45, 50, 60, 65, 60, 45, 30, 15, 7)
NIGHT_ENDS = 6
# Log-odds of fraud: those of an ordinary purchase (so that about 2 % are fraud), and what adds to them.
ORDINARY, AT_NIGHT, ABROAD, ONLINE, PER_LOG_RATIO = -6.9, 2.6, 2.8, 1.0, 2.1

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TRANSACTIONS = pa.schema(
    {
        "transaction_id": pa.int64(),
        "customer_id": pa.int64(),
        "ts": pa.timestamp("us"),
        "amount": pa.float64(),
        "merchant": pa.string(),
        "country": pa.string(),
        "channel": pa.string(),
        "fraud": pa.int8(),
    }
)


@dataclass(frozen=True)
class World:
    """What all transactions share: customers and merchants with what is hidden about them."""

    seed: int
    rows: int
    busy: Integers
    """Customers, the busiest first."""
    usual: Floats
    """Logarithm of what a customer usually spends."""
    customer_risk: Floats
    """Log-odds of fraud that a customer adds."""
    home: Integers
    """Position of the home country in `COUNTRIES`."""
    merchants: pa.Array
    """Names, those that sell most first."""
    price: Floats
    """Logarithm of a merchant's price level."""
    merchant_risk: Floats
    """Log-odds of fraud that a merchant adds."""


def make_transactions(
    out: Path,
    rows: int,
    partitions: int = 8,
    customers: int | None = None,
    seed: int = 7,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `out`/transactions and `out`/customers as zstd Parquet; earlier files of a run are replaced.

    Parameters
    ----------
    partitions : files of `out`/transactions; the rows and their order are the same whatever it is.
    customers : rows of `out`/customers; one for 50 transactions, but at least 100, when absent.
    progress : called with the number of rows written so far, and of all rows.

    Returns
    -------
    dict of what was made: rows, partitions, customers, fraud (rows that are), seed, bytes, and `paths`.

    Raises
    ------
    RequestError
        A number is out of range.
    StorageError
        The files cannot be written; those that were there before still are.
    """
    count = max(100, rows // 50) if customers is None else customers
    _check(rows, partitions, count, seed)
    world = make_world(rows, count, seed)
    folders = [out / "transactions", out / "customers"]
    transactions = _Transactions(world)
    done = fraud = 0
    try:
        with _replacing(folders[0]) as fresh, _replacing(folders[1]) as fresh_customers:
            pq.write_table(customers_table(world), fresh_customers / "part-00000.parquet", compression="zstd")
            for number in range(partitions):
                low, high = (rows * edge // partitions for edge in (number, number + 1))
                path = fresh / f"part-{number:05d}.parquet"
                with pq.ParquetWriter(path, TRANSACTIONS, compression="zstd") as file:
                    for piece in transactions.pieces(low, high):
                        file.write_table(piece)
                        fraud += pc.sum(piece["fraud"]).as_py()
                        done += piece.num_rows
                        if progress is not None:
                            progress(done, rows)
        size = sum(path.stat().st_size for folder in folders for path in folder.glob("part-*.parquet"))
    except OSError as error:
        raise StorageError(
            f"The transactions cannot be written to '{out}': {error.strerror or error}. "
            "Free space there, or choose another folder with --out."
        ) from error
    return {
        "rows": rows,
        "partitions": partitions,
        "customers": count,
        "fraud": fraud,
        "seed": seed,
        "bytes": size,
        "paths": [str(folder) for folder in folders],
    }


def _check(rows: int, partitions: int, customers: int, seed: int) -> None:
    if rows < 1:
        raise RequestError(f"make-data: rows is {rows}; ask for at least 1.")
    if not 1 <= partitions <= rows:
        raise RequestError(
            f"make-data: partitions is {partitions}; each needs a row, so for {rows} rows choose 1 to {rows}."
        )
    if customers < 1:
        raise RequestError(f"make-data: customers is {customers}; ask for at least 1.")
    if not 0 <= seed < 2**64:
        raise RequestError(f"make-data: seed is {seed}; choose a whole number from 0 to 2**64 - 1.")


def make_world(rows: int, customers: int, seed: int) -> World:
    """The customers and merchants of a data set of `rows` transactions."""
    rng = _generator(seed, CUSTOMERS, 0)
    usual = rng.normal(3.3, 0.6, customers)
    risk = rng.normal(0.0, 0.9, customers)
    home = _choose(rng, 1 / np.arange(1, len(COUNTRIES) + 1), customers)
    busy = rng.permutation(customers)
    rng = _generator(seed, MERCHANTS, 0)
    merchants = min(50_000, max(50, rows // 20))
    price = rng.normal(0.0, 0.5, merchants)
    # Stolen cards are tried at one merchant in seven; what those sell is dear.
    crooked = rng.random(merchants) < 1 / 7
    names = pa.array([f"m{i + 1:06d}" for i in range(merchants)])
    merchant_risk = np.where(crooked, 1.3, 0.0)
    return World(seed, rows, busy, usual, risk, home, names, price + 0.3 * crooked, merchant_risk)


def customers_table(world: World) -> pa.Table:
    """The customers, in order of their ids; what a customer usually spends shows only in part."""
    n = len(world.usual)
    rng = _generator(world.seed, CUSTOMERS, 1)
    rich = world.usual - 3.3 + rng.normal(0.0, 0.5, n)
    segment = np.searchsorted([-0.7, 0.6, 1.1], rich)
    age = np.clip(44 + 13 * rng.standard_normal(n) - 4 * world.customer_risk, 18, 92).astype(np.int64)
    limit = 500 * np.ceil(np.exp(1.5 + rich + rng.normal(0.0, 0.3, n)))
    # Fraud is somewhat more frequent on young accounts.
    years = 10 * rng.random(n) ** np.exp(0.4 * world.customer_risk)
    return pa.table(
        {
            "customer_id": np.arange(n, dtype=np.int64),
            "age": pa.array(age, mask=rng.random(n) < MISSING_AGES),
            "home_country": _texts(COUNTRIES, world.home),
            "segment": _texts(SEGMENTS, segment),
            "credit_limit": limit,
            "signup": START - (years * 365 * DAY).astype("timedelta64[us]"),
        }
    )


def block_table(world: World, block: int) -> pa.Table:
    """Transactions `block` * BLOCK and on, as many as there are of BLOCK."""
    rng = _generator(world.seed, PAYMENTS, block)
    number = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
    # Powers of a uniform number: the busiest customers and merchants are met far more often.
    customer = world.busy[(len(world.busy) * rng.random(BLOCK) ** 1.7).astype(np.int64)]
    merchant = (len(world.price) ** rng.random(BLOCK)).astype(np.int64) - 1
    hour = _choose(rng, np.array(HOURLY), BLOCK)
    ts = START + (number * DAYS // world.rows * DAY + hour * HOUR + rng.integers(0, HOUR, BLOCK))
    travels = rng.random(BLOCK) < 0.06
    country = np.where(travels, rng.integers(0, len(COUNTRIES), BLOCK), world.home[customer])
    channel = _choose(rng, np.array(CHANNEL_SHARES), BLOCK)
    log_ratio = world.price[merchant] + rng.normal(0.0, 0.6, BLOCK)
    amount = np.maximum(np.round(np.exp(world.usual[customer] + log_ratio), 2), 0.01)
    score = (
        ORDINARY
        + world.customer_risk[customer]
        + world.merchant_risk[merchant]
        + AT_NIGHT * (hour < NIGHT_ENDS)
        + ABROAD * (country != world.home[customer])
        + ONLINE * (channel == CHANNELS.index("online"))
        + PER_LOG_RATIO * log_ratio
    )
    fraud = rng.random(BLOCK) < 1 / (1 + np.exp(-score))
    columns = [
        number,
        customer,
        ts,
        pa.array(amount, mask=rng.random(BLOCK) < MISSING_AMOUNTS),
        world.merchants.take(pa.array(merchant)),
        _texts(COUNTRIES, country),
        _texts(CHANNELS, channel),
        fraud.astype(np.int8),
    ]
    return pa.table(columns, TRANSACTIONS).slice(0, world.rows - block * BLOCK)


class _Transactions:
    """Any rows of a world; the block met last is kept, because the next file begins in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._block = -1
        self._table = TRANSACTIONS.empty_table()

    def pieces(self, low: int, high: int) -> Iterator[pa.Table]:
        """The transactions `low` to `high` (excluded), in the pieces that the blocks cut them into."""
        for block in range(low // BLOCK, (high - 1) // BLOCK + 1):
            if block != self._block:
                self._block, self._table = block, block_table(self.world, block)
            first = max(low - block * BLOCK, 0)
            yield self._table.slice(first, high - block * BLOCK - first)


def _generator(seed: int, stream: int, block: int) -> np.random.Generator:
    key = np.array([seed, stream << 32 | block], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _choose(rng: np.random.Generator, weights: Floats, count: int) -> Integers:
    """`count` positions, drawn in proportion to the weights."""
    shares = np.cumsum(weights) / np.sum(weights)
    # The last share may round to less than 1.
    return np.searchsorted(shares[:-1], rng.random(count), side="right")


def _texts(values: Sequence[str], codes: Integers) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(codes))


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write files in; they replace the part files of `folder` once all are whole."""
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        folder.mkdir(exist_ok=True)
        written = {path.name for path in fresh.iterdir()}
        for name in sorted(written):
            (fresh / name).replace(folder / name)
        for path in folder.glob("part-*.parquet"):
            if PART.fullmatch(path.name) and path.name not in written:
                path.unlink()
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
