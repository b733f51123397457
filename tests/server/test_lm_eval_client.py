"""lm-evaluation-harness over HTTP: the numbers of `local-completions` are those in Python and of its `hf` model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearstory.evaluation.continuation_requests import ContinuationRequest
from clearstory.evaluation.continuations import score_continuations
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import MODEL, client_of, make_model, real_server
from server.test_same_texts import smollm2

GOLDEN = Path(__file__).parent.parent / "golden"

FAMILIES = ("GPT2LMHeadModel", "MistralForCausalLM", "lstm", "hmm")

ROUNDING = 1e-4
"""Nats by which two log-likelihoods of the same tokens may differ."""


def harness_answers(found: Any, context_lengths: Sequence[int]) -> list[tuple[float, bool]]:
    """Log-likelihoods and whether they are greedy, as the harness computes them from a response."""
    answers = []
    for choice, context in zip(found["choices"], context_lengths, strict=True):
        own = choice["logprobs"]["token_logprobs"][context:-1]
        best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][context:-1]]
        answers.append((sum(own), own == best))
    return answers


@pytest.mark.parametrize("name", [MODEL, *FAMILIES])
def test_what_the_harness_asks_has_the_numbers_in_python(name: str, tmp_path: Path) -> None:
    opened = open_model(make_model(tmp_path / MODEL) if name == MODEL else GOLDEN / name)
    engine = EngineThread(ServedModel.of(opened, name), EngineLimits(threads=1))
    vocab = opened.model.vocab
    pairs = [([at % vocab, 3, (5 * at + 1) % vocab], [(7 * at + step) % vocab for step in range(4)]) for at in range(8)]
    greedy = client_of({name: engine}).post(
        "/v1/completions",
        json={"model": name, "prompt": [3, 1], "temperature": 0, "max_tokens": 3, "return_token_ids": True},
    )
    pairs.append(([3, 1], greedy.json()["choices"][0]["token_ids"]))  # greedy by construction
    asked = {"model": name, "prompt": [first + rest for first, rest in pairs], "temperature": 0, "max_tokens": 1,
             "logprobs": 1, "seed": 1234, "echo": True}  # fmt: skip
    response = client_of({name: engine}).post("/v1/completions", json=asked)
    engine.stop()
    assert response.status_code == 200, response.text
    assert [len(choice["logprobs"]["tokens"]) for choice in response.json()["choices"]] == [
        len(first) + len(rest) + 1 for first, rest in pairs
    ]
    found = harness_answers(response.json(), [len(first) for first, _ in pairs])
    own = score_continuations(opened.model, [ContinuationRequest(tuple(first), tuple(rest)) for first, rest in pairs])
    for (nats, is_greedy), score in zip(found, own, strict=True):
        assert nats == pytest.approx(score.log_likelihood, abs=ROUNDING)
        assert is_greedy == score.is_greedy
    assert found[-1][1]


def instances(*arguments: tuple[Any, ...]) -> list[Any]:
    """Requests in the harness's form."""
    return [SimpleNamespace(args=each, task_name="task") for each in arguments]


@contextmanager
def quiet() -> Iterator[None]:
    """The harness offline, and without warnings of its own and of what it imports."""
    from clearstory.recipes.inference.evaluate_harness import offline

    with warnings.catch_warnings(), offline(True):
        warnings.simplefilter("ignore")
        yield


def compare(folder: Path | str, theirs: Any, pairs: list[tuple[str, str]], texts: list[str], most: int) -> None:
    """Compare the harness over HTTP, with one request at a time and with several, with Python and with `hf`."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from clearstory.recipes.inference.lm_eval_model import ClearstoryLM

    ours = ClearstoryLM(folder)
    engine = EngineThread(ServedModel.open(folder, MODEL, precision="fp32"))
    scored, until = instances(*pairs), {"until": ["\n\n"], "max_gen_toks": 6, "temperature": 0}
    rolling, generated = instances(*((text,) for text in texts)), instances(*((text, dict(until)) for text in texts))
    own = ours.loglikelihood(scored)
    with real_server({MODEL: engine}) as server:
        for concurrent in (1, 4):
            remote = LocalCompletionsAPI(
                base_url=f"{server.url}/v1/completions",
                model=MODEL,
                tokenizer_backend="remote",
                num_concurrent=concurrent,
                batch_size=3,
                max_length=most + 1,
                max_retries=1,
            )
            for pair, (nats, greedy), (mine, my_greedy) in zip(pairs, remote.loglikelihood(scored), own, strict=True):
                assert nats == pytest.approx(mine, abs=ROUNDING), pair
                assert greedy == my_greedy, pair
        assert remote.loglikelihood_rolling(rolling) == pytest.approx(ours.loglikelihood_rolling(rolling), abs=1e-3)
        assert remote.generate_until(generated) == ours.generate_until(generated)
    engine.stop()
    for (nats, greedy), (mine, my_greedy) in zip(theirs.loglikelihood(scored), own, strict=True):
        assert nats == pytest.approx(mine, abs=ROUNDING)
        assert greedy == my_greedy


@pytest.mark.slow
def test_the_harness_over_http_has_the_numbers_of_its_hf_model() -> None:
    pytest.importorskip("lm_eval", reason="the extra eval is not installed")
    pairs = [("the cat", " sat on"), ("the cat", " sat"), ("the cat ", "sat"), ("the", " end"), ("", "the dog")]
    with quiet():
        from lm_eval.models.huggingface import HFLM

        for folder in (GOLDEN / "LlamaForCausalLM", GOLDEN / "GPT2LMHeadModel"):
            theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=2)
            compare(folder, theirs, pairs, ["the cat sat on a mat", "a dog"], 24)


@pytest.mark.slow
def test_the_harness_over_http_has_the_numbers_of_smollm2(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra eval is not installed")
    pairs = [
        ("The capital of France is", " Paris"),
        ("The capital of France is", " London"),
        ("Question: What is two plus two?\nAnswer:", " four"),
        ("", "Once upon a time there was a king"),
        ("Die Hauptstadt — wie schön! — ist", " Köln 🎉"),
        ("A cat sat on the", " mat"),
    ]
    texts = ["It was the best of times, it was the worst of times.", "Hello"]
    path = smollm2()
    opened = open_model(path)
    assert opened.tokenizer is not None
    save_model(
        tmp_path / "hf", opened.model, opened.tokenizer, ModelCard(name=MODEL, family="transformer", parameters=0)
    )
    with quiet():
        from lm_eval.models.huggingface import HFLM

        compare(path, HFLM(pretrained=str(tmp_path / "hf"), dtype="float32", device="cpu"), pairs, texts, 2048)
