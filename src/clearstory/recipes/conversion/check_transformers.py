"""Check transformers: whether transformers, an independent implementation, computes the same with a converted model.

Compared are token ids of texts, the text of the chat template, and logits. Nothing else in the package imports
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearstory.errors import ClearstoryError, MissingExtra
from clearstory.formats.folders import OpenedModel
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.read import is_gguf
from clearstory.formats.hf.config_json import read_json
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability, has_capability
from clearstory.text.chat_prompt import encode_chat_prompt
from clearstory.text.chat_template import ChatTemplate, find_template
from clearstory.text.encoding import encode_text
from clearstory.text.tokenizers import Tokenizer

RELATIVE_TOLERANCE = 1e-4
"""Largest accepted difference of two logits, relative to the largest logit: both sum in float32, in another order."""

SAMPLE_TEXTS = (
    "Hello, world! It's 3:45 on the 12th of March 2024.",
    "  two spaces,\ttabs\n\n\nand lines  \r\n",
    "naïve café, Führer, нещо на Български, 東京タワー 🙂",
    "def f(x):\n    return x**2 + 1000000\n",
    "'em I'll WE'RE don't 1234567890 !!!???",
    "",
)

SAMPLE_MESSAGES = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
)

SEQUENCES, SEQUENCE_LENGTH = 2, 24
"""Random sequences whose logits are compared."""

GGUF_PRETOKENIZERS = frozenset(("gpt-2", "llama-bpe", "dbrx", "qwen2", "gpt-4o"))
"""Pretokenizers that transformers 5.23 knows by their names in GGUF files; it replaces all others by that of GPT-2."""


@dataclass(frozen=True, kw_only=True)
class PortabilityReport:
    """Result of a comparison with transformers.

    Args:
        portable: whether all compared values are equal.
        reason: the first difference, or None.
        texts: number of texts whose ids were compared.
        template: whether the chat template was compared.
        max_relative_difference: largest difference of two logits (or hidden states), relative to the largest.
        note: which ids were not compared, and why.
    """

    portable: bool
    reason: str | None = None
    texts: int = 0
    template: bool = False
    max_relative_difference: float | None = None
    note: str | None = None


def check_portability(path: Path, opened: OpenedModel) -> PortabilityReport:
    """Load the file or folder at `path` with transformers and compare it with `opened`, the same model opened here.

    Raises MissingExtra if transformers is not installed.
    """
    try:
        import transformers as library
    except ImportError:
        raise MissingExtra("--check compares with transformers: pip install 'clearstory[test]'") from None
    transformers: Any = library
    had_progress_bar = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        return compare_gguf(transformers, path, opened) if is_gguf(path) else compare_folder(transformers, path, opened)
    except (ClearstoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # any error of another library is a finding, a panic in Rust included
        reason = " ".join(str(error).split())[:200]
        return PortabilityReport(
            portable=False, reason=f"transformers cannot open it ({type(error).__name__}: {reason})"
        )
    finally:
        if had_progress_bar:
            transformers.utils.logging.enable_progress_bar()


def compare_folder(transformers: Any, path: Path, opened: OpenedModel) -> PortabilityReport:
    """Compare a model folder: its tensor names, logits, token ids and chat template."""
    name = read_json(path / "config.json").get("architectures", ["no class"])[0]
    if not hasattr(transformers, name):
        return PortabilityReport(portable=False, reason=f"transformers has no class {name}")
    model_class = getattr(transformers, name)
    model, info = model_class.from_pretrained(
        path, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            return PortabilityReport(
                portable=False, reason=f"{name} has {problem.replace('_', ' ')}: {min(map(str, info[problem]))}"
            )
    report = compare_logits(opened, model.eval())
    if report.portable and opened.tokenizer is not None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        return compare_tokenizers(opened.tokenizer, tokenizer, report.max_relative_difference)
    return report


def compare_gguf(transformers: Any, path: Path, opened: OpenedModel) -> PortabilityReport:
    """Compare a GGUF file: its logits, and token ids and chat template if transformers can read its tokenizer."""
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    report = compare_logits(opened, model)
    texts, note = comparable_texts(GGUFHeader.read(path).metadata)
    if not report.portable or opened.tokenizer is None or not texts:
        return replace(report, note=note)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    report = compare_tokenizers(opened.tokenizer, tokenizer, report.max_relative_difference, texts)
    return replace(report, note=note)


def comparable_texts(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """The sample texts that transformers should encode equally, by the metadata of a GGUF file, and the reason if not
    all.
    """
    if metadata.get("tokenizer.ggml.model") == "llama":
        # "Nothing in a GGUF says which a model wants", says transformers, and does not add the leading space.
        return tuple(text for text in SAMPLE_TEXTS if not text.startswith(" ")), (
            "transformers does not read from a GGUF file how a leading space is encoded"
        )
    pretokenizer, tokens = metadata.get("tokenizer.ggml.pre"), set(metadata.get("tokenizer.ggml.tokens", ()))
    if pretokenizer not in GGUF_PRETOKENIZERS:
        return (), f"transformers does not know the pretokenizer {pretokenizer!r}, so ids were not compared with it"
    if not any("".join(pair.split(" ")) in tokens for pair in metadata.get("tokenizer.ggml.merges", ())):
        return (), "transformers does not read a GGUF tokenizer without merges, so ids were not compared with it"
    return SAMPLE_TEXTS, None


@torch.no_grad()
def compare_logits(opened: OpenedModel, model: Any) -> PortabilityReport:
    """Compare the outputs of both models for sequences of random ids."""
    length = min(SEQUENCE_LENGTH, opened.model.context or SEQUENCE_LENGTH)
    ids = torch.from_numpy(np.random.default_rng(1).integers(opened.model.vocab, size=(SEQUENCES, length)))
    ours, theirs = (each.float() for each in compute_outputs(opened, model, ids))
    if ours.shape != theirs.shape:
        return PortabilityReport(
            portable=False,
            reason=f"logits have the shape {list(theirs.shape)} in transformers and {list(ours.shape)} here",
        )
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference <= RELATIVE_TOLERANCE:
        return PortabilityReport(
            portable=False,
            reason=f"logits differ by {difference:.1g} of the largest",
            max_relative_difference=difference,
        )
    return PortabilityReport(portable=True, max_relative_difference=difference)


def compute_outputs(opened: OpenedModel, model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of Clearstory and of transformers for the same ids.

    These are logits of tokens; for an encoder with a classification head, logits of labels; for one without any head,
    hidden states. An encoder-decoder gets the ids as source and as target.
    """
    ours = opened.model
    if has_capability(ours, Capability.SOURCE):
        return opened.logits(ids, ids.tolist()), model(ids, decoder_input_ids=ids).logits
    if has_capability(ours, Capability.CLASSIFIER):
        # Single sequences without padding: transformers takes the last token that is not padding.
        ids = ids.masked_fill(ids == model.config.pad_token_id, 0) if model.config.pad_token_id else ids.clamp(min=1)
        return ours.class_logits(TokenBatch(ids)), torch.cat([model(each[None]).logits for each in ids])
    out = model(ids)
    if has_capability(ours, Capability.BIDIRECTIONAL) and not has_capability(ours, Capability.MLM_HEAD):
        return ours.encode(TokenBatch(ids)), out.last_hidden_state
    # BertForPreTraining has two outputs, and names them.
    return opened.logits(ids), out.prediction_logits if hasattr(out, "prediction_logits") else out.logits


def compare_tokenizers(
    ours: Tokenizer, theirs: Any, max_relative_difference: float | None, texts: Sequence[str] = SAMPLE_TEXTS
) -> PortabilityReport:
    """Compare the ids of texts, special tokens included, and the text of the chat template for SAMPLE_MESSAGES."""
    report = PortabilityReport(portable=True, max_relative_difference=max_relative_difference)
    for text in texts:
        our_ids, their_ids = list(encode_text(ours, text).ids), list(theirs(text)["input_ids"])
        if our_ids != their_ids:
            reason = (
                f"the text {text[:30]!r} has the ids {str(their_ids)[:60]} in transformers and {str(our_ids)[:60]} here"
            )
            return replace(report, portable=False, reason=reason)
    has_template = find_template(ours.config) is not None
    if has_template:
        our_text = ChatTemplate.from_tokenizer(ours).render(SAMPLE_MESSAGES)
        their_text = theirs.apply_chat_template(list(SAMPLE_MESSAGES), tokenize=False, add_generation_prompt=True)
        if our_text != their_text:
            reason = f"the chat template gives {their_text[:60]!r} in transformers and {our_text[:60]!r} here"
            return replace(report, portable=False, reason=reason)
        message = {"role": "user", "content": SAMPLE_TEXTS[0]}
        chat_ids = theirs.apply_chat_template([message], add_generation_prompt=True)["input_ids"]
        if list(encode_chat_prompt(ours, SAMPLE_TEXTS[0]).ids) != list(chat_ids):
            reason = "a message in the chat template has other token ids in transformers than here"
            return replace(report, portable=False, reason=reason)
    return replace(report, texts=len(texts), template=has_template)
