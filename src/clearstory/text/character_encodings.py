"""Character encodings: detection, and decoding with a count of replaced characters.

UTF-8 is the default. UTF-16 and UTF-32 are recognized by their byte order mark, or by where their zero bytes are; other
encodings are named by the user or guessed.
"""

from __future__ import annotations

import codecs
import threading
import unicodedata
from collections.abc import Iterator
from typing import Literal

from clearstory.errors import BadSetting, nearest

Errors = Literal["strict", "replace"]

AUTO = "auto"
UTF8 = "utf-8"

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

COMMON_ENCODINGS = (
    "utf-8", "utf-16", "utf-32", "cp1252", "latin-1", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-15", "cp1250",
    "cp1251", "cp1253", "koi8-r", "mac-roman", "cp437", "shift_jis", "euc-jp", "iso2022-jp", "gb18030", "big5",
    "euc-kr",
)  # fmt: skip
"""Suggested for a misspelled name; every text encoding of Python is accepted."""

NOT_FOR_FILES = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"})
"""Encodings of Python that are not those of text files."""

JAPANESE = ("shift_jis", "euc_jp", "iso2022_jp")

WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœšžªº°§·©®±½£€…’‘“”„–—«»¡¿•†\u00a0\u00ad")
"""Characters outside ASCII of texts in Western European languages."""

CENTRAL_EUROPEAN = frozenset("ąćęłńóśźżěščřžýáíéúůďťňôľĺŕäëöüßőűăâîşţ§°…’‘“”„–—«»\u00a0\u00ad")

SAMPLE = 1 << 16
"""Number of bytes used for detection."""


def check_encoding(name: str, setting: str) -> None:
    """Raise BadSetting for a name that is not a text encoding of Python."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    # getattr: the mark of Python's byte-to-byte codecs, such as zlib, has no public name.
    if found is None or found.name.replace("_", "-") in NOT_FOR_FILES or not getattr(found, "_is_text_encoding", True):
        raise BadSetting(
            f"{setting} is {name!r}, which is not a text encoding; {nearest(name.lower(), COMMON_ENCODINGS)}"
        )


def choose_encoding(beginning: bytes, encoding: str) -> tuple[str, int]:
    """The encoding to decode a file with, and the number of bytes of its byte order mark, from its first block.

    A byte order mark takes precedence over the given encoding. Without one, UTF-16 and UTF-32 are recognized if UTF-8
    is expected; `AUTO` is treated as UTF-8, since other encodings can only be guessed from a whole file.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if beginning.startswith(mark):
            return name, len(mark)
    family = normal_name(encoding)
    if encoding == AUTO or family == UTF8:
        return wide_encoding(beginning) or UTF8, 0
    if family in ("utf-16", "utf-32"):  # without a mark: by its zero bytes, else little-endian, as most files are
        found = wide_encoding(beginning)
        return found if found is not None and found.startswith(family) else f"{family}-le", 0
    return encoding, 0


def normal_name(encoding: str) -> str:
    """Python's name of an encoding; utf-8 for both of its variants."""
    name = AUTO if encoding == AUTO else codecs.lookup(encoding).name
    return UTF8 if name == "utf-8-sig" else name


def wide_encoding(beginning: bytes) -> str | None:
    """The UTF-16 or UTF-32 encoding of bytes with zeros where those of text are; None for other bytes.

    >>> wide_encoding("Hello, world".encode("utf-16-be"))
    'utf-16-be'
    """
    sample = beginning[:SAMPLE]
    if 0 not in sample:
        return None
    # The least share of zeros in one byte of each unit: UTF-32 has them everywhere, UTF-16 in Latin letters, spaces and
    # line ends. Where the bytes could be UTF-8 text with some zeros in it, they must be most of them.
    least = 0.4 if is_text(sample.replace(b"\0", b""), UTF8) else 0.0
    found: list[tuple[float, str]] = []
    for name, width, zero in (("utf-32-le", 4, 3), ("utf-32-be", 4, 0), ("utf-16-le", 2, 1), ("utf-16-be", 2, 0)):
        whole = sample[: len(sample) // width * width]
        if not whole or (len(beginning) <= SAMPLE and len(whole) != len(sample)):
            continue  # half a character at the end of a short file
        share = whole[zero::width].count(0) / len(whole[zero::width])
        if share > (0.99 if width == 4 else least) and is_text(whole, name):
            found.append((share, name))
    return max(found)[1] if found else None


def is_text(data: bytes, encoding: str) -> bool:
    """Whether bytes decode to text without control and unassigned characters."""
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(data)
    except UnicodeDecodeError:
        return False
    return not any(
        unicodedata.category(each) in ("Cc", "Cn", "Co", "Cs") and each not in "\t\n\r\f" for each in set(text)
    )


def guess_encoding(data: bytes) -> str | None:
    """The most likely encoding of text that is not UTF-8, by Python's name; None if unknown.

    >>> guess_encoding("Où est l'été ? Déjà là, répondit-elle.".encode("cp1252"))
    'cp1252'
    """
    from charset_normalizer import from_bytes

    if any(is_control(byte) for byte in set(data)):
        is_wide = len(data) >= 16 and len(data) % 2 == 0
        return next((name for name in ("utf-16-le", "utf-16-be") if is_wide and is_text(data, name)), None)
    if japanese := next((name for name in JAPANESE if has_kana(data, name)), None):
        return japanese
    n_letters, n_others = sum(chr(byte).isalpha() for byte in data if byte < 128), sum(byte > 127 for byte in data)
    # Between the many encodings of Latin letters the library guesses by chance; the most common one that fits is taken.
    if n_others < n_letters:
        for letters, names in ((WESTERN, ("cp1252",)), (CENTRAL_EUROPEAN, ("cp1250", "iso8859_2"))):
            if fitting := next((name for name in names if consists_of(letters, data, name)), None):
                return fitting
    best = from_bytes(data[:SAMPLE]).best()
    if best is None:
        return None
    usual = ("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "koi8_r", "cp1251", "cp1252", "iso8859_2", "iso8859_7")
    guesses = [best.encoding, *best.could_be_from_charset]
    return next((name for name in usual if name in guesses and decodes(data, name)), best.encoding)


def is_control(byte: int) -> bool:
    """Whether a byte is a control character that text files do not have; escape is for iso2022-jp."""
    return byte < 32 and byte not in (9, 10, 12, 13, 27)


def has_kana(data: bytes, encoding: str) -> bool:
    """Whether a fifth of the characters outside ASCII are kana, as in Japanese; bytes of other languages give few."""
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(data)
    except UnicodeDecodeError:
        return False
    others = [each for each in text if not each.isascii()]
    return sum("\u3041" <= each <= "\u30fe" for each in others) > 0.2 * len(others)


def consists_of(characters: frozenset[str], data: bytes, encoding: str) -> bool:
    """Whether all characters outside ASCII are among these, in upper or lower case."""
    try:
        return {each.lower() for each in set(data.decode(encoding)) if not each.isascii()} <= characters
    except UnicodeDecodeError:
        return False


def decodes(data: bytes, encoding: str) -> bool:
    """Whether bytes are valid in an encoding, but for a character cut at their end."""
    try:
        codecs.getincrementaldecoder(encoding)("strict").decode(data)
    except UnicodeDecodeError:
        return False
    return True


class _ReplacementCount(threading.local):
    """Number of characters that this thread has replaced with U+FFFD."""

    number = 0


_replaced = _ReplacementCount()
_COUNTING = "clearstory.replace"


def _replace_and_count(error: UnicodeError) -> tuple[str | bytes, int]:
    _replaced.number += 1
    return codecs.replace_errors(error)


codecs.register_error(_COUNTING, _replace_and_count)


class Decoder:
    """Decodes the blocks of one file; `replaced` counts the characters replaced with U+FFFD.

    >>> decoder = Decoder("utf-8", "replace")
    >>> decoder.decode(b"caf\\xe9 and \\xff", final=True), decoder.replaced
    ('caf\ufffd and \ufffd', 2)
    """

    def __init__(self, encoding: str, errors: Errors) -> None:
        self.encoding = encoding
        self.replaced = 0
        self._decoder = codecs.getincrementaldecoder(encoding)(_COUNTING if errors == "replace" else "strict")

    def decode(self, block: bytes, final: bool = False) -> str:
        """The text of a block. Raises UnicodeDecodeError under "strict"."""
        before = _replaced.number
        text = self._decoder.decode(block, final)
        self.replaced += _replaced.number - before
        return text

    @property
    def n_waiting(self) -> int:
        """Number of bytes of a character that is split between two blocks."""
        return len(self._decoder.getstate()[0])


def blocks_with_end(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The non-empty blocks, then an empty one: the end, where a character must be complete."""
    yield from filter(None, blocks)
    yield b""
