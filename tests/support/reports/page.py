"""Reads an HTML page as a browser would: its elements, its text, and its tables by their captions."""

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """`tables` has the cells of each table's body by its caption, a list a row; `svgs` the texts of the drawings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[tuple[int, str]] = []
        self.open: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.uncaptioned = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        if tag == "tr":
            self._rows.append([])
        if tag in {"td", "th"} and "tbody" in self.open:
            self._rows[-1].append("")
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "table":
            self.uncaptioned += not self._caption.strip()
            self.tables[" ".join(self._caption.split())] = [
                [" ".join(cell.split()) for cell in row] for row in self._rows if row
            ]

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self._caption += data
        if self.open and self.open[-1] in {"h1", "h2", "h3", "h4"}:
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        if "tbody" in self.open and self._rows and self._rows[-1]:
            self._rows[-1][-1] += data

    def table(self, words: str) -> dict[str, list[str]]:
        """The rows of the table with these words in its caption, each by its first cell."""
        (rows,) = [rows for caption, rows in self.tables.items() if words in caption]
        return {row[0]: row[1:] for row in rows}

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]
