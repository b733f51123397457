"""Portability: whether transformers, which shares no line with this house, makes the same of what was written.

Ids of texts, the text that the chat template makes, and logits are compared. transformers is an oracle here and is
imported nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearstory.errors import CannotDo, ClearstoryError, MissingExtra
from clearstory.formats.hf.config_json import read_json
from clearstory.formats.folders import OpenedModel
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.read import is_gguf
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.base import reads_source
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.tokenizers import Tokenizer

CLOSE = 1e-4
"""The share of the largest logit by which one may differ: both add up in float32, in another order."""

TEXTS = (
    "Hello, world! It's 3:45 on the 12th of March 2024.",
    "  two spaces,\ttabs\n\n\nand lines  \r\n",
    "naïve café, Führer, нещо на Български, 東京タワー 🙂",
    "def f(x):\n    return x**2 + 1000000\n",
    "'em I'll WE'RE don't 1234567890 !!!???",
    "",
)

MESSAGES = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
)

ROWS, LENGTH = 2, 24


@dataclass(frozen=True, kw_only=True)
class PortabilityReport:
    """What transformers made of it.

    Args:
        portable: whether all that was compared is equal.
        reason: the first thing that is not.
        texts: how many texts' ids were compared.
        template: whether a chat template was.
        difference: the largest between two logits, as a share of the largest logit; vectors of a model without.
        note: which ids were not asked for, and why.
    """

    portable: bool
    reason: str | None = None
    texts: int = 0
    template: bool = False
    max_relative_difference: float | None = None
    note: str | None = None


def check_portability(path: Path, opened: OpenedModel) -> PortabilityReport:
    """Compare what stands at `path`, open as `opened`, with what transformers makes of it.

    Raises MissingExtra where transformers is not installed.
    """
    try:
        import transformers as oracle
    except ImportError:
        raise MissingExtra("--check compares with transformers: pip install 'clearstory[test]'") from None
    transformers: Any = oracle
    showing = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        found = compare_all(transformers, path, opened)
    except (ClearstoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever a foreign library raises is the finding, a panic of Rust's included
        reason = " ".join(str(error).split())[:200]
        return PortabilityReport(portable=False, reason=f"transformers cannot open it ({type(error).__name__}: {reason})")
    finally:
        if showing:
            transformers.utils.logging.enable_progress_bar()
    return found


def compare_all(transformers: Any, path: Path, opened: OpenedModel) -> PortabilityReport:
    """All that can be compared."""
    if is_gguf(path):
        return compare_file(transformers, path, opened)
    name = read_json(path / "config.json").get("architectures", ["no class"])[0]
    if not hasattr(transformers, name):
        return PortabilityReport(portable=False, reason=f"transformers has no class {name}")
    kind = getattr(transformers, name)
    model, said = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said.get(what):
            return PortabilityReport(
                portable=False, reason=f"{name} has {what.replace('_', ' ')}: {min(map(str, said[what]))}"
            )
    found = compare_logits(opened, model.eval())
    if found.portable and opened.tokenizer is not None:
        theirs = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        return compare_text(opened, theirs, found.max_relative_difference)
    return found


def compare_file(transformers: Any, path: Path, opened: OpenedModel) -> PortabilityReport:
    """A GGUF: logits, and ids and template where transformers knows from the file alone how it cuts text."""
    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    model = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    found = compare_logits(opened, model)
    texts, note = comparable(GGUFHeader.read(path).metadata)
    if not found.portable or opened.tokenizer is None or not texts:
        return replace(found, note=note)
    theirs = transformers.AutoTokenizer.from_pretrained(**place)
    return replace(compare_text(opened, theirs, found.max_relative_difference, texts), note=note)


CUT_THERE = frozenset(("gpt-2", "llama-bpe", "dbrx", "qwen2", "gpt-4o"))
"""Ways of cutting text that transformers 5.23 knows by name; it takes all others for GPT-2's."""


def comparable(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Texts of which transformers should make the same ids by a file's fields; where they are not all of TEXTS, why."""
    if fields.get("tokenizer.ggml.model") == "llama":
        # "Nothing in a GGUF says which a model wants", says transformers, and puts no space before a space.
        return tuple(text for text in TEXTS if not text.startswith(" ")), (
            "transformers does not see in a GGUF file what becomes of a space that a text begins with"
        )
    cut, ids = fields.get("tokenizer.ggml.pre"), set(fields.get("tokenizer.ggml.tokens", ()))
    if cut not in CUT_THERE:
        return (), f"transformers does not know how {cut!r} cuts text, so ids were compared with our own reading only"
    if not any("".join(pair.split(" ")) in ids for pair in fields.get("tokenizer.ggml.merges", ())):
        return (
            (),
            "transformers reads no GGUF tokenizer that merges nothing, so ids were compared with our reading only",
        )
    return TEXTS, None


@torch.no_grad()
def compare_logits(opened: OpenedModel, model: Any) -> PortabilityReport:
    """Rows of tokens drawn by lot, read by both."""
    length = min(LENGTH, opened.model.context or LENGTH)
    ids = torch.from_numpy(np.random.default_rng(1).integers(opened.model.vocab, size=(ROWS, length)))
    ours, other = (each.float() for each in answers(opened, model, ids))
    if ours.shape != other.shape:
        return PortabilityReport(portable=False, reason=f"logits of shape {list(other.shape)} there, {list(ours.shape)} here")
    difference = float((ours - other).abs().max() / other.abs().max())
    if not difference <= CLOSE:
        return PortabilityReport(
            portable=False, reason=f"logits differ by {max_relative_difference:.1g} of the largest", max_relative_difference=max_relative_difference
        )
    return PortabilityReport(portable=True, max_relative_difference=max_relative_difference)


def answers(opened: OpenedModel, model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What ours and theirs say of the same tokens: logits of words; of labels, or vectors, where those are all it has.

    An encoder-decoder reads them as sources as well.
    """
    ours = opened.model
    if reads_source(ours):
        return opened.logits(ids, ids.tolist()), model(ids, decoder_input_ids=ids).logits
    out = model(ids)
    if isinstance(ours, Encoder) and ours.classifier is not None:
        return ours.class_logits(ours.encode(TokenBatch(ids))), out.logits
    if isinstance(ours, Encoder) and ours.mlm_transform is None:
        return ours.encode(TokenBatch(ids)), out.last_hidden_state
    # BERT's class for both of its objectives gives two answers, and names them.
    return opened.logits(ids), out.prediction_logits if hasattr(out, "prediction_logits") else out.logits


def compare_text(opened: OpenedModel, theirs: Any, max_relative_difference: float | None, texts: Sequence[str] = TEXTS) -> PortabilityReport:
    """Ids of texts, and the template's text of MESSAGES."""
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    for text in texts:
        ours, other = tokenizer.encode(text), theirs(text, add_special_tokens=False)["input_ids"]
        if ours != other:
            reason = f"the text {text[:30]!r} has the ids {str(other)[:60]} there and {str(ours)[:60]} here"
            return PortabilityReport(portable=False, reason=reason, max_relative_difference=max_relative_difference)
    if template := (template_of(tokenizer) is not None):
        written = ChatTemplate.from_tokenizer(tokenizer).render(MESSAGES)
        if (other := theirs.apply_chat_template(list(MESSAGES), tokenize=False, add_generation_prompt=True)) != written:
            reason = f"the chat template writes {other[:60]!r} there and {written[:60]!r} here"
            return PortabilityReport(portable=False, reason=reason, max_relative_difference=max_relative_difference)
    return PortabilityReport(portable=True, texts=len(texts), template=template, max_relative_difference=max_relative_difference)


def template_of(tokenizer: Tokenizer) -> str | None:
    """A tokenizer's chat template; None where it has none."""
    try:
        return ChatTemplate.from_tokenizer(tokenizer).source
    except CannotDo:
        return None
