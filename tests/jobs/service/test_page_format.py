"""How the live page writes specs and durations, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.jobs.service.browser import Page, loopback, tab
from tests.jobs.service.by_hand import ByHand

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, width=16) | TEXTS
AWKWARD = st.sampled_from(["yes", "null", "0x1f", "1e3", "- a", "a: b", "#", "", " ", "~", "1_000", "=", "2024-01-01"])
SPECS = st.dictionaries(
    TEXTS | AWKWARD,
    st.recursive(
        SCALARS | AWKWARD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_size=5,
)


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Iterator[Page]:
    service = ByHand.open(tmp_path / "home")
    with loopback(service.app()) as origin, tab(browser, origin) as opened:
        yield opened
    service.close()


@pytest.mark.slow
def test_a_spec_is_shown_as_yaml_that_means_the_same(page: Page) -> None:
    page.open()
    script = """
        const [specs, done] = arguments;
        import("/page/format.js").then(({ yaml }) => done(JSON.parse(specs).map((spec) => yaml(spec))));
    """

    @settings(max_examples=25)
    @given(st.lists(SPECS, min_size=1, max_size=10))
    def means_the_same(specs: list[dict[str, Any]]) -> None:
        plain = json.loads(json.dumps(specs).replace("Infinity", "1e9"))
        shown = page.browser.execute_async_script(script, json.dumps(plain))
        assert [YAML(typ="safe", pure=True).load(StringIO(text)) for text in shown] == plain

    means_the_same()


def test_durations_have_at_most_two_units(page: Page) -> None:
    page.open()
    script = """
        const [values, done] = arguments;
        import("/page/format.js").then(({ duration }) => done(values.map((value) => duration(value))));
    """
    told = {
        0: "0 ms", 0.002: "2 ms", 0.4: "0.4 s", 4.24: "4.2 s", 9.96: "10 s", 59.6: "1 min", 61: "1 min 1 s",
        3599.7: "1 h", 3660: "1 h 1 min", 86399: "23 h 59 min", 86400: "1 d", 90000: "1 d 1 h", 200000: "2 d 7 h",
    }  # fmt: skip
    assert page.browser.execute_async_script(script, list(told)) == list(told.values())
