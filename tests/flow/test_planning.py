"""Settings that a run resolves itself: size, dropout, context, tokenizer, learning rates, device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from clearstory.errors import BadSetting
from clearstory.models.build import build
from clearstory.models.families import PRESETS
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.transformer.presets import CLEAR, NANOGPT_CHAR
from clearstory.models.transformer.sizing import (
    clear_config,
    clear_config_by_non_embedding,
    non_embedding_parameters,
    parameter_count,
)
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.training_presets import scale_learning_rates
from clearstory.recipes.training import model_size, time_budget
from clearstory.recipes.training.corpus_preparation import tokenizer_spec
from clearstory.recipes.training.preparation import build_trainer, device_of
from clearstory.recipes.training.samples import parse_padded_image
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.digit_images import save_png
from clearstory.text.settings import DataSettings


def test_more_time_gives_a_larger_model_and_little_text_a_small_one() -> None:
    sizes = [time_budget.parameters_for_budget(seconds, 1e11, 10**7, 10**7) for seconds in (60, 240, 960)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=1e-3)  # √4: time is shared by size and tokens
    assert sizes[2] == pytest.approx(4 * sizes[0], rel=1e-3)
    assert time_budget.parameters_for_budget(60, 1e11, 10**7, 4 * 10**7) == pytest.approx(
        2 * sizes[0], rel=1e-3
    )  # longer tokens
    assert time_budget.parameters_for_budget(10**6, 1e11, 100_000, 100_000) == 400_000


def test_many_epochs_use_dropout() -> None:
    # 6 · 10⁶ parameters · 10⁶ tokens are 6·10¹² operations an epoch
    dropouts = [time_budget.dropout_for_budget(60, count * 1e11, 10**6, 10**6) for count in (3, 8, 30)]
    assert dropouts == [0.0, 0.1, 0.2]
    # A token of a pair passes one of two stacks: half of the operations.
    dropouts = [time_budget.dropout_of_translator(60, count * 0.5e11, 10**6, 10**6) for count in (3, 8, 20, 30)]
    assert dropouts == [0.0, 0.1, 0.2, 0.3]


def test_the_dropout_of_a_translator_follows_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_size, "training_speed", lambda settings: 1e9)
    (tmp_path / "p.tsv").write_text("".join(f"one {n}\teins {n}\n" for n in range(200)), encoding="utf-8")
    corpus = Corpus.open(tmp_path / "p.tsv", DataSettings(pairs=True))
    tokenizer = train_corpus_tokenizer(corpus, "bytes")
    dataset = corpus.encode(tokenizer)["train"]

    def dropout(seconds: float, **given: Any) -> float:
        recipe = build_train_recipe({"model": {"name": "clear-translate", "width": 16, "heads": 1}, **given})
        recipe = replace(recipe, cpu_seconds=seconds, training=replace(recipe.training, threads=1, device="cpu"))
        budget = time_budget.TimeBudget(seconds=seconds, counts_cpu_time=False)
        chosen = model_size.resolve_size(recipe, tokenizer, dataset, budget)
        return float(chosen.model.config(vocab=tokenizer.vocab).dropout)

    assert [dropout(seconds) for seconds in (0.01, 10_000)] == [0.0, 0.3]
    assert dropout(0.01, **{"model.dropout": 0.25}) == 0.25


@pytest.mark.parametrize("target", [300_000, 3_000_000, 30_000_000])
def test_clear_is_sized_near_its_target(target: int) -> None:
    assert parameter_count(clear_config(target, 1024, 256)) == pytest.approx(target, rel=0.35)


def test_a_size_that_clear_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        BadSetting, match=r"close to 40,000 parameters with 257 tokens; the nearest to it: 25,792 and 67,936; give such"
    ):
        clear_config(40_000, 257, 256)
    with pytest.raises(BadSetting, match=r"close to 9,000 parameters with 257 tokens; the nearest to it: 25,792; give"):
        clear_config(9_000, 257, 256)


@pytest.mark.parametrize("vocab", [67, 4096])
def test_clear_can_be_sized_without_embeddings(vocab: int) -> None:
    assert non_embedding_parameters(clear_config_by_non_embedding(600_000, vocab, 256)) == pytest.approx(
        600_000, rel=0.35
    )


@pytest.mark.parametrize(
    ("size", "spec"), [(1, "bpe:512"), (1_115_394, "bpe:1024"), (4_143_068, "bpe:4096"), (10**9, "bpe:8192")]
)
def test_the_default_tokenizer_has_a_token_per_thousand_bytes(size: int, spec: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text of no account")
    corpus = replace(Corpus.open(tmp_path / "a.txt"), text_bytes=size)
    recipe = build_train_recipe({"model": "clear"})
    assert tokenizer_spec(recipe, corpus) == spec
    assert tokenizer_spec(recipe, replace(corpus, name="digits")) == "characters"


RNN = PRESETS["rnn"]


def test_wide_models_have_lower_default_rates() -> None:
    defaults: Any = build_train_recipe({"model": "clear"}).training
    narrow, wide = replace(CLEAR, width=128), replace(CLEAR, width=384)
    assert scale_learning_rates("clear", narrow, defaults) == defaults
    assert scale_learning_rates("clear", wide, defaults).learning_rate == pytest.approx(defaults.learning_rate / 2)
    explicit = replace(defaults, learning_rate=0.5)
    assert scale_learning_rates("clear", wide, explicit).learning_rate == 0.5
    assert scale_learning_rates("clear", wide, explicit).muon_learning_rate == pytest.approx(
        defaults.muon_learning_rate / 2
    )
    assert scale_learning_rates("gpt2", wide, defaults) == defaults
    rnn_defaults, wide_rnn = build_train_recipe({"model": "rnn"}).training, replace(RNN, hidden_size=1024)
    assert scale_learning_rates("rnn", RNN, rnn_defaults) == rnn_defaults
    assert scale_learning_rates("rnn", wide_rnn, rnn_defaults).muon_learning_rate == pytest.approx(
        rnn_defaults.muon_learning_rate / 2
    )


def test_an_incomplete_image_is_padded_and_other_text_is_none(tmp_path: Path) -> None:
    short = parse_padded_image("@@@@")
    assert short is not None
    assert short.sum() == 4 * 16
    assert parse_padded_image(" 7 and some words") is None
    save_png([short] * 3, tmp_path / "digits.png")
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_a_gpu_has_a_longer_context_and_compiles_large_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [time_budget.context_for_budget(seconds, "cpu") for seconds in (60, 600)] == [128, 256]
    assert time_budget.context_for_budget(60, "cuda") == 256
    monkeypatch.setattr(time_budget, "find_cpp_compiler", lambda: "g++")
    assert [time_budget.should_compile("auto", 10**8, 3600, device)[0] for device in ("cpu", "cuda")] == [False, True]
    assert not time_budget.should_compile("auto", 10**8, 60, "cuda")[0]
    monkeypatch.setattr(time_budget, "find_cpp_compiler", lambda: None)
    assert "training is slower" in str(time_budget.should_compile("on", 10**8, None, "cuda")[1])


def test_count_tables_stay_on_the_cpu() -> None:
    assert device_of(NGramConfig(vocab=9), "cuda") == "cpu"
    assert device_of(HMMConfig(vocab=9, states=2), "cuda") == "cuda"
    assert device_of(NANOGPT_CHAR, "cuda") == "cuda"


@pytest.mark.parametrize("config", [NGramConfig(vocab=9), HMMConfig(vocab=9, states=2)])
def test_count_models_are_fitted_to_the_causal_objective_only(config: Any) -> None:
    recipe, unused = build_train_recipe({"objective": "seq2seq"}), cast(Any, None)
    with pytest.raises(BadSetting, match=rf"objective is seq2seq, and this model \({config.family}\) is fitted by"):
        build_trainer(recipe, build(config), unused, unused, unused)
