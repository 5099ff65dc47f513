"""The builder escapes everything, and words are short and honest."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.display import html, words


class Reader(HTMLParser):
    """Notes every tag with its attributes, and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@given(st.text(), st.text())
def test_any_text_comes_back_as_text_and_as_attribute(inside: str, title: str) -> None:
    reader = read(html.element("div", inside, title=title))
    assert reader.tags == [("div", {"title": html.clean(title)})]
    assert reader.text == html.clean(inside)


def test_markup_is_not_escaped_twice_and_none_is_left_out() -> None:
    page = html.element("div", html.element("b", "a < b"), None, " & c")
    assert page == "<div><b>a &lt; b</b> &amp; c</div>"


def test_what_no_file_can_hold_is_replaced() -> None:
    assert html.text("a\x00\ud800b\r\nc") == "a\ufffd\ufffdb\nc"


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", " JaVaScript:x", "data:text/html,x", "//evil"]
)
def test_an_address_that_could_run_is_left_out(href: str) -> None:
    assert html.element("a", "x", href=href) == "<a>x</a>"
    assert html.element("img", src=href) == "<img>"


@pytest.mark.parametrize("href", ["nbimg-images/a%20b.png", "https://x.org/a?b=1", "a%3Ab.png"])
def test_an_address_that_is_safe_stays(href: str) -> None:
    assert html.element("a", "x", href=href) == f'<a href="{href}">x</a>'


def test_only_known_elements_are_built() -> None:
    with pytest.raises(ValueError, match="script"):
        html.element("script", "alert(1)")
    with pytest.raises(ValueError, match="img"):
        html.element("img", "child")


@given(st.text(max_size=300), st.integers(min_value=2, max_value=80))
def test_a_shortened_text_is_one_line_within_its_limit(value: str, limit: int) -> None:
    short = words.shorten(value, limit)
    assert len(short) <= limit
    assert "\n" not in short
    assert short.endswith("…") or short == " ".join(value.split())


@given(st.floats(min_value=0, max_value=1e7))
def test_a_duration_reads_like_one(seconds: float) -> None:
    assert words.duration(seconds)[0].isdigit()
    assert "60 s" not in words.duration(seconds)


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        (0, "$0"),
        (0.00001, "under $0.0001"),
        (0.0025, "$0.0025"),
        (0.04, "$0.04"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_keeps_the_digits_that_matter(usd: float, said: str) -> None:
    assert words.money(usd) == said
