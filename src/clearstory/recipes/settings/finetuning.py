"""Settings of fine-tuning: FinetuneRecipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from clearstory.durable.paths import expand_home
from clearstory.errors import BadSetting
from clearstory.models.lora_settings import LoRASettings
from clearstory.recipes.settings.finetuning_steps import SHARED_TRAINING_SETTINGS, FinetuneTrainingSettings
from clearstory.recipes.settings.run_recipe import (
    LENGTH_SETTINGS,
    check_run_settings,
    check_same_settings,
    resumed_from,
)
from clearstory.recipes.settings.schema import INLINE_SECTION, build_settings, positional_setting, to_plain
from clearstory.recipes.settings.text_to_text import check_text_to_text_settings
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.tasks.chat_settings import ChatSettings
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.sentence_settings import SentenceVectorSettings
from clearstory.tasks.text_to_text_settings import TeacherSettings, TextToTextSettings

BAG_OF_WORDS = "tfidf"
"""The model that scikit-learn fits: TF-IDF of words with a linear model."""

NGRAM_CLASSIFIER = "ngram"
"""The preset of which each label has a model, with task classify."""

HMM_TAGGER = "hmm"
"""The preset whose tags are counted, with task tag."""

TaskName = Literal["classify", "pairs", "tag", "embed", "translate", "summarize", "chat", "choose", "lm"]


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """Fine-tune a model for a task, with labeled examples.

    Args:
        model: model folder, run folder, checkpoint or .gguf file; a preset (bert-mini, lstm) for a new model; or a
            baseline: tfidf (bag of words with scikit-learn's logistic regression), ngram (an n-gram model per label,
            with Bayes' rule) or, for task tag, hmm (a hidden Markov model of tags).
        data: files with labeled examples: csv, tsv, jsonl, parquet, trees, or dataset folders; also CoNLL and CoNLL-U
            (task tag) and text (task lm).
        task: classify: labels of texts or pairs of texts, or numbers (regression); pairs: the same, for pairs only;
            tag: a label for each word (parts of speech, entities); embed: sentence vectors; translate and summarize: a
            target for each source; chat: the assistant's answers in conversations; choose: the correct choice for each
            question, by likelihood; lm: language modelling on more text, as train --init does.
        out: run folder; default: a folder in runs/ named after the model, the task and the date.
        tokenizer: tokenizer of a new model, trained on the example texts: wordpiece:4096, bpe:2048, words, characters;
            default: depends on the model and the size of the text.
        minutes: wall-clock time limit of the whole run; the number of steps is planned from a measured step time.
        cpu_seconds: CPU time limit of the whole run, summed over all threads.
        steps: number of optimizer steps, instead of training.num_train_epochs.
        validation: file with validation examples, or the fraction of the examples to hold out, stratified by label; 0:
            none, and the last weights are kept. Line-aligned files (tasks translate and summarize): give the flag
            twice.
        test: file with test examples, on which the best model is evaluated once; two for line-aligned files.
        truncate: end to drop of a text that exceeds the context; source-left or source-right for tasks translate and
            summarize; default: raise an error.
        stride: tokens between the starts of the windows in which a text that exceeds the context is processed; the
            predictions of its windows are averaged.
        threshold: probability above which a label is predicted if an example may have several labels, between 0 and 1;
            auto: the one of 0.05, 0.1, ... 0.95 with the best macro F1 on the validation examples, or 0.5 without
            validation examples.
        freeze: number of layers, counted from the first, to freeze together with the embeddings; all: train only the
            head.
        new_head: replace the existing head of a model, for other labels.
        few: number of training examples per label, sampled with training.seed, for few-shot fine-tuning (SetFit;
            Tunstall et al. 2022): vectors of texts with the same label are trained to be similar, and logistic
            regression on them becomes the head.
        curve: numbers of training examples for a label-efficiency curve: the model is trained on random samples of each
            size, and its metrics are plotted over the size, together with those of the baselines.
        baselines: models to include in the curve: frozen (logistic regression on the model's vectors), tfidf, and
            presets trained from random weights; default: frozen and tfidf.
        seeds: number of runs, with consecutive seeds starting at training.seed; their metrics are summarized. With
            curve: random samples per size.
        resume: continue from the newest checkpoint in the run folder, or start a new run if there is none.
        overwrite: replace an existing run in the run folder.
    """

    model: str = positional_setting("MODEL", "")
    data: tuple[str, ...] = positional_setting("DATA", ())
    task: TaskName = "classify"
    out: Path | None = None
    tokenizer: str | None = None
    minutes: float | None = None
    cpu_seconds: float | None = None
    steps: int | None = None
    validation: tuple[str, ...] = ("0.1",)
    test: tuple[str, ...] | None = None
    reading: LabelSettings = field(default_factory=LabelSettings, metadata=INLINE_SECTION)
    truncate: Literal["left", "right", "source-left", "source-right"] | None = None
    stride: int | None = None
    threshold: str = "auto"
    freeze: str = "0"
    new_head: bool = False
    few: int | None = None
    curve: tuple[int, ...] = ()
    baselines: tuple[str, ...] = ()
    seeds: int = 1
    resume: bool = False
    overwrite: bool = False
    lora: LoRASettings = field(default_factory=LoRASettings)
    embed: SentenceVectorSettings = field(default_factory=SentenceVectorSettings)
    text_to_text: TextToTextSettings = field(default_factory=TextToTextSettings, metadata=INLINE_SECTION)
    distillation: TeacherSettings = field(default_factory=TeacherSettings, metadata=INLINE_SECTION)
    chat: ChatSettings = field(default_factory=ChatSettings, metadata=INLINE_SECTION)
    training: FinetuneTrainingSettings = field(default_factory=FinetuneTrainingSettings)

    command: ClassVar[str] = "finetune"

    def __post_init__(self) -> None:
        check_run_settings(self)
        if self.seeds < 1:
            raise BadSetting(f"seeds is {self.seeds}; it must be at least 1")
        check_few_labels(self)
        if self.training.context is not None and self.task != "lm":
            raise BadSetting(
                f"training.context is {self.training.context} and task {self.task}; it is for task lm: leave it out, "
                "and shorten long texts with truncate"
            )
        if self.stride is not None and self.stride < 1:
            raise BadSetting(f"stride is {self.stride}; it must be at least 1")
        if self.stride is not None and self.truncate is not None:
            raise BadSetting(
                f"stride is {self.stride} and truncate {self.truncate}: long texts are either split into windows or "
                "truncated; give one of them"
            )
        if self.threshold != "auto" and not is_probability(self.threshold):
            raise BadSetting(f"threshold is {self.threshold[:60]!r}; give a number above 0 and under 1, or auto")
        if self.freeze != "all" and not self.freeze.isdecimal():
            raise BadSetting(f"freeze is {self.freeze[:60]!r}; give a number of layers, or all")
        if self.lora.rank and self.freeze != "0":
            raise BadSetting(
                f"lora.rank is {self.lora.rank} and freeze {self.freeze}: LoRA freezes all layers; leave one out"
            )
        if not self.lora.rank and self.lora != LoRASettings():
            raise BadSetting(
                "lora.rank is 0, so LoRA is off and the other settings of lora have no effect; set lora.rank"
            )
        check_embed_settings(self)
        check_text_to_text_settings(self)
        check_chat_settings(self)
        share = self.validation_share
        if share is not None and not 0 <= share < 1:
            raise BadSetting(f"validation is {share:g}; give a file, or a fraction of at least 0 and below 1")
        if share == 0 and self.training.patience:
            raise BadSetting(
                f"training.patience is {self.training.patience} and validation 0, so there are no validation examples, "
                "which it needs; leave one of them out"
            )

    @property
    def validation_share(self) -> float | None:
        """The share of the examples that is held out; None where `validation` names files."""
        try:
            return float(self.validation[0]) if len(self.validation) == 1 else None
        except ValueError:
            return None

    @property
    def sources(self) -> tuple[str, ...]:
        """The files with training examples; none for a run that is resumed by its folder alone."""
        return self.data

    @property
    def default_name(self) -> str:
        """The model's name and the task's."""
        return f"{Path(self.model).name or 'model'}-{self.task}"

    @property
    def time_limit(self) -> float | None:
        """Time limit in seconds, wall-clock (minutes) or CPU (cpu_seconds); None without one."""
        return 60 * self.minutes if self.minutes is not None else self.cpu_seconds

    @property
    def names_path(self) -> bool:
        """Whether the model is a file or folder, and not the run folder, which may have the name of a preset."""
        path = expand_home(self.model)
        own = self.out is not None and path.resolve() == expand_home(self.out).resolve()
        return bool(self.model) and path.exists() and not own

    def with_absolute_paths(self) -> Self:
        """The recipe with absolute paths, as it is saved, so that it works from any working directory."""
        from clearstory.text.sources import absolute_source

        def absolute(path: str) -> str:
            return absolute_source(path) if path and expand_home(path).exists() else path

        return replace(
            self,
            model=absolute_source(self.model) if self.names_path else self.model,
            data=tuple(map(absolute_source, self.data)),
            validation=self.validation
            if self.validation_share is not None
            else tuple(map(absolute_source, self.validation)),
            test=None if self.test is None else tuple(map(absolute_source, self.test)),
            distillation=replace(
                self.distillation, teacher=self.distillation.teacher and absolute(self.distillation.teacher)
            ),
            chat=replace(self.chat, chat_template=self.chat.chat_template and absolute(self.chat.chat_template)),
            reading=replace(self.reading, labels=self.reading.labels and absolute(self.reading.labels)),
        )

    def resumed(self, saved: Mapping[str, Any], folder: Path) -> FinetuneRecipe:
        """The saved recipe of a run with the changeable settings of this one. Raises CheckpointMismatch for other
        changes.
        """
        before = build_settings(FinetuneRecipe, saved)
        default = FinetuneRecipe()
        check_same_settings(folder, before, self, default, RESOLVED_BY_FINETUNING.__contains__)
        return resumed_from(before, self, folder)


def check_embed_settings(recipe: FinetuneRecipe) -> None:
    """Raise BadSetting for settings of vectors with another task, and for those of labels with task embed."""
    if recipe.task != "embed":
        if recipe.embed != SentenceVectorSettings():
            raise BadSetting(f"embed settings are for task embed, but task is {recipe.task}; leave them out")
        return
    given = {
        "stride": recipe.stride is not None,
        "threshold": recipe.threshold != "auto",
        "new_head": recipe.new_head,
        "training.label_smoothing": bool(recipe.training.label_smoothing),
        "training.class_weights": bool(recipe.training.class_weights),
        "freeze": recipe.freeze == "all",
        "problem": recipe.reading.problem != "auto",
        "trees": recipe.reading.trees != "phrases",
    }
    if recipe.training.batch_size == 1 and recipe.embed.loss in ("auto", "multiple_negatives_ranking"):
        raise BadSetting(
            "training.batch_size is 1, but multiple_negatives_ranking needs the other positives of a batch as "
            "negatives; give at least 2, or another --embed.loss"
        )
    if name := next((name for name, is_given in given.items() if is_given), None):
        raise BadSetting(f"{name} is for a head, but task embed trains a model without one; leave it out")


def check_chat_settings(recipe: FinetuneRecipe) -> None:
    """Raise BadSetting for settings of conversations with another task, and for those of labels with chat or choose."""
    usual = FinetuneTrainingSettings()
    recipe.chat.check_used(recipe.task)
    if recipe.task not in ("chat", "choose"):
        return
    smoothed = recipe.task == "choose" and recipe.training.label_smoothing != usual.label_smoothing
    given = {
        "training.label_smoothing": smoothed,
        "stride": recipe.stride is not None,
        "threshold": recipe.threshold != "auto",
        "new_head": recipe.new_head,
        "training.class_weights": recipe.training.class_weights != usual.class_weights,
        "freeze": recipe.freeze == "all",
        "problem": recipe.reading.problem != "auto",
        "labels": recipe.reading.labels is not None,
    }
    if name := next((name for name, is_given in given.items() if is_given), None):
        raise BadSetting(f"{name} is for labels, but task {recipe.task} trains a model without a head; leave it out")


def check_few_labels(recipe: FinetuneRecipe) -> None:
    """Raise BadSetting for `few` or `curve` with settings that they leave without effect."""
    few, curve, usual = recipe.few, recipe.curve, FinetuneTrainingSettings()
    if few is None and not curve:
        if recipe.baselines:
            raise BadSetting(
                f"baselines are {' '.join(recipe.baselines)}, but there is no curve; give its sizes with --curve"
            )
        return
    name, value = ("few", str(few)) if few is not None else ("curve", " ".join(map(str, curve)))
    if few is not None and curve:
        raise BadSetting(
            f"few is {few} and curve {' '.join(map(str, curve))}: few is one run, curve is runs of several sizes; "
            "give one of them"
        )
    if min(curve, default=few or 0) < 1 or len(set(curve)) < len(curve):
        raise BadSetting(f"{name} is {value}; give {'different ' * bool(curve)}numbers of at least 1")
    if recipe.task != "classify":
        raise BadSetting(f"{name} is {value} and task {recipe.task}; {name} is for task classify")
    if few is not None and recipe.reading.problem == "regression":
        raise BadSetting(f"few is {few} and problem regression: numbers have no classes to sample from; leave one out")
    if few is not None and recipe.freeze == "all":
        raise BadSetting(
            f"few is {few} and freeze all: few trains the vectors, but all layers are frozen; leave one out"
        )
    if recipe.baselines and few is not None:
        raise BadSetting("baselines are for a curve, but there is none; leave them out")
    names = ("patience", "eval_steps", "save_steps") if curve else ("label_smoothing", "class_weights")
    changed = [f"training.{each}" for each in names if getattr(recipe.training, each) != getattr(usual, each)]
    changed += [each for each in ("minutes", "cpu_seconds") if curve and getattr(recipe, each) is not None]
    if changed:
        why = (
            "all its models are evaluated once, after their last step"
            if curve
            else "all labels have the same number of examples"
        )
        raise BadSetting(f"{changed[0]} does not apply with {name}: {why}; leave it out")


def is_probability(text: str) -> bool:
    """Whether a text is a number above 0 and under 1."""
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


RESOLVED_BY_FINETUNING = {
    *("training.device", "training.precision", "training.matmul", "training.threads", "training.learning_rate"),
    *("problem",),
}
"""Settings that a run resolves itself where they are not set."""


NOT_OF_LM = ("label_smoothing", "batch_tokens")

LM_TRAINING_SETTINGS = tuple(name for name in SHARED_TRAINING_SETTINGS if name not in NOT_OF_LM)
"""Settings of training that apply to language modelling, too."""


def language_modelling_recipe(recipe: FinetuneRecipe) -> TrainRecipe:
    """The recipe of `train --init` with the same settings. Raises BadSetting for those that need labels."""
    default = FinetuneRecipe()
    names = ("test", "reading", "tokenizer", "truncate", "stride", "threshold", "freeze", "new_head", "seeds")
    changed = [name for name in names if getattr(recipe, name) != getattr(default, name)]
    training, usual = recipe.training, default.training
    changed += [
        f"training.{each.name}"
        for each in fields(training)
        if each.name not in LM_TRAINING_SETTINGS and getattr(training, each.name) != getattr(usual, each.name)
    ]
    if changed:
        raise BadSetting(f"{changed[0]} does not apply to task lm, which trains on text; leave it out")
    if recipe.validation_share is None:
        given = " ".join(recipe.validation)
        raise BadSetting(f"validation is {given}, but task lm holds out a fraction of its text; give a number")
    shared = {name: getattr(training, name) for name in LM_TRAINING_SETTINGS}
    values = {name: value for name, value in shared.items() if value != getattr(usual, name)}
    return build_train_recipe(
        {
            "text": recipe.data,
            "init": recipe.model or None,
            **{name: getattr(recipe, name) for name in ("out", "resume", "overwrite")},
            **{name: value for name in LENGTH_SETTINGS if (value := getattr(recipe, name)) is not None},
            "lora": to_plain(recipe.lora),
            "data": {"validation": recipe.validation_share},
            "training": values,
        }
    )
