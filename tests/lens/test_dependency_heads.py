"""Dependency heads: a head that follows a relation is found, and distinguished from one with a fixed offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import record_activations, replace_activations
from clearstory.lens.hooks.attention_sites import attention_sites
from clearstory.lens.probes.dependency_heads import (
    DependencyHeads,
    align_words,
    dependency_caption,
    dependency_heads,
    measure_dependency_heads,
    word_attention,
)
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.conllu import TaggedSentence
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken

WORDS = ("dogs", "see", "the", "small", "old", "cat")
TOKENIZER = train_tokenizer("characters", [" ".join(WORDS)])
SIZES: dict[str, Any] = {
    "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "width": 16, "intermediate_size": 24,
    "vocab": TOKENIZER.vocab, "context": 32,
}  # fmt: skip


def decoder() -> Any:
    return shaken(replace(TINY_GPT2, **SIZES))


def parsed(count: int = 44, seed: int = 0) -> list[TaggedSentence]:
    """the dogs see (the) (small) (old) cat: the object comes one to four words after its verb."""
    rng = Random(seed)
    found = []
    for _ in range(count):
        between = [word for word in ("the", "small", "old") if rng.random() < 0.5]
        words = ("the", "dogs", "see", *between, "cat")
        last = len(words) - 1
        found.append(
            TaggedSentence(
                words=words,
                tags=("X",) * len(words),
                heads=(1, 2, None, *(last for _ in between), 2),
                dependency_relations=(
                    "det",
                    "nsubj",
                    "root",
                    *("det" if word == "the" else "amod" for word in between),
                    "obj",
                ),
            )
        )
    return found


def conllu(file: Path, sentences: list[TaggedSentence], *, syntax: bool = True) -> Path:
    lines = []
    for sentence in sentences:
        for position, word in enumerate(sentence.words):
            head = sentence.heads[position]
            hangs = (
                [str(0 if head is None else head + 1), sentence.dependency_relations[position]]
                if syntax
                else ["_", "_"]
            )
            lines.append("\t".join([str(position + 1), word, word, "X", "_", "_", *hangs, "_", "_"]))
        lines.append("")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def following(
    model: Any, sentences: list[TaggedSentence], word: Callable[[TaggedSentence, int], int]
) -> Callable[[Tensor], Tensor]:
    """Heads that attend, sentence after sentence, from each word to the pieces of another, evenly."""
    wanted = iter([(sentence, align_words(model, TOKENIZER, sentence)) for sentence in sentences])

    def change(pattern: Tensor) -> Tensor:
        sentence, pieces = next(wanted)
        out = torch.zeros_like(pattern)
        for query, own in enumerate(pieces.words):
            other = word(sentence, own) if own >= 0 else -1
            keys = (
                [key for key, each in enumerate(pieces.words) if each == other and key <= query] if other >= 0 else []
            )
            out[..., query, keys or [0]] = 1 / len(keys or [0])
        return out

    return change


def by_direction(found: DependencyHeads) -> dict[tuple[str, str], Any]:
    return {(role.relation, role.direction): role for role in found.relations}


def test_a_head_that_follows_a_relation_is_found_and_beats_every_offset() -> None:
    model, sentences = decoder(), parsed()
    change = following(model, sentences, lambda sentence, word: sentence.heads[word] or -1)
    with replace_activations(model, {"blocks.1.attention.pattern": change}):
        found = measure_dependency_heads(model, TOKENIZER, sentences)
    role = by_direction(found)["obj", "to its head"]
    assert (role.layer, role.pairs) == (1, 44)
    assert role.share == pytest.approx(1.0)
    assert role.favourite == 1.0
    held = sentences[1::2]
    assert role.fixed == sum(len(each.words) - 3 == -role.offset for each in held) / len(held)
    assert role.fixed < 0.7
    assert role.shuffled < 0.7
    assert role.shares[1].tolist() == pytest.approx([1.0, 1.0])
    # A causal head cannot attend to a syntactic head that comes later.
    assert ("nsubj", "to its head") not in by_direction(found)
    assert (
        dependency_caption(found, 24).endswith("obj, to its head: head 1.0 100%, offset -2 " + f"{role.fixed:.0%}.")
        or role.offset != -2
    )


def test_a_head_with_a_fixed_offset_is_no_better_than_the_offset() -> None:
    model, sentences = decoder(), parsed()
    change = following(model, sentences, lambda sentence, word: word - 1)
    with replace_activations(model, {"blocks.1.attention.pattern": change}):
        found = measure_dependency_heads(model, TOKENIZER, sentences)
    role = by_direction(found)["nsubj", "to its dependent"]
    assert (role.layer, role.offset, role.fixed, role.favourite) == (1, -1, 1.0, 1.0)
    assert role.share == pytest.approx(role.shuffled) == pytest.approx(1.0)


def test_to_a_word_is_the_sum_and_from_a_word_the_mean() -> None:
    model = decoder()
    [sentence] = parsed(1, seed=3)
    read = align_words(model, TOKENIZER, sentence)
    text = sentence.text
    assert read.words[0] == -1  # the token that texts begin with
    # A space is of the word behind it.
    assert [read.words[1 + text.index(word)] for word in ("the", "dogs", "see")] == [0, 1, 2]
    assert read.words[1 + text.index("see") - 1] == 2
    of = attention_sites(model)
    merged = word_attention(model, read, of, len(sentence.words))
    with record_activations(model, "blocks.1.attention.pattern") as seen:
        read.passage.forward(model)
    pattern = seen["blocks.1.attention.pattern"][0, 1].detach()
    own, other = ([position for position, word in enumerate(read.words) if word == which] for which in (1, 0))
    by_hand = sum(float(pattern[a, b]) for a in own for b in other) / len(own)
    assert float(merged[1, 1, 1, 0]) == pytest.approx(by_hand, rel=1e-5)


def test_an_encoder_and_that_of_an_encoder_decoder_are_bidirectional() -> None:
    wordpiece = train_tokenizer("wordpiece:60", [" ".join(WORDS)] * 3)
    encoder: Any = shaken(replace(BERT_TINY, **SIZES | {"vocab": wordpiece.vocab}))
    [sentence] = parsed(1)
    assert align_words(encoder, wordpiece, sentence).words[
        :: len(align_words(encoder, wordpiece, sentence).words) - 1
    ] == (
        -1,
        -1,
    )
    found = by_direction(measure_dependency_heads(encoder, wordpiece, parsed()))
    assert {("nsubj", "to its head"), ("nsubj", "to its dependent")} <= set(found)
    t5: Any = shaken(replace(T5_SMALL, **SIZES, decoder_start_token_id=0))
    read = align_words(t5, TOKENIZER, sentence)
    assert len(read.passage.source) == len(read.words)
    assert read.words[-1] == -1


def test_the_number_of_sentences_is_a_setting(tmp_path: Path) -> None:
    file = conllu(tmp_path / "a.conllu", parsed(60))
    for count in (40, 50):
        view = dependency_heads(decoder(), TOKENIZER, str(file), sentences=count)
        assert view.title == f"Attention heads that follow syntactic relations, in {count} sentences of a.conllu"
        assert {row[0]: row[2] for row in view.rows}["obj"] == count
    fewer = dependency_heads(decoder(), TOKENIZER, str(file), sentences=40, top=1)
    assert len(fewer.rows) == 1
    assert "rarer relations are not shown" in str(fewer.caption)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    model = decoder()
    with pytest.raises(BadInput, match="needs a parsed file, which 'dogs see the cat' is not"):
        dependency_heads(model, TOKENIZER, "dogs see the cat")
    with pytest.raises(BadInput, match="HEAD and DEPREL"):
        dependency_heads(model, TOKENIZER, str(conllu(tmp_path / "b.conllu", parsed(), syntax=False)))
    with pytest.raises(BadSetting, match="sentences is 3"):
        dependency_heads(model, TOKENIZER, str(tmp_path / "b.conllu"), sentences=3)
    with pytest.raises(BadSetting, match="top is 0"):
        dependency_heads(model, TOKENIZER, str(tmp_path / "b.conllu"), top=0)
    long = [replace(each, words=("dogs" * 10, *each.words[1:])) for each in parsed(4)]
    found = measure_dependency_heads(model, TOKENIZER, [*parsed(), *long])
    assert (found.sentences, found.too_long) == (44, 4)
    assert "4 sentences longer than the context" in dependency_caption(found, 24)
