"""Rewrite and denoise: batches as functions of a number, losses by hand, smoothing as torch has it."""

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
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.sentinels import with_sentinels
from clearstory.training.objectives.causal import Causal
from clearstory.training.objectives.seq2seq import SpanCorruption, Seq2Seq
from clearstory.training.objectives.table import OBJECTIVES, choose
from clearstory.training.lr_schedule import lr_factor
from clearstory.training.settings import TrainingSettings
from clearstory.training.sources import Paired, Spans, batch_of, dropping, pieces, window_of
from clearstory.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "vocab": VOCAB, "context": 24, "width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32, "layers": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
WRITERS = {
    "2017": replace(TRANSFORMER_BASE, **SMALL),
    "t5": replace(T5_SMALL, **SMALL),
    "t5 1.1": replace(T5_11_SMALL, **SMALL),
    "marian": replace(MARIAN, **SMALL),
}
END, BEGIN = 1, 0


def pairs(count: int = 200, longest: int = 12) -> SimpleNamespace:
    """Sources of random length, and their targets: the source turned round. Each ends with END."""
    rng = np.random.default_rng(3)
    ids: list[int] = []
    starts = [0]
    for _ in range(count):
        text = rng.integers(2, VOCAB, rng.integers(1, longest)).tolist()
        for side in (text, text[::-1]):
            ids += [*side, END]
            starts.append(len(ids))
    return SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array(starts), byte_lengths=np.ones(VOCAB))


def rows_of(tokens: TokenBatch) -> list[list[int]]:
    lengths = [tokens.ids.shape[1]] * len(tokens.ids) if tokens.lengths is None else tokens.lengths.tolist()
    return [row[:length] for row, length in zip(tokens.ids.tolist(), lengths, strict=True)]


def test_an_epoch_holds_every_pair_once_and_batches_are_of_like_lengths() -> None:
    text = pairs(1000)
    batches = Paired(text, 24, 8, seed=5, begin=BEGIN)
    assert (batches.per_epoch, batches.left_out) == (125, 0)
    for epoch in (0, 1):
        seen: Counter[tuple[int, ...]] = Counter()
        padding = total = 0
        for number in range(epoch * 125, (epoch + 1) * 125):
            batch = batches.batch(number)
            assert batch.source is not None
            targets = [[id for id in row if id != IGNORE_INDEX] for row in batch.targets.tolist()]
            for source, target, read in zip(rows_of(batch.source), targets, rows_of(batch.tokens), strict=True):
                assert source[:-1] == target[:-1][::-1]
                assert source[-1] == target[-1] == END
                assert read == [BEGIN, *target[:-1]]  # teacher forcing: one token late
                seen[tuple(source)] += 1
            padding += int((batch.targets == IGNORE_INDEX).sum())
            total += batch.targets.numel()
        known = Counter(
            tuple(text.ids[a:b].tolist()) for a, b in zip(text.starts[:-1:2], text.starts[1::2], strict=True)
        )
        assert seen == known
        assert padding < 0.06 * total
    assert rows_of(batches.batch(0).tokens) != rows_of(batches.batch(125).tokens)


def test_a_batch_is_a_function_of_its_number() -> None:
    for make in (lambda: Paired(pairs(), 24, 8, 5, BEGIN), lambda: spans(8)):
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
    batches = Paired(text, 8, 8, 0, BEGIN)
    assert batches.left_out == (sizes > 8).sum() > 0
    assert all(batches.batch(number).tokens.ids.shape[1] <= 8 for number in range(batches.per_epoch))
    with pytest.raises(BadInput, match=r"there are 0 pairs \(of 200: the others .* more than 1 tokens\)"):
        Paired(text, 1, 8, 0, BEGIN)
    with pytest.raises(BadInput, match="there are 200 pairs, and a batch takes 201"):
        Paired(text, 24, 201, 0, BEGIN)


def spans(batch_size: int = 4, context: int = 32) -> Spans:
    text = SimpleNamespace(ids=np.arange(2, 900, dtype=np.uint16), starts=np.array([0, 898]))
    return Spans(text, context, batch_size, 3, BEGIN, END, range(1000, 1100))


def test_spans_put_back_give_the_text() -> None:
    batches = spans()
    dropped, count = dropping(batches.length)
    for number in range(20):
        batch = batches.batch(number)
        assert batch.source is not None
        assert batch.source.ids.shape == (4, batches.length - dropped + count + 1)
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
            assert text == list(range(text[0], text[0] + batches.length))
            assert sum(map(len, gone.values())) == dropped
            assert gone[marks[-1]] == []


def test_windows_are_as_t5_has_them() -> None:
    # Raffel et al. 2020: sources of 512 tokens are made of 568, and targets have 114: 85 + 28 + the end. The paper's
    # text has one sentinel more behind the last span, and so have we.
    assert window_of(512) == 568
    assert dropping(568) == (85, 28)
    assert 568 - 85 + 28 + 1 == 512
    for context in range(5, 200):
        dropped, count = dropping(window_of(context))
        assert max(window_of(context) - dropped + count + 1, dropped + count + 2) <= context
    with pytest.raises(BadSetting, match="5 or more"):
        window_of(4)
    with pytest.raises(BadSetting, match=r"1,080 tokens has 54 spans .* knows 20 sentinels"):
        Spans(pairs(), 973, 1, 0, BEGIN, END, range(20))


def test_every_way_to_cut_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    cuts = Counter(tuple(pieces(5, 3, rng)) for _ in range(6000))
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
        own = cross_entropy.linear_cross_entropy(hidden, weight, targets, add if bias else None, smoothing=0.1)  # its buffers are spent
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy.linear_cross_entropy(hidden, weight, targets, add if bias else None, 0.1), theirs)


@pytest.mark.parametrize("name", WRITERS)
def test_the_loss_is_smoothed_and_looks_are_not(name: str) -> None:
    model: Any = shaken(WRITERS[name])
    text = pairs(40)
    batch = Paired(text, 24, 4, 0, BEGIN).batch(0)
    logits = model.logits(model.forward(batch.tokens, source=batch.source)[0]).flatten(0, 1)
    for smoothing in (0.0, 0.1):
        objective = Seq2Seq(BEGIN, smoothing)
        [term] = objective.loss(model, batch)[0].values()
        wanted = F.cross_entropy(logits, batch.targets.flatten(), reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(term.total, wanted, rtol=1e-9, atol=1e-9)
        assert term.count == objective.counts(batch)["target"] == int((batch.targets != IGNORE_INDEX).sum())
    nats, tokens = 0.0, 0
    for pair in range(40):
        source, target = (text.ids[text.starts[i] : text.starts[i + 1]].tolist() for i in (2 * pair, 2 * pair + 1))
        one = batch_of([source], [target], BEGIN)
        nats += model.token_nll(one.tokens, one.targets, source=one.source)[0].sum().item()
        tokens += len(target)
    score = Seq2Seq(BEGIN, 0.1).look(model, text, 24)
    assert score.nats == pytest.approx(nats, rel=1e-9)
    assert score.tokens == tokens
    assert score.bytes is None
    assert "source" in str(score.reason)
    assert 0 < Seq2Seq(BEGIN).look(model, text, 24, limit=100).tokens < tokens


def test_looks_at_dropped_spans_are_always_the_same() -> None:
    model: Any = shaken(replace(WRITERS["t5"], vocab=130))
    objective = SpanCorruption(BEGIN, END, tuple(range(30, 130)))
    text = SimpleNamespace(ids=np.random.default_rng(0).integers(2, 30, 2000), starts=np.array([0, 2000]))
    first, second = objective.look(model, text, 24), objective.look(model, text, 24)
    assert first == second
    assert first.bytes is None
    assert objective.look(model, text, 24, limit=60).tokens < first.tokens
    short = SimpleNamespace(ids=text.ids[:9], starts=np.array([0, 9]))
    assert objective.look(model, short, 24).tokens > 0


@pytest.mark.parametrize("objective", ["rewrite", "denoise"])
def test_micro_batches_and_resuming_change_nothing(objective: str) -> None:
    def trainer(rows: int, parts: int) -> Trainer:
        config = replace(WRITERS["t5 1.1"], vocab=VOCAB + 100, dropout=0.0)
        model = build(config, seed=1).double()
        settings = TrainingSettings(
            batch_size=rows, gradient_accumulation_steps=parts, warmup_steps=1, schedule="noam", precision="fp32",
            optimizer="muon", label_smoothing=0.1,
        )  # fmt: skip
        ends = tuple(range(VOCAB, VOCAB + 100))
        what = Seq2Seq(BEGIN, 0.1) if objective == "rewrite" else SpanCorruption(BEGIN, END, ends, 0.1)
        return Trainer(model, what, pairs(), settings, steps=6)

    whole = [progress.loss for progress in trainer(8, 1)]
    assert [progress.loss for progress in trainer(2, 4)] == pytest.approx(whole, rel=1e-9)
    first = trainer(8, 1)
    begun = [first.advance().loss for _ in range(3)]
    second = trainer(8, 1)
    second.load_checkpoint_state(*first.checkpoint_state())
    assert begun + [progress.loss for progress in second] == whole
    assert whole[-1] < whole[0]
    assert second.tokens > 0


@pytest.mark.parametrize("name", WRITERS)
def test_eight_pairs_are_learnt_by_heart(name: str) -> None:
    model = build(replace(WRITERS[name], dropout=0.0), seed=1)
    settings = TrainingSettings(
        batch_size=8, learning_rate=0.02, warmup_steps=5, schedule="constant", precision="fp32", weight_decay=0
    )
    losses = [progress.loss for progress in Trainer(model, Seq2Seq(BEGIN), pairs(8), settings, steps=150)]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < 0.2 * losses[0]


def test_the_schedule_of_2017() -> None:
    settings = TrainingSettings(schedule="noam", warmup_steps=4000, learning_rate=(512 * 4000) ** -0.5)
    for step in (1, 100, 4000, 16_000, 100_000):  # eq. 3: width^-0.5 · min(step^-0.5, step · warmup^-1.5)
        wanted = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert settings.learning_rate * lr_factor(step - 1, 100_000, settings) == pytest.approx(wanted, rel=1e-12)


def test_an_objective_is_chosen_by_model_and_text() -> None:
    assert [choose("auto", "encoder-decoder", pairs) for pairs in (True, False)] == ["rewrite", "denoise"]
    assert choose("rewrite", "encoder-decoder", True) == "rewrite"
    for name, kind, pairs, says in (
        ("causal", "encoder-decoder", False, "causal, which does not teach an encoder-decoder; .* rewrite or denoise"),
        ("rewrite", "decoder", True, "rewrite, which does not teach a decoder; what teaches one: causal"),
        ("denoise", "encoder-decoder", True, "denoise, which does not learn from pairs.* choose rewrite"),
        ("rewrite", "encoder-decoder", False, "rewrite, which does not learn from running text.* choose denoise"),
        ("auto", "decoder", True, "a decoder, which does not learn from pairs.* such as clear-translate"),
    ):
        with pytest.raises(BadSetting, match=says):
            choose(name, kind, pairs)


def test_objectives_are_made_in_a_tokenizers_own_tokens() -> None:
    settings = TrainingSettings(label_smoothing=0.1)
    tokenizer = with_sentinels(train_tokenizer("bytes", []))
    made = OBJECTIVES["denoise"].make(tokenizer, settings)
    assert made == SpanCorruption(256, 256, tuple(range(257, 357)), 0.1)
    assert OBJECTIVES["rewrite"].make(tokenizer, settings) == Seq2Seq(256, 0.1)
    pieces = train_tokenizer("wordpiece:60", ["some words " * 9])
    assert OBJECTIVES["rewrite"].make(pieces, settings) == Seq2Seq(0, 0.1)  # [PAD] begins, [SEP] ends
    assert isinstance(OBJECTIVES["causal"].make(tokenizer, settings), Causal)
