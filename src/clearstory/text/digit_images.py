"""Digits: pictures as text, for models whose tokens are not words.

Each of scikit-learn's 8 × 8 digits is a document of 65 characters: its label, then its 64 pixels row by row, each
one of 17 shades. Under the `characters` tokenizer every pixel is a token, and a model that has learnt the corpus
draws: give it "3" and it writes the 64 shades of a three.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, CorruptFile, MissingExtra
from clearstory.text.documents import Document

DigitImage = npt.NDArray[np.uint8]

SHADES = " .,:;~-=+*caoOX#@"  # level 0 to 16, from paper to ink; no digits, so that labels stand apart
SIDE = 8


def digit_documents() -> Iterator[Document]:
    """The 1,797 digits, in scikit-learn's order. Raises MissingExtra where scikit-learn is not installed."""
    spec = find_spec("sklearn")  # its data file is read, not its code: importing it would take seconds
    if spec is None or spec.origin is None:
        raise MissingExtra("corpus:digits needs scikit-learn: pip install 'clearstory[data]'")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as rows:
            for number, row in enumerate(rows):
                *pixels, label = (int(float(value)) for value in row.split(","))
                yield Document(f"digit {number}", f"{label}" + "".join(SHADES[level] for level in pixels))
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise CorruptFile(f"{file} is not scikit-learn's table of digits ({error}); install it again") from None


def parse_image(text: str) -> DigitImage:
    """The picture that a text spells, its label skipped: (8, 8) levels from 0 (paper) to 16 (ink).

    Text behind the 64th pixel is left out. Raises BadInput when there are fewer, or a character is no shade.

    >>> parse_image("0" + "@" * 8 + " " * 56)[:2].tolist()
    [[16, 16, 16, 16, 16, 16, 16, 16], [0, 0, 0, 0, 0, 0, 0, 0]]
    """
    pixels = text.lstrip("0123456789")[: SIDE * SIDE]
    strange = [character for character in pixels if character not in SHADES]
    if strange:
        raise BadInput(f"{strange[0]!r} is none of the 17 shades {SHADES!r}; give a label and 64 shades")
    if len(pixels) < SIDE * SIDE:
        raise BadInput(f"the text holds {len(pixels)} pixels, a picture {SIDE * SIDE}; write {SIDE * SIDE} shades")
    return np.array([SHADES.index(shade) for shade in pixels], dtype=np.uint8).reshape(SIDE, SIDE)


def save_png(pictures: Sequence[DigitImage], path: Path, columns: int = 8, scale: int = 8) -> None:
    """Draw pictures as a grid in a greyscale PNG, each pixel `scale` wide, with a line of paper between them.

    PNG specification (W3C 2003): signature, IHDR, IDAT of zlib-packed rows each led by filter 0, IEND.
    """
    from clearstory.durable import write_bytes

    if not pictures:
        raise BadInput("there are no pictures to draw; give at least one of shape (8, 8)")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = SIDE + 1
    grid = np.zeros((rows * step + 1, columns * step + 1), dtype=np.uint8)
    for number, levels in enumerate(pictures):
        top, left = (number // columns) * step + 1, (number % columns) * step + 1
        grid[top : top + SIDE, left : left + SIDE] = levels
    grey = (255 - grid.astype(int) * 255 // (len(SHADES) - 1)).astype(np.uint8)
    grey = grey.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = grey.shape
    scanlines = np.pad(grey, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, greyscale
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(scanlines)) + _chunk(b"IEND", b"")
    write_bytes(path, b"\x89PNG\r\n\x1a\n" + body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
