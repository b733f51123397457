"""Trial: one model of a comparison, from what it may use to what it needs for each unit of the text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from clearstory import durable
from clearstory.formats.folders import OpenedModel
from clearstory.metrics import NATS_PER_BIT
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.build import build, count_parameters
from clearstory.models.transformer.sizing import DEFAULT_PARAMETERS
from clearstory.models.families import family_of, scale_config
from clearstory.recipes.training import time_budget
from clearstory.recipes.settings.model_choice import SIZE_FIELDS
from clearstory.recipes.comparison.settings import CompareRecipe, Entry
from clearstory.recipes.training.events import TrainingResult
from clearstory.recipes.settings.schema import to_plain
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.inference.generate import generate
from clearstory.recipes.comparison.leaderboard import LIKELIHOOD, Trial
from clearstory.evaluation.units import EvalText, measure
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.loop import ALIGNED, decide, training_speed, usual_tokenizer
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.metrics_log import read_metrics
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import window


@dataclass
class Ground:
    """What all trainings of a comparison share: the text, its tokenizers, this machine.

    Tokenizers are learnt before any model's time begins, once each, and encoded text is cached: nobody pays for them.
    """

    recipe: CompareRecipe
    folder: Path
    corpus: Corpus
    known: dict[str, tuple[Path, Tokenizer, TokenDataset]] = field(default_factory=dict)

    @cached_property
    def machine(self) -> TrainingSettings:
        """Device, precision and threads: one where processor time is the budget, since threads wait for each other."""
        r = self.recipe
        return decide(TrainingSettings(device=r.device, threads=r.threads or int(r.cpu_seconds is not None)))

    def tokenizer_of(self, entry: Entry) -> str:
        """A model's own tokenizer, else the one for all, else the one it is meant for, else the usual one."""
        meant = build_train_recipe({"model": entry.name}).model.tokenizer
        return entry.tokenizer or self.recipe.tokenizer or meant or usual_tokenizer(self.corpus)

    def tokens(self, spec: str) -> tuple[Path, Tokenizer, TokenDataset]:
        """A tokenizer in its folder, and the text to learn from in its tokens."""
        if spec not in self.known:
            place = self.folder / "tokenizers" / Entry(spec, spec, {}).folder
            if not (place / "tokenizer.json").is_file():
                learnt = train_corpus_tokenizer(self.corpus, spec)
                with durable.write_folder(place) as temporary:
                    learnt.save(temporary)
            tokenizer = Tokenizer.open(place)
            self.known[spec] = place, tokenizer, self.corpus.encode(tokenizer)["train"]
        return self.known[spec]

    def run_folder(self, entry: Entry, seed: int) -> Path:
        """Where a training leaves everything it did."""
        return self.folder / (entry.folder if self.recipe.seeds == 1 else f"{entry.folder}-seed{seed}")

    def training(self, entry: Entry, seed: int) -> TrainRecipe:
        """How a model is trained under the budget; as it began, where it did."""
        r, out = self.recipe, self.run_folder(entry, seed)
        if RunFolder(out).exists:
            return replace(build_train_recipe(read_yaml(RunFolder(out).config_file)), out=out, resume=True, overwrite=False)
        place, tokenizer, rows = self.tokens(self.tokenizer_of(entry))
        given: dict[str, Any] = {
            "text": r.sources,
            "model": entry.name,
            "tokenizer": str(place),
            "out": str(out),
            "training.seed": seed,
            "training.device": self.machine.device,
            "training.threads": self.machine.threads,
            "training.align_documents": self.corpus.name in ALIGNED,
            "data": to_plain(r.data),
            "minutes": r.minutes,
            "cpu_seconds": r.cpu_seconds,
        }
        given |= {**self.sized(entry, tokenizer, rows), **entry.settings}
        if r.minutes is None and r.cpu_seconds is None:
            given["steps"] = one_pass(build_train_recipe(given), tokenizer, rows)
        return build_train_recipe({key: value for key, value in given.items() if value is not None})

    @property
    def seconds(self) -> float | None:
        """Time by the clock for each model, as far as it is known."""
        if self.recipe.minutes is not None:
            return 60 * self.recipe.minutes
        return None if self.recipe.cpu_seconds is None else self.recipe.cpu_seconds / self.machine.threads

    def sized(self, entry: Entry, tokenizer: Tokenizer, rows: TokenDataset) -> dict[str, Any]:
        """The preset's wiring at the size that the budget can teach, as `train` sizes `clear`."""
        choice = build_train_recipe({"model": entry.name, **entry.settings}).model
        usual: Any = choice.config(vocab=tokenizer.vocab)
        transformer = isinstance(usual, TransformerConfig)
        if entry.full:
            return {"parameters": DEFAULT_PARAMETERS if entry.name == "clear" else None}
        found: dict[str, Any] = {}
        if transformer and self.seconds is not None and "training.context" not in entry.settings:
            found["model.context"] = time_budget.context_for_budget(self.seconds, self.machine.device)
        if family_of(usual).scale is None or any(key in choice.overrides for key in (*SIZE_FIELDS, "states")):
            return found
        if self.recipe.parameters is not None or self.seconds is None:
            return found | {"parameters": self.recipe.parameters}
        speed = training_speed(self.machine)
        if getattr(build(usual, device="meta"), "counted", False):
            return {"parameters": whole_for(usual, time_budget.em_parameters_for_budget(0.9 * self.seconds, speed, len(rows)))}
        teachable = time_budget.parameters_for_budget(0.9 * self.seconds, speed, len(rows), rows.text_bytes)
        if transformer:
            found["model.dropout"] = time_budget.dropout_for_budget(0.9 * self.seconds, speed, teachable, len(rows))
        if entry.name == "clear":
            return found  # sizes itself by the same rule
        return found | {"parameters": whole_for(usual, teachable)}


def whole_for(config: Any, inner: int) -> int:
    """How many parameters a wiring has in all where those besides its embeddings are about `inner`.

    Embeddings are looked up and cost no time, so a large vocabulary must not make the rest of a model smaller.
    """

    def inside(target: int) -> int:
        model: nn.Module = build(scale_config(config, target), device="meta")
        return sum(each.numel() for each in model.parameters() if config.vocab not in each.shape)

    targets = [round(inner * 1.25**power) for power in range(20)]
    return min(targets, key=lambda target: abs(math.log(max(1, inside(target)) / inner)))


def one_pass(recipe: TrainRecipe, tokenizer: Tokenizer, rows: TokenDataset) -> int:
    """Steps that read a text once; a model that counts reads all of it in each round."""
    s = recipe.training
    config = recipe.model.config(vocab=tokenizer.vocab, context=s.context, parameters=recipe.parameters)
    model = build(config, device="meta")
    if getattr(model, "counted", False):
        return 1
    return max(1, round(len(rows) / (s.batch_size * s.gradient_accumulation_steps * window(model, rows, s))))


def born_by_chance(recipe: TrainRecipe, tokenizer: Tokenizer) -> bool:
    """Whether another seed makes another model."""
    config = recipe.model.config(vocab=tokenizer.vocab, parameters=recipe.parameters)
    return hasattr(build(config, device="meta"), "reset")


def tried(
    label: str,
    opened: OpenedModel,
    held: EvalText,
    recipe: CompareRecipe,
    *,
    folder: Path,
    prompt: str,
    seed: int | None = None,
    finished: TrainingResult | None = None,
    tokenizer: str = "",
    tokens: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Trial:
    """A finished model, measured and made to write. `tokens`: those of one pass over what it learnt from."""
    model, own = opened.model, opened.tokenizer
    assert own is not None
    found = measure(model, own, held, windows=recipe.windows, on_progress=on_progress)
    bits = found.bits_per_byte(held)
    text, speed = "", None
    if not isinstance(model, Encoder):
        # So many characters in its own tokens, and a few more, since what it writes may be in shorter ones.
        wanted = round(1.3 * max(1, recipe.characters - len(prompt)) * found.tokens / held.bytes) + 1
        began = time.process_time()
        written = generate(
            opened, prompt, max_tokens=wanted, temperature=0.8, seed=recipe.seed, truncate="left", ignore_eos=True
        )
        writing = time.process_time() - began
        text, speed = written.text, written.tokens / writing if writing else None
    curve: tuple[tuple[float, float], ...] = ()
    if finished is not None and bits is not None and found.measure == LIKELIHOOD:
        curve = learnt(finished, bits)
    return Trial(
        model=label,
        family=model.config.family,
        shape=model.config.summary,
        measure=found.measure,
        seed=seed,
        tokenizer=tokenizer or own.kind,
        vocab=own.vocab,
        parameters=count_parameters(model),
        bytes_on_disk=sum(file.stat().st_size for file in (folder, *folder.rglob("*")) if file.is_file()),
        cpu_seconds=None if finished is None else finished.cpu_seconds,
        seconds=None if finished is None else finished.seconds,
        tokens=None if finished is None else finished.tokens,
        steps=None if finished is None else finished.steps,
        passes=None if finished is None or not tokens else finished.tokens / tokens,
        nats=None if found.nats is None else tuple(map(float, found.nats)),
        bits_per_byte=bits,
        nats_per_token=found.model_nats / found.tokens if found.tokens else None,
        charged=found.charged / NATS_PER_BIT / held.bytes,
        windows=found.windows,
        generation_tokens_per_second=speed,
        sample=text[: max(1, recipe.characters - len(prompt))],
        folder=folder,
        curve=curve,
        note=found.reason,
    )


def learnt(finished: TrainingResult, bits: float) -> tuple[tuple[float, float], ...]:
    """How a model learnt: processor seconds and bits per byte of each look, and where it ended.

    Looks read only some of the held-out text, in nats per token, and that part may be harder or easier than the whole.
    It is the same part in every look, so all are scaled by what makes the best of them what was measured on the whole.
    """
    looks = [row for row in read(RunFolder(finished.run).metrics_file) if row["kind"] == "look" and row["nats_per_token"] > 0]
    scale = bits / min((float(row["nats_per_token"]) for row in looks), default=1.0)
    return (
        *((float(row["cpu_seconds"]), row["nats_per_token"] * scale) for row in looks),
        (finished.cpu_seconds, bits),
    )
