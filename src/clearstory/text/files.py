"""File contents, decompressed and decoded block by block.

A file is never held in memory whole. Line ends are kept; only a byte order mark at the very start is dropped.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from clearstory.errors import BadInput, CorruptFile, MissingExtra
from clearstory.text.character_encodings import (
    AUTO,
    SAMPLE,
    UTF8,
    Decoder,
    Errors,
    blocks_with_end,
    choose_encoding,
    guess_encoding,
)
from clearstory.text.read_notes import ReadNotes

COMPRESSED_SIGNATURES = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd"}
"""The first bytes of compressed files, by suffix."""

COMPRESSED_SUFFIXES = tuple(COMPRESSED_SIGNATURES)
BLOCK = 1 << 19  # bytes per read; a part of a document is then at most about 1 MiB

# Line ends at which GPT-2's regular expression also cuts: before the last white space of a run, or after a run of
# one. Byte-level tokens of the parts are then those of the whole text.
CUT_POINT = re.compile(r"\n(?=\s\S)|(?<=\S)\n(?=\S)")


def content_suffix(path: Path) -> str:
    """The suffix of the content type, without the compression suffix."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED_SUFFIXES else path).suffix.lower()


def read_text_parts(
    path: Path, errors: Errors = "strict", encoding: str = UTF8, notes: ReadNotes | None = None
) -> Iterator[str]:
    """Text of a file in parts of at most about 1 MiB, split at line ends; their concatenation is exactly the text.

    A line longer than a part is cut between two characters. Raises BadInput for bytes that are invalid in the encoding
    (under "strict") and for binary files, CorruptFile for truncated or damaged compressed files.
    """
    held = ""
    for text in read_decoded(path, errors, encoding, notes):
        held += text
        if len(held) >= BLOCK // 4:  # a block has at least this many characters of at most four bytes
            cut = _last_cut(held)
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def read_lines(
    path: Path, errors: Errors = "strict", encoding: str = UTF8, notes: ReadNotes | None = None
) -> Iterator[str]:
    """Lines of a file, without line feeds."""
    held: list[str] = []
    for text in read_decoded(path, errors, encoding, notes):
        first, *rest = text.split("\n")
        held.append(first)
        if rest:
            yield "".join(held)
            yield from rest[:-1]
            held = [rest[-1]]
    last = "".join(held)
    if last:
        yield last


def read_records(
    path: Path, errors: Errors = "strict", encoding: str = UTF8, notes: ReadNotes | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Objects of a jsonl file, as (line number, location for messages, object); blank lines are skipped.

    Raises BadInput for a line that is not a JSON object.
    """
    for number, line in enumerate(read_lines(path, errors, encoding, notes), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number:,}"
        record = parse_json(line, location, "jsonl must have one object per line")
        if not isinstance(record, dict):
            raise BadInput(f"{location} is not a JSON object; each line must be an object with a text field")
        yield number, location, record


def parse_json(text: str, location: str, remedy: str) -> Any:
    """The value of a JSON text; numbers are floats if one has more digits than Python converts. Raises BadInput."""
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer of thousands of digits, in this field or another
            return json.loads(text, parse_int=float)
    except RecursionError:
        raise BadInput(f"{location} is nested too deeply to be read; {remedy}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{location} is not JSON ({error}); {remedy}") from None


def without_surrogates(location: str, text: str, errors: Errors) -> str:
    """The text without unpaired surrogates, which JSON can contain (\\ud800) and UTF-8 cannot. Raises BadInput under
    "strict".
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "replace":
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        half = f"\\u{ord(text[error.start]):04x}"
        raise BadInput(
            f"{location} contains an unpaired surrogate, {half}; replace it with U+FFFD: --errors replace"
        ) from None
    return text


def read_decoded(
    path: Path, errors: Errors = "strict", encoding: str = UTF8, notes: ReadNotes | None = None
) -> Iterator[str]:
    """Decoded blocks of a file, without a byte order mark at the start.

    `encoding` is that of files without a byte order mark; "auto" guesses it for a file that is not UTF-8. Guesses and
    replacements are added to `notes`.
    """
    if encoding == AUTO:
        encoding = guess_file_encoding(path)
        if encoding != UTF8 and notes is not None:
            notes.guessed[path] = encoding
    decoder: Decoder | None = None
    position = skip = 0
    for block in blocks_with_end(read_blocks(path)):
        if decoder is None:
            refuse_other_formats(path, block)
            chosen, skip = choose_encoding(block, encoding)
            decoder = Decoder(chosen, errors)
        nul = -1 if decoder.encoding.startswith(("utf-16", "utf-32")) else block.find(b"\0")
        if nul >= 0:
            raise BadInput(
                f"{path} is binary, not text: NUL byte at offset {position + nul:,}; give text files (UTF-8)"
            )
        before = position - decoder.n_waiting
        try:
            text = decoder.decode(block[skip:], final=not block)
        except UnicodeDecodeError as error:
            raise invalid_bytes(
                path, decoder.encoding, error, max(0, before) + skip, block, notes is not None
            ) from None
        position += len(block)
        skip = 0
        if text:
            yield text
    if notes is not None and decoder is not None:
        notes.replaced[path] = decoder.replaced


def guess_file_encoding(path: Path) -> str:
    """The encoding of a file: UTF-8 if it is valid, otherwise detected from its bytes. Raises BadInput."""
    decoder: Decoder | None = None
    beginning, position = b"", 0
    for block in blocks_with_end(read_blocks(path)):
        if decoder is None:
            refuse_other_formats(path, block)
            chosen, skip = choose_encoding(block, AUTO)
            if skip or chosen != UTF8:
                return chosen
            decoder = Decoder(UTF8, "strict")
        beginning, waiting = beginning or block, decoder.n_waiting
        try:
            decoder.decode(block, final=not block)
            position += len(block)
        except UnicodeDecodeError as error:
            guess = likely_encoding(block or beginning, error)
            if guess is None:
                raise invalid_bytes(path, UTF8, error, position - waiting, block) from None
            return guess
    return UTF8


def likely_encoding(block: bytes, error: UnicodeDecodeError) -> str | None:
    """The likely encoding of a block that is not UTF-8; None if none is, or where the text is damaged UTF-8."""
    before = error.object[: error.start]
    if sum(not each.isascii() for each in before.decode(error.encoding, "ignore")) >= VALID_CHARACTERS:
        return None
    start = block.rfind(b"\n", 0, max(0, error.start - SAMPLE // 2)) + 1
    return guess_encoding(block[start : start + SAMPLE])


VALID_CHARACTERS = 3
"""Characters outside ASCII that are valid before the first invalid byte: a file in another encoding has hardly any."""


def invalid_bytes(
    path: Path, encoding: str, error: UnicodeDecodeError, before: int, block: bytes, can_choose: bool = True
) -> BadInput:
    """The error for bytes that cannot be decoded; `before` is the number of bytes before those of `error`.

    `can_choose`: whether the reader has a setting for the encoding.
    """
    name = "UTF-8" if encoding == UTF8 else encoding
    guess = likely_encoding(block, error) if block else None
    remedy = "convert the file"
    if guess is not None and guess != encoding:
        way = (
            f"read it with --data.encoding {guess}"
            if can_choose
            else f"convert it with iconv -f {guess.replace('_', '-')} -t utf-8"
        )
        remedy = f"it is probably {guess}: {way}"
    return BadInput(
        f"{path} is not {name}: byte 0x{error.object[error.start]:02x} at offset {before + error.start:,} cannot be "
        f"decoded; {remedy}, or replace such bytes with U+FFFD: --errors replace"
    )


OTHER_FORMATS = (
    (b"%PDF-", "a PDF document", "extract its text first, for example with pdftotext"),
    (b"PK\x03\x04", "a zip archive, as are .docx, .odt and .epub", "save its contents as text first"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as text first"),
    (b"{\\rtf", "an RTF document", "save it as text first"),
    (COMPRESSED_SIGNATURES[".gz"], "compressed with gzip", "let its name end in .gz"),
    (COMPRESSED_SIGNATURES[".xz"], "compressed with xz", "let its name end in .xz"),
    (COMPRESSED_SIGNATURES[".zst"], "compressed with zstd", "let its name end in .zst"),
    (b"BZh", "compressed with bzip2", "decompress it first"),
)
"""First bytes of other file formats, their names, and the advice for each."""


def refuse_other_formats(path: Path, beginning: bytes) -> None:
    """Raise BadInput for a file that is a document or an archive of another format."""
    for mark, what, remedy in OTHER_FORMATS:
        if beginning.startswith(mark):
            raise BadInput(f"{path} is {what}, not text; {remedy}")


def read_blocks(path: Path) -> Iterator[bytes]:
    """Blocks of bytes of a file, decompressed if its name ends in .gz, .xz or .zst."""
    packing = path.suffix.lower()
    try:
        if packing == ".gz":
            with gzip.open(path, "rb") as file:
                yield from _read(file)
        elif packing == ".xz":
            with lzma.open(path, "rb") as file:
                yield from _read(file)
        else:
            with path.open("rb") as file:
                yield from _unpack_zst(path, file) if packing == ".zst" else _read(file)
    except EOFError:
        raise _truncated_file(path) from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise _damaged_file(path, error) from None
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _read(file: _Readable) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _unpack_zst(path: Path, file: _Readable) -> Iterator[bytes]:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra(f"{path} needs zstandard: pip install 'clearstory[data]'") from None
    # Not stream_reader, which accepts truncated files.
    frame = None
    try:
        while packed := file.read(1 << 14):
            while packed:
                if frame is None:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(packed)
                packed = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise _damaged_file(path, error) from None
    if frame is not None:
        raise _truncated_file(path)


def _last_cut(text: str) -> int:
    """The split position: the last split point near the end, else the last line end, else the end."""
    for reach in (1 << 10, 1 << 16):
        seams = [match.end() for match in CUT_POINT.finditer(text, max(0, len(text) - reach))]
        if seams:
            return seams[-1]
    return text.rfind("\n") + 1 or len(text)


def _truncated_file(path: Path) -> CorruptFile:
    return CorruptFile(f"{path} is truncated: its {path.suffix} data is incomplete; download or compress it again")


def _damaged_file(path: Path, error: Exception) -> CorruptFile:
    return CorruptFile(f"{path} is not a valid {path.suffix} file ({error}); download or compress it again")
