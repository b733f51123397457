"""Generation: every step has the model's own probabilities, and the tree is that of the beam search."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_residual_stream import TINY

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, UnknownName
from clearstory.generation.beam_search import Candidate, beam_search
from clearstory.generation.settings import Sampling
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.generation import generated_tokens, generation, token_texts
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.render import render_csv, render_html
from clearstory.lens.views import Node, Tree
from clearstory.models.base import TokenBatch
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_LSTM, counted, shaken

TOKENIZER = train_tokenizer("characters", ["abcdefghij klmnopqrst"])


def ready(config: Any) -> Any:
    return SimpleNamespace(model=shaken(replace(config, vocab=TOKENIZER.vocab)), tokenizer=TOKENIZER)


@pytest.mark.parametrize(
    "config", [TINY_CLEAR, TINY_LSTM, replace(T5_SMALL, **TINY, decoder_start_token_id=0)], ids=["clear", "lstm", "t5"]
)
def test_each_step_has_the_probabilities_of_the_model(config: Any) -> None:
    opened = ready(config)
    model = opened.model
    read = encode_passage(model, TOKENIZER, "abca")
    written = [5, 1, 7]
    seen = generated_tokens(model, read, written, 4)
    more = {"source": TokenBatch.from_sequences([read.source])} if read.source else {}
    for step, each in enumerate(seen):
        with torch.no_grad():
            hidden, _ = model.forward(TokenBatch.from_sequences([[*read.ids, *written[:step]]]), **more)
            said = model.logits(hidden)[0, -1].softmax(-1)
        assert each.probability == pytest.approx(float(said[written[step]]))
        assert each.rank == 1 + int((said > said[written[step]]).sum())
        assert each.entropy == pytest.approx(-float((said * said.log2()).sum()))
        assert [id for id, _ in each.likeliest] == said.topk(4).indices.tolist()


def test_a_seed_decides_and_greedy_takes_the_likeliest() -> None:
    opened = ready(TINY_CLEAR)
    one, two = (inspect(opened, "abca", "generation", max_tokens=8, seed=3) for _ in range(2))
    assert one == two
    other = inspect(opened, "abca", "generation", max_tokens=8, seed=4)
    assert one != other
    greedy = inspect(opened, "abca", "generation", max_tokens=8, temperature=0.0)
    assert greedy.panels[1].column("rank") == [1] * 8
    spans = greedy.panels[0].spans
    assert spans[0].text == "abca"
    assert spans[0].value is None
    assert "".join(span.text for span in spans) == "abca" + "".join(greedy.panels[1].column("token")).replace("␣", " ")
    assert spans[1].value == pytest.approx(-math.log2(greedy.panels[1].rows[0][-1]))


def test_every_candidate_of_a_beam_search_is_reported() -> None:
    model = ready(TINY_CLEAR).model
    candidates: list[Candidate] = []
    sampling = Sampling(max_tokens=4, beam=3)
    found = beam_search(model, [1, 2, 3], sampling, on_candidate=candidates.append)
    assert found == beam_search(model, [1, 2, 3], sampling)
    for step in range(1, 5):
        level = [each for each in candidates if len(each.ids) == step]
        assert [each.total for each in level] == sorted((each.total for each in level), reverse=True)
        assert len([each for each in level if each.status != "pruned"]) == 3
        before = {each.ids for each in candidates if len(each.ids) == step - 1 and each.status == "kept"}
        assert step == 1 or {each.ids[:-1] for each in level} <= before
    assert {each.ids for each in candidates if each.status == "finished"} == {each.ids for each in found}
    best = next(each for each in candidates if each.ids == found[0].ids)
    assert best.total == pytest.approx(sum(found[0].logprobs))


def test_the_tree_is_rendered_and_written() -> None:
    report = inspect(ready(TINY_CLEAR), "abca", "generation", max_tokens=4, beam=2)
    tree = report.panels[2]
    assert tree.kind == "tree"
    assert [len(level) for level in tree.levels()] == [4, 4, 4, 4]
    assert len(tree.best_path()) == 4
    assert render_svg(tree).count("<title>") == 1 + len(tree.nodes)
    assert render_csv(tree).splitlines()[0] == "node,parent,text,log-probability,status"
    assert "pruned" in render_html(report)
    with pytest.raises(BadInput, match="parents must precede their children"):
        Tree(title="t", nodes=(Node("a", 1, 0.0), Node("b", None, 0.0)))
    assert "nothing to draw" in render_svg(Tree(title="t", nodes=()))


def test_parts_of_a_character_come_with_its_last() -> None:
    pieces = train_tokenizer("bytes", [])
    ids = pieces.encode("aé€b")
    assert list(token_texts(pieces, ids[:1], ids[1:])) == ["", "é", "", "", "€", "b"]


def test_what_cannot_be_shown_is_refused() -> None:
    opened = ready(TINY_CLEAR)
    with pytest.raises(BadSetting, match="needs a generator"):
        generation(opened.model, TOKENIZER, "abca")
    with pytest.raises(ContextOverflow, match="4 tokens and 30 generated ones do not fit the model's context of 24"):
        generation(opened.model, TOKENIZER, "abca", lambda **_: ((5,) * 30, ()))
    with pytest.raises(BadInput, match="the text is empty"):
        inspect(opened, "", "generation")
    with pytest.raises(UnknownName, match="no setting called 'seed'"):
        inspect(opened, "abca", "next-token", seed=1)
    with pytest.raises(BadSetting, match="max_tokens is 0"):
        inspect(opened, "abca", "generation", max_tokens=0)
    encoder = SimpleNamespace(model=shaken(replace(BERT_TINY, **TINY)), tokenizer=TOKENIZER)
    with pytest.raises(CannotDo, match="does not predict the next token"):
        inspect(encoder, "abca", "generation")


def test_families_without_embeddings_generate_too() -> None:
    model: Any = counted(order=3)
    pieces = train_tokenizer("characters", ["abcdefghijklmnopqrstu"])
    assert isinstance(model.config, NGramConfig)
    opened = SimpleNamespace(model=model, tokenizer=pieces)
    assert pieces.vocab == model.vocab
    assert inspect(opened, "abc", "generation", max_tokens=5, seed=1).panels
    seen = generated_tokens(model, encode_passage(model, pieces, "abc"), [4, 9], 3)
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch.from_sequences([[*pieces.encode("abc"), 4]]))
        assert seen[1].probability == pytest.approx(float(model.logits(hidden)[0, -1].softmax(-1)[9]))
