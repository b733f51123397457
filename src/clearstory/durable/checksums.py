"""checksums.json: a digest of every file of a folder, so that a file that has changed is refused with its name.

    {"algorithm": "xxh3-128", "files": {"config.json": "9f2c…", "model.safetensors": "0b71…"}}

XXH3 detects accidental damage; it does not protect against someone who also changes checksums.json. It
takes 0.06 s for 500 MB, sha256 0.32 s, blake2b 0.60 s.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import xxhash

from clearstory.durable.disk_errors import translate_disk_errors
from clearstory.durable.reading import is_regular_file, parse_json, read_file
from clearstory.errors import CorruptFile

CHECKSUMS = "checksums.json"
ALGORITHM = "xxh3-128"

MAX_BYTES = 16 * 2**20
BLOCK = 2**20

HEX = re.compile(r"[0-9a-f]{32}")


class ChecksumMismatch(CorruptFile):
    """A file that differs from the digest that was recorded when it was written."""


class Digest:
    """The XXH3 digest of bytes that arrive in parts, 32 hexadecimal digits.

    >>> digest = Digest()
    >>> digest.update(b"abc")
    >>> digest.hex
    '06b05ab6733a618578af5f94892f3950'
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview | bytearray) -> None:
        """Add bytes."""
        self._hash.update(data)

    @property
    def hex(self) -> str:
        """The digest of all bytes so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class FolderChecksums:
    """The contents of a checksums.json: the digests of each file by name.

    A file has two while it is replaced: that of the old and that of the new contents.
    """

    folder: Path
    files: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path) -> FolderChecksums | None:
        """The checksums of a folder, or None if it has no checksums.json. Raises CorruptFile."""
        path = folder / CHECKSUMS
        if not is_regular_file(path):
            if os.path.lexists(path):  # the folder would be taken for one without digests
                raise CorruptFile(f"{path} is not a file; copy the folder again, or delete it to open it unchecked")
            return None
        value = parse_json(read_file(path, MAX_BYTES), path)
        listed = value.get("files") if isinstance(value, dict) else None
        if not isinstance(listed, dict) or value.get("algorithm") != ALGORITHM:
            raise CorruptFile(
                f"{path} is damaged or of another version: it has no {ALGORITHM} digests of files; copy the folder "
                f"again, or delete {CHECKSUMS} to open the folder unchecked"
            )
        files = {name: [entry] if isinstance(entry, str) else entry for name, entry in listed.items()}
        for name, digests in files.items():
            valid = isinstance(digests, list) and all(isinstance(d, str) and HEX.fullmatch(d) for d in digests)
            if not valid or not digests or not is_plain_name(name):
                raise CorruptFile(f"{path} is damaged: its entry {name[:60]!r} is not a file with a digest")
        return cls(folder, files)

    def contents(self) -> bytes:
        """checksums.json as bytes."""
        files = {name: digests[0] if len(digests) == 1 else digests for name, digests in sorted(self.files.items())}
        return (json.dumps({"algorithm": ALGORITHM, "files": files}, indent=2) + "\n").encode()


def is_plain_name(name: str) -> bool:
    """Whether a name is a relative path inside its folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def digest_file(path: Path) -> str:
    """The digest of a file's contents. Raises DiskError."""
    digest, block = Digest(), bytearray(BLOCK)
    view = memoryview(block)
    with translate_disk_errors(path, action="reading"), path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(view[:size])
    return digest.hex


def write_checksums(folder: Path) -> None:
    """Write checksums.json into a folder that is being written, with a digest of each of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): [digest_file(path)] for path in files if path.name != CHECKSUMS}
    (folder / CHECKSUMS).write_bytes(FolderChecksums(folder, digests).contents())


def listed_files(folder: Path) -> set[str]:
    """The names of files whose digests a folder's checksums.json holds; none if it has no such file."""
    checksums = FolderChecksums.read(folder)
    return set() if checksums is None else set(checksums.files)


def verify_folder(
    folder: Path,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    unread: Collection[str] = (),
) -> list[str]:
    """Compare the files of a folder with its checksums.json; returns the names of `unread` files that changed.

    A folder without checksums.json passes. Files that it does not list, others than `only`, and those to `skip` are not
    compared. Raises ChecksumMismatch with the name of a file that changed or is missing.
    """
    checksums = FolderChecksums.read(folder)
    changed = []
    for name, digests in checksums.files.items() if checksums is not None else ():
        if name in skip or (only is not None and name not in only):
            continue
        path = folder / name
        found = digest_file(path) if is_regular_file(path) else None
        if found in digests:
            continue
        if name in unread:
            changed.append(name)
            continue
        raise ChecksumMismatch(
            f"{path} {'is missing' if found is None else 'has changed'} since it was saved ({CHECKSUMS} has the digest "
            f"{digests[0][:8]}{'' if found is None else f', the file {found[:8]}'}); copy it again, or, if the change "
            f"was intended, delete its line in {folder / CHECKSUMS}"
        )
    return changed


def digest_bytes(data: bytes) -> str:
    """The digest of bytes."""
    return str(xxhash.xxh3_128_hexdigest(data))
