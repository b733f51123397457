"""Model run: the training settings of one model of a comparison under the budget, and its measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clearstory import durable
from clearstory.errors import BadSetting
from clearstory.evaluation.units import EvalText, score_units
from clearstory.formats.folders import OpenedModel
from clearstory.generation.settings import Sampling
from clearstory.metrics import LIKELIHOOD, NATS_PER_BIT
from clearstory.models.build import build, count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.families import family_of, preset
from clearstory.models.transformer.sizing import DEFAULT_PARAMETERS
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.settings import CompareRecipe, ModelSpec
from clearstory.recipes.inference.generate import generate
from clearstory.recipes.settings.model_choice import SIZE_FIELDS
from clearstory.recipes.settings.schema import to_plain
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.settings.training_presets import preset_training_settings
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.corpus_preparation import ALIGNED_CORPORA, tokenizer_spec
from clearstory.recipes.training.events import TrainingResult
from clearstory.recipes.training.model_size import parameters_for_inner, training_speed
from clearstory.recipes.training.preparation import resolve_settings
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.training.time_budget import (
    context_for_budget,
    dropout_for_budget,
    em_parameters_for_budget,
    parameters_for_budget,
)
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.metrics_log import read_metrics
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import training_context

TRAINING_SHARE = 0.9
"""Share of a model's time that is left for optimizer steps; the rest is for evaluations and start-up."""

SAMPLE_TEMPERATURE = 0.8

MAX_LINES = 60
"""Lines of a sample where each line is a document."""


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a comparison: a model and a seed. The label names the seed where the model has several."""

    spec: ModelSpec
    seed: int
    label: str


@dataclass
class TrainingContext:
    """What all training runs of a comparison share: the corpus, its tokenizers and the hardware settings.

    Tokenizers are trained before the time of any model starts, each once, and the encoded corpus is cached: neither is
    charged to a model.
    """

    recipe: CompareRecipe
    folder: Path
    corpus: Corpus
    tokenizers: dict[str, tuple[Path, Tokenizer, TokenDataset]] = field(default_factory=dict)

    @cached_property
    def hardware(self) -> TrainingSettings:
        """Resolved device, precision and threads: one thread for a budget of CPU time, which idle threads use up."""
        recipe = self.recipe
        threads = recipe.threads or int(recipe.cpu_seconds is not None)
        settings = {"training.device": recipe.device, "training.threads": threads}
        return resolve_settings(build_train_recipe({"text": recipe.sources, **settings})).training

    def tokenizer_spec(self, spec: ModelSpec) -> str:
        """The tokenizer of a model: its own, else that of the comparison, else the default of its preset or corpus."""
        default = tokenizer_spec(build_train_recipe({"model": spec.preset}), self.corpus)
        return spec.tokenizer or self.recipe.tokenizer or default

    def encoded_corpus(self, tokenizer_spec: str) -> tuple[Path, Tokenizer, TokenDataset]:
        """The folder of a tokenizer, the tokenizer, and the training split encoded with it."""
        if tokenizer_spec not in self.tokenizers:
            folder = self.folder / "tokenizers" / ModelSpec(tokenizer_spec, tokenizer_spec, {}).folder_name
            if not (folder / "tokenizer.json").is_file():
                trained = train_corpus_tokenizer(self.corpus, tokenizer_spec)
                with durable.write_folder(folder) as temporary:
                    trained.save(temporary)
            tokenizer = Tokenizer.open(folder)
            self.tokenizers[tokenizer_spec] = folder, tokenizer, self.corpus.encode(tokenizer)["train"]
        return self.tokenizers[tokenizer_spec]

    def run_folder(self, run: PlannedRun) -> Path:
        """The folder of a run. The first seed has the model's name, so that more seeds can be added later."""
        name = run.spec.folder_name
        return self.folder / (name if run.seed == self.recipe.seed else f"{name}-seed{run.seed}")

    def train_recipe(self, run: PlannedRun) -> TrainRecipe:
        """The recipe that trains a model under the budget; the saved one if its run has been started before."""
        recipe, spec, out = self.recipe, run.spec, self.run_folder(run)
        if RunFolder(out).exists:
            saved = build_train_recipe(read_yaml(RunFolder(out).config_file))
            return replace(saved, out=out, resume=True, overwrite=False)
        tokenizer_folder, tokenizer, dataset = self.encoded_corpus(self.tokenizer_spec(spec))
        values: dict[str, Any] = {
            "text": recipe.sources,
            "model": spec.preset,
            "tokenizer": str(tokenizer_folder),
            "out": str(out),
            "training.seed": run.seed,
            "training.device": self.hardware.device,
            "training.threads": self.hardware.threads,
            "training.align_documents": self.corpus.name in ALIGNED_CORPORA,
            "data": to_plain(recipe.data),
            "minutes": recipe.minutes,
            "cpu_seconds": recipe.cpu_seconds,
        }
        # `train` is given the tokenizer's folder, which does not tell its kind.
        preset_settings = preset_training_settings(spec.preset, self.tokenizer_spec(spec))
        values |= {key: value for key, value in preset_settings.items() if key == "training.batch_size"}
        values |= {**self.size_settings(spec, tokenizer, dataset), **spec.settings}
        if recipe.minutes is None and recipe.cpu_seconds is None:
            values["steps"] = steps_of_one_epoch(build_train_recipe(values), tokenizer, dataset)
        return build_train_recipe({key: value for key, value in values.items() if value is not None})

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of each model, as far as the budget determines them."""
        if self.recipe.minutes is not None:
            return 60 * self.recipe.minutes
        return None if self.recipe.cpu_seconds is None else self.recipe.cpu_seconds / self.hardware.threads

    def size_settings(self, spec: ModelSpec, tokenizer: Tokenizer, dataset: TokenDataset) -> dict[str, Any]:
        """Settings that scale the preset to the size that can be trained in the budget, as `train` scales `clear`."""
        choice = build_train_recipe({"model": spec.preset, **spec.settings}).model
        config: Any = choice.config(vocab=tokenizer.vocab)
        if config.family == "mixture":
            return {"parameters": self.recipe.parameters}  # `train` sizes its experts
        sized_as_clear = choice.is_sized_as_clear(tokenizer.vocab)
        if spec.full_size:
            return {"parameters": DEFAULT_PARAMETERS if sized_as_clear else None}
        values: dict[str, Any] = {}
        model = build(config, device="meta")
        is_transformer = has_capability(model, Capability.ATTENTION)
        if is_transformer and self.seconds is not None and "training.context" not in spec.settings:
            values["model.context"] = context_for_budget(self.seconds, self.hardware.device)
        if family_of(config).scale is None or any(key in choice.overrides for key in (*SIZE_FIELDS, "states")):
            return values
        if self.recipe.parameters is not None or self.seconds is None:
            return values | {"parameters": self.recipe.parameters}
        speed, seconds = training_speed(self.hardware), TRAINING_SHARE * self.seconds
        if has_capability(model, Capability.COUNT_FITTED):
            inner = em_parameters_for_budget(seconds, speed, len(dataset))
            return {"parameters": parameters_for_inner(config, inner)}
        inner = parameters_for_budget(seconds, speed, len(dataset), dataset.text_bytes)
        if is_transformer:
            values["model.dropout"] = dropout_for_budget(seconds, speed, inner, len(dataset))
        if sized_as_clear:
            return values  # `train` sizes it by the same rule
        return values | {"parameters": parameters_for_inner(config, inner)}


def steps_of_one_epoch(recipe: TrainRecipe, tokenizer: Tokenizer, dataset: TokenDataset) -> int:
    """Number of steps that read the dataset once; 1 for a model fitted by counting, which reads all of it in a step."""
    settings = recipe.training
    config = recipe.model.config(vocab=tokenizer.vocab, context=settings.context, parameters=recipe.parameters)
    model = build(config, device="meta")
    if has_capability(model, Capability.COUNT_FITTED):
        return 1
    batch_size = settings.batch_size * settings.gradient_accumulation_steps
    return max(1, round(len(dataset) / (batch_size * training_context(model, dataset, settings))))


def planned_runs(recipe: CompareRecipe) -> list[PlannedRun]:
    """The training runs of a comparison: every seed of every model that is initialized randomly, else the first."""
    runs = []
    for spec in recipe.model_specs:
        seeds = recipe.seeds if recipe.seeds > 1 and has_random_init(spec) else 1
        labels = [spec.label] if seeds == 1 else [f"{spec.label}, seed {recipe.seed + i}" for i in range(seeds)]
        runs += [PlannedRun(spec, recipe.seed + i, label) for i, label in enumerate(labels)]
    return runs


def has_random_init(spec: ModelSpec) -> bool:
    """Whether a model is initialized randomly, so that another seed gives another model."""
    choice = build_train_recipe({"model": spec.preset, **spec.settings}).model
    try:
        model = build(choice.config(vocab=preset(spec.preset).vocab), device="meta")
    except BadSetting:
        return True  # training says what is wrong with its settings
    return hasattr(model, "reset")


def measure_model(
    label: str,
    opened: OpenedModel,
    text: EvalText,
    recipe: CompareRecipe,
    *,
    folder: Path,
    prompt: str,
    seed: int | None = None,
    trained: TrainingResult | None = None,
    tokenizer: str = "",
    epoch_tokens: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> ModelResult:
    """The result of a finished model: scores of all units of the text, and a sample.

    `epoch_tokens`: number of training tokens in one epoch, 0 if not known.
    """
    model, own_tokenizer = opened.model, opened.tokenizer
    assert own_tokenizer is not None
    scores = score_units(model, own_tokenizer, text, windows=recipe.windows, on_progress=on_progress)
    bits = scores.bits_per_byte(text)
    sample, speed = "", None
    if has_capability(model, Capability.CAUSAL):
        sample, speed = generate_sample(opened, recipe, prompt, text, scores.tokens)
    curve: tuple[tuple[float, float], ...] = ()
    if trained is not None and bits is not None and scores.measure == LIKELIHOOD:
        curve = training_curve(trained, bits)
    return ModelResult(
        model=label,
        family=model.config.family,
        summary=model.config.summary,
        measure=scores.measure,
        seed=seed,
        tokenizer=tokenizer or own_tokenizer.kind,
        vocab=own_tokenizer.vocab,
        parameters=count_parameters(model),
        bytes_on_disk=sum(file.stat().st_size for file in (folder, *folder.rglob("*")) if file.is_file()),
        cpu_seconds=None if trained is None else trained.cpu_seconds,
        seconds=None if trained is None else trained.seconds,
        tokens=None if trained is None else trained.tokens,
        steps=None if trained is None else trained.steps,
        epochs=None if trained is None or not epoch_tokens else trained.tokens / epoch_tokens,
        nats=None if scores.nats is None else tuple(map(float, scores.nats)),
        bits_per_byte=bits,
        nats_per_token=scores.model_nats / scores.tokens if scores.tokens else None,
        oov_bits_per_byte=scores.oov_nats / NATS_PER_BIT / text.bytes,
        windows=scores.windows,
        generation_tokens_per_second=speed,
        sample=sample,
        folder=folder,
        curve=curve,
        note=scores.reason,
    )


def generate_sample(
    opened: OpenedModel, recipe: CompareRecipe, prompt: str, text: EvalText, scored_tokens: int
) -> tuple[str, float | None]:
    """A sample of about `characters` characters, including the prompt, and generated tokens per CPU second; if each
    line is a document, several independent lines of this total length.
    """
    length = max(1, recipe.characters - len(prompt))
    prompts, max_tokens = [prompt], round(1.3 * length * scored_tokens / text.bytes) + 1
    if recipe.data.lines:
        line_bytes = text.bytes / len(text.documents)
        prompts, max_tokens = [prompt] * max(1, min(MAX_LINES, round(length / line_bytes))), length
    started = time.process_time()
    generation = generate(
        opened,
        prompts,
        # 30 % more tokens than the evaluation text has per byte: generated tokens may be shorter.
        Sampling(max_tokens=max_tokens, temperature=SAMPLE_TEMPERATURE, seed=recipe.seed),
        raw=True,
        truncate="left",
        ignore_eos=not recipe.data.lines,
    )
    seconds = time.process_time() - started
    sample = "\n".join(each.text for each in generation.completions)[:length]
    return sample, generation.tokens / seconds if seconds else None


def training_curve(trained: TrainingResult, bits: float) -> tuple[tuple[float, float], ...]:
    """CPU seconds and bits per byte of each evaluation during training, and of the final measurement.

    Those evaluations read the same part of the validation text, in nats per token. They are scaled so that the best of
    them equals the bits per byte measured on the whole text.
    """
    evaluations = [
        row
        for row in read_metrics(RunFolder(trained.run_folder).metrics_file)
        if row["kind"] == "evaluation" and row["nats_per_token"] > 0
    ]
    scale = bits / min((float(row["nats_per_token"]) for row in evaluations), default=1.0)
    return (
        *((float(row["cpu_seconds"]), row["nats_per_token"] * scale) for row in evaluations),
        (trained.cpu_seconds, bits),
    )
