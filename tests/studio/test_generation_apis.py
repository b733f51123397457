"""Decoding comparison, newest-token attention, generation speed, guess game and model index."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from studio_home import client

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.generation.beam_search import beam_search
from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.lens.hooks.attention_sites import attention_site, attention_weights
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.logit_attribution import logit_attribution
from clearstory.models.base import TokenBatch
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.studio.decoding_comparison import compare_decoding
from clearstory.studio.generation_attention import newest_token_attention
from clearstory.studio.generation_speed import measure_generation_speed
from clearstory.studio.guess_game import guess_options, guess_sentence, next_token_logprobs, score_guess
from clearstory.studio.model_index import list_models, usage_file
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_HMM, TINY_LSTM, counted, shaken

CHARACTERS = train_tokenizer("characters", ["abcdefghijklmnop"])
SMALL: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}
CONFIGS: dict[str, Any] = {
    "clear": replace(TINY_CLEAR, vocab=CHARACTERS.vocab),
    "lstm": replace(TINY_LSTM, vocab=CHARACTERS.vocab),
    "hmm": replace(TINY_HMM, vocab=CHARACTERS.vocab),
    "t5": replace(T5_SMALL, **SMALL, context=24, vocab=CHARACTERS.vocab, decoder_start_token_id=0),
}
TEXT = "abcab"


def model_of(name: str) -> Any:
    return shaken(CONFIGS[name])


# ---- decoding methods


@pytest.mark.parametrize("name", CONFIGS)
def test_all_methods_equal_generate_and_beam_search(name: str) -> None:
    model = model_of(name)
    result = compare_decoding(
        model, CHARACTERS, TEXT, max_tokens=6, temperature=0.9, top_k=9, seed=3, beam=3, length_penalty=0.5
    )
    json.dumps(result, allow_nan=False)
    source = [*CHARACTERS.encode(TEXT), CHARACTERS.eos_token_id] if name == "t5" else None
    how: dict[str, Any] = {
        "eos_token_id": CHARACTERS.eos_token_id,
        "source": source,
        "start_token_id": 0,
    }
    prompt = [] if source else CHARACTERS.encode(TEXT)
    drawn = [Sampling(max_tokens=6, temperature=0), Sampling(max_tokens=6, temperature=0.9, top_k=9, seed=3)]
    best = beam_search(model, prompt, Sampling(max_tokens=6, beam=3, length_penalty=0.5), **how)
    for each, sampling in zip(result["methods"][:2], drawn, strict=True):
        tokens = list(generate(model, prompt, sampling, **how))
        assert each["ids"] == [token.id for token in tokens]
        assert each["logprob"] == pytest.approx(sum(token.logprob for token in tokens))
        assert each["score"] == pytest.approx(each["logprob"] / len(tokens) ** 0.5)
    assert [each["ids"] for each in result["beams"]] == [list(one.ids) for one in best]
    assert [each["score"] for each in result["beams"]] == pytest.approx([one.score for one in best])
    assert result["methods"][2] == {"name": "beam search", **result["beams"][0]}


def test_every_node_of_the_tree_has_its_text_and_score() -> None:
    result = compare_decoding(model_of("clear"), CHARACTERS, TEXT, max_tokens=5, beam=2, length_penalty=2.0)
    nodes = result["tree"]["nodes"]
    assert len(nodes) == len(result["texts"]) == len(result["scores"])
    for place, node in enumerate(nodes):
        depth, text, at = 0, "", place
        while at is not None:
            depth, text, at = depth + 1, nodes[at]["text"] + text, nodes[at]["parent"]
        assert result["scores"][place] == pytest.approx(node["value"] / depth**2.0)
        assert result["texts"][place] == text.replace("<|endoftext|>", "")  # which is no text
    assert result["texts"][result["tree"]["best"]] == result["beams"][0]["text"]


# ---- attention of the newest token


@pytest.mark.parametrize(("part", "head"), [(None, 1), (None, None), ("cross", 0), ("cross", None)])
def test_the_newest_tokens_attention_equals_the_library(part: Any, head: int | None) -> None:
    model = model_of("t5" if part else "clear")
    written = tuple(CHARACTERS.encode("de"))
    seen = newest_token_attention(model, CHARACTERS, TEXT, generated=written, layer=0, head=head, part=part)
    source = (*CHARACTERS.encode(TEXT), CHARACTERS.eos_token_id) if part else ()
    ids = (0, *written) if part else (*CHARACTERS.encode(TEXT), *written)
    read = Passage(ids, tuple(map(CHARACTERS.display_token, ids)), source, tuple(map(CHARACTERS.display_token, source)))
    weights = attention_weights(model, read, attention_site(model, 0, part))[:, -1]
    wanted = weights.mean(0) if head is None else weights[head]
    assert torch.allclose(seen["weights"], wanted.float())
    assert float(seen["weights"].sum()) == pytest.approx(1)
    assert seen["ids"] == list(source or ids)
    best = int(wanted.argmax())
    assert f"{float(wanted[best]):.0%} of its attention on ‘{seen['labels'][best]}’" in seen["caption"]


def test_attention_after_the_context_was_full_covers_the_shortened_context() -> None:
    seen = newest_token_attention(model_of("clear"), CHARACTERS, "abcd" * 6, generated=(1, 2, 3))
    assert len(seen["ids"]) == 12 + 2  # half of 24 is read again with the first, and two follow
    assert seen["ids"][-3:] == [1, 2, 3]


# ---- generation speed


@pytest.mark.parametrize("name", [*CONFIGS, "ngram"])
def test_both_methods_generate_the_same_tokens(name: str) -> None:
    tokenizer = CHARACTERS if name in CONFIGS else train_tokenizer("characters", ["abcdefghijklmnopqrstu"])
    model = model_of(name) if name in CONFIGS else counted(order=3)
    result = measure_generation_speed(model, tokenizer, TEXT, tokens=6, runs=2)
    assert result["difference"] < 1e-9
    assert result["ratio"] == pytest.approx(result["cached"] / result["recomputed"])
    for way in ("cached", "recomputed"):
        assert len(result["seconds"][way]) == 2
        assert result[way] == pytest.approx(6 / (sum(result["seconds"][way]) / 2))  # of two the median is the mean
    assert [len(line["x"]) for line in result["curve"]["lines"]] == [6, 6]
    ratio = result["ratio"]
    known = "as fast" if ratio >= 1.05 else "as slow" if ratio <= 0.95 else "no faster"
    assert known in result["caption"]


def test_generation_stops_at_the_context() -> None:
    model = model_of("clear")
    assert measure_generation_speed(model, CHARACTERS, "abcd" * 5, tokens=16, runs=1)["tokens"] == 24 - 20 + 1
    with pytest.raises(ContextOverflow, match="24 tokens and the model's context holds 24"):
        measure_generation_speed(model, CHARACTERS, "abcd" * 6)


# ---- guess game


@pytest.mark.parametrize("name", ["clear", "lstm", "hmm"])
def test_a_guess_has_the_models_probability(name: str) -> None:
    model = model_of(name)
    ids = CHARACTERS.encode(TEXT)
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch.from_sequences([ids[:3]]), model.init_state(1))
        chances = model.logits(hidden[0, -1]).softmax(-1)
    result = score_guess(model, CHARACTERS, TEXT, position=3, word="d", confidence=0.3)
    token = CHARACTERS.encode("d")[0]
    assert result["guess"]["id"] == token
    assert result["guess"]["probability"] == pytest.approx(float(chances[token]))
    assert result["guess"]["rank"] == 1 + int((chances > chances[token]).sum())
    assert result["actual"]["id"] == ids[3]
    assert result["model_bits"] == pytest.approx(-math.log2(float(chances[ids[3]])))
    # 0.3 is the guess's; the other 0.7 are shared as the model shares all but the guess.
    mixed = 0.7 * float(chances[ids[3]]) / (1 - float(chances[token]))
    assert result["reader_bits"] == pytest.approx(-math.log2(mixed))
    right = score_guess(model, CHARACTERS, TEXT, position=3, token_id=ids[3], confidence=0.3)
    assert (right["correct"], right["reader_bits"]) == (True, pytest.approx(-math.log2(0.3)))


def test_the_models_probability_as_confidence_gives_the_models_score() -> None:
    model = model_of("clear")
    for token in range(CHARACTERS.vocab):
        share = score_guess(model, CHARACTERS, TEXT, position=2, token_id=token)["guess"]["probability"]
        if 0.01 <= share <= 0.99:
            result = score_guess(model, CHARACTERS, TEXT, position=2, token_id=token, confidence=share)
            assert result["reader_bits"] == pytest.approx(result["model_bits"])


def test_the_score_is_a_proper_scoring_rule() -> None:
    model = model_of("clear")
    _, logs = next_token_logprobs(model, CHARACTERS, TEXT, 2)
    token = int(logs.argmax())

    def cost(share: float) -> float:
        came = [
            score_guess(model, CHARACTERS, f"ab{CHARACTERS.decode([id])}", position=2, token_id=token, confidence=share)
            for id in range(16)
        ]
        return sum(math.exp(float(logs[id])) * each["reader_bits"] for id, each in enumerate(came))

    honest = math.exp(float(logs[token]) - float(logs[:16].logsumexp(0)))  # the 16 letters, of all tokens
    assert cost(honest) < min(cost(honest - 0.05), cost(honest + 0.05))


def test_model_bits_are_the_surprisal_of_each_token() -> None:
    model, ids = model_of("clear"), CHARACTERS.encode(TEXT)
    along = [score_guess(model, CHARACTERS, TEXT, position=place, token_id=0)["model_bits"] for place in range(1, 5)]
    with torch.no_grad():
        logs = model.logits(model.forward(TokenBatch.from_sequences([ids]))[0][0]).log_softmax(-1) / math.log(2)
    assert along == pytest.approx([-float(logs[place - 1, ids[place]]) for place in range(1, 5)])
    after = score_guess(model, CHARACTERS, TEXT, position=5, token_id=0)
    assert after["actual"] is None
    assert "reader_bits" not in after


def test_options_contain_the_actual_token_and_are_reproducible() -> None:
    model = model_of("clear")
    for place in range(1, 5):
        result = guess_options(model, CHARACTERS, TEXT, position=place, seed=4)
        ids = [each["id"] for each in result["options"]]
        assert CHARACTERS.encode(TEXT)[place] in ids
        assert len(set(ids)) == len(ids) == 6
        assert result == guess_options(model, CHARACTERS, TEXT, position=place, seed=4)
    places = {
        [each["id"] for each in guess_options(model, CHARACTERS, TEXT, position=2, seed=seed)["options"]].index(
            CHARACTERS.encode(TEXT)[2]
        )
        for seed in range(20)
    }
    assert len(places) > 3  # where it stands says nothing
    assert (
        guess_sentence(model, CHARACTERS, "", seed=1)["text"] != guess_sentence(model, CHARACTERS, "", seed=2)["text"]
    )


def test_a_word_may_start_with_a_space() -> None:
    pieces = train_tokenizer("bpe:300", ["the king the king of the kings"])
    model = shaken(replace(TINY_CLEAR, vocab=pieces.vocab))
    _, logs = next_token_logprobs(model, pieces, "the", 1)
    forms = {pieces.encode(form)[0] for form in ("king", " king")}
    assert score_guess(model, pieces, "the", word="king")["guess"]["id"] == max(forms, key=lambda id: float(logs[id]))


# ---- logit difference


def test_attributions_of_two_ids_add_up_to_their_logit_difference() -> None:
    model = model_of("clear")
    read = encode_passage(model, CHARACTERS, TEXT)
    with torch.no_grad():
        logits = model.logits(read.forward(model)[-1])
    table = logit_attribution(model, CHARACTERS, TEXT, ids=(3, 7), top=99).panels[0]
    *rows, (_, total) = table.rows
    assert total == pytest.approx(float(logits[3] - logits[7]))
    assert math.fsum(value for _, value in rows) == pytest.approx(float(logits[3] - logits[7]))


# ---- errors


def test_invalid_settings_are_rejected() -> None:
    model = model_of("clear")
    pieces = train_tokenizer("wordpiece:20", ["a b c"])
    encoder: Any = shaken(replace(BERT_TINY, **SMALL, context=24, vocab=pieces.vocab))
    for function in (compare_decoding, newest_token_attention, measure_generation_speed, score_guess, guess_options):
        with pytest.raises(CannotDo, match="does not predict the next token"):
            function(encoder, pieces, "a b c")
    for function in (score_guess, guess_options):
        with pytest.raises(CannotDo, match="generates a target"):
            function(model_of("t5"), CHARACTERS, TEXT)
    with pytest.raises(CannotDo, match="lstm"):
        newest_token_attention(model_of("lstm"), CHARACTERS, TEXT)
    refused: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (compare_decoding, {"max_tokens": 0}, BadSetting, "1 to 64"),
        (compare_decoding, {"beam": 1}, BadSetting, "1 would be greedy"),
        (compare_decoding, {"length_penalty": math.inf}, BadSetting, "give a number"),
        (compare_decoding, {"temperature": -1.0}, BadSetting, "0 is greedy"),
        (newest_token_attention, {"head": 9}, BadSetting, "head is 9"),
        (newest_token_attention, {"layer": 9}, BadSetting, "layer is 9"),
        (newest_token_attention, {"generated": (999,)}, VocabularyMismatch, "outside the model's vocabulary"),
        (measure_generation_speed, {"tokens": 1}, BadSetting, "2 to 128"),
        (measure_generation_speed, {"runs": 0}, BadSetting, "1 to 9"),
        (score_guess, {"position": 0}, BadSetting, "the text has 5 tokens"),
        (score_guess, {"position": 6, "word": "a"}, BadSetting, "the text has 5 tokens"),
        (score_guess, {"word": ""}, BadInput, "there is no guess"),
        (score_guess, {"token_id": 99}, BadSetting, "the vocabulary has 18 tokens"),
        (score_guess, {"word": "a", "confidence": 1.0}, BadSetting, "0.01 to 0.99"),
        (guess_options, {"count": 1}, BadSetting, "2 to 20"),
        (logit_attribution, {"ids": (1, 2, 3)}, BadSetting, "give one, or two"),
        (logit_attribution, {"ids": (1,), "words": ("a",)}, BadSetting, "one of the two"),
        (logit_attribution, {"ids": (99,)}, VocabularyMismatch, "outside"),
    ]
    for function, settings, error, says in refused:
        with pytest.raises(error, match=says):
            function(model, CHARACTERS, TEXT, **settings)


def test_ngram_models_are_supported() -> None:
    pieces = train_tokenizer("characters", ["abcdefghijklmnopqrstu"])
    model: Any = counted(order=3)
    assert isinstance(model.config, NGramConfig)
    assert len(compare_decoding(model, pieces, TEXT, max_tokens=4)["beams"]) == 3
    assert len(guess_options(model, pieces, TEXT, position=2)["options"]) == 6
    assert score_guess(model, pieces, TEXT, position=2, word="c")["correct"]


# ---- the folder


def test_the_list_is_sorted_by_last_use_and_has_the_loss_of_runs(folder: Path) -> None:
    studio = client(folder)
    os.utime(folder / "models" / "ngram" / "config.json", (2e9, 2e9))  # written last
    studio.post("/api/view", json={"model": "models/lstm", "text": "the cat"})
    os.utime(usage_file(folder, "models/lstm"), (3e9, 3e9))
    models = studio.get("/api/models").json()["models"]
    assert [each["name"] for each in models[:2]] == ["models/lstm", "models/ngram"]
    assert models[0]["modified"] < models[0]["last_used"] == 3e9
    rows = [json.loads(line) for line in (folder / "runs" / "short" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert {each["name"]: each["loss"] for each in models}["runs/short"] == losses[-1]
    assert {each["loss"] for each in models if each["kind"] == "folder"} == {None}


def test_linked_models_are_found_and_link_cycles_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "models" / "lstm").rename(tmp_path / "elsewhere")
    (folder / "mine").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    models, whole = list_models(folder)
    assert whole
    assert {each.name for each in models} == {"models/clear", "models/ngram", "models/hostile", "runs/short", "mine"}
    result = client(folder).post("/api/view", json={"model": "mine", "text": "the cat"})
    assert result.status_code == 200


def test_a_path_opens_a_model_or_explains_how_to_link_one(folder: Path) -> None:
    deep = folder / "a" / "b" / "c" / "d" / "e"
    deep.parent.mkdir(parents=True)
    (folder / "models" / "lstm").rename(deep)
    studio = client(folder)
    assert "a/b/c/d/e" not in {each["name"] for each in studio.get("/api/models").json()["models"]}
    assert ask(studio, "a/b/c/d/e")["model"]["family"] == "lstm"
    assert ask(studio, "runs/short")["model"]["kind"] == "run"
    for name, says in [
        ("/far/off/model", f"ln -s /far/off/model {folder}/model"),
        ("~/model", "ln -s '~/model'"),
        ("models", "holds no model or run"),
        ("words.txt", "is not a model"),
        ("nowhere", "does not exist"),
        ("../x", "not a path inside the studio's folder"),
    ]:
        assert says in ask(studio, name, 400)["error"]


def ask(studio: TestClient, name: str, status: int = 200) -> Any:
    answer = studio.get("/api/model", params={"name": name})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_folder_that_may_not_be_written_to_is_still_looked_into(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refused)
    result = client(folder).post("/api/view", json={"model": "models/lstm", "text": "the cat"})
    assert result.status_code == 200
