"""Convert: a model in another format, opened again and compared with what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from clearstory.errors import BadSetting, CorruptFile, FolderExists
from clearstory.formats.arpa import is_arpa
from clearstory.formats.arpa_writing import names, write_arpa
from clearstory.formats.folders import Opened, open_model, save_model
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import Padded
from clearstory.models.families import count

Format = Literal["arpa", "hf"]

CLOSE = 1e-5
"""Nats by which a token may differ: files of ARPA have eight digits."""

SAMPLES, LENGTH = 8, 32


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model in another format.

    Args:
        path: where it stands.
        format: arpa, or hf for a model folder.
        parameters: numbers it has learnt.
        bytes: on disk.
        compared: tokens whose nats were compared with the original's.
        difference: the largest, in nats.
    """

    path: Path
    format: Format
    parameters: int
    bytes: int
    compared: int
    difference: float


def convert(model: str | Path, out: str | Path, to: Format | None = None, *, overwrite: bool = False) -> Conversion:
    """Write a model in the format that `to` or the name of `out` says, open it again, and compare.

    What is compared are the nats of tokens that the model wrote itself, and of tokens drawn by lot. Raises FolderExists
    where something is, CannotDo for what the format cannot hold, CorruptFile where the two differ.

    >>> import clearstory
    >>> clearstory.convert("runs/book/model", "book.arpa.gz").difference  # doctest: +SKIP
    3e-07
    """
    path = Path(out).expanduser()
    if is_arpa(path) and to == "hf":
        raise BadSetting(f"{path} is the name of an ARPA file, and --to says hf, a folder; change one of them")
    if not is_arpa(path) and to == "arpa":
        raise BadSetting(f"--to says arpa, and {path} does not end in .arpa or .arpa.gz; change one of them")
    opened = open_model(model)
    if is_arpa(path):
        if path.exists() and not overwrite:
            raise FolderExists(f"{path} is there already; choose another name, or pass --overwrite to replace it")
        write_arpa(path, opened.model, opened.tokenizer)
    else:
        save_model(path, opened.model, opened.tokenizer, opened.card, overwrite=overwrite)
    again = open_model(path)
    compared, difference = compare(opened, again, Words.of(opened, again) if is_arpa(path) else Words.same(opened))
    if not difference <= CLOSE:
        raise CorruptFile(
            f"{path} gives other numbers than {model}: of {compared:,} tokens one differs by {difference:.2g} nats; "
            "do not use it, and please report this"
        )
    return Conversion(
        path=path,
        format="arpa" if is_arpa(path) else "hf",
        parameters=count(again.model),
        bytes=sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir())),
        compared=compared,
        difference=difference,
    )


@dataclass(frozen=True)
class Words:
    """One model's tokens as another's.

    Args:
        ids: (V,) each token's id there.
        read: (V,) whether it can be read there as here.
        wanted: (V,) whether it can be foreseen there as here.
    """

    ids: torch.Tensor
    read: torch.Tensor
    wanted: torch.Tensor

    @classmethod
    def same(cls, opened: Opened) -> Words:
        """Nothing differs."""
        all_of_them = torch.ones(opened.model.vocab, dtype=torch.bool)
        return cls(torch.arange(opened.model.vocab), all_of_them, all_of_them)

    @classmethod
    def of(cls, opened: Opened, again: Opened) -> Words:
        """In a file of ARPA ids go by the order of the words, and one token both ends a text and begins the next."""
        assert again.tokenizer is not None
        known = {again.tokenizer.piece(id): id for id in range(again.tokenizer.vocab)}
        ids = torch.tensor([known.get(name, -1) for name in names(opened.model, opened.tokenizer)])
        read, wanted = ids >= 0, ids >= 0
        begin = opened.model.config.begin
        end = begin if opened.tokenizer is None else opened.tokenizer.eos
        if begin is not None and begin != end:
            ids[begin], read[begin], wanted[begin] = again.model.config.begin, True, False
            if end is not None:
                read[end] = False
        return cls(ids.clamp(min=0), read, wanted)


def compare(one: Opened, other: Opened, words: Words) -> tuple[int, float]:
    """How many tokens' nats were compared, and the largest difference."""
    model: Any = one.model
    length = LENGTH if model.context is None else min(LENGTH, model.context + 1)
    texts = torch.cat([written(model, length), drawn(model, length)])
    inputs, targets = texts[:, :-1], texts[:, 1:]
    with torch.inference_mode():
        nats, _ = model.score(Padded(inputs), targets)
        again, _ = other.model.score(Padded(words.ids[inputs]), words.ids[targets])
    # After a token that reads otherwise nothing can be compared.
    told = words.read[inputs].cumprod(1).bool() & words.wanted[targets]
    differences = (nats.double() - again.double()).abs()[told]
    return int(told.sum()), float(differences.max()) if len(differences) else float("nan")


def written(model: Any, length: int) -> torch.Tensor:
    """Texts by the model itself, (SAMPLES, length): what it knows best."""
    engine = Engine(model)
    begin = getattr(model.config, "begin", None) or 0
    rows = {engine.add([begin], Sampling(max_tokens=length, seed=seed)): [begin] for seed in range(SAMPLES)}
    while engine.busy:
        for reply in engine.step():
            rows[reply.request].append(reply.token.id)
    return torch.tensor(list(rows.values()))[:, :length]


def drawn(model: Any, length: int) -> torch.Tensor:
    """Tokens by lot, (SAMPLES, length): what it knows least."""
    ids = np.random.default_rng(1).integers(model.vocab, size=(SAMPLES, length))
    return torch.from_numpy(ids)
