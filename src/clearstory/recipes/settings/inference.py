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
        view: what to look at: tokens, embeddings, neighbours, analogy, projection, semantic-axis, contextual-embeddings, positions, architecture,
            next-token, surprisal, generation, fill-mask, attention, combined-heads, head, heads, dependency-heads, qk-ov, logit-lens, logit-attribution,
            residual-norms, neurons, interventions, ablation, activation-patching, gates, activations, gradient-reach, viterbi, posteriors, backoff, ngram-counts.
        out: a .html, .svg, .csv or .json file to draw it in; the terminal when not given.
        top: how many tokens to show; the view's own number when not given.
        temperature: divides the logits; 1 is as trained.
        layer: the layer to look into, from 0, or from -1 backwards; the view's own choice when not given.
        head: the head to look into, from 0; when not given the one whose tokens are most decided.
        heads: heads that are combined, such as "5.3", "5" or "5.3 x2"; may be given again, and all when not given.
        how: mean or max of what the heads give.
        part: of an encoder-decoder: encoder, decoder or cross, how the one looks across at the other.
        target: what an encoder-decoder has written already, or the word asked about.
        words: the word asked about; given twice, why the first and not the second, or the two ends of an axis.
        show: what colours the lens: answer, its probability; rank, its place; entropy; or kl, how far from the end.
        columns: the tokens, from 0, at which the lens looks; may be given again, and all when not given.
        mask: places that are hidden from an encoder, from 0, its [CLS]; may be given again.
        other: a second text, to be compared with the first; or a second tokenizer: characters, bytes or a folder.
        edit: a change inside of the model, such as "head 5.3 off"; may be given again.
        ablate: what stands in the place of a part that is taken away: zero, or its mean over the tokens.
        max_tokens: how many tokens the view of writing writes; 24 when not given.
        seed: decides what it writes; drawn anew each time when not given.
        beam: how many continuations it follows at once.
        over: checkpoints, for the view at each checkpoint of a run, eight at most.
        against: another model: what is shown is how much more of it that one has, B − A.
        compare_text: another text, of which the same is shown; of this model, or of the one against it.
        sentences: how many sentences of a parsed file to read; the view's own number when not given.
        centre: whether the mean of all word vectors is taken away before they are compared.
        remove: how many main directions of all word vectors are taken away besides.
        within: only tokens with ids below this are looked for; tokenizers give frequent tokens small ones.
        layout: how words are laid out on the map: pca, or tsne, which asks for scikit-learn.
        gate: the gate whose units are shown, such as forget; the units themselves when not given.
        bank: a file of sentences, one a line, among which a word's neighbours in context are looked for.
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
    how: Literal["mean", "max"] | None = None
    part: Literal["encoder", "decoder", "cross"] | None = None
    target: str | None = None
    words: tuple[str, ...] = ()
    show: Literal["answer", "rank", "entropy", "kl"] | None = None
    columns: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()
    other: str | None = None
    edit: tuple[str, ...] = ()
    ablate: Literal["zero", "mean"] | None = None
    max_tokens: int | None = None
    seed: int | None = None
    beam: int | None = None
    across_checkpoints: Literal["checkpoints"] | None = None
    compare_model: str | None = None
    compare_text: str | None = None
    sentences: int | None = None
    centre: bool | None = None
    remove: int | None = None
    within: int | None = None
    layout: Literal["pca", "tsne"] | None = None
    gate: str | None = None
    bank: Path | None = None
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
