"""Translation memories: the units of TMX 1.4 and of XLIFF 1.2 and 2, read as a stream.

Entities are not expanded, and nothing outside the file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from xml.parsers import expat

from clearstory.errors import BadInput
from clearstory.text.files import read_blocks
from clearstory.text.settings import ReadSettings

Unit = tuple[str, str, str]
"""Location for messages, source, target; a side that a unit lacks is empty."""

NATIVE_CODE = frozenset(("bpt", "ept", "ph", "it", "ut", "sub"))
"""Elements whose contents are markup of the original document, and no text. Those of hi, g, mrk and pc are text."""

XML_LANGUAGE = "xml:lang"


class UnitReader:
    """Collects the texts of elements inside units while expat parses a file.

    Args:
        path: the file.
        unit: names of the elements that are units.
        text: names of the elements in them whose text is read.
        key: returns the name of a text, given the element's name and its language.
    """

    def __init__(
        self, path: Path, unit: tuple[str, ...], text: tuple[str, ...], key: Callable[[str, str], str]
    ) -> None:
        self.path, self.unit, self.text, self.key = path, unit, text, key
        self.units: list[tuple[int, dict[str, str]]] = []
        self.source_language = ""
        self.language = ""
        self.current: dict[str, str] | None = None
        self.element = ""
        self.skipped = 0  # depth of elements with native code
        self.line = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.refuse_entity

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        name = name.rpartition(":")[2]
        self.source_language = attributes.get("srclang") or self.source_language
        if name in self.unit:
            self.current, self.line = {}, self.parser.CurrentLineNumber
        elif self.current is not None and not self.element:
            self.language = attributes.get(XML_LANGUAGE) or attributes.get("lang") or self.language
            if name in self.text:
                self.element = name
                self.current.setdefault(self.key(name, self.language), "")
        elif self.element and name in NATIVE_CODE:
            self.skipped += 1

    def end(self, name: str) -> None:
        """An element ends."""
        name = name.rpartition(":")[2]
        if self.element and name in NATIVE_CODE:
            self.skipped -= 1
        elif name == self.element:
            self.element = ""
        elif name in self.unit and self.current is not None:
            self.units.append((self.line, self.current))
            self.current, self.language = None, ""

    def characters(self, text: str) -> None:
        """Text inside an element."""
        if self.element and not self.skipped and self.current is not None:
            self.current[self.key(self.element, self.language)] += text

    def refuse_entity(self, name: str, *others: object) -> None:
        """Raise BadInput for a declared entity, which could expand to any size or name a file."""
        raise BadInput(
            f"{self.path}, line {self.parser.CurrentLineNumber:,} declares the entity {name[:40]!r}; entities are not "
            "expanded: replace it with its text"
        )

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The location of each unit, and its texts by key. Raises BadInput for a file that is not XML."""
        try:
            for block in read_blocks(self.path):
                self.parser.Parse(block, False)
                yield from self.take()
            self.parser.Parse(b"", True)
            yield from self.take()
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise BadInput(
                f"{self.path}, line {error.lineno:,} is not XML ({reason}); correct it, or export the file again"
            ) from None

    def take(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The units that are complete."""
        found, self.units = self.units, []
        for line, texts in found:
            yield f"{self.path}, line {line:,}", {key: " ".join(text.split()) for key, text in texts.items()}


def read_tmx(path: Path, settings: ReadSettings) -> Iterator[Unit]:
    """The units of a TMX file: source and target in the languages of the settings, else in its source language and the
    only other one.

    Raises BadInput if a third language makes that ambiguous.
    """
    reader = UnitReader(path, ("tu",), ("seg",), key=lambda name, language: language)
    usual = ReadSettings()
    wanted = (
        "" if settings.source_field == usual.source_field else settings.source_field,
        "" if settings.target_field == usual.target_field else settings.target_field,
    )
    for location, texts in reader:
        languages = list(texts)
        if not all(wanted):
            wanted = choose_languages(location, languages, wanted, reader.source_language)
        source, target = (match_language(languages, each) for each in wanted)
        yield location, texts.get(source, ""), texts.get(target, "")


def choose_languages(
    location: str, languages: list[str], wanted: tuple[str, str], source_language: str
) -> tuple[str, str]:
    """The languages of source and target, of which one or none is known. Raises BadInput unless two are left."""
    source, target = wanted
    if not source and not target:
        source = match_language(languages, source_language) or (languages[0] if languages else "")
    known = match_language(languages, source or target)
    left = [language for language in languages if language != known]
    if len(left) != 1:
        raise BadInput(
            f"{location} has the languages {', '.join(languages) or 'none'}; name the two to read with "
            "--data.source_field and --data.target_field (finetune: --text-column and --pair-column)"
        )
    return source or left[0], target or left[0]


def match_language(languages: list[str], wanted: str) -> str:
    """The language of these that is wanted, by its whole code or its first part: en for en-US; "" for none.

    >>> match_language(["en-US", "de"], "EN"), match_language(["en"], "fr")
    ('en-US', '')
    """
    code = wanted.casefold().replace("_", "-")
    plain = {language.casefold().replace("_", "-"): language for language in languages}
    if not code or code in plain:
        return plain.get(code, "")
    return next((each for name, each in plain.items() if name.split("-")[0] == code.split("-")[0]), "")


def read_xliff(path: Path, settings: ReadSettings) -> Iterator[Unit]:
    """The units of an XLIFF file (segments in version 2), with their translation where there is one."""
    for location, texts in UnitReader(path, ("trans-unit", "segment"), ("source", "target"), key=lambda name, _: name):
        yield location, texts.get("source", ""), texts.get("target", "")
