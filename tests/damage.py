"""Damaged copies of files, and what a program does with them: each in a process that may be stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import struct
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import ClearstoryError

EXTREME_NUMBERS = [0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1]
ODD_VALUES: list[Any] = [
    None, True, False, [], {}, "", 0, -1, 1, 0.5, -0.5, 1e308, 1e-308, 2**31, 2**63, 10**30, "\ud800", "é\u0000\ufffe",
    "../../etc/passwd", "x" * 5000, [[[[]]]], {"a": {"b": [1]}}, [None] * 50, ["a", 1], "1", "NaN", 7,
]  # fmt: skip
ODD_TEXTS = ["NaN", "Infinity", "-Infinity", "9" * 5000, "[" * 3000 + "]" * 3000, '"\\ud800"', "1e999", '{"a":1,"a":2}']


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one random damage."""
    looks_like_json = data[:1] in (b"{", b"[")
    kinds = [flip_bits, flip_bits, truncate, set_block, splice, overwrite_number, insert]
    if looks_like_json:
        kinds += [change_json] * 6
    return rng.choice(kinds)(data, rng)


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits changed, half of the time near the beginning."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        end = len(out) if rng.random() < 0.5 else min(len(out), 600)
        if end:
            out[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, len(data) - 1, len(data) // 2, rng.randrange(len(data) + 1)))]


def set_block(data: bytes, rng: random.Random) -> bytes:
    """A block of zeros, ones or noise."""
    out = bytearray(data)
    size = rng.choice((1, 4, 16, 512, 4096))
    at = rng.randrange(len(out) + 1)
    block = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    out[at : at + size] = block[: len(out) - at]
    return bytes(out)


def splice(data: bytes, rng: random.Random) -> bytes:
    """A block of the file copied over another."""
    out = bytearray(data)
    size = rng.choice((8, 64, 1024))
    start, at = rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)
    block = data[start : start + size]
    out[at : at + len(block)] = block[: len(out) - at]
    return bytes(out)


def overwrite_number(data: bytes, rng: random.Random) -> bytes:
    """A number that is extreme in place of eight bytes, mostly in the header."""
    out = bytearray(data)
    at = rng.randrange(max(1, min(len(out), 4096 if rng.random() < 0.7 else len(out))))
    packed = rng.choice(
        (
            struct.pack("<Q", rng.choice(EXTREME_NUMBERS) % 2**64),
            struct.pack("<I", rng.choice(EXTREME_NUMBERS) % 2**32),
            struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), 3e38))),
        )
    )
    out[at : at + len(packed)] = packed
    return bytes(out)


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\0", b"\xff\xfe", b"\n\n", rng.randbytes(9), data[:100])) + data[at:]


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Another value at a random place of a JSON value, or a key that is left out."""
    try:
        value = json.loads(data)
    except ValueError:
        return flip_bits(data, rng)
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack and len(places) < 3000:
        here = stack.pop(0)
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in list(keys)[:300]:
            places.append((here, key))
            stack.append(here[key])
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    holder, key = rng.choice(places[:200] if rng.random() < 0.8 else places)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and rng.random() < 0.1:
        holder[rng.choice(["\ud800", "", "__class__", "x" * 300])] = holder.pop(key)
    elif rng.random() < 0.15:
        mark = "@@damage@@"
        holder[key] = mark
        return json.dumps(value).replace(f'"{mark}"', rng.choice(ODD_TEXTS)).encode()
    else:
        holder[key] = rng.choice(ODD_VALUES)
    return json.dumps(value).encode()


@dataclass(frozen=True)
class Target:
    """A file to damage, and how it is read.

    Args:
        name: a name for reports.
        file: the file.
        read: reads everything that depends on it, and returns a fingerprint of the content.
        ours: whether we wrote it with a digest, so that no change of the content may be accepted.
    """

    name: str
    file: Path
    read: Callable[[], str]
    ours: bool = True


def outcome(target: Target, data: bytes, expected: str) -> str:
    """What reading does with a file of these bytes: refused, same, changed, or the failure in a line."""
    original = target.file.read_bytes()
    target.file.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = target.read()
    except ClearstoryError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 3000 else f"two lines: {str(error)[:300]!r}"
    except BaseException:
        return f"traceback: {traceback.format_exc()[-1500:]}"
    finally:
        target.file.write_bytes(original)
    if found == expected:
        return "same"
    return "changed" if not target.ours else "accepted a change"


def try_all(
    targets: Sequence[Target], count: int, seed: int, *, seconds: float = 20.0, memory: int = 3 * 2**30
) -> tuple[Counter[str], list[str]]:
    """Outcomes of `count` damages spread over the targets, and the failures. Restarts the process after a hang."""
    originals = {target.file: target.file.read_bytes() for target in targets}
    done, outcomes, failures = 0, Counter[str](), list[str]()
    while done < count:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(targets, range(done, count), seed, writer, memory)
            os._exit(0)
        os.close(writer)
        for number, found in _answers(reader, seconds):
            kind = found.partition(":")[0]
            outcomes[kind] += 1
            if kind not in ("refused", "same", "changed"):
                failures.append(f"{targets[number % len(targets)].name}, damage {number}: {found}")
            done = number + 1
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if done < count:
            failures.append(f"{targets[done % len(targets)].name}, damage {done}: no answer in {seconds:g} s, or death")
            outcomes["no answer"] += 1
            done += 1
        for file, data in originals.items():
            file.write_bytes(data)
    return outcomes, failures


def _work(targets: Sequence[Target], numbers: range, seed: int, writer: int, memory: int) -> None:
    """Try the damages with these numbers, and write each outcome to a pipe."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory, resource.RLIM_INFINITY))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # panics of Rust
    expected: dict[Path, str] = {}
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        target = targets[number % len(targets)]
        if target.file not in expected:
            expected[target.file] = target.read()
        data = target.file.read_bytes()
        changed = damaged(data, rng)
        found = "same" if changed == data else outcome(target, changed, expected[target.file])
        os.write(writer, json.dumps([number, found]).encode() + b"\n")


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _answers(reader: int, seconds: float) -> Iterator[tuple[int, str]]:
    """Numbers and outcomes, until the process ends or is silent for too long."""
    buffer = b""
    while select.select([reader], [], [], seconds)[0] and (data := os.read(reader, 65536)):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            number, found = json.loads(line)
            yield number, found
