"""Keyword arguments of the public functions as types: one TypedDict for each settings dataclass. Imports no torch.

Type checkers see them in `Unpack[...]`; at run time the dataclasses check settings. tests/test_public_api.py compares
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from clearstory.models.precision import Precision
from clearstory.training.objectives.table import ObjectiveName


class SamplingKeywords(TypedDict, total=False):
    """Fields of Sampling, for `generate`."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    beam: int
    length_penalty: float
    stop: tuple[str, ...]
    seed: int | None


class TranslationKeywords(TypedDict, total=False):
    """Fields of TranslationSettings, for `translate` and `summarize`."""

    beam: int | None
    length_penalty: float | None
    max_tokens: int | None
    n_best: int
    out: str | Path | None
    truncate: Literal["left", "source-left", "source-right"] | None
    source_prefix: str | None
    prompt_template: str | None
    instruction: str | None
    errors: Literal["strict", "replace"]
    precision: Precision
    int8: bool
    device: str | None


class EmbeddingKeywords(TypedDict, total=False):
    """Fields of EmbeddingSettings, for `embed`, `search` and `deduplicate`."""

    pooling: Literal["mean", "cls", "max", "last", "pooled"] | None
    prompt: str | None
    truncate: Literal["left", "right"] | None
    batch_size: int
    text_field: str
    errors: Literal["strict", "replace"]
    device: str | None
    int8: bool


class DataKeywords(TypedDict, total=False):
    """Fields of DataSettings."""

    text_field: str
    lines: bool
    include: str | Sequence[str]
    encoding: str
    errors: Literal["strict", "replace"]
    on_error: Literal["stop", "skip"] | None
    pairs: bool
    source_field: str
    target_field: str
    validation: float
    cache: str | Path | None


class PromptKeywords(TypedDict, total=False):
    """Fields of PromptRecipe, for `prompt`."""

    test: str | Path
    shots: Sequence[int]
    draws: int
    seed: int
    limit: int | None
    labels: str | Sequence[str]
    answer: Literal["likelihood", "generate"]
    normalize: Literal["none", "characters"]
    calibrate: bool
    separator: str
    raw: bool
    system: str | None
    max_tokens: int
    show_prompt: int | None
    out: str | Path | None
    text_column: str | None
    pair_column: str | None
    label_column: str | None
    device: str | None


class BenchmarkKeywords(TypedDict, total=False):
    """Fields of BenchmarkSettings, for `evaluate`."""

    task_files: str | Path | None
    num_fewshot: int | None
    apply_chat_template: bool
    bootstrap_iters: int
    log_samples: bool
    download: bool
    probe_files: str | Path | None
    out: str | Path | None


class LoRAKeywords(TypedDict, total=False):
    """Fields of LoRASettings."""

    rank: int
    alpha: float
    targets: str | Sequence[str]
    dropout: float
    modules_to_save: str | Sequence[str]


class TrainingKeywords(TypedDict, total=False):
    """Fields of TrainingSettings."""

    batch_size: int
    batch_tokens: int
    gradient_accumulation_steps: int
    context: int | None
    whole_words: bool
    stateful: bool
    align_documents: bool | None
    shuffle_documents: bool | None
    optimizer: Literal["adamw", "muon", "sgd"]
    learning_rate: float
    muon_learning_rate: float
    recall_learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    schedule: Literal["cosine", "linear", "constant", "wsd", "noam"]
    warmup_steps: int
    warmup_ratio: float | None
    layer_decay: float
    decay_share: float
    final_learning_rate: float
    label_smoothing: float
    gradient_clip: float
    eval_steps: int
    eval_tokens: int
    save_steps: int
    keep_checkpoints: int
    weight_checkpoints: int
    sample_steps: int
    weight_average: float
    average_checkpoints: int
    patience: int
    precision: Literal["auto", "fp32", "bf16"]
    matmul: Literal["auto", "mkl", "onednn", "mixed"]
    compile: Literal["auto", "on", "off"]
    device: str
    sort_memory: int
    threads: int
    initialization: Literal["normal", "zero"]
    seed: int


class TrainKeywords(TypedDict, total=False):
    """Fields of TrainRecipe, for `train`."""

    model: str | Mapping[str, object]
    init: str | None
    out: str | Path | None
    minutes: float | None
    cpu_seconds: float | None
    steps: int | None
    parameters: int | str | None
    tokenizer: str | None
    objective: ObjectiveName
    resume: bool
    overwrite: bool
    lora: LoRAKeywords
    training: TrainingKeywords
    data: DataKeywords


class FinetuneTrainingKeywords(TypedDict, total=False):
    """Fields of FinetuneTrainingSettings."""

    num_train_epochs: float
    batch_size: int
    batch_tokens: int
    gradient_accumulation_steps: int
    learning_rate: float | None
    layer_decay: float
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: float
    weight_decay: float
    label_smoothing: float
    class_weights: str | Sequence[str]
    gradient_clip: float
    eval_steps: int
    save_steps: int
    keep_checkpoints: int
    patience: int
    average_checkpoints: int
    context: int | None
    precision: Literal["auto", "fp32", "bf16"]
    matmul: Literal["auto", "mkl", "onednn", "mixed"]
    device: str
    threads: int
    seed: int


class SentenceVectorKeywords(TypedDict, total=False):
    """Fields of SentenceVectorSettings."""

    loss: Literal["auto", "multiple_negatives_ranking", "cosine_similarity", "triplet"]
    pooling: Literal["mean", "cls", "max", "last"] | None
    normalize: bool | None
    scale: float
    symmetric: bool
    margin: float


class FinetuneKeywords(TypedDict, total=False):
    """Fields of FinetuneRecipe, for `finetune`."""

    task: Literal["classify", "pairs", "tag", "embed", "translate", "summarize", "chat", "choose", "lm"]
    out: str | Path | None
    tokenizer: str | None
    minutes: float | None
    cpu_seconds: float | None
    steps: int | None
    validation: str | float | Path | Sequence[str]
    test: str | Path | Sequence[str] | None
    text_column: str | None
    pair_column: str | None
    negative_column: str | None
    label_column: str | None
    split_column: str | None
    labels: str | None
    problem: Literal["auto", "single", "multi", "regression"]
    trees: Literal["phrases", "sentences", "binary-phrases", "binary-sentences"]
    encoding: str
    errors: Literal["strict", "replace"]
    truncate: Literal["left", "right", "source-left", "source-right"] | None
    stride: int | None
    threshold: str | float
    freeze: str | int
    new_head: bool
    few: int | None
    curve: Sequence[int]
    baselines: str | Sequence[str]
    seeds: int
    resume: bool
    overwrite: bool
    lora: LoRAKeywords
    embed: SentenceVectorKeywords
    max_source_length: int | None
    max_target_length: int | None
    source_prefix: str | None
    prompt_template: str | None
    instruction: str | None
    num_beams: int | None
    length_penalty: float | None
    max_eval_samples: int
    teacher: str | Path | None
    teacher_num_beams: int | None
    assistant_only_loss: bool
    chat_template: str | None
    training: FinetuneTrainingKeywords


class CompareKeywords(TypedDict, total=False):
    """Fields of CompareRecipe, for `compare`."""

    models: str | Sequence[str]
    sizes: str | Sequence[str] | Sequence[float]
    amounts: str | Sequence[str] | Sequence[float]
    minutes: float | None
    cpu_seconds: float | None
    parameters: int | str | None
    one_epoch: bool
    seeds: int
    seed: int
    tokenizer: str | None
    text: str | Sequence[str]
    windows: Literal["strided", "blocks"]
    prompt: str | None
    characters: int
    out: str | Path | None
    resume: bool
    overwrite: bool
    device: str
    threads: int
    data: DataKeywords


class PlanKeywords(TypedDict, total=False):
    """Fields of PlanRecipe, for `plan`."""

    parameters: int | str | None
    devices: int
    batch_size: int
    context: int | None
    tokens: int | str | None
    utilization: float
    price: float | None
    measure: bool


class DataReportKeywords(TypedDict, total=False):
    """Fields of DataRecipe, for `data`."""

    tokenizer: str | None
    show: int
    data: DataKeywords


class InspectKeywords(TypedDict, total=False):
    """Settings of views that have flags, too; each view has some of them."""

    top: int
    temperature: float
    layer: int
    head: int
    heads: str | Sequence[str]
    reduce: Literal["mean", "max"]
    part: Literal["encoder", "decoder", "cross"]
    target: str
    word: str
    words: str | Sequence[str]
    metric: Literal["answer", "rank", "entropy", "kl"]
    columns: Sequence[int]
    mask: Sequence[int]
    other_text: str
    compare_tokenizer: str
    edit: str | Sequence[str]
    ablate: Literal["zero", "mean"]
    max_tokens: int
    seed: int
    beam: int
    sentences: int
    centre: bool
    remove_components: int
    max_token_id: int
    matrix: Literal["input", "output"]
    layout: Literal["pca", "tsne"]
    gate: str
    sentences_file: str | Path
    truncate: Literal["left"]


class ViewKeywords(InspectKeywords, total=False):
    """Settings of views, for `inspect`; those listed here have no flag."""

    ids: Sequence[int]
    other_word: str
    occurrence: int
    other_occurrence: int
