"""Sequence to sequence and span corruption: batches, losses computed by hand, and label smoothing as in torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import VOCAB, shaken
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import MARIAN, T5_11_SMALL, T5_SMALL, TRANSFORMER_BASE
from clearstory.text.sentinels import with_sentinels
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.objectives.causal import Causal
from clearstory.training.objectives.seq2seq import Seq2Seq, Seq2SeqBatches, seq2seq_batch
from clearstory.training.objectives.span_corruption import (
    SpanCorruption,
    SpanCorruptionBatches,
    corruption,
    random_partition,
    window_length,
)
from clearstory.training.objectives.table import objective_spec, resolve_objective
from clearstory.training.optimizers import lr_factor
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "vocab": VOCAB, "context": 24, "width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "layers": 1, "decoder_start_token_id": 0,
}  # fmt: skip
MODELS = {
    "2017": replace(TRANSFORMER_BASE, **SMALL),
    "t5": replace(T5_SMALL, **SMALL),
    "t5 1.1": replace(T5_11_SMALL, **SMALL),
    "marian": replace(MARIAN, **SMALL),
}
END, START = 1, 0


def pairs(count: int = 200, longest: int = 12) -> SimpleNamespace:
    """Sources of random length, and their targets: the source reversed. Each ends with END."""
    rng = np.random.default_rng(3)
    ids: list[int] = []
    starts = [0]
    for _ in range(count):
        text = rng.integers(2, VOCAB, rng.integers(1, longest)).tolist()
        for side in (text, text[::-1]):
            ids += [*side, END]
            starts.append(len(ids))
    return SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array(starts), byte_lengths=np.ones(VOCAB))


def sequences(tokens: TokenBatch) -> list[list[int]]:
    lengths = [tokens.ids.shape[1]] * len(tokens.ids) if tokens.lengths is None else tokens.lengths.tolist()
    return [row[:length] for row, length in zip(tokens.ids.tolist(), lengths, strict=True)]


def test_an_epoch_has_every_pair_once_and_batches_have_similar_lengths() -> None:
    text = pairs(1000)
    batches = Seq2SeqBatches(text, 24, 8, seed=5, decoder_start_token_id=START)
    assert (batches.batches_per_epoch, batches.left_out) == (125, 0)
    for epoch in (0, 1):
        seen: Counter[tuple[int, ...]] = Counter()
        padding = total = 0
        for number in range(epoch * 125, (epoch + 1) * 125):
            batch = batches.batch(number)
            assert batch.source is not None
            targets = [[id for id in row if id != IGNORE_INDEX] for row in batch.targets.tolist()]
            for source, target, read in zip(sequences(batch.source), targets, sequences(batch.tokens), strict=True):
                assert source[:-1] == target[:-1][::-1]
                assert source[-1] == target[-1] == END
                assert read == [START, *target[:-1]]  # teacher forcing: shifted right by one
                seen[tuple(source)] += 1
            padding += int((batch.targets == IGNORE_INDEX).sum())
            total += batch.targets.numel()
        known = Counter(
            tuple(text.ids[a:b].tolist()) for a, b in zip(text.starts[:-1:2], text.starts[1::2], strict=True)
        )
        assert seen == known
        assert padding < 0.06 * total
    assert sequences(batches.batch(0).tokens) != sequences(batches.batch(125).tokens)


def test_a_batch_is_a_function_of_its_index() -> None:
    for make in (lambda: Seq2SeqBatches(pairs(), 24, 8, 5, START), lambda: spans(8)):
        forward, backward = make(), make()
        numbers = [0, 7, 31, 90]
        first = [forward.batch(number) for number in numbers]
        second = [backward.batch(number) for number in reversed(numbers)][::-1]
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one.tokens.ids, other.tokens.ids)
            assert torch.equal(one.targets, other.targets)
            assert one.source is not None
            assert other.source is not None
            assert torch.equal(one.source.ids, other.source.ids)


def test_pairs_that_do_not_fit_are_left_out_and_counted() -> None:
    text = pairs()
    sizes = np.diff(text.starts).reshape(-1, 2).max(1)
    batches = Seq2SeqBatches(text, 8, 8, 0, START)
    assert batches.left_out == (sizes > 8).sum() > 0
    assert all(batches.batch(number).tokens.ids.shape[1] <= 8 for number in range(batches.batches_per_epoch))
    with pytest.raises(BadInput, match=r"there are 0 pairs \(of 200: the others .* more than 1 tokens\)"):
        Seq2SeqBatches(text, 1, 8, 0, START)
    few = Seq2SeqBatches(text, 24, 201, 0, START)  # fewer pairs than a batch may have: one batch of them
    assert (few.batches_per_epoch, len(few.batch(0).tokens.ids)) == (1, 200)


def test_batches_are_limited_by_tokens_and_of_even_sizes() -> None:
    text = pairs(1000, longest=40)
    sizes = np.diff(text.starts).reshape(-1, 2)
    for batch_size, batch_tokens in ((64, 400), (8, 10**6), (1000, 300), (300, None), (16, 1)):
        batches = Seq2SeqBatches(text, 64, batch_size, 3, START, batch_tokens)
        seen: Counter[tuple[int, ...]] = Counter()
        rows, padded = [], []
        for number in range(batches.batches_per_epoch):
            batch = batches.batch(number)
            assert batch.source is not None
            rows.append(len(batch.tokens.ids))
            padded.append(batch.tokens.ids.numel() + batch.source.ids.numel())
            seen.update(tuple(source) for source in sequences(batch.source))
        assert sum(seen.values()) == sum(rows) == 1000
        assert max(rows) <= batch_size
        if batch_tokens is not None:
            assert all(number <= batch_tokens or count == 1 for number, count in zip(padded, rows, strict=True))
        if batch_tokens in (10**6, None):
            assert min(rows) >= max(rows) / 2  # 1,000 pairs in batches of 300: four of 250, not three and 100
        assert batches.tokens_per_batch == pytest.approx(sizes.sum() / batches.batches_per_epoch, abs=1)
        # The same number of batches in every epoch, so that an index determines its epoch.
        assert len(batches.shuffled(0)) == len(batches.shuffled(7)) == batches.batches_per_epoch


def test_a_small_batch_is_split_into_micro_batches_without_empty_ones() -> None:
    batch = Seq2SeqBatches(pairs(5), 24, 8, 3, START).batch(0)
    assert [len(each.tokens.ids) for each in batch.split(4)] == [2, 2, 1]
    assert [len(each.tokens.ids) for each in batch.split(1)] == [5]
    assert torch.equal(torch.cat([each.targets for each in batch.split(3)]), batch.targets)


def spans(batch_size: int = 4, context: int = 32) -> SpanCorruptionBatches:
    text = SimpleNamespace(ids=np.arange(2, 900, dtype=np.uint16), starts=np.array([0, 898]))
    return SpanCorruptionBatches(text, context, batch_size, 3, START, END, range(1000, 1100))


def test_spans_put_back_give_the_text() -> None:
    batches = spans()
    dropped, count = corruption(batches.window_length)
    for number in range(20):
        batch = batches.batch(number)
        assert batch.source is not None
        assert batch.source.ids.shape == (4, batches.window_length - dropped + count + 1)
        assert batch.source.ids.shape[1] <= 32
        for source, target in zip(batch.source.ids.tolist(), batch.targets.tolist(), strict=True):
            assert source[-1] == target[-1] == END
            # 1000 … 1000 + count: one sentinel for each span, and a last one that ends the target.
            marks = [id for id in target if id >= 1000]
            assert marks == list(range(1000, 1001 + count))
            assert [id for id in source if id >= 1000] == marks[:-1]
            gone: dict[int, list[int]] = {}
            for id in target[:-1]:
                if id >= 1000:
                    gone[id] = span = []
                else:
                    span.append(id)
            text = [each for id in source[:-1] for each in (gone[id] if id >= 1000 else [id])]
            assert text == list(range(text[0], text[0] + batches.window_length))
            assert sum(map(len, gone.values())) == dropped
            assert gone[marks[-1]] == []


def test_windows_are_as_long_as_in_t5() -> None:
    # Raffel et al. 2020: sources of 512 tokens are made of 568, and targets have 114: 85 + 28 + the end. The paper's
    # text has one sentinel more after the last span, and so has ours.
    assert window_length(512) == 568
    assert corruption(568) == (85, 28)
    assert 568 - 85 + 28 + 1 == 512
    for context in range(5, 200):
        dropped, count = corruption(window_length(context))
        assert max(window_length(context) - dropped + count + 1, dropped + count + 2) <= context
    with pytest.raises(BadSetting, match="5 or more"):
        window_length(4)
    with pytest.raises(BadSetting, match=r"1,080 tokens has 54 dropped spans, .* has 20 sentinels"):
        SpanCorruptionBatches(pairs(), 973, 1, 0, START, END, range(20))


def test_every_partition_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    cuts = Counter(tuple(random_partition(5, 3, rng)) for _ in range(6000))
    # (1,1,3) (1,2,2) (1,3,1) (2,1,2) (2,2,1) (3,1,1): 4 choose 2
    assert len(cuts) == 6
    assert all(900 < count < 1100 for count in cuts.values())


@pytest.mark.parametrize("bias", [False, True])
def test_smoothed_nats_and_their_gradients_are_those_of_torch(bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight, add = torch.randn(11, 6).double(), torch.randn(9, 6).double(), torch.randn(9).double()
    targets = torch.randint(0, 9, (11,))
    targets[3] = IGNORE_INDEX
    leaves = [each.requires_grad_() for each in (hidden, weight, add)]
    own = cross_entropy.linear_cross_entropy(hidden, weight, targets, add if bias else None, smoothing=0.1)
    logits = hidden @ weight.T + (add if bias else 0)
    theirs = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-9)
    for scale in (torch.ones(11).double(), torch.rand(11).double()):
        mine = torch.autograd.grad((own * scale).sum(), leaves[: 2 + bias], retain_graph=True)
        wanted = torch.autograd.grad((theirs * scale).sum(), leaves[: 2 + bias], retain_graph=True)
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)
        own = cross_entropy.linear_cross_entropy(
            hidden, weight, targets, add if bias else None, smoothing=0.1
        )  # its buffers are spent
    with torch.no_grad():
        torch.testing.assert_close(
            cross_entropy.linear_cross_entropy(hidden, weight, targets, add if bias else None, 0.1), theirs
        )


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_smoothed_and_validation_is_not(name: str) -> None:
    model: Any = shaken(MODELS[name])
    text = pairs(40)
    batch = Seq2SeqBatches(text, 24, 4, 0, START).batch(0)
    logits = model.logits(model.forward(batch.tokens, source=batch.source)[0]).flatten(0, 1)
    for smoothing in (0.0, 0.1):
        objective = Seq2Seq(START, smoothing)
        [term] = objective.loss(model, batch)[0].values()
        wanted = F.cross_entropy(logits, batch.targets.flatten(), reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(term.total, wanted, rtol=1e-9, atol=1e-9)
        assert term.count == objective.count_targets(batch)["target"] == int((batch.targets != IGNORE_INDEX).sum())
    nats, tokens = 0.0, 0
    for pair in range(40):
        source, target = (text.ids[text.starts[i] : text.starts[i + 1]].tolist() for i in (2 * pair, 2 * pair + 1))
        one = seq2seq_batch([source], [target], START)
        nats += model.token_nll(one.tokens, one.targets, source=one.source)[0].sum().item()
        tokens += len(target)
    score = Seq2Seq(START, 0.1).validate(model, text, 24).score
    assert score.nats == pytest.approx(nats, rel=1e-9)
    assert score.tokens == tokens
    assert score.bytes is None
    assert "source" in str(score.reason)
    assert 0 < Seq2Seq(START).validate(model, text, 24, limit=100).score.tokens < tokens


def test_validation_drops_the_same_spans_every_time() -> None:
    model: Any = shaken(replace(MODELS["t5"], vocab=130))
    objective = SpanCorruption(START, END, tuple(range(30, 130)))
    text = SimpleNamespace(ids=np.random.default_rng(0).integers(2, 30, 2000), starts=np.array([0, 2000]))
    first, second = objective.validate(model, text, 24).score, objective.validate(model, text, 24).score
    assert first == second
    assert first.bytes is None
    assert objective.validate(model, text, 24, limit=60).score.tokens < first.tokens
    short = SimpleNamespace(ids=text.ids[:9], starts=np.array([0, 9]))
    assert objective.validate(model, short, 24).score.tokens > 0


@pytest.mark.parametrize("objective", ["seq2seq", "span_corruption"])
def test_micro_batches_and_resuming_change_nothing(objective: str) -> None:
    def trainer(rows: int, parts: int) -> Trainer:
        config = replace(MODELS["t5 1.1"], vocab=VOCAB + 100, dropout=0.0)
        model = build(config, seed=1).double()
        settings = TrainingSettings(
            batch_size=rows, gradient_accumulation_steps=parts, warmup_steps=1, schedule="noam", precision="fp32",
            optimizer="muon", label_smoothing=0.1,
        )  # fmt: skip
        ends = tuple(range(VOCAB, VOCAB + 100))
        what = Seq2Seq(START, 0.1) if objective == "seq2seq" else SpanCorruption(START, END, ends, 0.1)
        return Trainer(model, what, pairs(), settings, steps=6)

    whole = [progress.loss for progress in trainer(8, 1)]
    assert [progress.loss for progress in trainer(2, 4)] == pytest.approx(whole, rel=1e-9)
    first = trainer(8, 1)
    begun = [first.train_step().loss for _ in range(3)]
    second = trainer(8, 1)
    second.load_checkpoint_state(*first.checkpoint_state())
    assert begun + [progress.loss for progress in second] == whole
    assert whole[-1] < whole[0]
    assert second.tokens > 0


@pytest.mark.parametrize("name", MODELS)
def test_eight_pairs_are_memorised(name: str) -> None:
    model = build(replace(MODELS[name], dropout=0.0), seed=1)
    settings = TrainingSettings(
        batch_size=8, learning_rate=0.02, warmup_steps=5, schedule="constant", precision="fp32", weight_decay=0
    )
    losses = [progress.loss for progress in Trainer(model, Seq2Seq(START), pairs(8), settings, steps=80)]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < 0.2 * losses[0]


def test_the_schedule_of_2017() -> None:
    settings = TrainingSettings(schedule="noam", warmup_steps=4000, learning_rate=(512 * 4000) ** -0.5)
    for step in (1, 100, 4000, 16_000, 100_000):  # eq. 3: width^-0.5 · min(step^-0.5, step · warmup^-1.5)
        wanted = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert settings.learning_rate * lr_factor(step - 1, 100_000, settings) == pytest.approx(wanted, rel=1e-12)


def test_an_objective_is_chosen_by_model_and_text() -> None:
    assert [resolve_objective("auto", "encoder-decoder", pairs) for pairs in (True, False)] == [
        "seq2seq",
        "span_corruption",
    ]
    assert resolve_objective("seq2seq", "encoder-decoder", True) == "seq2seq"
    for name, kind, pairs, says in (
        (
            "causal",
            "encoder-decoder",
            False,
            "causal, which does not train an encoder-decoder; .* seq2seq or span_corruption",
        ),
        ("seq2seq", "decoder", True, "seq2seq, which does not train a decoder; objectives that do: causal"),
        ("span_corruption", "encoder-decoder", True, "span_corruption, which is not trained on pairs.* choose seq2seq"),
        ("seq2seq", "encoder-decoder", False, "seq2seq, which is not trained on running text.* choose span_corruption"),
        ("auto", "decoder", True, "a decoder, which is not trained on pairs.* such as clear-translate"),
    ):
        with pytest.raises(BadSetting, match=says):
            resolve_objective(name, kind, pairs)


def test_objectives_use_the_special_tokens_of_a_tokenizer() -> None:
    settings = TrainingSettings(label_smoothing=0.1)
    tokenizer = with_sentinels(train_tokenizer("bytes", []))
    made = objective_spec("span_corruption").make(tokenizer, settings)
    assert made == SpanCorruption(256, 256, tuple(range(257, 357)), 0.1)
    assert objective_spec("seq2seq").make(tokenizer, settings) == Seq2Seq(256, 0.1, 4096)
    pieces = train_tokenizer("wordpiece:60", ["some words " * 9])
    assert objective_spec("seq2seq").make(pieces, settings) == Seq2Seq(0, 0.1, 4096)  # [PAD] starts, [SEP] ends
    larger = TrainingSettings(batch_size=256, gradient_accumulation_steps=2)
    assert objective_spec("seq2seq").make(tokenizer, larger) == Seq2Seq(256, 0.0, 2 * 32 * 256)
    assert isinstance(objective_spec("causal").make(tokenizer, settings), Causal)
