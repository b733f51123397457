"""Checkpoints: what is saved is loaded unchanged; damage is reported; a full disk changes nothing that was there."""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import clearstory
from clearstory import durable
from clearstory.errors import CorruptFile, OutOfSpace
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.training import checkpoint
from trained import all_events, contents, recipe, text_file


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    yield
    durable.hooks.clear()


def parts(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model and an optimizer of every kind of tensor."""
    generator = torch.Generator().manual_seed(seed)
    model = {"a.weight": torch.randn(3, 4, generator=generator), "b.bias": torch.randn(5, generator=generator)}
    memory = {f"{name}.exp_avg": torch.randn(value.shape, generator=generator) for name, value in model.items()}
    return model, {**memory, "a.weight.step": torch.tensor(7.0)}


def saved(run: Path, step: int = 7) -> Path:
    model, optimizer = parts(step)
    return checkpoint.save_checkpoint(run, step, model, optimizer, {"tokens": 99, "loss": 0.1})


def test_what_is_saved_comes_back_the_same(tmp_path: Path) -> None:
    model, optimizer = parts(7)
    folder = saved(tmp_path)
    assert folder == tmp_path / "checkpoints" / "step-000007"
    found = checkpoint.load_checkpoint(folder)
    assert (found.step, found.values["tokens"], found.values["loss"]) == (7, 99, 0.1)
    for ours, theirs in ((found.model, model), (found.optimizer, optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_views_and_transposed_tensors_are_saved_by_value(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    folder = checkpoint.save_checkpoint(tmp_path, 1, {"turned": whole.T, "row": whole[1]}, {}, {})
    found = checkpoint.load_checkpoint(folder).model
    assert torch.equal(found["turned"], whole.T)
    assert torch.equal(found["row"], whole[1])


def test_torchs_distributed_checkpoint_reads_the_same_files(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # torch 2.13: the reader announces itself as a prototype, and that it found no ranks to talk to.
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageReader

        model, optimizer = parts(7)
        found = {name: torch.empty_like(value) for name, value in (model | optimizer).items()}
        dcp.load(found, storage_reader=HuggingFaceStorageReader(str(saved(tmp_path))))
    assert all(torch.equal(found[name], value) for name, value in (model | optimizer).items())


def cut(name: str, share: float) -> Callable[[Path], object]:
    """A file that is truncated."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"no {name}": lambda folder, name=name: (folder / name).unlink() for name in checkpoint.FILES},  # type: ignore[misc]
    **{f"{share} of {name}": cut(name, share) for name in checkpoint.FILES for share in (0.0, 0.01, 0.5, 0.99)},
    "a header that lies": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
    "no step": lambda folder: (folder / "state.json").write_text('{"tokens": 1}'),
    "a list": lambda folder: (folder / "state.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    saved(tmp_path, 3)
    folder = saved(tmp_path)
    damage(folder)
    for _ in range(2):
        with pytest.raises(CorruptFile, match=r"step-000007.*delete it to resume from step-000003") as said:
            checkpoint.load_checkpoint(folder)
        assert "\n" not in str(said.value)
        (folder / "checksums.json").unlink(missing_ok=True)  # what is read must be valid in any case


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_one_changed_bit_of_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CorruptFile, match=rf"step-000007 is damaged .*{name} has changed since it was saved"):
        checkpoint.load_checkpoint(folder)


@pytest.mark.parametrize("label", ["make", "write", "flush", "flush folder", "rename"])
def test_a_disk_that_fills_while_saving_changes_nothing_that_was_there(tmp_path: Path, label: str) -> None:
    good = saved(tmp_path, 7)
    before = contents(tmp_path)
    model, optimizer = parts()
    need = sum(value.numel() * value.element_size() for value in (model | optimizer).values())

    def full(said: str, path: Path) -> None:
        if said == label:
            raise OSError(errno.ENOSPC, "No space left on device")

    durable.hooks.append(full)
    with pytest.raises(OutOfSpace, match=rf"step-000008 needs {need:,} bytes and its disk has [\d,]+ bytes free"):
        saved(tmp_path, 8)
    durable.hooks.clear()
    assert contents(tmp_path) == before
    assert checkpoint.load_checkpoint(good).step == 7
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step-000007"]


def test_a_checkpoint_that_cannot_fit_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 7)
    before = contents(tmp_path)
    monkeypatch.setattr("clearstory.durable.disk.free_bytes", lambda path: 10)
    with pytest.raises(OutOfSpace, match="its disk has 10 bytes free"):
        saved(tmp_path, 8)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("keep", "left"), [(0, [0]), (1, [0, 9]), (2, [0, 6, 9]), (9, [0, 3, 6, 9])])
def test_pruning_keeps_step_0_and_the_newest(tmp_path: Path, keep: int, left: list[int]) -> None:
    for step in (9, 0, 3, 6):
        saved(tmp_path, step)
    (tmp_path / "checkpoints" / "step-mine").mkdir()  # not ours: left alone
    checkpoint.prune_checkpoints(tmp_path, keep)
    assert [checkpoint.load_checkpoint(path).step for path in checkpoint.list_checkpoints(tmp_path)] == left
    assert (tmp_path / "checkpoints" / "step-mine").is_dir()


def test_checkpoints_are_in_the_order_of_their_steps_however_many_digits(tmp_path: Path) -> None:
    for step in (1_000_000, 2, 999_999):
        saved(tmp_path, step)
    assert [checkpoint.load_checkpoint(path).step for path in checkpoint.list_checkpoints(tmp_path)] == [
        2,
        999_999,
        1_000_000,
    ]


def test_the_checkpoint_of_step_0_opens_as_the_random_start(run: Path) -> None:
    opened = clearstory.open(run / "checkpoints" / "step-000000")
    settings = build_train_recipe(read_yaml(run / "config.yaml")).training
    fresh = build(opened.model.config, seed=settings.seed, initialization=settings.initialization).eval()
    state = fresh.state_dict()
    assert opened.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in opened.model.state_dict().items())
    rows = [opened.tokenizer.encode("the cat")]
    with torch.no_grad():
        hidden, _ = fresh.forward(TokenBatch(torch.tensor(rows)))
        assert torch.equal(opened.logits(rows), fresh.logits(hidden))


def test_the_last_checkpoint_opens_as_the_model_it_was_and_learnt_something(run: Path) -> None:
    first, last = (
        clearstory.evaluate(run / "checkpoints" / name, texts=["the cat sat on a mat. dogs bark"])
        for name in ("step-000000", "step-000008")
    )
    assert last.score.nats_per_token < first.score.nats_per_token


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps; not to be written to."""
    home = tmp_path_factory.mktemp("run")
    all_events(recipe(text_file(home), home / "run", **{"data.cache": home / "cache", "training.keep_checkpoints": 9}))
    return home / "run"


@pytest.mark.parametrize(
    "damage",
    [
        {"best_criterion": "low"},
        {"plans": 3},
        {"monitor": None},
        {"best_step": None},
        {"tokens": "many"},
    ],
    ids=str,
)
def test_an_invalid_state_is_refused_when_a_run_resumes(run: Path, tmp_path: Path, damage: dict[str, object]) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "step-000008" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    file.with_name("checksums.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(CorruptFile, match=r"the checkpoint of step 8 in .* has invalid values"):
        all_events(recipe(run.parent / "text.txt", tmp_path / "run", resume=True, **{"training.keep_checkpoints": 9}))
    assert contents(tmp_path) == before


def test_a_renamed_copy_of_a_checkpoint_and_checksums_that_are_no_file_are_refused(tmp_path: Path) -> None:
    saved = checkpoint.save_checkpoint(tmp_path, 5, {"a": torch.ones(2)}, {}, {})
    copy = Path(shutil.copytree(saved, saved.with_name("step-000777")))
    with pytest.raises(CorruptFile, match="a renamed copy of the checkpoint of step 5"):
        checkpoint.load_checkpoint(copy)
    (saved / "checksums.json").unlink()
    (saved / "checksums.json").mkdir()
    with pytest.raises(CorruptFile, match="is not a file"):
        checkpoint.load_checkpoint(saved)
