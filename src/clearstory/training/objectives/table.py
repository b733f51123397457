"""Table: every objective by the name people type, and the kinds of model it can teach."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clearstory.errors import BadSetting
from clearstory.models.prompts import first_token
from clearstory.text.sentinels import sentinels
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masking import Masking
from clearstory.training.objectives.base import Objective
from clearstory.training.objectives.causal import Causal
from clearstory.training.objectives.mlm import MLM
from clearstory.training.objectives.seq2seq import SpanCorruption, Seq2Seq
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True)
class Entry:
    """How an objective is made for a tokenizer, and which kinds of model (`TransformerConfig.kind`) it teaches.

    Models of other families read left to right, as decoders do. `sentences`: it reads text sentence by sentence.
    `masks`: what is to be told stands in the text itself, hidden. `pairs`: the text is pairs of a source and its
    target. `sentinels`: the tokenizer has tokens that stand for what was dropped.
    """

    make: Callable[[Tokenizer, TrainingSettings], Objective]
    kinds: tuple[str, ...]
    sentences: bool = False
    masks: bool = False
    pairs: bool = False
    sentinels: bool = False

    @property
    def writes(self) -> bool:
        """Whether something is written from a source: what label smoothing is for."""
        return self.pairs or self.sentinels


def denoise(tokenizer: Tokenizer, settings: TrainingSettings) -> SpanCorruption:
    """Denoise, in a tokenizer's own tokens. Raises BadSetting for one that has no token to end a text with."""
    begin, end = writer_tokens(tokenizer)
    marks = sentinels(tokenizer)
    if not marks:
        raise BadSetting(
            "this tokenizer has no sentinels such as <extra_id_0>, which stand for what is dropped; go on with pairs, "
            "or train a new model"
        )
    return SpanCorruption(begin, end, marks, settings.label_smoothing)


def rewrite(tokenizer: Tokenizer, settings: TrainingSettings) -> Seq2Seq:
    """Rewrite, in a tokenizer's own tokens. Raises as `denoise` does."""
    begin, _ = writer_tokens(tokenizer)
    return Seq2Seq(begin, settings.label_smoothing)


def writer_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """What targets are read after, and what ends them: as T5 and Marian have it, padding where there is any begins."""
    begin = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else first_token(tokenizer)
    if begin is None or tokenizer.eos_token_id is None:
        raise BadSetting("this tokenizer has no token that ends a text, so a writer would never stop; learn a bpe:8192")
    return begin, tokenizer.eos_token_id


OBJECTIVES: dict[str, Entry] = {
    "causal": Entry(lambda tokenizer, settings: Causal(), ("decoder",)),
    "masked": Entry(
        lambda tokenizer, settings: MLM(Masking.of(tokenizer, settings.whole_words)), ("encoder",), masks=True
    ),
    "mlm+nsp": Entry(
        lambda tokenizer, settings: MLM(Masking.of(tokenizer, settings.whole_words), pairs=True),
        ("encoder",),
        sentences=True,
        masks=True,
    ),
    "rewrite": Entry(rewrite, ("encoder-decoder",), pairs=True),
    "denoise": Entry(denoise, ("encoder-decoder",), sentinels=True),
}
"""Objectives by the name people type. The first that teaches a kind of model is what it is usually taught by."""


def choose(name: str, kind: str, pairs: bool = False) -> str:
    """The objective that is meant for a model of this kind, and a text that is pairs or not; `auto` is the usual one.

    Raises BadSetting for one that does not teach such a model, or learns from other text.

    >>> choose("auto", "decoder"), choose("auto", "encoder-decoder", pairs=True)
    ('causal', 'rewrite')
    """
    able = [each for each, entry in OBJECTIVES.items() if kind in entry.kinds]
    fit = [each for each in able if OBJECTIVES[each].pairs == pairs]
    model = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    if name != "auto" and name not in able:
        raise BadSetting(f"objective is {name}, which does not teach {model}; what teaches one: {join(able)}")
    if not fit or name not in ("auto", *fit):
        text = "pairs of a source and a target" if pairs else "running text"
        asked = f"objective is {name}" if fit else f"the model is {model}"
        way = f"choose {join(fit)}" if fit else "choose an encoder-decoder, such as clear-translate"
        raise BadSetting(f"{asked}, which does not learn from {text}, as this text is; {way}")
    return fit[0] if name == "auto" else name


def join(names: Iterable[str]) -> str:
    """Names to choose among."""
    return " or ".join(names)
