"""Markup: web pages and notebooks as text in reading order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput, MissingExtra
from clearstory.text.documents import read_documents
from clearstory.text.settings import DataSettings


def text(path: Path, **settings: object) -> str:
    [document] = read_documents(path, DataSettings(**settings))  # type: ignore[arg-type]
    return document.text


PAGE = """<!doctype html><html><head><title>Title</title><style>p { color: red }</style></head><body>
<!-- a comment --><nav><a href="/">Home</a> <a href="/x">More</a></nav>
<h1>The  <b>Great</b>
Day</h1><p>One &amp; two<br>three &#8220;four&#8221;<script>var x = "<p>no</p>";</script></p>
<ul><li>first<li>second</ul><pre>def f():
    return 1
</pre><table><tr><th>a<th>b</tr><tr><td>1</td><td>2</td></tr></table>tail<i>ing</i> text<p>unclosed <b>bold
<p>last</body></html>"""

WANTED = (
    "Home More\n\nThe Great Day\n\nOne & two\nthree “four”\n\nfirst\nsecond\n\ndef f():\n    return 1\n\n"
    "a\tb\n1\t2\n\ntailing text\n\nunclosed bold\n\nlast\n"
)


def test_a_page_is_its_text_in_reading_order(tmp_path: Path) -> None:
    pytest.importorskip("lxml", reason="lxml is not installed: pip install 'clearstory[data]'")
    for name in ("a.html", "b.htm", "c.xhtml"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
        assert text(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="iso-8859-1">', "cp1252"),  # as browsers read it
        ('<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r"),
        ("<meta charset=shift_jis>", "shift_jis"),
        ("", "utf-8"),
        ("", "utf-16"),
        ('<meta charset="no-such-encoding">', "utf-8"),
    ],
)
def test_a_page_is_read_in_the_encoding_that_it_declares(head: str, encoding: str, tmp_path: Path) -> None:
    pytest.importorskip("lxml", reason="lxml is not installed: pip install 'clearstory[data]'")
    words = {"cp1252": "naïve “café” €", "koi8-r": "Все семьи", "shift_jis": "吾輩は猫"}.get(encoding, "naïve 東京 🙂")
    (tmp_path / "a.html").write_bytes(f"<html><head>{head}</head><p>{words}</p>".encode(encoding))
    assert text(tmp_path / "a.html") == words + "\n"


def test_a_named_encoding_goes_before_the_declared_one(tmp_path: Path) -> None:
    pytest.importorskip("lxml", reason="lxml is not installed: pip install 'clearstory[data]'")
    (tmp_path / "a.html").write_bytes("<meta charset=utf-8><p>Все</p>".encode("cp1251"))
    assert text(tmp_path / "a.html", encoding="cp1251") == "Все\n"


def test_pages_without_text_and_deep_ones(tmp_path: Path) -> None:
    pytest.importorskip("lxml", reason="lxml is not installed: pip install 'clearstory[data]'")
    (tmp_path / "a.html").write_text("<script>x()</script><!-- no -->")
    with pytest.raises(BadInput, match="is empty"):
        text(tmp_path / "a.html")
    for depth in (100, 100_000):
        (tmp_path / "a.html").write_text("<p>first</p>" + "<div>" * depth + "deep" + "</div>" * depth)
        if depth == 100:
            assert text(tmp_path / "a.html") == "first\n\ndeep\n"
        else:  # the parser stops at 2,048 elements, and would drop the rest
            with pytest.raises(BadInput, match=r"cannot be read completely \(excessive depth in document: 2048\)"):
                text(tmp_path / "a.html")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lxml", None)
    (tmp_path / "a.html").write_text("<p>x")
    with pytest.raises(MissingExtra, match=r"needs lxml: pip install 'clearstory\[data\]'"):
        text(tmp_path / "a.html")


def test_a_notebook_is_the_sources_of_its_cells(tmp_path: Path) -> None:
    file = tmp_path / "a.ipynb"
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Prose."]},
        {"cell_type": "code", "source": "x = 1\ny = 2\n", "outputs": [{"text": ["no"]}]},
        {"cell_type": "code", "source": []},
        {"cell_type": "raw", "source": "raw"},
    ]
    file.write_text(json.dumps({"cells": cells, "nbformat": 4}))
    assert text(file) == "# Title\nProse.\n\nx = 1\ny = 2\n\nraw\n"
    for content, message in (
        ("{", "is not JSON"), ("[1]", "is not a notebook"), ('{"cells": [1]}', "is not a notebook"),
        ("[" * 100_000, "nested too deeply"), ('{"cells": [{"source": "\\ud800"}]}', "contains an unpaired surrogate"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(BadInput, match=message):
            text(file)
