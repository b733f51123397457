"""Train: from text to a model, as a generator of events. What happens between two steps is decided in `session`.

corpus ─► tokenizer ─► rows ─► model ─► plan ─► (step · look · save · sample)* ─► the best model, measured on all
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clearstory.errors import BadSetting
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenSequences
from clearstory.models.config import TransformerConfig
from clearstory.models.families import build, count
from clearstory.models.lora import unadapted
from clearstory.models.machine import GPU_SIZE, bf16_is_fast, fastest_threads, matmul_gflops, usable
from clearstory.models.prompts import first_token
from clearstory.models.sizing import blocks, clear_of_blocks
from clearstory.models.sizing import parameters as count_on_paper
from clearstory.recipes.training import time_budget
from clearstory.recipes.training import run_folder
from clearstory.recipes.training.objective_choice import aimed, check_heads
from clearstory.recipes.both_sides import BOTH_SIDES
from clearstory.recipes.training.run_length import DEFAULT_STEPS, plan
from clearstory.recipes.inference.evaluate import reason
from clearstory.recipes.training.events import TrainingEvent, TrainingResult, RunPrepared
from clearstory.recipes.held_out import HeldOut
from clearstory.recipes.settings.training_presets import scale_learning_rates
from clearstory.recipes.training.session import Session
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.initial_model import start
from clearstory.recipes.inference.tag import training_sentences, with_tags
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.sentinels import with_sentinels
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.base import BaseTrainer
from clearstory.training.objectives.mlm import MLM
from clearstory.training.objectives.seq2seq import SpanCorruption, Seq2Seq
from clearstory.training.objectives.table import OBJECTIVES
from clearstory.training.count_trainer import CountTrainer
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import COMPUTE_DTYPES, Trainer

TOKENIZERS = {"digits": "characters"}
"""Corpora that name the tokenizer they are meant for."""

ALIGNED = {"digits"}
"""Corpora whose documents are all of a kind: windows begin with one."""


def train(text: str | Path | tuple[str, ...] = (), /, **settings: Any) -> TrainingResult:
    """Train a model on text and keep the best in a folder.

    `settings` are those of TrainRecipe, nested as dicts; see `clearstory train --help`.

    >>> import tempfile, clearstory
    >>> finished = clearstory.train(
    ...     "corpus:python-docs", model={"name": "clear", "width": 32, "layers": 1}, tokenizer="bytes", steps=2,
    ...     training={"batch_size": 2, "context": 32, "eval_tokens": 100}, out=tempfile.mkdtemp())
    >>> finished.steps
    2
    """
    sources = (str(text),) if isinstance(text, str | Path) else tuple(map(str, text))
    finished = None
    for event in train_events(build_train_recipe({"text": sources, **settings})):
        finished = event
    assert isinstance(finished, TrainingResult)
    return finished


def train_events(recipe: TrainRecipe, *, closing: bool = True) -> Iterator[TrainingEvent]:
    """The road from text to model, telling what happens on the way; the last event is TrainingResult.

    `closing`: whether the best model is measured on all of the validation split at the end, within the time that is
    given. Who measures it anyway, as `compare` does, leaves that time to training.
    Ctrl-C (or a termination) ends it with a checkpoint and KeyboardInterrupt; a loss that is no number with a
    checkpoint of the last good weights and Diverged.
    """
    clock = time_budget.TimeBudget(seconds=float("inf"))
    run, recipe = run_folder.begin(recipe)
    if recipe.time_limit is not None:
        clock.seconds, clock.processor = recipe.time_limit, recipe.cpu_seconds is not None
    with stoppable() as stop:
        session = prepare(run, recipe, clock)
        session.closing = closing
        session.go_back()
        try:
            yield session.prepared
            yield from plan(session)
            yield from session.learn(stop)
            yield session.finish()
        finally:
            if session.record is not None:
                session.record.close()


def prepare(run: run_folder.RunFolder, recipe: TrainRecipe, clock: time_budget.TimeBudget) -> Session:
    """Read the text, make the model, and go back to where the run stood if it is resumed."""
    settings = decide(recipe.training)
    begun = None if recipe.init is None else start(recipe, settings.device)
    recipe = aimed(recipe, None if begun is None else begun.model)
    aim = OBJECTIVES[recipe.objective]
    corpus = Corpus.open(recipe.text, recipe.data)
    if settings.align_documents is None:
        settings = replace(settings, align_documents=corpus.name in ALIGNED)
    tagging = recipe.model.overrides.get("learn") == "tags"
    sentences = training_sentences(corpus) if tagging else ()
    spec = recipe.tokenizer or recipe.model.tokenizer or ("words" if tagging else usual_tokenizer(corpus))
    known = recipe.resume and (run.tokenizer / "tokenizer.json").is_file()
    if known:
        run_folder.same_text(run, corpus.fingerprint)
        tokenizer = Tokenizer.open(run.tokenizer)
    elif begun is not None:
        tokenizer = begun.tokenizer
    else:
        tokenizer = train_corpus_tokenizer(corpus, spec)
        tokenizer = with_sentinels(tokenizer) if aim.sentinels else tokenizer
    objective = aim.make(tokenizer, settings)
    rows = corpus.encode(tokenizer, sentences=aim.sentences)
    if not len(rows["validation"]):
        raise BadSetting(
            f"data.validation is {recipe.data.validation:g} and nothing of {corpus.name} is held out, while the best "
            "model is chosen by what it has not read; give a share such as 0.01"
        )
    lessons: TokenSequences = rows["train"]
    parameters = recipe.parameters
    new = begun is None
    if new and recipe.time_limit is not None and parameters is None and recipe.model.name == "clear":
        seconds, speed, tokens = 0.9 * clock.left(), training_speed(settings), len(rows["train"].ids)
        speed /= settings.threads if clock.processor else 1
        usual: dict[str, Any] = {} if settings.context else {"context": time_budget.context_for_budget(seconds, settings.device)}
        teachable = time_budget.parameters_for_budget(seconds, speed, tokens, rows["train"].text_bytes)
        shape = clear_of_blocks(teachable, tokenizer.vocab, settings.context or usual["context"])
        parameters = count_on_paper(shape)
        usual["dropout"] = time_budget.dropout_for_budget(seconds, speed, blocks(shape), tokens)
        recipe = replace(recipe, model=replace(recipe.model, overrides={**usual, **recipe.model.overrides}))
    if begun is not None:
        config = begun.model.config
    else:
        config = recipe.model.config(vocab=tokenizer.vocab, context=settings.context, parameters=parameters)
    if tagging:
        config, lessons = with_tags(config, sentences, tokenizer, rows["train"])
    if isinstance(objective, Seq2Seq | SpanCorruption):
        config = replace(config, begin=objective.begin if config.decoder_start_token_id is None else config.decoder_start_token_id)
        objective = replace(objective, begin=config.decoder_start_token_id)
    elif not isinstance(config, TransformerConfig) and getattr(config, "bos_token_id", 0) is None:
        config = replace(config, bos_token_id=first_token(tokenizer))  # a family that counts must be told where texts begin
    check_heads(recipe, config)
    if not known and not recipe.lora.rank:
        settings = scale_learning_rates(recipe.model.name if new else None, config, settings)
    recipe = replace(recipe, training=settings, parameters=parameters)
    if begun is not None:
        model = begun.model
        run_folder.same_start(run, begun.hash)
    else:
        place = place_of(config, settings.device)
        model = build(config, seed=settings.seed, birth=settings.initialization, device=place)
    if settings.context is not None and model.context is not None and settings.context > model.context:
        raise BadSetting(
            f"training.context is {settings.context:,} and model.context {model.context:,}; "
            "a model cannot learn from longer rows than it can read"
        )
    prepared = RunPrepared(
        corpus=corpus.name,
        note=corpus.note,
        documents=corpus.size // 2 if aim.pairs else corpus.size,
        bytes=corpus.text_bytes,
        tokens=len(rows["train"].ids),
        validation_tokens=len(rows["validation"].ids),
        tokenizer=tokenizer.kind if begun else spec,
        vocab=tokenizer.vocab,
        parameters=count(unadapted(model)),
        shape=begun.shape if begun else config.summary,
        unit="pair" if aim.pairs else "document",
    )
    steps = recipe.steps or DEFAULT_STEPS
    learner: BaseTrainer
    if getattr(model, "counted", False):
        learner = CountTrainer(model, lessons, settings, steps=steps)
    else:
        learner = Trainer(model, objective, rows["train"], settings, steps=steps)
        prepared = with_left_out(prepared, learner)
    card = ModelCard(
        name=run.folder.name,
        family=config.family,
        parameters=prepared.parameters,
        trained_on=(*(begun.card.trained_on if begun else ()), (corpus.name, rows["train"].text_bytes)),
    )
    decided = {"tokenizer": tokenizer.fingerprint, "corpus": corpus.fingerprint}
    if isinstance(objective, MLM):
        why: str | None = BOTH_SIDES
    else:
        why = getattr(objective, "reason", None) or lost(corpus, tokenizer, rows)
    held = HeldOut(rows["validation"], tokenizer, objective, why)
    if begun is not None:
        decided["init"] = begun.hash
    return Session(
        run, recipe, learner, tokenizer, held, card, clock, prepared, decided, base=begun.base if begun else None,
    )  # fmt: skip


def with_left_out(prepared: RunPrepared, trainer: Trainer) -> RunPrepared:
    """What is known of a corpus, and how many of its pairs are too long to learn from."""
    count = getattr(trainer.batches, "left_out", 0)
    if not count:
        return prepared
    sentence = (
        f"{count:,} pairs with a side of more than {trainer.context:,} tokens are left out; "
        "--training.context and --model.context say how long they may be"
    )
    return replace(prepared, note="; ".join(filter(None, (prepared.note, sentence))))


def lost(corpus: Corpus, tokenizer: Tokenizer, rows: Mapping[str, Any]) -> str | None:
    """Why there are no bits per byte, where the tokenizer does not give the validation text back; else None."""
    held_out, size = rows["validation"], 0
    lossless = held_out.bytes == held_out.text_bytes
    for text in corpus.texts("validation"):
        if not lossless or size > 2**20:  # a megabyte shows what a tokenizer does; the count above is of all
            break
        lossless, size = tokenizer.is_lossless(text), size + len(text)
    if lossless:
        return None
    return reason(0 if tokenizer.unk_token_id is None else int((held_out.ids == tokenizer.unk_token_id).sum()))


def usual_tokenizer(corpus: Corpus) -> str:
    """Byte-level BPE with a token for about every thousand bytes of text, from 512 to 8,192 in powers of two.

    Each token's vector must be met often enough to be learnt: on 4 MB, 4,096 tokens gave 1.36 bits per byte after a
    minute of one core, 8,192 gave 1.40.
    """
    if corpus.name in TOKENIZERS:
        return TOKENIZERS[corpus.name]
    return f"bpe:{2 ** min(13, max(9, (corpus.text_bytes // 1000).bit_length() - 1))}"


def decide(settings: TrainingSettings) -> TrainingSettings:
    """What was left to this machine, decided."""
    device = usable(settings.device, "training.device")
    # Beside a GPU threads have little to do, and need no measuring.
    torch.set_num_threads(settings.threads or (fastest_threads() if device == "cpu" else torch.get_num_threads()))
    precision = settings.precision
    if precision == "auto":
        fast = bf16_is_fast() if device == "cpu" else device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bf16" if fast else "fp32"
    return replace(settings, device=device, precision=precision, threads=torch.get_num_threads())


def place_of(config: Any, device: str) -> str:
    """Where a model is to be: what counts in a fixed number of rounds does so in tables of the processor."""
    looks_up = device != "cpu" and getattr(build(config, device="meta"), "rounds", None) is not None
    return "cpu" if looks_up else device


def training_speed(settings: TrainingSettings) -> float:
    """Operations a second that training reaches here: half of what matrix products alone do, a third on a GPU."""
    dtype = COMPUTE_DTYPES[settings.precision] or torch.float32
    if settings.device.startswith("cuda"):
        return 0.33e9 * matmul_gflops(dtype, GPU_SIZE, device=settings.device)
    return 0.5e9 * matmul_gflops(dtype, threads=settings.threads)


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Ctrl-C and termination as an event that is looked at between steps; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
