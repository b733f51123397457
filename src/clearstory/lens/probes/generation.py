"""Generation: how a text was generated, with the probability, rank and alternatives of each token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting, ContextOverflow
from clearstory.lens.hooks.activations import model_device
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.surprisal import MAX_LOGITS
from clearstory.lens.views import HighlightedText, Node, Panel, Report, Span, Table, Tree
from clearstory.lens.views.formatting import format_probability, text_ending
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


class BeamCandidate(Protocol):
    """A continuation that one step of a beam search has scored."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Its token ids after the prompt."""

    @property
    def total(self) -> float:
        """Its score."""

    @property
    def status(self) -> Literal["kept", "finished", "pruned"]:
        """Whether the search continued from it."""


class GenerateTokens(Protocol):
    """Generates tokens after the view's text."""

    def __call__(
        self, *, max_tokens: int, seed: int | None, **sampling: float
    ) -> tuple[Sequence[int], Sequence[BeamCandidate]]:
        """The generated ids, and every candidate of a beam search."""


@dataclass(frozen=True)
class GeneratedToken:
    """A generated token: its probability and rank, the entropy of the distribution in bits, the most likely tokens."""

    id: int
    probability: float
    rank: int
    entropy: float
    likeliest: tuple[tuple[int, float], ...]


def generation(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    generate: GenerateTokens | None = None,
    *,
    max_tokens: int = 24,
    temperature: float | None = None,
    seed: int = 0,
    beam: int | None = None,
    top: int = 5,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """A text and its generated continuation, coloured by surprisal; each step with its alternatives; and the candidates
    of a beam search as a tree.

    `generate` generates the tokens with these settings, those that are not given as in the model's generation config:
    `clearstory.inspect` provides it. Probabilities are the model's
    own, before temperature and sampling filters. Raises BadSetting without `generate`.
    """
    if generate is None:
        raise BadSetting('the view "generation" needs a generator; call clearstory.inspect(model, text, "generation")')
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    passage = encode_passage(model, tokenizer, text, truncate=truncate, prompt=prompt)
    given = {"temperature": temperature, "beam": beam}
    sampling = {name: value for name, value in given.items() if value is not None}
    ids, candidates = generate(max_tokens=max_tokens, seed=seed, **sampling)
    tokens = generated_tokens(model, passage, ids, top)
    panels: list[Panel] = [surprisal_panel(tokenizer, passage, text, tokens), steps_table(tokenizer, tokens)]
    if candidates:
        panels.append(beam_tree(tokenizer, candidates, tuple(ids)))
    return Report(
        title=f"Generated after “{text_ending(text, 30)}”",
        panels=tuple(panels),
        caption=generation_caption(tokens, tokenizer),
    )


def generated_tokens(
    model: LanguageModel, passage: Passage, generated: Sequence[int], top: int
) -> list[GeneratedToken]:
    """Each generated token under the model's own distribution, before temperature, sampling filters and penalties.

    Raises ContextOverflow if prompt and continuation do not fit the context together.
    """
    ids, first = [*passage.ids, *generated[:-1]], len(passage.ids) - 1
    if model.context is not None and len(ids) > model.context:
        raise ContextOverflow(
            f"{len(passage.ids):,} tokens and {len(generated):,} generated ones do not fit the model's context of "
            f"{model.context:,}; ask for fewer with --max-tokens, or shorten the text"
        )
    device = model_device(model)
    source = {"source": TokenBatch.from_sequences([passage.source], device)} if passage.source else {}
    tokens: list[GeneratedToken] = []
    with inference_mode(model):
        hidden = cast(Any, model).forward(TokenBatch.from_sequences([ids], device), **source)[0][0, first:]
        size = max(1, MAX_LOGITS // model.vocab)
        for at in range(0, len(generated), size):
            logs = model.logits(hidden[at : at + size]).double().log_softmax(-1).cpu()
            tokens += rank_generated(logs, generated[at : at + size], min(top, model.vocab))
    return tokens


def rank_generated(logs: Float[Tensor, "N V"], generated: Sequence[int], top: int) -> Iterator[GeneratedToken]:
    """Generated tokens with their ranks, from log-probabilities."""
    entropies = -torch.special.xlogy(logs.exp(), logs.exp()).sum(1) / math.log(2)
    best = logs.topk(top)
    for row, id in enumerate(generated):
        likeliest = zip(best.indices[row].tolist(), best.values[row].exp().tolist(), strict=True)
        rank = int((logs[row] > logs[row, id]).sum()) + 1
        yield GeneratedToken(id, float(logs[row, id].exp()), rank, float(entropies[row]), tuple(likeliest))


def generation_caption(tokens: Sequence[GeneratedToken], tokenizer: Tokenizer) -> str:
    """How often the most likely token was generated, and the step of highest entropy."""
    greedy = sum(1 for each in tokens if each.rank == 1)
    widest = max(range(len(tokens)), key=lambda step: tokens[step].entropy)
    piece = tokenizer.display_token(tokens[widest].id)
    return (
        f"{greedy} of {len(tokens)} tokens were the most likely ones. The entropy is highest at step {widest + 1}, "
        f"perplexity {2 ** tokens[widest].entropy:,.1f}: ‘{piece}’ was chosen, with "
        f"{format_probability(tokens[widest].probability)}."
    )


def surprisal_panel(
    tokenizer: Tokenizer, passage: Passage, text: str, tokens: Sequence[GeneratedToken]
) -> HighlightedText:
    """The text, the generated part coloured by surprisal."""
    prompt = () if passage.source else passage.ids
    decoder: Any = SentinelTokenizer(tokenizer) if passage.source else tokenizer  # it decodes sentinel tokens
    pieces = token_texts(decoder, prompt, [each.id for each in tokens])
    first = [Span(prompt_text(tokenizer, passage, text), None)] if prompt else []
    spans = [
        Span(
            piece,
            -math.log2(each.probability) if each.probability > 0 else math.inf,
            f"{tokenizer.display_token(each.id)}   {format_probability(each.probability)}   rank {each.rank:,}   "
            "most likely: "
            + ", ".join(f"{tokenizer.display_token(id)} {format_probability(p)}" for id, p in each.likeliest),
        )
        for piece, each in zip(pieces, tokens, strict=True)
    ]
    return HighlightedText(title="Generated text, coloured by surprisal", spans=(*first, *spans), unit="bits")


def prompt_text(tokenizer: Tokenizer, passage: Passage, text: str) -> str:
    """The prompt as it was read: the user's text, with special tokens and those of a chat template by their names."""
    if not any(passage.special):
        return tokenizer.decode(passage.ids)
    parts, done = [], next((span[0] for span in passage.spans if span is not None), 0)
    for piece, span in zip(passage.pieces, passage.spans, strict=True):
        parts.append(piece if span is None else text[done : span[1]])
        done = done if span is None else max(done, span[1])
    return "".join(parts)


def token_texts(tokenizer: Tokenizer, prompt: Sequence[int], generated: Iterable[int]) -> Iterator[str]:
    """The text that each token adds; empty for a token that ends inside a character, which the next one completes."""
    ids, done = list(prompt), tokenizer.decode(list(prompt))
    for id in generated:
        ids.append(id)
        now = tokenizer.decode(ids)
        if now.endswith("\N{REPLACEMENT CHARACTER}") or not now.startswith(done):
            yield ""
            continue
        yield now[len(done) :]
        done = now


def steps_table(tokenizer: Tokenizer, tokens: Sequence[GeneratedToken]) -> Table:
    """Each step with its alternatives."""
    rows = []
    for step, each in enumerate(tokens):
        others = [f"{tokenizer.display_token(id)} {format_probability(p)}" for id, p in each.likeliest if id != each.id]
        token = tokenizer.display_token(each.id)
        rows.append((step + 1, token, each.rank, each.entropy, "  ".join(others), each.probability))
    return Table(
        title="Step by step",
        columns=("step", "token", "rank", "entropy", "alternatives", "probability"),
        rows=tuple(rows),
        bar="probability",
    )


def beam_tree(tokenizer: Tokenizer, candidates: Sequence[BeamCandidate], generated: tuple[int, ...]) -> Tree:
    """Every candidate of a beam search as a child of the one that it extends."""
    index: dict[tuple[int, ...], int] = {}
    nodes: list[Node] = []
    for each in candidates:
        index[each.ids] = len(nodes)
        nodes.append(Node(tokenizer.display_token(each.ids[-1]), index.get(each.ids[:-1]), each.total, each.status))
    kept = sum(1 for each in candidates if each.status != "pruned")
    return Tree(
        title="Candidates of the beam search",
        nodes=tuple(nodes),
        unit="log-probability",
        best=index.get(generated),
        caption=f"{len(nodes):,} candidates were scored, the most likely of each step first; {kept:,} were kept or "
        "finished. Under each token: the log-probability of all tokens up to it.",
    )
