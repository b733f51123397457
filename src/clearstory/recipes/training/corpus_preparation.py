"""Corpus, tokenizer and token datasets of a training run."""

from __future__ import annotations

from dataclasses import replace

from clearstory.errors import BadSetting
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.training.initial_model import InitialModel
from clearstory.recipes.training.run_folder import RunFolder, check_same_corpus
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.sentinels import with_sentinels
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.objectives.table import objective_spec

CORPUS_TOKENIZERS = {"digits": "characters"}
"""Default tokenizers of built-in corpora."""


ALIGNED_CORPORA = {"digits"}
"""Corpora whose documents all have the same structure: training windows start at document starts."""


def open_corpus(recipe: TrainRecipe) -> tuple[Corpus, TrainRecipe]:
    """The corpus of a recipe, and the recipe with training.align_documents resolved for it."""
    corpus = Corpus.open(recipe.text, recipe.data)
    if recipe.training.align_documents is None:
        settings = replace(recipe.training, align_documents=corpus.name in ALIGNED_CORPORA)
        recipe = replace(recipe, training=settings)
    return corpus, recipe


def learns_tags(recipe: TrainRecipe) -> bool:
    """Whether an HMM is trained on tagged text."""
    return recipe.model.overrides.get("learn") == "tags"


def is_resumed(folder: RunFolder, recipe: TrainRecipe) -> bool:
    """Whether a run is resumed that has a tokenizer already."""
    return recipe.resume and folder.has_tokenizer


def tokenizer_spec(recipe: TrainRecipe, corpus: Corpus) -> str:
    """The tokenizer to train or to load, such as "bpe:8192".

    By default byte-level BPE with one token per thousand bytes of text, from 512 to 8,192 in powers of two, so that
    each embedding is updated often enough: on 4 MB, 4,096 tokens gave 1.36 bits per byte after a minute of one core,
    8,192 gave 1.40.
    """
    given = recipe.tokenizer or recipe.model.tokenizer or ("words" if learns_tags(recipe) else None)
    if given is not None:
        return given
    if corpus.name in CORPUS_TOKENIZERS:
        return CORPUS_TOKENIZERS[corpus.name]
    return f"bpe:{2 ** min(13, max(9, (corpus.text_bytes // 1000).bit_length() - 1))}"


def load_or_train_tokenizer(
    folder: RunFolder, recipe: TrainRecipe, corpus: Corpus, initial: InitialModel | None
) -> Tokenizer:
    """The tokenizer of the resumed run, of the initial model, or a new one trained on the corpus.

    Raises CheckpointMismatch if the text of a resumed run has changed.
    """
    if is_resumed(folder, recipe):
        check_same_corpus(folder, corpus.fingerprint)
        return Tokenizer.open(folder.tokenizer_folder)
    if initial is not None:
        return initial.tokenizer
    tokenizer = train_corpus_tokenizer(corpus, tokenizer_spec(recipe, corpus))
    return with_sentinels(tokenizer) if objective_spec(recipe.objective).sentinels else tokenizer


def encode_corpus(recipe: TrainRecipe, corpus: Corpus, tokenizer: Tokenizer) -> dict[str, TokenDataset]:
    """The token datasets of the splits "train" and "validation"; the second is empty if data.validation is 0.

    Raises BadSetting for settings that need validation text, and for a share that holds out nothing.
    """
    datasets = corpus.encode(tokenizer, sentences=objective_spec(recipe.objective).sentences)
    if recipe.data.validation and not len(datasets["validation"]):
        raise BadSetting(
            f"data.validation is {recipe.data.validation:g} and the validation split of {corpus.name} is empty; give "
            "a larger fraction, or 0 to train on the whole text and keep the last weights"
        )
    settings = recipe.training
    reads_pairs = settings.sample_steps and objective_spec(recipe.objective).architectures == ("encoder-decoder",)
    if not recipe.data.validation and (settings.patience or reads_pairs):
        name, value = ("patience", settings.patience) if settings.patience else ("sample_steps", settings.sample_steps)
        raise BadSetting(
            f"training.{name} is {value} and data.validation 0, so there is no validation text, which it needs; leave "
            "one of them out"
        )
    return datasets
