"""Digit images as text, for models whose tokens are not words.

Each of scikit-learn's 8 × 8 digits is a document of 65 characters: its label, then its 64 pixels row by row, each in
one of 17 gray levels. With the `characters` tokenizer every pixel is a token, and a model trained on the corpus
generates images: given "3", it writes the 64 pixels of a three.
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
from clearstory.text.document import Document

DigitImage = npt.NDArray[np.uint8]

GRAY_LEVELS = " .,:;~-=+*caoOX#@"  # gray levels 0 to 16, from white to black; no digits, so that labels differ
SIDE = 8


def digit_documents() -> Iterator[Document]:
    """The 1,797 digits, in scikit-learn's order. Raises MissingExtra if scikit-learn is not installed."""
    spec = find_spec("sklearn")  # only its data file is read: importing the package takes seconds
    if spec is None or spec.origin is None:
        raise MissingExtra("corpus:digits needs scikit-learn: pip install 'clearstory[data]'")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as rows:
            for number, row in enumerate(rows):
                *pixels, label = (int(float(value)) for value in row.split(","))
                yield Document(f"digit {number}", f"{label}" + "".join(GRAY_LEVELS[level] for level in pixels))
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise CorruptFile(f"{file} is not scikit-learn's digits data ({error}); install it again") from None


def parse_image(text: str) -> DigitImage:
    """Image that a text encodes, its label skipped: (8, 8) gray levels from 0 (white) to 16 (black).

    Text after the 64th pixel is ignored. Raises BadInput for fewer pixels or an invalid character.

    >>> parse_image("0" + "@" * 8 + " " * 56)[:2].tolist()
    [[16, 16, 16, 16, 16, 16, 16, 16], [0, 0, 0, 0, 0, 0, 0, 0]]
    """
    pixels = text.lstrip("0123456789")[: SIDE * SIDE]
    invalid = [character for character in pixels if character not in GRAY_LEVELS]
    if invalid:
        raise BadInput(f"{invalid[0]!r} is not one of the 17 gray levels {GRAY_LEVELS!r}; give a label and 64 pixels")
    if len(pixels) < SIDE * SIDE:
        raise BadInput(f"the text has {len(pixels)} pixels, but an image has {SIDE * SIDE}; give {SIDE * SIDE} pixels")
    return np.array([GRAY_LEVELS.index(pixel) for pixel in pixels], dtype=np.uint8).reshape(SIDE, SIDE)


def image_rows(text: str) -> str | None:
    """The image of a text in rows of pixels, each two characters wide, as wide as a line is high; None for other texts.

    >>> print(image_rows("3" + " @@@@@@ " * 8).splitlines()[0], end="|")
      @@@@@@@@@@@@  |
    """
    pixels = text.strip("\n")[1:]
    if not text[:1].isdecimal() or len(pixels) < SIDE * SIDE or set(pixels) - set(GRAY_LEVELS):
        return None
    rows = [pixels[start : start + SIDE] for start in range(0, SIDE * SIDE, SIDE)]
    return "\n".join("".join(2 * pixel for pixel in row) for row in rows)


def save_png(images: Sequence[DigitImage], path: Path, columns: int = 8, scale: int = 8) -> None:
    """Write images as a grid to a grayscale PNG, each pixel `scale` wide, separated by white lines.

    PNG specification (W3C 2003): signature, IHDR, IDAT of zlib-compressed rows each led by filter 0, IEND.
    """
    from clearstory.durable import write_bytes

    if not images:
        raise BadInput("there are no images to draw; give at least one of shape (8, 8)")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step = SIDE + 1
    grid = np.zeros((rows * step + 1, columns * step + 1), dtype=np.uint8)
    for number, levels in enumerate(images):
        top, left = (number // columns) * step + 1, (number % columns) * step + 1
        grid[top : top + SIDE, left : left + SIDE] = levels
    grey = (255 - grid.astype(int) * 255 // (len(GRAY_LEVELS) - 1)).astype(np.uint8)
    grey = grey.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = grey.shape
    scanlines = np.pad(grey, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, greyscale
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(scanlines)) + _chunk(b"IEND", b"")
    write_bytes(path, b"\x89PNG\r\n\x1a\n" + body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
