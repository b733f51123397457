"""Settings of commands that use a model: generate, classify, tag, inspect, studio and others. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.generation.settings import SamplingOverrides
from clearstory.models.precision import Precision
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How a text becomes a prompt.

    Args:
        raw: use the prompt as plain text, not as a message in the model's chat template.
        system: system message in the model's chat template.
        special_tokens: add the special tokens that the model's tokenizer adds around a text.
    """

    raw: bool = False
    system: str | None = None
    special_tokens: bool = True


@dataclass(frozen=True, kw_only=True)
class GenerateRecipe:
    """Generate text from a prompt.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        prompt: start of the text; a message for a chat model; the source text of an encoder-decoder; - for standard
            input, which is also read if it is a pipe and there is no prompt.
        prompts_file: file with one prompt per line or record (jsonl, parquet); - for standard input.
        truncate: left: drop the beginning of a prompt that exceeds the context; default: raise an error.
        ignore_eos: continue after end-of-text tokens.
        json_schema: file with the JSON schema that the text must follow; needs the extra structured.
        regex: regular expression that the whole text must match; needs the extra structured.
        text_field: field (jsonl) or column (parquet) with the prompts.
        precision: precision of the weights; auto: fp32 or fp16, whichever is faster on this machine.
        int8: same as --precision int8.
        device: cpu, cuda, mps or auto; default: cpu.
    """

    model: str = positional_setting("MODEL")
    prompt: str = positional_setting("PROMPT", "")
    prompts_file: Path | None = None
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)
    sampling: SamplingOverrides = field(default_factory=SamplingOverrides, metadata=INLINE_SECTION)
    text_field: str = "text"
    truncate: Literal["left"] | None = None
    ignore_eos: bool = False
    json_schema: Path | None = None
    regex: str | None = None
    precision: Precision = "auto"
    int8: bool = False
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class FillMaskRecipe:
    """Predict the tokens at [MASK] with an encoder.

    Args:
        model: model folder, run folder or checkpoint.
        text: texts, or files with one text per line or record (jsonl, parquet); - for the lines of standard input.
        top: number of predicted tokens to show for each mask.
        text_field: field (jsonl) or column (parquet) with the text.
        errors: invalid UTF-8 in files: strict raises an error, replace decodes it as U+FFFD.
        device: cpu, cuda or mps; default: cpu.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    top: int = 5
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe:
    """Classify texts, pairs of texts, or the words of texts, with a model that has a classification head.

    Args:
        model: model folder, run folder or checkpoint.
        text: texts, or files with one text per line or record (jsonl, parquet); - for the lines of standard input.
        input: additional file of texts; an error if it does not exist.
        truncate: end to drop of a text that exceeds the context, left or right; default: raise an error.
        batch_size: texts per batch.
        text_field: field (jsonl) or column (csv, tsv, parquet) with the text.
        pair: second text of a pair, for every text.
        pair_column: field or column with the second text of a pair.
        stride: tokens between the starts of the windows in which a text that exceeds the context is processed; the
            probabilities of its windows are averaged.
        out: output file (.jsonl, .csv or .tsv); default: standard output.
        errors: invalid UTF-8 in files: strict raises an error, replace decodes it as U+FFFD.
        device: cpu, cuda or mps; default: cpu.
        int8: round the linear layers of an encoder's blocks to 8 bits (CPU only).
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    input: Path | None = None
    truncate: Literal["left", "right"] | None = None
    stride: int | None = None
    pair: str | None = None
    pair_column: str | None = None
    out: Path | None = None
    batch_size: int = 32
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise BadSetting(f"stride is {self.stride}; it must be at least 1")
        if self.out is not None and self.out.suffix not in (".jsonl", ".csv", ".tsv"):
            raise BadSetting(f"out is {self.out}; its suffix must be .jsonl, .csv or .tsv")


@dataclass(frozen=True, kw_only=True)
class TagRecipe:
    """Tag the words of texts with their parts of speech or entities.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        text: texts, one sentence per line, with words separated by white space; files of such texts; or files with one
            word per line (.conll, .conllu) or lists of words (jsonl with tokens); - for standard input.
        input: additional file of sentences; an error if it does not exist.
        truncate: end to drop of a sentence that exceeds the context, left or right; default: raise an error.
        stride: tokens between the starts of the windows in which a sentence that exceeds the context is processed; the
            probabilities of its windows are averaged.
        out: output file: .conll, .jsonl (with entities as spans), .csv or .tsv; default: standard output.
        batch_size: sentences per batch.
        text_field: field (jsonl) or column (csv, tsv, parquet) with the text.
        errors: invalid UTF-8 in files: strict raises an error, replace decodes it as U+FFFD.
        device: cpu, cuda or mps; default: cpu.
        int8: round the linear layers of an encoder's blocks to 8 bits (CPU only).
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    input: Path | None = None
    truncate: Literal["left", "right"] | None = None
    stride: int | None = None
    out: Path | None = None
    batch_size: int = 32
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise BadSetting(f"stride is {self.stride}; it must be at least 1")
        if self.out is not None and self.out.suffix not in (".conll", ".jsonl", ".csv", ".tsv"):
            raise BadSetting(f"out is {self.out}; its suffix must be .conll, .jsonl, .csv or .tsv")


@dataclass(frozen=True, kw_only=True)
class InspectRecipe:
    """Show a view of the internals of a model on a text.

    Args:
        model: model folder, run folder, checkpoint or .gguf file.
        text: input text; the source text of an encoder-decoder; - for standard input.
        view: name of the view: tokens, embeddings, neighbours, analogy, projection, semantic-axis,
            contextual-embeddings, positions, architecture, next-token, surprisal, generation, fill-mask, attention,
            alignment, combined-heads, head, heads, dependency-heads, qk-circuit, logit-lens, logit-attribution,
            residual-norms, neurons, interventions, ablation, activation-patching, gates, activations, gradient-reach,
            attribution, layer-similarity, viterbi, posteriors, backoff, ngram-counts.
        out: output file (.html, .svg, .csv or .json); default: print the view in the terminal.
        top: number of tokens (rows) to show; default: depends on the view.
        temperature: divides the logits; 1 leaves them unchanged.
        layer: layer index from 0, or negative, counted from the last; default: depends on the view.
        head: head index from 0; default: the head, of the given layer if any, whose attention depends most on the words
            (attention, head).
        heads: heads to combine, such as "5.3", "5" or "5.3 x2"; repeatable; default: all heads.
        reduce: mean or maximum over the combined heads.
        part: attention of an encoder-decoder: encoder, decoder or cross (cross-attention).
        target: target text of an encoder-decoder, as generated so far.
        word: word to compare in the two texts (contextual-embeddings) or whose label is explained (attribution), as
            text or by its number from 1.
        words: token (attribution: label) to explain; given twice: the difference of the first and the second, or the
            two ends of a semantic axis.
        metric: value that colours the logit lens: answer (probability of the answer), rank (of the answer), entropy, or
            kl (divergence from the final layer).
        columns: token positions to show in the logit lens, from 0; repeatable; default: all.
        mask: token positions to mask for an encoder, from 0 ([CLS]); repeatable.
        other_text: second text (activation-patching, contextual-embeddings).
        compare_tokenizer: second tokenizer (tokens): characters, bytes, words or a folder.
        edit: intervention on the model, such as "head 5.3 off"; repeatable.
        ablate: replacement for an ablated component: zero, or its mean over the tokens.
        max_tokens: maximum number of generated tokens (generation); default: 24.
        seed: random seed of sampling (generation); default: 0.
        beam: number of beams of beam search (generation).
        across_checkpoints: show the view at each checkpoint of a run, at most twelve.
        compare_model: second model; the view shows the difference B - A.
        compare_text: second text; the view shows the difference B - A.
        sentences: number of sentences to read from a parsed file (dependency-heads); default: depends on the view.
        centre: subtract the mean of all word vectors before computing cosines.
        remove_components: number of leading principal components of all word vectors to remove.
        max_token_id: include only tokens with ids below this; in most tokenizers, frequent tokens have low ids.
        matrix: embeddings for neighbours and projection: input, or output (the unembedding).
        layout: layout of the projection: pca, or tsne (requires scikit-learn).
        gate: gate of a recurrent model to show, such as forget; default: the hidden units.
        sentences_file: file with one sentence per line, searched for nearest neighbours (contextual-embeddings).
        truncate: left: drop the beginning of a text that exceeds the context; default: raise an error.
        device: cpu, cuda, mps or auto; default: cpu.
    """

    model: str = positional_setting("MODEL")
    text: str = positional_setting("TEXT", "")
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)
    view: str = "next-token"
    out: Path | None = None
    top: int | None = None
    temperature: float | None = None
    layer: int | None = None
    head: int | None = None
    heads: tuple[str, ...] = ()
    reduce: Literal["mean", "max"] | None = None
    part: Literal["encoder", "decoder", "cross"] | None = None
    target: str | None = None
    word: str | None = None
    words: tuple[str, ...] = ()
    metric: Literal["answer", "rank", "entropy", "kl"] | None = None
    columns: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()
    other_text: str | None = None
    compare_tokenizer: str | None = None
    edit: tuple[str, ...] = ()
    ablate: Literal["zero", "mean"] | None = None
    max_tokens: int | None = None
    seed: int | None = None
    beam: int | None = None
    across_checkpoints: bool = False
    compare_model: str | None = None
    compare_text: str | None = None
    sentences: int | None = None
    centre: bool | None = None
    remove_components: int | None = None
    max_token_id: int | None = None
    matrix: Literal["input", "output"] | None = None
    layout: Literal["pca", "tsne"] | None = None
    gate: str | None = None
    sentences_file: Path | None = None
    truncate: Literal["left"] | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudioRecipe:
    """Serve the studio, a web page for a folder of models and runs.

    Args:
        folder: folder of models; new runs are created in its subfolder runs.
        host: address to listen on; a token is required for all addresses except loopback.
        port: port to listen on; 0 chooses a free one.
        token: access token; default: generated and printed if the studio is reachable from other machines.
    """

    folder: Path = field(default=Path(), metadata={"positional": "DIR"})
    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise BadSetting(f"port is {self.port}; it must lie between 0 and {2**16 - 1:,}")
        if self.token is not None and not self.token.isascii():
            raise BadSetting("token has characters that a URL cannot contain; use a-z, A-Z, 0-9, - and _")
