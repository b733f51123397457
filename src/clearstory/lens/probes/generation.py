"""Generation: how a text was written, each step with the words that could have stood there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from clearstory.errors import BadSetting, ContextOverflow
from clearstory.lens.probes.next_token import text_ending
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.surprisal import LOGITS, format_probability
from clearstory.lens.views import Node, Span, HighlightedText, Table, Tree, Report
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.models.prompts import Truncation
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


class BeamCandidate(Protocol):
    """A continuation that a step of a beam search has weighed."""

    @property
    def ids(self) -> tuple[int, ...]:
        """From the prompt's end."""

    @property
    def total(self) -> float:
        """What it was compared by."""

    @property
    def status(self) -> Literal["kept", "finished", "pruned"]:
        """What became of it."""


class StreamDecoder(Protocol):
    """What writes after the text."""

    def __call__(
        self, *, max_tokens: int, temperature: float, seed: int | None, beam: int
    ) -> tuple[Sequence[int], Sequence[BeamCandidate]]:
        """The tokens written, and every candidate of a beam search."""


@dataclass(frozen=True)
class WrittenToken:
    """One step: the token that was written, its probability and rank, the entropy of all in bits, and the likeliest."""

    id: int
    probability: float
    rank: int
    entropy: float
    likeliest: tuple[tuple[int, float], ...]


def written_steps(model: Any, read: Passage, written: Sequence[int], top: int) -> list[WrittenToken]:
    """How each token was chosen, under the model's own distribution, before temperature, cuts and penalties.

    Raises ContextOverflow where prompt and answer do not fit together: the model would have begun anew on the way.
    """
    ids, first = [*read.ids, *written[:-1]], len(read.ids) - 1
    if model.context is not None and len(ids) > model.context:
        raise ContextOverflow(
            f"{len(read.ids):,} tokens and {len(written):,} written do not fit the model's context of "
            f"{model.context:,}; ask for fewer with --max-tokens, or shorten the text"
        )
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    source = {"source": TokenBatch.from_sequences([read.source], device)} if read.source else {}
    found: list[WrittenToken] = []
    with inference_mode(model):
        hidden = model.forward(TokenBatch.from_sequences([ids], device), **source)[0][0, first:]
        size = max(1, LOGITS // model.vocab)
        for at in range(0, len(written), size):
            logs = model.logits(hidden[at : at + size]).double().log_softmax(-1).cpu()
            found += chosen(logs, written[at : at + size], min(top, model.vocab))
    return found


def chosen(logs: Tensor, written: Sequence[int], top: int) -> Iterator[WrittenToken]:
    """From logarithms of probabilities, (N, V), to steps."""
    entropies = -torch.special.xlogy(logs.exp(), logs.exp()).sum(1) / math.log(2)
    best = logs.topk(top)
    for row, id in enumerate(written):
        likeliest = zip(best.indices[row].tolist(), best.values[row].exp().tolist(), strict=True)
        rank = int((logs[row] > logs[row, id]).sum()) + 1
        yield WrittenToken(id, float(logs[row, id].exp()), rank, float(entropies[row]), tuple(likeliest))


def generation(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    write: StreamDecoder | None = None,
    *,
    max_tokens: int = 24,
    temperature: float = 1.0,
    seed: int = 0,
    beam: int = 1,
    top: int = 5,
    truncate: Truncation | None = None,
) -> Report:
    """A text and what is written after it, each token coloured by its bits; each step with its alternatives; and, of a
    beam search, every candidate that it weighed as a tree.

    `write` writes, by these settings: `clearstory.inspect` hands it in. Probabilities are the model's own. Raises
    BadSetting without it.
    """
    if write is None:
        raise BadSetting('nobody writes here; ask for it by clearstory.inspect(model, text, "generation")')
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    read = encode_passage(model, tokenizer, text, truncate=truncate)
    written, candidates = write(max_tokens=max_tokens, temperature=temperature, seed=seed, beam=beam)
    seen = written_steps(model, read, written, top)
    said = look(seen, tokenizer)
    steps: list[Any] = [coloured(tokenizer, read, seen), listed(tokenizer, seen)]
    if candidates:
        steps.append(beam_tree(tokenizer, candidates, tuple(written)))
    return Report(title=f"Written after “{text_ending(text, 30)}”", panels=tuple(steps), caption=said)


def look(seen: Sequence[WrittenToken], tokenizer: Tokenizer) -> str:
    """How often the likeliest was taken, and where the choice was widest."""
    likeliest = sum(1 for each in seen if each.rank == 1)
    widest = max(range(len(seen)), key=lambda step: seen[step].entropy)
    piece = tokenizer.display_token(seen[widest].id)
    return (
        f"{likeliest} of {len(seen)} tokens were the likeliest at their place. The widest choice was step "
        f"{widest + 1}, as unsure as among {2 ** seen[widest].entropy:,.1f} equally likely words: ‘{piece}’ was taken, "
        f"with {format_probability(seen[widest].probability)}."
    )


def coloured(tokenizer: Tokenizer, read: Passage, seen: Sequence[WrittenToken]) -> HighlightedText:
    """The text, what was written coloured by how little it was expected."""
    begun = () if read.source else read.ids
    speller: Any = SentinelTokenizer(tokenizer) if read.source else tokenizer  # which writes the names of what it fills
    pieces = token_texts(speller, begun, [each.id for each in seen])
    first = [Span(tokenizer.decode(list(begun)), None)] if begun else []
    spans = [
        Span(
            piece,
            -math.log2(each.probability) if each.probability > 0 else math.inf,
            f"{tokenizer.display_token(each.id)}   {format_probability(each.probability)}   rank {each.rank:,}   likeliest: "
            + ", ".join(f"{tokenizer.display_token(id)} {format_probability(p)}" for id, p in each.likeliest),
        )
        for piece, each in zip(pieces, seen, strict=True)
    ]
    return HighlightedText(title="What was written, by how little it was expected", spans=(*first, *spans), unit="bits")


def token_texts(tokenizer: Any, begun: Sequence[int], written: Iterable[int]) -> Iterator[str]:
    """What each token adds to the text; nothing where it is only a part of a character, which the last part brings."""
    ids, done = list(begun), tokenizer.decode(list(begun))
    for id in written:
        ids.append(id)
        now = tokenizer.decode(ids)
        if now.endswith("\N{REPLACEMENT CHARACTER}") or not now.startswith(done):
            yield ""
            continue
        yield now[len(done) :]
        done = now


def listed(tokenizer: Tokenizer, seen: Sequence[WrittenToken]) -> Table:
    """Each step with the words that could have stood there."""
    rows = []
    for step, each in enumerate(seen):
        others = [f"{tokenizer.display_token(id)} {format_probability(p)}" for id, p in each.likeliest if id != each.id]
        rows.append((step + 1, tokenizer.display_token(each.id), each.rank, each.entropy, "  ".join(others), each.probability))
    return Table(
        title="Step by step",
        columns=("step", "token", "rank", "entropy", "instead", "probability"),
        rows=tuple(rows),
        bar="probability",
    )


def beam_tree(tokenizer: Tokenizer, candidates: Sequence[BeamCandidate], written: tuple[int, ...]) -> Tree:
    """Every candidate of a beam search below the one that it goes on from."""
    known: dict[tuple[int, ...], int] = {}
    nodes: list[Node] = []
    for each in candidates:
        known[each.ids] = len(nodes)
        nodes.append(Node(tokenizer.display_token(each.ids[-1]), known.get(each.ids[:-1]), each.total, each.status))
    kept = sum(1 for node in nodes if node.status != "pruned")
    return Tree(
        title="The beams: all that was weighed",
        nodes=tuple(nodes),
        unit="log-probability",
        best=known.get(written),
        caption=f"{len(nodes):,} continuations were weighed, the likeliest of each step first; {kept:,} were followed or "
        "ended. Under each word stands the log-probability of all up to it.",
    )
