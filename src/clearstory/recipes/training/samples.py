"""Sample: a few lines of a model's writing, to see how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


def sample(
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    seed: int,
    tokens: int = 100,
    prompt: str = "",
    source: Sequence[int] | None = None,
) -> str:
    """What the model writes after `prompt`, or from `source`, drawn at temperature 0.8. Disturbs neither the model nor
    torch's chance.
    """
    cast(Any, model).compute_dtype = None  # that of training is not for caches
    begin = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
    ids = tokenizer.encode(prompt)
    sampling = Sampling(max_tokens=tokens, temperature=0.8, seed=seed)
    reading: dict[str, Any] = {"eos": tokenizer.eos_token_id, "begin": begin if begin is not None else 0}
    spells: SentinelTokenizer | Tokenizer = tokenizer
    if source is not None:
        spells = SentinelTokenizer(tokenizer)
        prompt = f"{spells.decode(source)} → "
        reading |= {"source": source, "begin": cast(Any, model).config.decoder_start_token_id}
    written = generate(cast(Any, model), ids, sampling, **reading)
    return prompt + spells.decode([token.id for token in written if token.id != tokenizer.eos_token_id])
