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
from clearstory.lens.views import Cell, Report, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.mixture.model import Mixture
from clearstory.models.prompts import PromptOptions, encode_prompt
from clearstory.text.tokenizers import Tokenizer


def experts(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()
) -> Report:
    """For every token of a text: its probability, the component of the mixture that most of it comes from, and of each
    component the weight and the probability of the token.

    A probability is the sum of weight times probability over the components; a component without a distribution, such
    as a cache in which nothing follows the context, has weight 0. Raises BadInput for a text of fewer than two tokens.
    """
    mixture = cast(Mixture, unwrap_model(model))
    encoded = encode_prompt(model, tokenizer, text, prompt)
    ids = [*start_before(tokenizer, encoded), *encoded.ids]
    if len(ids) < 2:
        raise BadInput("the text is too short: there is no token to predict; give a longer text")
    inputs, targets = torch.tensor([ids[:-1]], device=mixture.device), torch.tensor([ids[1:]], device=mixture.device)
    with inference_mode(mixture):
        log_probs, features, possible, _ = mixture.component_log_probs(inputs, targets, mixture.init_state(1))
        weights = mixture.gate(features, possible).double().exp()[0]
    probs = log_probs.double().exp()[0]
    shares = weights * probs
    names = mixture.component_names
    main = [names[number] for number in shares.argmax(-1).tolist()]
    tokens = [tokenizer.display_token(id) for id in ids[1:]]
    weight_rows: list[tuple[Cell, ...]] = []
    for token, share, name, row in zip(tokens, shares.sum(-1).tolist(), main, weights.tolist(), strict=True):
        weight_rows.append((token, share, name, *row))
    prob_rows: list[tuple[Cell, ...]] = [(token, *row) for token, row in zip(tokens, probs.tolist(), strict=True)]
    means = dict(zip(names, weights.mean(0).tolist(), strict=True))
    return Report(
        title="Experts: the component of the mixture that predicted each token",
        panels=(
            Table(
                title="Probability of each token, where most of it comes from, and weights",
                columns=("token", "probability", "most from", *names),
                rows=tuple(weight_rows),
                caption=experts_caption(main, means),
            ),
            Table(title="Probability under each alone", columns=("token", *names), rows=tuple(prob_rows)),
        ),
    )


def experts_caption(main: list[str], weights: dict[str, float]) -> str:
    """How many tokens come from each component most of all, and the mean weights."""
    counts = [f"{count:,} from {name}" for name, count in Counter(main).most_common()]
    means = [f"{name} {weight:.0%}" for name, weight in weights.items()]
    return f"Of {len(main):,} tokens, {', '.join(counts)}. Mean weights: {', '.join(means)}."
