"""Experts: for each token of a text, the weight and the probability that each part of a mixture gave it.

text ─► experts and cache ─► log-probabilities, gate ─► weights ─► weight × probability of the actual token
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import torch

from clearstory.errors import BadInput
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.hooks.passage import start_before
from clearstory.lens.views import Cell, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.mixture.model import Mixture
from clearstory.models.prompts import PromptOptions, encode_prompt
from clearstory.text.tokenizers import Tokenizer


def experts(model: LanguageModel, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()) -> Table:
    """For every token of a text: its probability, the component of the mixture that most of it comes from, and of each
    component the weight and the probability of the token.

    A probability is the sum of weight times probability over the components; a component without a distribution, such
    as a cache in which nothing follows the context, has weight 0. Raises BadInput for a text of fewer than two tokens.
    """
    mixture = cast(Mixture, unwrap_model(model))
    encoded = encode_prompt(model, tokenizer, text, prompt)
    ids = [*start_before(tokenizer, encoded), *encoded.ids]
    if len(ids) < 2:
        raise BadInput("the text is too short: there is no token to predict; give more of it")
    inputs, targets = torch.tensor([ids[:-1]], device=mixture.device), torch.tensor([ids[1:]], device=mixture.device)
    with inference_mode(mixture):
        log_probs, features, possible, _ = mixture.component_log_probs(inputs, targets, mixture.init_state(1))
        weights = mixture.gate(features, possible).double().exp()[0]
    probs = log_probs.double().exp()[0]
    shares = weights * probs
    names = mixture.component_names
    rows: list[tuple[Cell, ...]] = []
    for at, id in enumerate(ids[1:]):
        pairs = [number for pair in zip(weights[at].tolist(), probs[at].tolist(), strict=True) for number in pair]
        main = names[int(shares[at].argmax())]
        rows.append((tokenizer.display_token(id), float(shares[at].sum()), main, *pairs))
    columns = [f"{what} {name}" for name in names for what in ("weight", "p")]
    return Table(
        title="Experts: which part of the mixture predicted each token",
        columns=("token", "probability", "most from", *columns),
        rows=tuple(rows),
        bar="probability",
        caption=experts_caption([str(row[2]) for row in rows], dict(zip(names, weights.mean(0).tolist(), strict=True))),
    )


def experts_caption(main: list[str], weights: dict[str, float]) -> str:
    """How many tokens come from each component most of all, and the mean weights."""
    counts = [f"{count:,} from {name}" for name, count in Counter(main).most_common()]
    means = [f"{name} {weight:.0%}" for name, weight in weights.items()]
    return f"Of {len(main):,} tokens, {', '.join(counts)}. Mean weights: {', '.join(means)}."
