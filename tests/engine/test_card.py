"""Cards as Markdown and HTML: parsed again, they say every text as it is, and nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from treadle.engine.card.blocks import (
    LONGEST,
    Bars,
    Card,
    Chapter,
    Dots,
    Items,
    Line,
    Links,
    Reliability,
    Table,
    Text,
    shown,
    visible,
)
from treadle.engine.card.markdown import markdown
from treadle.engine.card.page import STYLE, page

VOID = {"meta"}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "nav", "ol", "ul", "li", "a",
    "section", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "svg", "desc", "text",
    "line", "path", "circle", "rect", "polygon",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "`code` ``",
    "[x](javascript:alert(1))",
    "![x](http://e.org/x.png)",
    "<https://e.org>",
    "https://e.org/a?b=1 www.e.org",
    "line\nline\n\n# head\n| - | - |",
    "1. one",
    "- item",
    "+ item",
    "===",
    "---",
    "# head",
    "> quote",
    "~~~",
    "**bold** __b__ _i_",
    "&lt;b&gt; &#x3c;",
    '" onload="alert(1)',
    "' style='x",
    "</style></title></svg>",
    "\\| \\",
    "$x$ {{y}} {% z %}",
    "\u202egpj.exe\u2066",
    "\x00\x07\x1b[31m",
    "ü 漢字 🧵 e\u0301",
]
PLAIN = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z", "M"]) | st.sampled_from("|`<>&*_[]()#\n\\-+=.:"),
    min_size=1,
    max_size=40,
)
TEXTS = (st.sampled_from(HOSTILE) | PLAIN).filter(lambda text: bool(visible(text)))


def card(*blocks: Any, title: str = "t", lead: str = "l", chapter: str = "c") -> Card:
    return Card(title, lead, (Chapter(chapter, blocks),))


def cells(tokens: list[Token]) -> list[list[str]]:
    """The cells of the first table, as texts."""
    rows: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "table_close":
            break
        if before.type == "tr_open":
            rows.append([])
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            rows[-1].append(plain(token))
    return rows


def plain(inline: Token) -> str:
    """What an inline token says; fails where it is more than text."""
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}, inline.children
    return "".join(child.content for child in inline.children or [])


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


class Page(HTMLParser):
    """A page taken apart: elements with attributes, and what stands right in each; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(len(self.texts))
            self.texts.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.texts[self.open.pop()][0] == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, text = self.texts[self.open[-1]]
            self.texts[self.open[-1]] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text for kind, text in self.texts if kind == tag]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for kind, attributes in self.elements if kind == tag]


@given(texts=st.lists(TEXTS, min_size=3, max_size=3))
@example(texts=HOSTILE[:3])
@example(texts=HOSTILE[7:10])
def test_markdown_says_every_text_and_no_more(texts: list[str]) -> None:
    first, second, third = texts
    table = Table(first, (second, third), ((first, second), (third, 1)))
    tokens = parsed(markdown(card(Text(first), Items((second, third)), table, title=first, lead=second, chapter=third)))
    kinds = [token.type for token in tokens]
    assert kinds.count("heading_open") == 2
    assert kinds.count("table_open") == 1
    assert kinds.count("bullet_list_open") == 1
    assert not {"ordered_list_open", "blockquote_open", "fence", "code_block", "hr", "html_block"} & set(kinds)
    inlines = [token for token in tokens if token.type == "inline"]
    said = [plain(token) for token in inlines if not any(child.type == "strong_open" for child in token.children or [])]
    one, two, three = (visible(text) for text in texts)
    assert said == [one, two, three, one, two, three, two, three, one, two, three, "1"]
    assert cells(tokens) == [[two, three], [one, two], [three, "1"]]


@given(texts=st.lists(TEXTS, min_size=3, max_size=3))
def test_a_page_says_every_text_and_no_more(texts: list[str]) -> None:
    first, second, third = texts
    blocks = (
        Text(first),
        Items((second, third)),
        Table(first, (second, third), ((first, second), (third, 2.0))),
        Dots(second, (first, third), (Line(third, (0.1, None)), Line(first, (0.5, 0.9), 0.1)), 0.0, 1.0),
        Bars(third, (Line(first, (3.0,)),)),
        Reliability(first, ((0.2, 0.1, 5),)),
    )
    found = Page(page(card(*blocks, title=first, lead=second, chapter=third)))
    one, two, three = (visible(text) for text in texts)
    assert found.of("h1") == [one]
    assert found.of("h2") == [three]
    assert found.of("p") == [two, one]
    assert found.of("caption") == [one]
    assert found.of("td") == [two, "2.0000"]
    assert found.of("th") == [two, three, one, three]
    assert found.of("title") == [one, two, three, one]
    assert [a["aria-label"] for a in found.attributes("div")] == [one]


def test_a_page_loads_nothing_and_can_be_read_aloud() -> None:
    blocks = (
        Links(("https://example.org/a?b=1&c='x'", "javascript:alert(1)", "https://e.org/\"onload='x'", "Doe, 2020")),
        Table("numbers", ("a", "b"), (("x", 1), ("y", None))),
        Table("none", ("a", "b"), ()),
        Bars("bars", (Line("x", (0.0,)),)),
        Bars("bars", (Line("x", (1.0,)),)),
        Dots("dots", ("one",), (Line("x", (0.5,)), Line("y", (0.5,))), 0.5, 0.5),
    )
    text = page(card(*blocks))
    found = Page(text)
    assert not re.search(r"<script|javascript:[^a]|@import|url\(", text)
    for _, attributes in found.elements:
        assert not {"src", "srcset", "xlink:href", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    links = [attributes["href"] or "" for attributes in found.attributes("a")]
    assert links == ["#s1", "https://example.org/a?b=1&c='x'"]
    assert found.of("li")[1:] == ["", "javascript:alert(1)", "https://e.org/\"onload='x'", "Doe, 2020"]
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for attributes in found.attributes("svg"):
        assert attributes["role"] == "img"
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    assert {attributes.get("scope") for attributes in found.attributes("th")} == {"col", "row"}
    assert len(found.of("caption")) == len(found.attributes("table")) == 2
    assert found.attributes("html") == [{"lang": "en"}]
    policy = [a["content"] for a in found.attributes("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart(mode: int) -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", (light, dark)[mode]))
    assert set(colours) == {"ink", "paper", "soft", "line", "band", "a", "b", "c", "d"}
    for name in ("ink", "soft", "a", "b", "c", "d"):
        for ground in ("paper", "band"):
            one, two = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (two + 0.05) / (one + 0.05) >= 4.5, (name, ground)


def test_cells() -> None:
    assert shown(None) == "not measured"
    assert shown(None, "none") == "none"
    assert shown(float("nan")) == "undefined"
    assert shown(1234567) == "1,234,567"
    assert shown(0.0) == "0.0000"
    assert shown(1e-9) == "1e-09"
    assert len(shown("x" * 1000)) == LONGEST
    assert visible("a\x1b[0m\u202eb\r\n\tc") == "a\ufffd[0m\ufffdb c"
