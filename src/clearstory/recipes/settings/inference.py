"""Using: settings of the verbs that ask something of a model that is there. Without torch, as those in settings.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.generation.settings import Sampling
from clearstory.recipes.settings.schema import INLINE_SECTION, positional_setting


@dataclass(frozen=True, kw_only=True)
class GenerateRecipe:
    """From a model and a beginning to a text.

    Args:
        model: a model folder, a run folder, a checkpoint or a .gguf file.
        prompt: how the text begins; for an encoder-decoder, what it is to rewrite.
        sampling: how the next token is chosen.
        truncate: left drops the beginning of a prompt that does not fit; not given, that is an error.
        ignore_eos: write on past the token that ends a text.
        int8: multiply in 8-bit integers: less memory, faster, slightly other numbers.
        device: cpu, cuda, mps or auto; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    prompt: str = positional_setting("PROMPT", "")
    sampling: Sampling = field(default_factory=Sampling, metadata=INLINE_SECTION)
    truncate: Literal["left"] | None = None
    ignore_eos: bool = False
    int8: bool = False
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """From a model and a text to bits per byte.

    Args:
        model: a model folder, a run folder, a checkpoint or a .gguf file.
        text: files, folders or globs of txt, jsonl and parquet, or a corpus.
        task: text, how well it is foreseen; or tag, how many words get the tag that they have in a conllu file.
        windows: strided, where windows overlap and a token has at least half a context before it; or blocks.
        stride: tokens from one strided window's beginning to the next's; half the context when not given.
        batch_size: windows read at a time.
        limit: stop after about so many tokens.
        text_field: the field (jsonl) or column (parquet) that holds the text.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
        int8: multiply in 8-bit integers.
        device: cpu, cuda, mps or auto; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    task: Literal["text", "tag"] = "text"
    windows: Literal["strided", "blocks"] = "strided"
    stride: int | None = None
    batch_size: int = 8
    limit: int | None = None
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    int8: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise BadSetting("TEXT is missing; name a file, a folder or a corpus")
        for name in ("stride", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class FillMaskRecipe:
    """From an encoder and a text with [MASK] in it to what may stand there.

    Args:
        model: a model folder, a run folder or a checkpoint.
        text: texts, or files with a text on each line or in each record (jsonl, parquet).
        top: how many tokens to show for each mask.
        text_field: the field (jsonl) or column (parquet) that holds the text.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
        device: cpu, cuda or mps; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    top: int = 5
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class EmbedRecipe:
    """From an encoder and texts to a vector for each.

    Args:
        model: a model folder, a run folder or a checkpoint.
        text: texts, or files with a text on each line or in each record (jsonl, parquet).
        pooling: mean of all tokens' vectors; cls, that of [CLS]; or pooled, that of [CLS] as the pooler maps it.
        normalize: make each vector one of length 1, so that products are cosines.
        truncate: which end of a text that does not fit is dropped; not given, that is an error.
        batch_size: texts read at a time.
        text_field: the field (jsonl) or column (parquet) that holds the text.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
        device: cpu, cuda or mps; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    pooling: Literal["mean", "cls", "pooled"] = "mean"
    normalize: bool = False
    truncate: Literal["left", "right"] | None = None
    batch_size: int = 32
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe:
    """From an encoder that has learnt labels and texts to the label of each, or of each word.

    Args:
        model: a model folder, a run folder or a checkpoint.
        text: texts, or files with a text on each line or in each record (jsonl, parquet).
        input: such a file, which must be there; its texts come behind the others.
        truncate: which end of a text that does not fit is dropped; not given, that is an error.
        batch_size: texts read at a time.
        text_field: the field (jsonl) or column (parquet) that holds the text.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
        device: cpu, cuda or mps; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    input: Path | None = None
    truncate: Literal["left", "right"] | None = None
    batch_size: int = 32
    text_field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class TranslateRecipe:
    """From a model that has learnt from pairs and texts to what it makes of them.

    Args:
        model: a model folder, a run folder or a checkpoint.
        text: texts, or files of them, one a line.
        beam: how many translations are followed at once; 1 is greedy.
        length_penalty: translations are compared by log-probability / length ** this.
        max_tokens: most tokens of a translation; 50 more than its source has when not given.
        truncate: left drops the beginning of a text that does not fit; not given, that is an error.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
        device: cpu, cuda or mps; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: tuple[str, ...] = positional_setting("TEXT", ())
    beam: int = 4
    length_penalty: float = 1.0
    max_tokens: int | None = None
    truncate: Literal["left"] | None = None
    errors: Literal["strict", "replace"] = "strict"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class TagRecipe:
    """From a model of tags and a text to the tag of each word.

    Args:
        model: a model folder, a run folder, a checkpoint or a .gguf file.
        text: a text, or a file of it; words stand between white space and each line is a sentence. Of a conllu file,
            the words as they are.
        errors: strict refuses bytes that are not UTF-8, replace writes the replacement character for them.
    """

    model: str = positional_setting("MODEL")
    text: str = positional_setting("TEXT", "")
    errors: Literal["strict", "replace"] = "strict"


@dataclass(frozen=True, kw_only=True)
class InspectRecipe:
    """From a model and a text to a view of what happens between them.

    Args:
        model: a model folder, a run folder, a checkpoint or a .gguf file.
        text: what the model reads; for an encoder-decoder, the source.
        view: name of the view: tokens, embeddings, neighbours, analogy, projection, semantic-axis,
            contextual-embeddings, positions, architecture, next-token, surprisal, generation, fill-mask, attention,
            combined-heads, head, heads, dependency-heads, qk-ov, logit-lens, logit-attribution, residual-norms,
            neurons, interventions, ablation, activation-patching, gates, activations, gradient-reach, viterbi,
            posteriors, backoff, ngram-counts.
        out: file to write the view to (.html, .svg, .csv or .json); default: print it to the terminal.
        top: number of tokens (rows) to show; default: depends on the view.
        temperature: divides the logits; 1 is as trained.
        layer: layer index from 0, or from -1 backwards; default: depends on the view.
        head: head index from 0; default: the head with the lowest mean attention entropy.
        heads: heads to combine, such as "5.3", "5" or "5.3 x2"; repeatable; default: all heads.
        reduce: mean or max over the combined heads.
        part: attention of an encoder-decoder: encoder, decoder or cross (decoder over encoder).
        target: target text of an encoder-decoder, as generated so far.
        word: word to compare in the two texts (contextual-embeddings).
        words: token to explain; given twice, the first against the second, or the two ends of a semantic axis.
        metric: value that colours the logit lens: answer (its probability), rank, entropy, or kl to the final layer.
        columns: token positions, from 0, shown by the logit lens; repeatable; default: all positions.
        mask: positions to mask for an encoder, from 0 ([CLS]); repeatable.
        other_text: second text (activation-patching, contextual-embeddings).
        compare_tokenizer: second tokenizer (tokens): characters, bytes, words or a folder.
        edit: intervention on the model, such as "head 5.3 off"; repeatable.
        ablate: replacement for an ablated component: zero, or its mean over the tokens.
        max_tokens: maximum number of generated tokens (generation); default: 24.
        seed: random seed of sampling (generation); default: a new one for each call.
        beam: number of beams of beam search (generation).
        across_checkpoints: show the view at each checkpoint of a run, at most eight.
        compare_model: second model; the difference B - A of the two views is shown.
        compare_text: second text; the difference B - A of the two views is shown.
        sentences: number of sentences to read from a parsed file (dependency-heads); default: depends on the view.
        centre: subtract the mean of all word vectors before computing cosines.
        remove_components: number of leading principal components of all word vectors to remove.
        max_token_id: only tokens with ids below this are candidates; most tokenizers give frequent tokens low ids.
        layout: layout of the projection: pca, or tsne, which requires scikit-learn.
        gate: gate of a recurrent model whose activations are shown, such as forget; default: the hidden units.
        sentences_file: file of sentences, one per line, searched for nearest neighbours (contextual-embeddings).
        truncate: left drops the beginning of a text that does not fit; not given, that is an error.
        device: cpu, cuda, mps or auto; the processor when not given.
    """

    model: str = positional_setting("MODEL")
    text: str = positional_setting("TEXT", "")
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
    layout: Literal["pca", "tsne"] | None = None
    gate: str | None = None
    sentences_file: Path | None = None
    truncate: Literal["left"] | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudioRecipe:
    """A web page over a folder of models and runs.

    Args:
        folder: where models are looked for, and in whose runs/ new ones are begun.
        host: the address to listen at; any but this machine's own asks for a token.
        port: the port; 0 takes a free one.
        token: what a browser must show; made and shown where others can reach the studio and none is given.
    """

    folder: Path = field(default=Path(), metadata={"positional": "DIR"})
    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise BadSetting(f"port is {self.port}; it must lie between 0 and {2**16 - 1:,}")
        if self.token is not None and not self.token.isascii():
            raise BadSetting("token has letters that an address cannot carry; take a-z, A-Z, 0-9, - and _")
