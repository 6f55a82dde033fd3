"""Hashes and tokens of texts: against the definition, written out in Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.distinct import estimate, relative_error, sketch
from treadle.kernels.texts import NULL, UNSEEN, Texts, count_tokens, find, hash_texts, hash_tokens, known

MASK = 2**64 - 1
values = st.lists(
    st.none() | st.text(" abcé日\n", max_size=30) | st.binary(max_size=20).map(lambda b: b.hex()), max_size=8
)


def texts_of(values: list[str | None], spare: int) -> Texts:
    """The values one after the other, with other bytes before, after and under the nulls."""
    parts = [b"#" * spare, *(b"<null>" if v is None else v.encode() for v in values)]
    offsets = np.cumsum([len(part) for part in parts])
    data = np.frombuffer(b"".join(parts) + b"?" * spare, dtype=np.uint8)
    return Texts(offsets.astype(np.int64), data, np.array([v is not None for v in values], dtype=bool))


def finalised(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def hash_of(text: str) -> int:
    raw = text.encode()
    state = len(raw) * 0x9E3779B97F4A7C15 & MASK
    for start in range(0, len(raw), 8):
        state = finalised(state ^ int.from_bytes(raw[start : start + 8], "little"))
    return state


@settings(deadline=None)  # The first example compiles.
@given(values, st.integers(0, 9))
def test_hashes_are_those_of_the_bytes(values: list[str | None], spare: int) -> None:
    found = hash_texts(texts_of(values, spare))
    assert found.tolist() == [0 if value is None else hash_of(value) for value in values]


def test_hashes_do_not_change() -> None:
    # They are in models and tables that exist: another hash would need another name.
    found = hash_texts(texts_of(["", "a", "Köln", "12345678", "123456789", "a" * 100], 0))
    assert [f"{value:016x}" for value in found.tolist()] == [
        *("0000000000000000", "fb761138e1e0a78c", "673562c8bbae0d1b"),
        *("9aa684486a014a85", "9e80197610e18f5b", "be27972ebdab1876"),
    ]


def test_similar_texts_do_not_collide_and_hash_uniformly() -> None:
    texts = [f"customer-{number:07d}" for number in range(100_000)] + [f"{number}" for number in range(100_000)]
    found = hash_texts(texts_of([*texts], 0))
    assert np.unique(found).size == len(texts)
    assert abs(estimate(sketch(found)) / len(texts) - 1) < 4 * relative_error()
    ones = np.unpackbits(found.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 0.01
    counts = np.bincount((found >> np.uint64(54)).astype(np.int64), minlength=1024)
    assert counts.std() < 1.15 * (len(texts) / 1024) ** 0.5


@settings(deadline=None)
@given(values, values, st.integers(0, 9))
def test_known_values_are_found(some: list[str | None], asked: list[str | None], spare: int) -> None:
    distinct = [*dict.fromkeys(value for value in some if value is not None)]
    asked = [*asked, *some]
    codes = find(known(texts_of([*distinct], spare)), texts_of(asked, 9 - spare))
    assert codes.dtype == np.int32
    expected = [NULL if v is None else distinct.index(v) if v in distinct else UNSEEN for v in asked]
    assert codes.tolist() == expected


def test_many_known_values_are_found() -> None:
    names: list[str | None] = [f"{'long and equal at first ' * (i % 3)}{i}" for i in range(20_000)]
    codes = find(known(texts_of(names[:15_000], 0)), texts_of(names[::-1], 3))
    assert codes[::-1][:15_000].tolist() == [*range(15_000)]
    assert set(codes[:5000]) == {UNSEEN}


@settings(deadline=None)
@given(values, st.integers(0, 9))
def test_tokens_stand_between_spaces(values: list[str | None], spare: int) -> None:
    texts = texts_of(values, spare)
    tokens = [[token for token in (value or "").split(" ") if token] for value in values]
    assert count_tokens(texts).tolist() == [len(found) for found in tokens]
    counts = hash_tokens(texts, 5)
    assert counts.dtype == np.float32
    for row, found in zip(counts, tokens, strict=True):
        buckets = [hash_of(token) % 5 for token in found]
        assert row.tolist() == [buckets.count(bucket) for bucket in range(5)]


def test_regular_names_fall_into_all_buckets() -> None:
    names = [f"customer {i}" for i in range(64_000)]
    counts = np.bincount((hash_texts(texts_of([*names], 0)) % np.uint64(64)).astype(np.int64), minlength=64)
    # A thousand each, give or take five deviations.
    assert abs(counts - 1000).max() < 5 * 1000**0.5
