"""A page of HTML, parsed strictly: what tests look for in it."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Elements and text of a page; raises where an element is not closed, or another one is.

    Attributes:
        elements: (name, attributes) of every element, in order.
        rows: The texts of the cells of each table row.
        text: All text, with single spaces.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == [], f"not closed: {self._open}"
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._words.append(data)
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data

    def all(self, name: str, class_: str = "") -> list[dict[str, str]]:
        """The attributes of the elements of a name, and of a class."""
        return [
            attrs
            for found, attrs in self.elements
            if found == name and (not class_ or class_ in attrs.get("class", "").split())
        ]
