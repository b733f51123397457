"""Thousands of damaged files: each is refused in a sentence or read as it was; no changed content is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory import durable
from clearstory.errors import CorruptFile
from clearstory.formats.arpa.write import write_arpa
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.lora.adapters import save_adapter
from clearstory.formats.model_card import ModelCard
from clearstory.models.lora import adapt
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.loop import train_events
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents
from clearstory.text.settings import DataSettings
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint
from damage import Target, try_all
from tiny import TINY_GPT2, shaken
from trained import all_events, metrics_without_times, recipe, text_file, words

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")

TEXT = words(900)
PROMPT = "the cat sat on a mat."
RUN_FILES = ("config.yaml", "environment.json", "metrics.jsonl")


def digest(*parts: Any) -> str:
    """A fingerprint of values and tensors."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode())
    return found.hexdigest()


def of_model(path: Path) -> Callable[[], str]:
    """Opens a model and uses it."""

    def read() -> str:
        opened = open_model(path)
        tokenizer = opened.tokenizer
        ids = [1, 2, 3] if tokenizer is None else [id for id in tokenizer.encode(PROMPT) if id < opened.model.vocab][:6]
        encoded = None if tokenizer is None else (tokenizer.contents, tokenizer.decode(ids), tokenizer.eos_token_id)
        opened.logits([ids or [0]])
        return digest(*opened.model.state_dict().values(), encoded, opened.card, opened.generation_config)

    return read


def of_tokenizer(path: Path) -> Callable[[], str]:
    def read() -> str:
        tokenizer = Tokenizer.open(path)
        ids = tokenizer.encode(PROMPT)
        return digest(ids, tokenizer.decode(ids), tokenizer.decode_bytes(ids), tokenizer.contents, tokenizer.config)

    return read


def of_checkpoint(folder: Path) -> Callable[[], str]:
    def read() -> str:
        found = checkpoint.load_checkpoint(folder)
        return digest(found.step, found.values, *found.model.values(), *found.optimizer.values())

    return read


def of_cache(text: Path, cache: Path, tokenizer: Path) -> Callable[[], str]:
    def read() -> str:
        datasets = Corpus.open(text, DataSettings(cache=cache)).encode(Tokenizer.open(tokenizer))
        found = {name: (each.ids.tolist(), each.starts.tolist(), each.text_bytes) for name, each in datasets.items()}
        return digest(found)

    return read


def of_run(home: Path) -> Callable[[], str]:
    """Resumes a finished run in a copy."""

    def read() -> str:
        copy = home / f"copy-{os.getpid()}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home / "run", copy)
        events = list(train_events(recipe(home / "text.txt", copy, resume=True, **{"data.cache": home / "cache"})))
        said = [event for event in events if type(event).__name__ == "TrainingWarning"]
        if said:
            raise CorruptFile("reported in a warning")
        return digest([path.name for path in checkpoint.list_checkpoints(copy)], read_metrics_of(copy))

    return read


def read_metrics_of(run: Path) -> list[Any]:
    """The records of a run without times, and without those of the last resume."""
    rows = metrics_without_times(run)
    return [row for row in rows if row["kind"] != "end"]


def of_text(file: Path) -> Callable[[], str]:
    return lambda: digest([document.text for document in read_documents([file], DataSettings())])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of every kind."""
    home = tmp_path_factory.mktemp("home")
    text = text_file(home)
    all_events(recipe(text, home / "run", **{"data.cache": home / "cache", "training.eval_steps": 4}))
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    model: Any = shaken(replaced_vocab(tokenizer.vocab)).float()
    save_model(home / "model", model, tokenizer, ModelCard(trained_on=(("a", 9),)))
    save_adapter(home / "adapter", adapt(model, rank=2, targets=("query",)), home / "model", tokenizer, ModelCard())
    words_of = train_tokenizer("words", [TEXT])
    from clearstory.models.build import build
    from clearstory.models.ngram.config import NGramConfig
    from clearstory.text.token_dataset import encode_text

    ngram: Any = build(NGramConfig(vocab=words_of.vocab, order=3))
    list(ngram.fit(encode_text(words_of, TEXT.splitlines())))
    save_model(home / "ngram", ngram, words_of, ModelCard())
    for name in ("model", "adapter", "ngram"):  # as folders of other programs, which have no digests
        shutil.copytree(home / name, home / f"foreign-{name}")
        (home / f"foreign-{name}" / durable.CHECKSUMS).unlink()
    (home / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines()[:40]))
    (home / "a.csv").write_text("text,label\n" + "".join(f'"{line}",1\n' for line in TEXT.splitlines()[:40]))
    write_arpa(home / "a.arpa", ngram, words_of)
    (home / "a.html").write_text(f"<html><head><title>a</title></head><body><p>{TEXT[:900]}</p></body></html>")
    cells = [{"cell_type": "markdown", "source": TEXT.splitlines(keepends=True)[:9]}]
    (home / "a.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}))
    write_llama2c(home / "llama.bin")
    write_optional(home)
    (home / "a.yaml").write_text("steps: 4\nmodel:\n  name: clear\n  width: 16\nsources: [a, b]\n")
    return home


def write_llama2c(file: Path) -> None:
    """A checkpoint of llama2.c of two layers with random weights."""
    width, hidden, layers, heads, vocab, context = 8, 12, 2, 2, 30, 16
    per_layer = 2 * width + 4 * width * width + 3 * width * hidden
    count = vocab * width + layers * per_layer + width + context * (width // heads)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(count, generator=generator)
    file.write_bytes(
        struct.pack("<7i", width, hidden, layers, heads, heads, vocab, context) + weights.numpy().tobytes()
    )


def write_optional(home: Path) -> None:
    """Files that optional packages write."""
    try:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": TEXT.splitlines()[:40]}), home / "a.parquet")
    except ImportError:
        pass
    try:
        import sentencepiece

        (home / "spm").mkdir()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines()), model_prefix=str(home / "spm" / "spm"), vocab_size=60,
            hard_vocab_limit=False, minloglevel=9,
        )  # fmt: skip
    except ImportError:
        pass


def replaced_vocab(vocab: int) -> Any:
    from dataclasses import replace

    return replace(TINY_GPT2, vocab=vocab)


def all_targets(home: Path) -> list[Target]:
    """Every file, with what reads it."""
    targets: list[Target] = []
    cache = next((home / "cache" / "datasets").iterdir())
    last = checkpoint.list_checkpoints(home / "run")[-1]
    readers: dict[Path, tuple[Callable[[], str], bool]] = {
        home / "run" / "model": (of_model(home / "run"), True),
        last: (of_checkpoint(last), True),
        home / "run" / "tokenizer": (of_tokenizer(home / "run" / "tokenizer"), True),
        home / "model": (of_model(home / "model"), True),
        home / "adapter": (of_model(home / "adapter"), True),
        home / "ngram": (of_model(home / "ngram"), True),
        cache: (of_cache(home / "text.txt", home / "cache", home / "run" / "tokenizer"), True),
        **{
            home / f"foreign-{name}": (of_model(home / f"foreign-{name}"), False)
            for name in ("model", "adapter", "ngram")
        },
    }
    for folder, (read, ours) in readers.items():
        for file in sorted(folder.iterdir()):
            if file.name != "README.md":
                targets.append(Target(str(file.relative_to(home)), file, read, ours))
    targets += [Target(f"run/{name}", home / "run" / name, of_run(home)) for name in RUN_FILES]
    texts = ("a.jsonl", "a.csv", "a.html", "a.ipynb", "a.parquet")
    targets += [Target(name, home / name, of_text(home / name), False) for name in texts if (home / name).exists()]
    targets.append(Target("llama.bin", home / "llama.bin", of_model(home / "llama.bin"), False))
    if (home / "spm").exists():
        file = home / "spm" / "spm.model"
        targets.append(Target("spm.model", file, of_tokenizer(file), False))
    targets.append(Target("a.arpa", home / "a.arpa", of_model(home / "a.arpa"), False))
    targets.append(Target("a.yaml", home / "a.yaml", lambda: digest(read_yaml(home / "a.yaml")), False))
    targets += gguf_targets(home)
    return targets


def gguf_targets(home: Path) -> list[Target]:
    """A GGUF file with its digest, and one of another program."""
    try:
        from clearstory.formats.gguf.checksum import FIELD
        from clearstory.formats.gguf.write import write_gguf

        opened = open_model(home / "model")
        write_gguf(home / "own.gguf", opened.model, opened.tokenizer, "tiny", overwrite=True)
    except ImportError:
        return []
    data = (home / "own.gguf").read_bytes()
    (home / "foreign.gguf").write_bytes(data.replace(FIELD.encode(), b"of-another-program."))
    return [
        Target(f"{name}.gguf", home / f"{name}.gguf", of_model(home / f"{name}.gguf"), name == "own")
        for name in ("own", "foreign")
    ]


def test_a_damaged_file_is_refused_or_read_as_it_was(home: Path) -> None:
    targets = all_targets(home)
    outcomes, failures = try_all([each for each in targets if not each.name.startswith("run/")], 150, seed=1)
    assert not failures, "\n".join(failures)
    assert outcomes["refused"] > 50, outcomes


@pytest.mark.slow
def test_thousands_of_damaged_files(home: Path) -> None:
    outcomes, failures = try_all(all_targets(home), 4000, seed=2)
    print(json.dumps({"files": len(all_targets(home)), **outcomes}))
    assert not failures, "\n".join(failures[:30])


@pytest.mark.parametrize("folder", ["model", "adapter", "ngram", "run/model", "run/tokenizer"])
def test_one_changed_bit_in_any_file_of_a_folder_is_refused_by_the_name_of_the_file(home: Path, folder: str) -> None:
    for file in (home / folder).iterdir():
        original = file.read_bytes()
        changed = bytearray(original)
        changed[len(changed) // 2] ^= 1
        file.write_bytes(changed)
        try:
            with pytest.raises(CorruptFile, match=f"{file.name}|{durable.CHECKSUMS}") as error:
                durable.verify_folder(home / folder)
            assert "\n" not in str(error.value)
        finally:
            file.write_bytes(original)
    durable.verify_folder(home / folder)
