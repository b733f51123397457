"""Generation from sources: the same alone and in a batch, from the cache, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_transformer_architectures import WRITERS
from tests.tiny import RECURRENT_WRITERS, TINY_GPT2, VOCAB, shaken

from clearstory.errors import BadInput, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.formats.folders import OpenedModel
from clearstory.formats.model_card import ModelCard
from clearstory.generation.beam_search import beam_search, beam_search_batch
from clearstory.generation.engine import Engine, generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from clearstory.models.matmul.packed import is_available
from clearstory.recipes.inference.generate import Generation, stream_generate
from clearstory.recipes.inference.generate import generate as generate_text
from clearstory.recipes.inference.translate import translate
from clearstory.text.train_tokenizer import train_tokenizer

MODELS: dict[str, Any] = {
    **WRITERS,
    **{name: RECURRENT_WRITERS[name] for name in ("additive", "dot", "sutskever", "cho")},
}
SOURCES = [[5, 6, 7, 8, 9, 3], [4, 2], [9, 8, 7], [1] * 12]
DRAWN = Sampling(max_tokens=9, seed=4)


def ids(model: Any, source: list[int], sampling: Sampling = DRAWN, **more: Any) -> list[int]:
    return [token.id for token in generate(model, [], sampling, start_token_id=0, source=source, **more)]


@pytest.mark.parametrize("name", MODELS)
def test_tokens_do_not_depend_on_other_requests(name: str) -> None:
    model: Any = shaken(MODELS[name])
    engine = Engine(model, max_running=3)  # one waits until another is done
    for number, source in enumerate(SOURCES):
        engine.add([], replace(DRAWN, max_tokens=5 + number), start_token_id=0, source=source)
    said: dict[int, list[int]] = {}
    while engine.has_unfinished:
        for output in engine.next_tokens():
            said.setdefault(output.request, []).append(output.token.id)
    alone = [ids(model, source, replace(DRAWN, max_tokens=5 + number)) for number, source in enumerate(SOURCES)]
    assert [said[number] for number in range(4)] == alone
    assert len({tuple(each[:5]) for each in alone}) > 1  # the source is heard

    settings = Sampling(max_tokens=7, beam=3)
    together = beam_search_batch(model, [[]] * 4, settings, eos_token_id=1, start_token_id=0, sources=SOURCES)
    for source, found in zip(SOURCES, together, strict=True):
        [*apart] = beam_search(model, [], settings, eos_token_id=1, start_token_id=0, source=source)
        assert [each.ids for each in found] == [each.ids for each in apart]
        assert [each.score for each in found] == pytest.approx([each.score for each in apart], rel=1e-9)


def test_beams_of_prompts_of_different_lengths_are_those_of_each_alone() -> None:
    model: Any = shaken(replace(TINY_GPT2, context=7))  # which they outgrow, each at its own time
    prompts = [[3], [4, 5, 6, 7, 8], [9, 1]]
    settings = Sampling(max_tokens=9, beam=3)
    together = beam_search_batch(model, prompts, settings, eos_token_id=2)
    for prompt, found in zip(prompts, together, strict=True):
        assert [each.ids for each in found] == [
            each.ids for each in beam_search(model, prompt, settings, eos_token_id=2)
        ]


def test_scores_of_hypotheses_are_their_log_probabilities() -> None:
    model: Any = shaken(MODELS["t5"])
    for found in beam_search(
        model, [], Sampling(max_tokens=6, beam=4), eos_token_id=1, start_token_id=0, source=SOURCES[0]
    ):
        written = torch.tensor([[0, *found.ids[:-1]]])
        targets = torch.tensor([found.ids])
        nats, _ = model.token_nll(TokenBatch(written), targets, source=TokenBatch.from_sequences([SOURCES[0]]))
        assert [-each for each in nats[0].tolist()] == pytest.approx(found.logprobs, rel=1e-9)


def test_a_source_is_encoded_once_however_much_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = shaken(MODELS["2017"])
    read: list[int] = []
    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, source: read.append(1) or encode(self, source))
    ids(model, SOURCES[0])
    beam_search(model, [], Sampling(max_tokens=6, beam=4), start_token_id=0, source=SOURCES[0])
    assert len(read) == 2


def test_more_than_the_context_can_be_generated() -> None:
    model: Any = shaken(replace(MODELS["t5"], context=6))
    assert len(ids(model, [5, 6], Sampling(max_tokens=20, seed=1))) == 20
    [best, *_] = beam_search(model, [], Sampling(max_tokens=20, beam=2), start_token_id=0, source=[5, 6])
    assert len(best.ids) == 20


def test_suppressed_tokens_are_never_generated() -> None:
    model: Any = shaken(MODELS["marian"])
    free = ids(model, SOURCES[0], Sampling(max_tokens=60, seed=1))
    suppressed = sorted(set(free))[:3]
    assert not set(ids(model, SOURCES[0], Sampling(max_tokens=60, seed=1), suppress_tokens=suppressed)) & set(
        suppressed
    )
    greedy = ids(model, SOURCES[0], Sampling(max_tokens=8, temperature=0), suppress_tokens=suppressed)
    assert not set(greedy) & set(suppressed)
    for found in beam_search(
        model, [], Sampling(max_tokens=8, beam=3), start_token_id=0, source=SOURCES[0], suppress_tokens=suppressed
    ):
        assert not set(found.ids) & set(suppressed)
    # Log-probabilities stay the model's own, over all tokens.
    [token] = generate(
        model,
        [],
        Sampling(max_tokens=1, temperature=0),
        start_token_id=0,
        source=SOURCES[0],
        suppress_tokens=suppressed,
    )
    logs = model.logits(
        model.forward(TokenBatch.from_sequences([[0]]), source=TokenBatch.from_sequences(SOURCES[:1]))[0]
    )[0, 0].log_softmax(-1)
    assert token.logprob == pytest.approx(float(logs[token.id].detach()), rel=1e-9)


def test_invalid_sources_are_refused_at_once() -> None:
    writer, decoder = shaken(MODELS["t5"]), shaken(TINY_GPT2)
    with pytest.raises(CannotDo, match="is an encoder-decoder and needs"):
        generate(writer, [], DRAWN, start_token_id=0)
    with pytest.raises(CannotDo, match="continues a prompt and has no source"):
        generate(decoder, [1], DRAWN, source=[1])
    with pytest.raises(BadInput, match="empty"):
        generate(writer, [], DRAWN, start_token_id=0, source=[])
    with pytest.raises(ContextOverflow, match="25 tokens"):
        generate(writer, [], DRAWN, start_token_id=0, source=[1] * 25)
    assert len(ids(writer, [*range(1, 20)] * 2, truncate="left")) == 9
    with pytest.raises(VocabularyMismatch):
        beam_search(writer, [], DRAWN, start_token_id=0, source=[VOCAB])


@pytest.mark.parametrize("name", ["marian", "t5 1.1", "2017", "additive", "dot"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.usefixtures("kernels_by")
def test_a_decoding_layout_generates_as_its_model(name: str, rows: int) -> None:
    model = shaken(MODELS[name]).float()
    source = TokenBatch.from_sequences(SOURCES[:rows])
    written = TokenBatch(torch.tensor([[0, 4, 5]] * rows))
    whole = model.logits(model.forward(written, model.init_state(rows, source=source))[0])
    for view, tolerance in ((inference_model(model, "fp32", rows), 1e-5), (inference_model(model, "int8"), 0.15)):
        assert view is not model
        seen = view.logits(view.forward(written, view.init_state(rows, source=source))[0])
        assert (seen - whole).abs().max() <= tolerance * whole.abs().max()


@pytest.fixture(scope="module")
def opened() -> OpenedModel:
    tokenizer = train_tokenizer("bytes", [])
    config = replace(MODELS["t5"], vocab=tokenizer.vocab, context=32, decoder_start_token_id=tokenizer.eos_token_id)
    model = build(config, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return OpenedModel(model, tokenizer, ModelCard())


def test_the_recipe_takes_prompts_as_sources(opened: OpenedModel) -> None:
    sources = ["one", "another", "x"]
    made = generate_text(opened, sources, max_tokens=6, seed=3)
    assert [each.prompt for each in made.completions] == sources
    assert not any(each.continues_prompt for each in made.completions)
    for number, source in enumerate(sources):
        alone = generate_text(opened, source, max_tokens=6, seed=3 + number)
        assert alone.text == made.completions[number].text
    *pieces, last = stream_generate(opened, "one", Sampling(max_tokens=6, seed=3))
    assert isinstance(last, Generation)
    assert "".join(piece.text for piece in pieces) == last.text == made.text
    beams = generate_text(opened, ["one", "x"], max_tokens=6, beam=2)
    assert [each.prompt for each in beams.completions] == ["one", "one", "x", "x"]
    with pytest.raises(BadInput, match="give it the text as the prompt"):
        generate_text(opened, "", max_tokens=2)


def test_texts_are_translated_in_the_order_given(opened: OpenedModel, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("bb\n\na long one\nc\n", encoding="utf-8")
    made = translate(opened, [str(file), "ddd"], max_tokens=5)
    assert [each.source for each in made.texts] == ["bb", "", "a long one", "c", "ddd"]
    assert made.texts[1].text == ""
    for each in (each for each in made.texts if each.source):
        [best, *_] = generate_text(opened, each.source, max_tokens=5, beam=4).completions
        assert each.text == best.text
        assert each.score == pytest.approx(best.score, rel=1e-4)
    assert made.to_json()["text"] == made.texts[0].text
    plain = [each.text for each in translate(opened, ["bb", "c"], beam=1, max_tokens=5).texts]
    assert plain == [generate_text(opened, text, max_tokens=5, temperature=0).text for text in ("bb", "c")]
    unnormalised = translate(opened, "bb", length_penalty=0.0, max_tokens=5).texts[0]
    # The largest total: at least that of the best by mean, and at most its mean; equal where it has one token.
    assert made.texts[0].score * made.texts[0].tokens <= unnormalised.score + 1e-6
    assert unnormalised.score <= made.texts[0].score + 1e-6
    with pytest.raises(ContextOverflow):
        translate(opened, "x" * 40)
    assert translate(opened, "x" * 40, truncate="left", max_tokens=3).texts[0].tokens <= 3
    decoder = OpenedModel(build(replace(TINY_GPT2, vocab=257)), opened.tokenizer, ModelCard())
    with pytest.raises(CannotDo, match="train one with: clearstory train"):
        translate(decoder, "x")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.usefixtures("kernels_by")
def test_texts_are_translated_in_each_precision(opened: OpenedModel, precision: Any) -> None:
    if not is_available(precision):
        pytest.skip(f"no {precision} kernels here")
    plain, rounded = (translate(opened, "bb", max_tokens=5, precision=each).texts[0] for each in ("auto", precision))
    # In int8 by the compiled kernels, inputs have 8 bits.
    assert rounded.score == pytest.approx(plain.score, abs={"fp32": 1e-6, "fp16": 1e-3, "int8": 2e-2}[precision])
    if precision == "int8":
        assert translate(opened, "bb", max_tokens=5, int8=True).texts[0] == rounded


def test_logits_of_an_encoder_decoder_need_its_source(opened: OpenedModel) -> None:
    assert opened.logits([[256, 65]], source=[[72, 105, 256]]).shape == (1, 2, 257)
    with pytest.raises(CannotDo, match="source"):
        opened.logits([[256, 65]])
