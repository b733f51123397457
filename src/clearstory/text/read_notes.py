"""Read notes: sentences about files that were skipped and characters that were replaced."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = 3
"""Maximum number of file names per reason."""

OFFSET = re.compile(r": byte 0x\w+ at offset [\d,]+ cannot be decoded|, line [\d,]+|, row [\d,]+")


@dataclass
class ReadNotes:
    """Files that were skipped and characters that were replaced in reading.

    Args:
        other_kinds: number of files of a folder that were not read, by the note on their kind and their suffix.
        unreadable: error message of each file that was skipped because it cannot be read.
        replaced: number of characters that were replaced by U+FFFD, by file.
        surrogates: number of unpaired surrogates of JSON that were replaced by U+FFFD, by file.
        guessed: encoding that was guessed, by file.
        remarks: further sentences.
        complete: whether all files were tried, so that those that are not in `unreadable` can be read.
    """

    other_kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unreadable: dict[Path, str] = field(default_factory=dict)
    replaced: dict[Path, int] = field(default_factory=dict)
    surrogates: Counter[Path] = field(default_factory=Counter)
    guessed: dict[Path, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    complete: bool = False

    def sentences(self) -> list[str]:
        """All notes, one sentence each."""
        found = [self.kinds_sentence(), self.unreadable_sentence(), self.guessed_sentence(), self.replaced_sentence()]
        return [*filter(None, found), *dict.fromkeys(self.remarks)]

    @property
    def text(self) -> str | None:
        """All notes, or None if there are none."""
        return "; ".join(self.sentences()) or None

    def kinds_sentence(self) -> str:
        """How many files of which kinds were not read, and how to include them."""
        total = sum(counts.total() for counts in self.other_kinds.values())
        groups = [
            f"{', '.join(f'{number:,} {suffix}' for suffix, number in counts.most_common(8))}"
            f"{' and others' if len(counts) > 8 else ''} ({why})"
            for why, counts in sorted(self.other_kinds.items(), key=lambda item: -item[1].total())
        ]
        return f"skipped {count_files(total)}: {'; '.join(groups)}" if total else ""

    def unreadable_sentence(self) -> str:
        """How many files cannot be read, with the reasons and some names."""
        if not self.unreadable:
            return ""
        names: dict[str, list[str]] = defaultdict(list)
        for path, message in self.unreadable.items():
            names[short_reason(path, message)].append(path.name)
        reasons = [f"{reason} ({name_some(files)})" for reason, files in names.items()][:8]
        return f"skipped {count_files(len(self.unreadable))} that cannot be read: {'; '.join(reasons)}"

    def guessed_sentence(self) -> str:
        """Which encodings were guessed."""
        names: dict[str, list[str]] = defaultdict(list)
        for path, encoding in self.guessed.items():
            names[encoding].append(path.name)
        read = [f"{count_files(len(files))} as {encoding} ({name_some(files)})" for encoding, files in names.items()]
        return f"read {', '.join(read)}, detected from their bytes" if read else ""

    def replaced_sentence(self) -> str:
        """How many characters were replaced."""
        numbers = {path: number for path, number in (Counter(self.replaced) + self.surrogates).items() if number}
        if not numbers:
            return ""
        total = sum(numbers.values())
        files = name_some([path.name for path in numbers])
        return (
            f"{total:,} invalid character{'s' * (total != 1)} of {files} were replaced with U+FFFD, which is part of "
            "the text"
        )


def count_files(number: int) -> str:
    """A number of files as text."""
    return f"{number:,} file{'s' * (number != 1)}"


def name_some(names: Iterable[str]) -> str:
    """The first names, and the number of further ones."""
    names = list(names)
    more = f" and {len(names) - EXAMPLES:,} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def short_reason(path: Path, message: str) -> str:
    """An error message without the file's name and without its remedy, except for a likely encoding.

    >>> short_reason(Path("a.txt"), "a.txt is not UTF-8: byte 0x82 at offset 3 cannot be decoded; it is probably cp932")
    'not UTF-8, probably cp932: --data.encoding auto reads such files'
    """
    first, _, rest = message.removeprefix(str(path)).partition("; ")
    likely = re.match(r"it is probably (\w[\w-]*)", rest)
    reason = OFFSET.sub("", first).strip().removeprefix("is ").removeprefix(": ").strip()
    return reason + (f", probably {likely[1]}: --data.encoding auto reads such files" if likely else "")
