"""Sentence pipelines for folders that sentence-transformers opens: pooling, normalization, prompts, longest text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch.nn import functional as F

from clearstory.durable import json_text
from clearstory.errors import BadSetting, nearest
from clearstory.formats.sentence_folder import (
    LENGTH_SETTINGS,
    MODULES,
    POOLING_KEYS,
    SETTINGS,
    SentencePipeline,
)

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

PACKAGE = "sentence_transformers.models"

FORMAT_VERSION = "3.0.0"
"""The oldest sentence-transformers with every key that is written; newer ones warn of folders from newer ones only."""


def sentence_pipeline(
    width: int,
    *,
    poolings: Sequence[str] = ("mean",),
    normalize: bool = True,
    max_length: int | None = None,
    lowercase: bool = False,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
    include_prompt: bool = True,
    similarity: Similarity = "cosine",
) -> SentencePipeline:
    """The modules after a Transformer whose hidden states have this width; `save_model` writes them into its folder.

    Args:
        width: size of the hidden states.
        poolings: cls, max, mean, mean_sqrt_len, weightedmean, lasttoken; vectors of several are concatenated.
        normalize: whether vectors are scaled to length 1.
        max_length: longest text in tokens, including special tokens; None for the model's context.
        lowercase: whether texts are lower-cased first; not needed if the tokenizer does so.
        prompts: texts that are prepended to a text, by name.
        default_prompt: name of the prompt that is used by default.
        include_prompt: whether the tokens of a prompt are included in pooling.
        similarity: similarity function of two vectors.

    Raises BadSetting for an unknown pooling or prompt.

    >>> sentence_pipeline(384).summary, sorted(sentence_pipeline(384, normalize=False).files)[0]
    ('mean, normalize', '1_Pooling/config.json')
    """
    order = tuple(name for name in POOLING_KEYS.values() if name in poolings)
    if not poolings or len(order) < len(poolings):
        unknown = next((name for name in poolings if name not in order), "")
        raise BadSetting(f"poolings names {unknown!r}; {nearest(unknown, POOLING_KEYS.values())}")
    prompts = dict(prompts or {})
    if default_prompt is not None and default_prompt not in prompts:
        raise BadSetting(f"default_prompt is {default_prompt!r}, and there are: {', '.join(prompts) or 'no prompts'}")
    if max_length is not None and max_length < 1:
        raise BadSetting(f"max_length is {max_length}; it must be at least 1, or null for the model's context")
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "", "type": f"{PACKAGE}.{kind}"}
        for index, kind in enumerate(modules)
    ]
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    pooling |= {key: name in poolings for key, name in POOLING_KEYS.items()}
    settings = {
        "__version__": {"sentence_transformers": FORMAT_VERSION},
        "prompts": prompts,
        "default_prompt_name": default_prompt,
        "similarity_fn_name": similarity,
    }
    contents = {
        MODULES: listed,
        "1_Pooling/config.json": {**pooling, "include_prompt": include_prompt},
        SETTINGS: settings,
        LENGTH_SETTINGS: {"max_seq_length": max_length, "do_lower_case": lowercase},
    }
    return SentencePipeline(
        poolings=order,
        include_prompt=include_prompt,
        layers=((lambda pooled: F.normalize(pooled, dim=-1)),) if normalize else (),
        max_length=max_length,
        lowercase=lowercase,
        prompts=prompts,
        default_prompt=default_prompt,
        summary="+".join(order) + ", normalize" * normalize,
        files={name: json_text(content).encode() for name, content in contents.items()},
    )
