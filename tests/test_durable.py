"""Durable writes: a name holds its old contents or its new, complete, whatever happens and whenever."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearstory import durable
from clearstory.errors import BadInput, CorruptFile, DiskError, OutOfSpace

# The forked children only write and die; what other threads of a long test run hold does not matter to them.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")

FILES = {f"part-{i}.bin": 20_000 for i in range(4)} | {"inner/deep.bin": 5_000}


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    yield
    durable.hooks.clear()


def fill(folder: Path, mark: int) -> None:
    (folder / "inner").mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(bytes([mark]) * size)


def mark_of(folder: Path) -> int:
    """The one byte that every file of a whole folder repeats; fails for a folder that is mixed, cut off or empty."""
    durable.verify_folder(folder)
    found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert found == {*FILES, durable.CHECKSUMS}
    marks = set()
    for name, size in FILES.items():
        contents = (folder / name).read_bytes()
        assert len(contents) == size
        marks |= set(contents)
    assert len(marks) == 1
    return marks.pop()


def interrupted(target: Path, error: BaseException) -> None:
    """Fill a folder, and fail before it is done."""
    with durable.write_folder(target) as folder:
        fill(folder, 1)
        raise error


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def killed(work: Callable[[], None], after: float) -> bool:
    """Run `work` in a fork and kill it after so many seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_instant_the_old_or_the_new_is_whole_and_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with durable.write_folder(target) as folder:
        fill(folder, 0)
    begun = time.perf_counter()
    with durable.write_folder(target) as folder:
        fill(folder, 0)
    once = time.perf_counter() - begun
    rng, died = random.Random(0), 0

    def write_on() -> None:
        for mark in range(1, 200):
            with durable.write_folder(target) as folder:
                fill(folder, mark)

    for _ in range(60):
        before = mark_of(target)
        died += killed(write_on, rng.uniform(0, min(0.05, 4 * once)))
        assert mark_of(durable.current_path(target)) >= 0  # whole even before remove_stale
        durable.remove_stale(tmp_path)
        assert names(tmp_path) == ["model"]
        assert mark_of(target) in {before, *range(1, 200)}
    assert died > 50


def test_files_killed_at_any_instant_are_old_or_new(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    durable.write_bytes(target, b"0" * 50_000)
    rng = random.Random(1)

    def write_on() -> None:
        for mark in range(200):
            durable.write_bytes(target, str(mark % 10).encode() * 50_000)

    for _ in range(30):
        killed(write_on, rng.uniform(0, 0.02))
        durable.remove_stale(tmp_path)
        contents = target.read_bytes()
        assert len(contents) == 50_000
        assert len(set(contents)) == 1
        assert names(tmp_path) == ["metrics.json"]


def labels(tmp_path: Path) -> list[str]:
    """The labels of the operations that replace a folder, in order."""
    heard: list[str] = []
    with durable.write_folder(tmp_path / "rehearsal") as folder:
        fill(folder, 1)
    durable.hooks.append(lambda label, path: heard.append(label))
    with durable.write_folder(tmp_path / "rehearsal") as folder:
        fill(folder, 2)
    durable.hooks.clear()
    return heard


def test_a_failure_at_any_step_leaves_the_old_or_the_new_and_no_temporary(tmp_path: Path) -> None:
    heard = labels(tmp_path)
    assert {"make", "write", "flush", "flush folder", "backup", "rename", "delete", "remove"} <= set(heard)
    for place in range(len(heard)):
        work = tmp_path / str(place)
        with durable.write_folder(work / "model") as folder:
            fill(folder, 1)
        left = [place]

        def fail(label: str, path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.EIO, "the disk said no")

        durable.hooks.append(fail)
        with (
            pytest.raises(DiskError, match=r"input/output error of the disk"),
            durable.write_folder(work / "model") as folder,
        ):
            fill(folder, 2)
        durable.hooks.clear()
        done = place > heard.index("rename")
        assert mark_of(work / "model") == (2 if done else 1), heard[place]
        durable.remove_stale(work)
        assert names(work) == ["model"], heard[place]


def test_a_kill_at_any_step_leaves_the_old_or_the_new_after_remove_stale(tmp_path: Path) -> None:
    heard = labels(tmp_path)
    for place in range(len(heard)):
        work = tmp_path / str(place)
        with durable.write_folder(work / "model") as folder:
            fill(folder, 1)

        def stop_there(place: int = place, work: Path = work) -> None:
            left = [place]

            def stop(label: str, path: Path) -> None:
                left[0] -= 1
                if left[0] == -1:
                    os.kill(os.getpid(), signal.SIGKILL)

            durable.hooks.append(stop)
            with durable.write_folder(work / "model") as folder:
                fill(folder, 2)

        child = os.fork()
        if child == 0:
            stop_there()
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert mark_of(durable.current_path(work / "model")) in (1, 2)
        durable.remove_stale(work / "model")  # also temporaries beside a folder, under its name
        assert names(work) == ["model"], heard[place]
        assert mark_of(work / "model") in (1, 2)


def test_the_next_write_recovers_what_a_killed_one_left(tmp_path: Path) -> None:
    with durable.write_folder(tmp_path / "model") as folder:
        fill(folder, 1)
    os.rename(tmp_path / "model", tmp_path / ".model.clearstory-old")
    assert mark_of(durable.current_path(tmp_path / "model")) == 1
    with durable.write_folder(tmp_path / "model") as folder:
        fill(folder, 2)
    assert mark_of(tmp_path / "model") == 2
    assert names(tmp_path) == ["model"]


def test_the_next_write_removes_what_a_killed_one_left_on_the_way(tmp_path: Path) -> None:
    def stop(label: str, path: Path) -> None:
        if label == "flush":
            os.kill(os.getpid(), signal.SIGKILL)

    durable.hooks.append(stop)
    assert killed(lambda: durable.write_text(tmp_path / "notes", "x"), after=0.2)
    durable.hooks.clear()
    assert len(names(tmp_path)) == 1
    durable.write_text(tmp_path / "other", "y")  # another name: not in its way
    assert len(names(tmp_path)) == 2
    durable.write_text(tmp_path / "notes", "z")
    assert names(tmp_path) == ["notes", "other"]


def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "model", KeyboardInterrupt())
    assert names(tmp_path) == []


def test_remove_stale_leaves_alone_what_is_being_written_and_what_is_not_ours(tmp_path: Path) -> None:
    for name in (".bashrc.old", ".model.tmp-1", "notes.clearstory-old"):
        (tmp_path / name).write_text("mine")
    orphan = tmp_path / "deep" / ".a.clearstory-tmp-1-0"
    orphan.mkdir(parents=True)
    with durable.write_folder(tmp_path / "model") as folder, durable.write_file(tmp_path / "f") as file:
        fill(folder, 1)
        assert durable.remove_stale(tmp_path) == [orphan]
        assert folder.is_dir()
        assert file.is_file()
    assert names(tmp_path) == [".bashrc.old", ".model.tmp-1", "deep", "f", "model", "notes.clearstory-old"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        BaseException("CheckpointException ranks:dict_keys([0]) ... No space left on device"),
    ],
    ids=["system", "torch", "safetensors", "checkpoint"],
)
def test_a_full_disk_raises_one_error_whichever_library_was_writing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutOfSpace, match=r"needs more than 85,000 bytes and its disk has [\d,]+ bytes free") as raised:
        interrupted(tmp_path / "model", error)
    assert raised.value.__cause__ is error
    assert names(tmp_path) == []


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    heard: list[str] = []
    durable.hooks.append(lambda label, path: heard.append(label))
    with (
        pytest.raises(OutOfSpace, match="needs 1,000,000,000,000,000 bytes"),
        durable.write_folder(tmp_path / "model", need=10**15),
    ):
        raise AssertionError("must not be reached")
    assert heard == []


def test_everything_is_flushed_before_it_is_renamed(tmp_path: Path) -> None:
    heard = labels(tmp_path)
    rename = heard.index("rename")
    assert heard[:rename].count("flush") == len(FILES) + 1
    assert heard[:rename].count("flush folder") == 2
    assert heard[rename + 1] == "flush folder"
    assert heard.index("delete") > rename + 1


def test_json_text_and_bytes_come_back(tmp_path: Path) -> None:
    durable.write_json(tmp_path / "a" / "b.json", {"größe": 1})
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == '{\n  "größe": 1\n}\n'
    durable.write_text(tmp_path / "t", "a\r\nb\n")
    assert (tmp_path / "t").read_bytes() == b"a\r\nb\n"
    with pytest.raises(ValueError, match="nan"):
        durable.write_json(tmp_path / "n", {"loss": float("nan")})


def test_files_and_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="is a file"), durable.write_folder(tmp_path / "file"):
        pass
    with pytest.raises(BadInput, match="is a folder"):
        durable.write_text(tmp_path / "folder", "x")
    assert (tmp_path / "file").read_text() == "mine"


ERRORS = [
    errno.EDQUOT, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EMFILE, errno.ENFILE, errno.EBUSY,
    errno.ELOOP, errno.ENODEV, errno.ESTALE, errno.EIO, errno.EFBIG, errno.ENOSPC, errno.EACCES, errno.EROFS,
]  # fmt: skip


def write_everything(home: Path, mark: int) -> None:
    """Every way of writing."""
    with durable.write_folder(home / "model") as folder:
        fill(folder, mark)
    durable.write_text(home / "notes", str(mark))
    durable.replace_files(home / "model", {"part-0.bin": bytes([mark]) * 20_000})
    durable.record_files(home, ["notes"])
    with durable.appending(home / "log"), (home / "log").open("a") as file:
        file.write("line\n")
    durable.make_folder(home / "made")
    durable.remove_file(home / "log")
    durable.remove_stale(home)


@pytest.mark.parametrize("number", ERRORS)
def test_every_error_of_the_system_is_one_sentence(tmp_path: Path, number: int) -> None:
    for error in (OSError(number, os.strerror(number)), ValueError(f"I/O error: no luck (os error {number})")):
        with pytest.raises(DiskError, match=rf"^writing {tmp_path}/model .*; [a-z ]+") as caught:
            interrupted(tmp_path / "model", error)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, OutOfSpace) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.parametrize("number", ERRORS[-5:], ids=errno.errorcode.get)
def test_every_error_at_every_operation_is_a_sentence_and_leaves_the_old_or_the_new(
    tmp_path: Path, number: int
) -> None:
    heard: list[str] = []
    durable.hooks.append(lambda label, path: heard.append(label))
    write_everything(tmp_path / "whole", 1)
    write_everything(tmp_path / "whole", 2)
    durable.hooks.clear()
    places = [place for place, label in enumerate(heard) if label not in heard[:place]]
    assert {"make", "write", "flush", "flush folder", "backup", "rename", "delete", "remove", "append"} <= set(heard)
    for place in places:
        home = tmp_path / str(place)
        left = [place]

        def fail(label: str, path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(number, os.strerror(number), str(path))

        durable.hooks.append(fail)
        with pytest.raises(DiskError, match=r"^(writing|deleting) ") as error:  # noqa: PT012  # either of the two
            write_everything(home, 1)
            write_everything(home, 2)
        durable.hooks.clear()
        assert "\n" not in str(error.value)
        assert isinstance(error.value, OutOfSpace) == (number in (errno.ENOSPC, errno.EDQUOT))
        durable.remove_stale(home)
        if (home / "model").exists():
            assert mark_of(home / "model") in (1, 2)
        if (home / "notes").exists():
            assert (home / "notes").read_text() in ("1", "2")


def test_the_error_of_a_file_that_is_read_meanwhile_names_that_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskError, match=r"^reading /elsewhere/source.txt failed with an input/output error"),
        durable.write_folder(tmp_path / "model"),
    ):
        raise OSError(errno.EIO, "Input/output error", "/elsewhere/source.txt")
    with (
        pytest.raises(DiskError, match=rf"^writing {tmp_path}/model exceeds the maximum file size"),
        durable.write_folder(tmp_path / "model"),
    ):
        raise RuntimeError("Error while serializing: I/O error: File too large (os error 27)")
    assert names(tmp_path) == []


def test_only_regular_files_are_read_and_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path, "a folder"), (tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(BadInput, match=f"is {what}, but a file is needed"):
            durable.read_file(path)
        with pytest.raises(BadInput, match="but the output must be a file"):
            durable.write_text(path, "x")
    with pytest.raises(BadInput, match="is a device, a pipe or a socket"):
        durable.write_text("/dev/full", "x")
    assert not Path("/dev/full").is_file()
    with pytest.raises(DiskError, match=r"reading .*nothing failed, the file or its folder does not exist"):
        durable.read_file(tmp_path / "nothing")
    (tmp_path / "long").write_bytes(bytes(100))
    with pytest.raises(CorruptFile, match="has 100 bytes, more than the maximum of 99"):
        durable.read_file(tmp_path / "long", 99)


def test_a_file_too_large_for_the_process_is_a_sentence(tmp_path: Path) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(DiskError, match="exceeds the maximum file size of this disk or of this process"):
            durable.write_bytes(tmp_path / "file", bytes(2000))
        assert names(tmp_path) == []
        (tmp_path / "done").touch()

    assert not killed(work, after=1.0)
    assert names(tmp_path) == ["done"]


JSON_OF_OTHERS = ["[" * 5000, "9" * 5000, "NaN", '{"a": Infinity}', '"\\ud800"', "{", "", '{"a": "\\udfff"}']


@pytest.mark.parametrize("text", JSON_OF_OTHERS, ids=range(len(JSON_OF_OTHERS)))
def test_json_that_no_file_should_hold_is_refused(text: str) -> None:
    with pytest.raises(CorruptFile, match=r"x\.json is not valid JSON") as error:
        durable.parse_json(text, "x.json")
    assert "\n" not in str(error.value)


def test_a_changed_a_missing_and_a_new_file_of_a_folder(tmp_path: Path) -> None:
    with durable.write_folder(tmp_path / "model") as folder:
        fill(folder, 1)
    model = tmp_path / "model"
    (model / "new.txt").write_text("added later")
    assert durable.verify_folder(model) == []
    (model / "inner" / "deep.bin").write_bytes(b"x" * 5000)
    with pytest.raises(
        durable.ChecksumMismatch, match=r"inner/deep.bin has changed since .* delete its line in .*json"
    ):
        durable.verify_folder(model)
    assert durable.verify_folder(model, unread=["inner/deep.bin"]) == ["inner/deep.bin"]
    assert durable.verify_folder(model, skip=["inner/deep.bin"]) == []
    assert durable.verify_folder(model, only=["part-1.bin"]) == []
    (model / "part-1.bin").unlink()
    with pytest.raises(durable.ChecksumMismatch, match=r"part-1\.bin is missing"):
        durable.verify_folder(model, only=["part-1.bin"])


@pytest.mark.parametrize(
    "contents",
    ["", "{", "[]", '{"files": {}}', '{"algorithm": "xxh3-128", "files": {"../x": "a"}}', '{"algorithm": "md5"}'],
)
def test_damaged_checksums_are_refused(tmp_path: Path, contents: str) -> None:
    (tmp_path / durable.CHECKSUMS).write_text(contents)
    with pytest.raises(CorruptFile, match=r"checksums\.json"):
        durable.verify_folder(tmp_path)
