"""The digest in a GGUF file written by Clearstory, so that a file that has changed is refused.

It is a metadata field, which other programs ignore: 32 hexadecimal digits of XXH3, of the whole file with 32 zeros in
their place. The field has the same length in every file, so it can be filled in when the file is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearstory.durable import Digest
from clearstory.errors import CorruptFile

FIELD = "clearstory.checksum"
UNSET = "0" * 32

BLOCK = 2**20

MARK = FIELD.encode() + (8).to_bytes(4, "little") + len(UNSET).to_bytes(8, "little")
"""The bytes before the digits: the name of the field, the type of a string, and its length."""


def write_checksum(path: Path) -> None:
    """Fill in the digest of a file that was written with the field UNSET."""
    offset = digits_offset(path)
    digest = digest_without_digits(path, offset)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(digest.encode())


def verify_checksum(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether a file holds its digest, which is compared with its contents. Raises CorruptFile if they differ."""
    stored = metadata.get(FIELD)
    if stored is None:
        return False
    found = digest_without_digits(path, digits_offset(path))
    if found != stored:
        raise CorruptFile(
            f"{path} has changed since it was saved (it holds the digest {str(stored)[:8]}, its contents have "
            f"{found[:8]}); copy it again, or, if the change was intended, remove its field {FIELD}"
        )
    return True


def digits_offset(path: Path) -> int:
    """Where the digits are: the field is the first that is written, after the architecture. Raises CorruptFile."""
    with path.open("rb") as file:
        start = file.read(BLOCK)
    at = start.find(MARK)
    if at < 0:
        raise CorruptFile(
            f"{path} has its field {FIELD} at another position or of another type; convert the model again"
        )
    return at + len(MARK)


def digest_without_digits(path: Path, offset: int) -> str:
    """The digest of a file with UNSET in place of the digits at `offset`."""
    digest, block = Digest(), bytearray(BLOCK)
    view, at = memoryview(block), 0
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            first, last = max(offset - at, 0), min(offset + len(UNSET) - at, size)
            if first < last:
                block[first:last] = UNSET[: last - first].encode()
            digest.update(view[:size])
            at += size
    return digest.hex
