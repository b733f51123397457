"""Markup: the text of web pages (html) and of notebooks (ipynb)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, BadSetting, MissingExtra
from clearstory.text.character_encodings import AUTO, UTF8, check_encoding
from clearstory.text.document import Document
from clearstory.text.files import parse_json, read_blocks, read_text_parts, without_surrogates
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings

MAX_BYTES = 1 << 28
"""Maximum size of a page or notebook, which is read into memory."""

NO_TEXT = frozenset((
    "script", "style", "head", "template", "noscript", "iframe", "object", "svg", "math", "select", "button",
    "textarea",
))  # fmt: skip
"""Elements whose contents are not running text."""

BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
    "html", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
    "thead", "tr", "ul",
))  # fmt: skip
"""Block elements, which start and end a line."""

PARAGRAPHS = frozenset((
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl", "figure", "article",
    "section",
))  # fmt: skip
"""Elements that are separated from others by a blank line."""


def read_html(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Document]:
    """The text of a web page in reading order, without scripts, styles and markup."""
    data = read_whole(path)
    try:
        from lxml import etree, html
    except ModuleNotFoundError:
        raise MissingExtra(f"{path} needs lxml: pip install 'clearstory[data]'") from None
    encoding = settings.encoding
    if encoding in (UTF8, AUTO):
        encoding = declared_encoding(data) or encoding
    text = "".join(read_text_parts(path, settings.errors, encoding, notes))
    parser = html.HTMLParser(encoding=UTF8, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = html.document_fromstring(text.encode(), parser=parser)
    except etree.LxmlError:  # nothing but comments or white space
        return
    if limits := [entry.message for entry in parser.error_log if entry.type_name == "ERR_RESOURCE_LIMIT"]:
        reason = limits[0].partition(",")[0].lower()
        raise BadInput(f"{path} cannot be read completely ({reason}); save it as text, or exclude it")
    if text := page_text(root):
        yield Document(str(path), text)


def declared_encoding(page: bytes) -> str | None:
    """The encoding that a page declares in a meta element or an XML declaration; None if none or an unknown one."""
    found = re.search(
        rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?([\w.:-]+)""", page[:4096], re.IGNORECASE
    )
    name = found[1].decode("ascii", "replace").lower() if found else ""
    if name in ("iso-8859-1", "latin1", "us-ascii", "ascii"):
        return "cp1252"  # as browsers read them (WHATWG Encoding, section 4.2)
    try:
        check_encoding(name or UTF8, "charset")
    except BadSetting:
        return None
    return name or None


def page_text(root: Any) -> str:
    """The text below an lxml element: a line for each block, a blank line between paragraphs.

    White space is collapsed as in browsers, except in preformatted text.
    """
    lines = _Lines()
    stack: list[tuple[str, Any]] = [("open", root)]
    while stack:
        kind, value = stack.pop()
        if kind == "text":
            lines.add(value)
            continue
        tag = value.tag if isinstance(value.tag, str) else "script"  # entities and the like have functions as tags
        if kind == "open":
            if value.tail and value is not root:
                stack.append(("text", value.tail))
            if tag in NO_TEXT:
                continue
            stack.append(("close", value))
            stack += [("open", child) for child in reversed(value)]
            if value.text:
                stack.append(("text", value.text))
        lines.preformatted += (tag == "pre") * (1 if kind == "open" else -1)
        if tag in ("td", "th") and kind == "close":
            lines.add("\t", keep=True)
        elif tag == "br" and kind == "open":
            lines.end(lines.pending + 1)
        elif tag in PARAGRAPHS or tag in BLOCKS:
            lines.end(2 if tag in PARAGRAPHS else 1)
    text = "".join(lines.parts).rstrip("\n")
    return f"{text}\n" if text.strip() else ""


class _Lines:
    """Collects text. `pending` line feeds are written before the next text, so that the text does not end with them."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.preformatted = 0
        self.pending = 0
        self._space = ""  # white space that is written only if text follows on the same line

    def add(self, text: str, keep: bool = False) -> None:
        """Add text; its white space is collapsed, unless it is preformatted or to `keep`."""
        if self.preformatted:
            self._write(text)
        elif keep:
            self._space = text
        elif words := text.split():
            before = self._space or (" " if text[0].isspace() else "")
            self._write(("" if self.pending or not self.parts else before) + " ".join(words))
            self._space = " " if text[-1].isspace() else ""
        else:
            self._space = self._space or (" " if text else "")

    def end(self, line_feeds: int) -> None:
        """End the line; at least this number of line feeds is written before the next text."""
        self._space = ""
        self.pending = max(self.pending, line_feeds) if self.parts else 0

    def _write(self, text: str) -> None:
        written = len(self.parts[-1]) - len(self.parts[-1].rstrip("\n")) if self.parts else 0
        self.parts += ["\n" * max(0, self.pending - written), text] if text else []
        self.pending = 0 if text else self.pending
        self._space = ""


def read_notebook(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Document]:
    """The sources of a notebook's cells, text and code, separated by blank lines; outputs are left out."""
    read_whole(path)
    text = "".join(read_text_parts(path, settings.errors, settings.encoding, notes))
    remedy = "give Jupyter notebooks of version 4, or exclude it"
    notebook = parse_json(text, str(path), remedy) if text.strip() else {"cells": []}
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise BadInput(f"{path} is not a notebook: it has no list of cells; {remedy}")
    sources = [_joined(cell.get("source", "")) for cell in cells]
    contents = "\n\n".join(source.strip("\n") for source in sources if source.strip())
    if contents:
        yield Document(str(path), without_surrogates(str(path), contents, settings.errors) + "\n")


def _joined(source: object) -> str:
    """A cell's source, which is a string or a list of lines."""
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def read_whole(path: Path) -> bytes:
    """All bytes of a file, decompressed. Raises BadInput for one that is larger than `MAX_BYTES`."""
    data = b""
    for block in read_blocks(path):
        data += block
        if len(data) > MAX_BYTES:
            raise BadInput(
                f"{path} is larger than {MAX_BYTES >> 20:,} MiB, the limit for web pages and notebooks; split it"
            )
    return data
