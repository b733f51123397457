"""Masked tokens and next sentences: laws of what is hidden, of pairs, and of learning by both."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import BERT_TINY
from clearstory.evaluation.pseudo_likelihood import Frame, pseudo_nll
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.exam import score_masked
from clearstory.training.masking import Masking
from clearstory.training.objectives.mlm import MLM, MaskedWindowBatches
from clearstory.training.objectives.table import OBJECTIVES, choose
from clearstory.training.pairs import Pairs
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

VOCAB, FIRST, LAST, MASK = 40, 2, 3, 4
SPECIAL = np.arange(VOCAB) < 5
INSIDE = (np.arange(VOCAB) >= 20) & (np.arange(VOCAB) < 30)
MASKING = Masking(MASK, FIRST, LAST, np.arange(5, VOCAB), SPECIAL)
WHOLE = replace(MASKING, inside=INSIDE)
CONTEXT = 24
TINY = replace(
    BERT_TINY, vocab=VOCAB, context=CONTEXT, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
)
SETTINGS = TrainingSettings(batch_size=4, warmup_steps=2, precision="fp32", compile="off", device="cpu")


def sentence_rows(documents: int = 12, sentences: int = 9, seed: int = 0) -> Any:
    """Sentences whose tokens tell their document (5 + its number), so that a pair shows whether it was torn apart."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    starts = [0]
    for document in range(documents):
        for _ in range(int(rng.integers(2, sentences))):
            ids += [5 + document % 12, *rng.integers(5, VOCAB, int(rng.integers(1, 6))).tolist()]
            starts.append(len(ids))
        starts.append(len(ids))  # a document's end
    return SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array(starts), byte_lengths=np.ones(VOCAB))


def test_of_every_row_fifteen_per_cent_are_to_be_told_and_never_a_special_token() -> None:
    rows = np.random.default_rng(0).integers(0, VOCAB, (50, 102))
    shown, targets = MASKING.draw(rows, np.random.default_rng(1))
    asked = targets != IGNORE_INDEX
    assert (asked.sum(1) == np.round(0.15 * (~SPECIAL[rows]).sum(1))).all()
    assert not SPECIAL[targets[asked]].any()
    assert (targets[asked] == rows[asked]).all()
    assert (shown[~asked] == rows[~asked]).all()


def test_eight_of_ten_are_masked_one_is_another_and_one_stays() -> None:
    rows = np.random.default_rng(0).integers(5, VOCAB, (400, 100))
    shown, targets = MASKING.draw(rows, np.random.default_rng(1))
    asked = targets != IGNORE_INDEX
    kinds = shown[asked]
    # 6,000 tokens: two standard deviations are at most 0.0104. Another token is the same by chance once in 35 times.
    assert asked.sum() == 400 * 15
    assert (kinds == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (kinds == targets[asked]).mean() == pytest.approx(0.1 + 0.1 / 35, abs=0.02)
    others = kinds[(kinds != MASK) & (kinds != targets[asked])]
    assert set(others) <= set(range(5, VOCAB))
    assert len(set(others)) > 25


def test_whole_words_are_hidden_whole() -> None:
    rows = np.random.default_rng(0).integers(5, VOCAB, (200, 60))
    _, targets = WHOLE.draw(rows, np.random.default_rng(1))
    asked = targets != IGNORE_INDEX
    continues = INSIDE[rows][:, 1:]
    assert (asked[:, 1:][continues] == asked[:, :-1][continues]).all()
    assert (asked.sum(1) <= round(0.15 * 60)).mean() > 0.95  # a single word may be longer than all that is to be hidden
    assert asked.sum(1).min() >= 1
    plain = MASKING.draw(rows, np.random.default_rng(1))[1] != IGNORE_INDEX
    assert (plain[:, 1:][continues] != plain[:, :-1][continues]).any()


@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_functions_of_seed_and_number(pairs: bool) -> None:
    rows, objective = sentence_rows(), MLM(MASKING, pairs)
    one, other = (objective.batches(rows, CONTEXT, 4, seed=3) for _ in range(2))
    late = one.batch(40)
    for number in (40, 3, 0):
        again = other.batch(number)
    again = other.batch(40)
    for name in ("targets", "segments", "strangers"):
        left, right = getattr(late, name), getattr(again, name)
        assert left is right is None or torch.equal(left, right)
    assert torch.equal(late.tokens.ids, again.tokens.ids)
    elsewhere = objective.batches(rows, CONTEXT, 4, seed=4).batch(40)
    assert elsewhere.tokens.ids.shape != late.tokens.ids.shape or not torch.equal(elsewhere.tokens.ids, late.tokens.ids)


def test_windows_stand_between_their_marks() -> None:
    rows = SimpleNamespace(ids=np.arange(500) % 30 + 5)
    batch = MaskedWindowBatches(rows, 20, 8, 0, MASKING).batch(1)
    ids = torch.where(batch.targets == IGNORE_INDEX, batch.tokens.ids, batch.targets)
    assert (ids[:, 0] == FIRST).all()
    assert (ids[:, -1] == LAST).all()
    assert ((ids[:, 2:-1] - ids[:, 1:-2]) % 30 == 1).all()
    assert batch.tokens.lengths is None


def test_half_of_the_pairs_follow_each_other_and_the_others_are_strangers() -> None:
    rows = sentence_rows(documents=12, sentences=30)
    pairs = Pairs(rows, CONTEXT, 8, seed=0, masking=MASKING)
    ends = np.flatnonzero(np.diff(rows.starts) == 0)
    document_of = np.searchsorted(rows.starts[ends], np.arange(len(rows.ids)), side="right")
    begins = set(rows.starts.tolist())
    seen = [pair for number in range(30) for pair in pairs.epoch(number)]
    for a, b, c, d, is_not_next in seen:
        assert a < b
        assert c < d
        assert b - a + d - c <= CONTEXT - 3
        assert {a, b, c} <= begins
        assert (document_of[a] != document_of[c]) == is_not_next
        assert document_of[a] == document_of[b - 1]
        assert document_of[c] == document_of[d - 1]
        assert is_not_next or b == c
    share = np.mean([pair.is_not_next for pair in seen])
    assert share == pytest.approx(0.5, abs=3 * 0.5 / len(seen) ** 0.5)
    # Their lengths do not tell: both fill the room as far as sentences let them.
    sizes = [[p.b - p.a + p.d - p.c for p in seen if p.is_not_next == kind] for kind in (False, True)]
    assert np.mean(sizes[0]) == pytest.approx(np.mean(sizes[1]), rel=0.1)


def test_an_epoch_reads_nearly_everything_and_the_next_one_otherwise() -> None:
    rows = sentence_rows(documents=10, sentences=30)
    pairs = Pairs(rows, CONTEXT, 8, seed=0, masking=MASKING)
    read = np.zeros(len(rows.ids), bool)
    for a, b, _, d, is_not_next in pairs.epoch(0):
        read[a : b if is_not_next else d] = True
    assert read.mean() > 0.9  # a document's last sentence may have none after it
    assert pairs.epoch(0) != pairs.epoch(1)
    assert len({pairs.epoch(0)[0], pairs.epoch(0)[1]}) == 2


def test_a_batch_of_pairs_is_framed_and_padded() -> None:
    rows = sentence_rows()
    pairs = Pairs(rows, CONTEXT, 6, seed=1, masking=MASKING)
    batch = pairs.batch(0)
    lengths, segments = batch.tokens.lengths, batch.segments
    assert lengths is not None
    assert segments is not None
    assert batch.is_not_next is not None
    ids = torch.where(batch.targets == IGNORE_INDEX, batch.tokens.ids, batch.targets)
    for row, second, length, stranger, pair in zip(
        ids, segments, lengths, batch.is_not_next, pairs.epoch(0)[:6], strict=True
    ):
        one, other = rows.ids[pair.a : pair.b].tolist(), rows.ids[pair.c : pair.d].tolist()
        assert row[:length].tolist() == [FIRST, *one, LAST, *other, LAST]
        assert second[:length].tolist() == [0] * (len(one) + 2) + [1] * (len(other) + 1)
        assert bool(stranger) == pair.is_not_next
    padding = torch.arange(ids.shape[1]) >= lengths[:, None]
    assert (batch.targets[padding] == IGNORE_INDEX).all()


def test_sentences_longer_than_the_room_are_cut_and_none_is_lost() -> None:
    ids = np.arange(200) % 30 + 5
    rows = SimpleNamespace(ids=ids, starts=np.array([0, 100, 100, 200, 200]), byte_lengths=np.ones(VOCAB))
    pairs = Pairs(rows, CONTEXT, 2, seed=0, masking=MASKING)
    assert all(pair.b - pair.a + pair.d - pair.c <= CONTEXT - 3 for pair in pairs.epoch(0))
    assert max(pair.b for pair in pairs.epoch(0)) > 180


def test_text_without_pairs_is_refused() -> None:
    whole = sentence_rows(documents=1)
    with pytest.raises(BadInput, match=r"has 1; give more documents .*--objective mlm"):
        Pairs(whole, CONTEXT, 2, 0, MASKING)
    ids = np.arange(5, 17)
    single = SimpleNamespace(ids=ids, starts=np.array([0, 6, 6, 12, 12]), byte_lengths=np.ones(VOCAB))
    with pytest.raises(BadInput, match="none of the 2 documents has two sentences"):
        Pairs(single, CONTEXT, 2, 0, MASKING)
    with pytest.raises(BadSetting, match="no room"):
        Pairs(sentence_rows(), 7, 2, 0, MASKING)


def trainer(pairs: bool = True, settings: TrainingSettings = SETTINGS, steps: int = 6, **kind: Any) -> Trainer:
    model = build(replace(TINY, dropout=kind.pop("dropout", 0.0)), seed=settings.seed)
    return Trainer(model.to(**kind), MLM(MASKING, pairs), sentence_rows(), settings, steps=steps)


@pytest.mark.parametrize("pairs", [False, True])
def test_micro_batches_give_the_loss_of_one(pairs: bool) -> None:
    """Rows differ in how many tokens are hidden, so a mean of means would not."""
    whole = trainer(pairs, dtype=torch.float64)
    settings = replace(SETTINGS, batch_size=1, gradient_accumulation_steps=4)
    for one, four in zip(whole, trainer(pairs, settings, dtype=torch.float64), strict=True):
        assert four.loss == pytest.approx(one.loss, rel=1e-9)
        assert four.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-9)
        assert one.terms is not None
        assert set(one.terms) == ({"masked", "next-sentence"} if pairs else {"masked"})
        assert sum(one.terms.values()) == pytest.approx(one.loss)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(pairs: bool, precision: Any) -> None:
    settings = replace(SETTINGS, optimizer="muon", gradient_accumulation_steps=2, precision=precision)
    straight = trainer(pairs, settings, dropout=0.1, steps=7)
    losses = [p.loss for p in straight]
    first = trainer(pairs, settings, dropout=0.1, steps=7)
    before = [first.advance().loss for _ in range(3)]
    tensors, values = first.checkpoint_state()
    second = trainer(pairs, settings, dropout=0.1, steps=99)
    second.load_checkpoint_state({name: tensor.clone() for name, tensor in tensors.items()}, values)
    assert before + [p.loss for p in second] == losses
    for name, value in straight.checkpoint_state()[0].items():
        assert torch.equal(value, second.checkpoint_state()[0][name]), name


def test_padding_in_bf16_is_as_unseen_as_in_fp32() -> None:
    """There attention is reckoned by hand, under a mask for each row."""
    model = build(TINY, seed=0).eval()
    model.compute_dtype = torch.bfloat16
    ids = torch.randint(5, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([12, 7])
    with torch.no_grad():
        both = model.encode(TokenBatch(ids, lengths))
        other = model.encode(TokenBatch(torch.where(torch.arange(12) < lengths[:, None], ids, 9), lengths))
        alone = model.encode(TokenBatch(ids[1:, :7]))
    assert torch.equal(both[1, :7], other[1, :7])
    torch.testing.assert_close(both[1, :7], alone[0], rtol=0.05, atol=0.05)


def two_languages(documents: int, seed: int) -> Any:
    """Documents of tokens 5 to 21, and of tokens 23 to 39."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, 22, (8, 5)) + 18 * (number % 2) for number in range(documents)]
    starts = [0]
    for number in range(documents):
        starts += [*range(40 * number + 5, 40 * number + 41, 5), 40 * number + 40]
    return SimpleNamespace(ids=np.concatenate(rows).ravel(), starts=np.array(starts), byte_lengths=np.ones(VOCAB))


def test_two_languages_are_told_apart_word_by_word_and_pair_by_pair() -> None:
    """Half of the strangers speak the other language, and no pair that follows does: 3 of 4 can be told.

    A token of 34 costs ln 34 = 3.5 nats at least, one of the language that is spoken around it ln 17 = 2.8.
    """
    settings = replace(SETTINGS, batch_size=16, optimizer="muon", learning_rate=0.01, warmup_steps=20)
    model = build(replace(TINY, dropout=0.0), seed=0)
    objective, exam = MLM(MASKING, pairs=True), two_languages(20, seed=1)
    before = score_masked(model.eval(), objective, exam, CONTEXT)
    assert before.nats / before.tokens == pytest.approx(np.log(VOCAB), abs=0.3)
    for _ in Trainer(model, objective, two_languages(60, seed=0), settings, steps=150):
        pass
    after = score_masked(model.eval(), objective, exam, CONTEXT)
    assert np.log(17) - 0.05 < after.nats / after.tokens < 3.2
    assert after.accuracy is not None
    assert after.accuracy > 0.65


@pytest.mark.parametrize("pairs", [False, True])
def test_an_exam_asks_the_same_of_everyone_and_once_of_everything(pairs: bool) -> None:
    model, rows = build(TINY, seed=0).eval(), sentence_rows(documents=60)
    objective = MLM(MASKING, pairs)
    whole = score_masked(model, objective, rows, CONTEXT)
    assert whole == score_masked(model, objective, rows, CONTEXT)
    batches = objective.batches(rows, CONTEXT, 16, 0)
    counted = Counter[str]()
    for number in range(-(-batches.per_epoch // 16)):
        counted.update(objective.counts(batches.batch(number).rows(0, batches.per_epoch - 16 * number)))
    assert (whole.tokens, whole.pairs) == (counted["masked"], counted["next-sentence"])
    some = score_masked(model, objective, rows, CONTEXT, limit=50)
    assert 0 < some.tokens < whole.tokens
    assert score_masked(model, objective, rows, CONTEXT, seed=1) != whole


def test_pseudo_likelihood_masks_one_token_at_a_time() -> None:
    model: Any = build(TINY, seed=0).double().eval()
    ids = [5, 9, 7, 30]
    found = pseudo_nll(model, ids, Frame(FIRST, LAST, MASK), [0, 2])
    for place, nats in zip((0, 2), found, strict=True):
        whole = [FIRST, *ids, LAST]
        whole[place + 1] = MASK
        logs = model.logits(model.encode(TokenBatch.from_sequences([whole]))[0, place + 1]).log_softmax(-1).detach()
        assert float(nats) == pytest.approx(-float(logs[ids[place]]), rel=1e-6)


def test_objectives_teach_the_kinds_they_are_for() -> None:
    assert choose("auto", "decoder") == "causal"
    assert choose("auto", "encoder") == "masked"
    assert choose("mlm+nsp", "encoder") == "mlm+nsp"
    with pytest.raises(BadSetting, match=r"does not teach an encoder; what teaches one: masked or masked\+next"):
        choose("causal", "encoder")
    with pytest.raises(BadSetting, match="objective is masked, which does not teach a decoder"):
        choose("masked", "decoder")


def test_whole_words_come_from_the_settings() -> None:
    tokenizer = train_tokenizer("wordpiece:60", ["the cats sat and slept " * 3])
    made: Any = OBJECTIVES["masked"].make(tokenizer, replace(SETTINGS, whole_words=True))
    assert made.masking.inside is not None
    plain: Any = OBJECTIVES["masked"].make(tokenizer, SETTINGS)
    assert plain.masking.inside is None
