"""Masked language modelling and next-sentence prediction: masking, batches of pairs, the loss and its evaluation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.evaluation.pseudo_likelihood import MaskingTokens, pseudo_nll
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import BERT_TINY
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import objectives
from clearstory.training.masked_batches import MaskedWindowBatches, SentencePairBatches, TokenMasking
from clearstory.training.objectives.mlm import MLM
from clearstory.training.objectives.table import OBJECTIVES, objective_spec, resolve_objective
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

VOCAB, CLS, SEP, MASK = 40, 2, 3, 4
SPECIAL = np.arange(VOCAB) < 5
CONTINUATION = (np.arange(VOCAB) >= 20) & (np.arange(VOCAB) < 30)
MASKING = TokenMasking(MASK, CLS, SEP, np.arange(5, VOCAB), SPECIAL)
WHOLE_WORDS = replace(MASKING, is_continuation=CONTINUATION)
CONTEXT = 24
TINY = replace(
    BERT_TINY, vocab=VOCAB, context=CONTEXT, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
)
SETTINGS = TrainingSettings(batch_size=4, warmup_steps=2, precision="fp32", compile="off", device="cpu")


def sentence_dataset(documents: int = 12, sentences: int = 9, seed: int = 0) -> Any:
    """Sentences whose first token is that of their document (5 + its number)."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    starts = [0]
    for document in range(documents):
        for _ in range(int(rng.integers(2, sentences))):
            ids += [5 + document % 12, *rng.integers(5, VOCAB, int(rng.integers(1, 6))).tolist()]
            starts.append(len(ids))
        starts.append(len(ids))  # a document's end
    return SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array(starts), byte_lengths=np.ones(VOCAB))


def test_fifteen_per_cent_of_every_sequence_are_predicted_and_never_a_special_token() -> None:
    rows = np.random.default_rng(0).integers(0, VOCAB, (50, 102))
    inputs, targets = MASKING.sample(rows, np.random.default_rng(1))
    predicted = targets != IGNORE_INDEX
    assert (predicted.sum(1) == np.round(0.15 * (~SPECIAL[rows]).sum(1))).all()
    assert not SPECIAL[targets[predicted]].any()
    assert (targets[predicted] == rows[predicted]).all()
    assert (inputs[~predicted] == rows[~predicted]).all()


def test_eight_of_ten_are_replaced_by_mask_one_by_a_random_token_and_one_stays() -> None:
    rows = np.random.default_rng(0).integers(5, VOCAB, (400, 100))
    inputs, targets = MASKING.sample(rows, np.random.default_rng(1))
    predicted = targets != IGNORE_INDEX
    kinds = inputs[predicted]
    # 6,000 tokens: two standard deviations are at most 0.0104. Another token is the same by chance once in 35 times.
    assert predicted.sum() == 400 * 15
    assert (kinds == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (kinds == targets[predicted]).mean() == pytest.approx(0.1 + 0.1 / 35, abs=0.02)
    others = kinds[(kinds != MASK) & (kinds != targets[predicted])]
    assert set(others) <= set(range(5, VOCAB))
    assert len(set(others)) > 25


def test_whole_words_are_masked_as_a_whole() -> None:
    rows = np.random.default_rng(0).integers(5, VOCAB, (200, 60))
    _, targets = WHOLE_WORDS.sample(rows, np.random.default_rng(1))
    predicted = targets != IGNORE_INDEX
    continues = CONTINUATION[rows][:, 1:]
    assert (predicted[:, 1:][continues] == predicted[:, :-1][continues]).all()
    assert (
        predicted.sum(1) <= round(0.15 * 60)
    ).mean() > 0.95  # a single word may be longer than the share to be masked
    assert predicted.sum(1).min() >= 1
    plain = MASKING.sample(rows, np.random.default_rng(1))[1] != IGNORE_INDEX
    assert (plain[:, 1:][continues] != plain[:, :-1][continues]).any()


@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_functions_of_seed_and_number(pairs: bool) -> None:
    rows, objective = sentence_dataset(), MLM(MASKING, pairs)
    one, other = (objective.batches(rows, CONTEXT, 4, seed=3) for _ in range(2))
    late = one.batch(40)
    for number in (40, 3, 0):
        again = other.batch(number)
    again = other.batch(40)
    for name in ("targets", "token_type_ids", "is_not_next"):
        left, right = getattr(late, name), getattr(again, name)
        assert left is right is None or torch.equal(left, right)
    assert torch.equal(late.tokens.ids, again.tokens.ids)
    elsewhere = objective.batches(rows, CONTEXT, 4, seed=4).batch(40)
    assert elsewhere.tokens.ids.shape != late.tokens.ids.shape or not torch.equal(elsewhere.tokens.ids, late.tokens.ids)


def test_windows_are_between_cls_and_sep() -> None:
    rows = SimpleNamespace(ids=np.arange(500) % 30 + 5)
    batch = MaskedWindowBatches(rows, 20, 8, 0, MASKING).batch(1)
    ids = torch.where(batch.targets == IGNORE_INDEX, batch.tokens.ids, batch.targets)
    assert (ids[:, 0] == CLS).all()
    assert (ids[:, -1] == SEP).all()
    assert ((ids[:, 2:-1] - ids[:, 1:-2]) % 30 == 1).all()
    assert batch.tokens.lengths is None


def test_half_of_the_pairs_are_adjacent_and_the_others_random() -> None:
    rows = sentence_dataset(documents=12, sentences=30)
    pairs = SentencePairBatches(rows, CONTEXT, 8, seed=0, masking=MASKING)
    ends = np.flatnonzero(np.diff(rows.starts) == 0)
    document_of = np.searchsorted(rows.starts[ends], np.arange(len(rows.ids)), side="right")
    begins = set(rows.starts.tolist())
    seen = [pair for number in range(30) for pair in pairs.epoch_pairs(number)]
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
    # Lengths do not reveal the class: both fill the room as far as sentences allow.
    sizes = [[p.b - p.a + p.d - p.c for p in seen if p.is_not_next == kind] for kind in (False, True)]
    assert np.mean(sizes[0]) == pytest.approx(np.mean(sizes[1]), rel=0.1)


def test_an_epoch_reads_nearly_everything_and_the_next_one_differs() -> None:
    rows = sentence_dataset(documents=10, sentences=30)
    pairs = SentencePairBatches(rows, CONTEXT, 8, seed=0, masking=MASKING)
    read = np.zeros(len(rows.ids), bool)
    for a, b, _, d, is_not_next in pairs.epoch_pairs(0):
        read[a : b if is_not_next else d] = True
    assert read.mean() > 0.9  # a document's last sentence may have none after it
    assert pairs.epoch_pairs(0) != pairs.epoch_pairs(1)
    assert len({pairs.epoch_pairs(0)[0], pairs.epoch_pairs(0)[1]}) == 2


def test_a_batch_of_pairs_has_special_tokens_and_padding() -> None:
    rows = sentence_dataset()
    pairs = SentencePairBatches(rows, CONTEXT, 6, seed=1, masking=MASKING)
    batch = pairs.batch(0)
    lengths, token_type_ids = batch.tokens.lengths, batch.token_type_ids
    assert lengths is not None
    assert token_type_ids is not None
    assert batch.is_not_next is not None
    ids = torch.where(batch.targets == IGNORE_INDEX, batch.tokens.ids, batch.targets)
    for row, types, length, is_not_next, pair in zip(
        ids, token_type_ids, lengths, batch.is_not_next, pairs.epoch_pairs(0)[:6], strict=True
    ):
        one, other = rows.ids[pair.a : pair.b].tolist(), rows.ids[pair.c : pair.d].tolist()
        assert row[:length].tolist() == [CLS, *one, SEP, *other, SEP]
        assert types[:length].tolist() == [0] * (len(one) + 2) + [1] * (len(other) + 1)
        assert bool(is_not_next) == pair.is_not_next
    padding = torch.arange(ids.shape[1]) >= lengths[:, None]
    assert (batch.targets[padding] == IGNORE_INDEX).all()


def test_sentences_too_long_are_cut_and_none_is_lost() -> None:
    ids = np.arange(200) % 30 + 5
    rows = SimpleNamespace(ids=ids, starts=np.array([0, 100, 100, 200, 200]), byte_lengths=np.ones(VOCAB))
    pairs = SentencePairBatches(rows, CONTEXT, 2, seed=0, masking=MASKING)
    assert all(pair.b - pair.a + pair.d - pair.c <= CONTEXT - 3 for pair in pairs.epoch_pairs(0))
    assert max(pair.b for pair in pairs.epoch_pairs(0)) > 180


def test_text_without_pairs_is_refused() -> None:
    whole = sentence_dataset(documents=1)
    with pytest.raises(BadInput, match=r"has 1; give more documents .*--objective mlm"):
        SentencePairBatches(whole, CONTEXT, 2, 0, MASKING)
    ids = np.arange(5, 17)
    single = SimpleNamespace(ids=ids, starts=np.array([0, 6, 6, 12, 12]), byte_lengths=np.ones(VOCAB))
    with pytest.raises(BadInput, match="none of the 2 documents has two sentences"):
        SentencePairBatches(single, CONTEXT, 2, 0, MASKING)
    with pytest.raises(BadSetting, match="too short for two texts"):
        SentencePairBatches(sentence_dataset(), 7, 2, 0, MASKING)


def trainer(pairs: bool = True, settings: TrainingSettings = SETTINGS, steps: int = 6, **kind: Any) -> Trainer:
    model = build(replace(TINY, dropout=kind.pop("dropout", 0.0)), seed=settings.seed)
    return Trainer(model.to(**kind), MLM(MASKING, pairs), sentence_dataset(), settings, steps=steps)


@pytest.mark.parametrize("pairs", [False, True])
def test_micro_batches_give_the_loss_of_one(pairs: bool) -> None:
    """Sequences differ in how many tokens are masked, so a mean of means would differ."""
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
    before = [first.train_step().loss for _ in range(3)]
    tensors, values = first.checkpoint_state()
    second = trainer(pairs, settings, dropout=0.1, steps=99)
    second.load_checkpoint_state({name: tensor.clone() for name, tensor in tensors.items()}, values)
    assert before + [p.loss for p in second] == losses
    for name, value in straight.checkpoint_state()[0].items():
        assert torch.equal(value, second.checkpoint_state()[0][name]), name


def test_padding_is_ignored_in_bf16_as_in_fp32() -> None:
    """In bf16 attention is computed with an explicit mask for each row."""
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


def test_two_languages_are_learned_by_token_and_by_pair() -> None:
    """Half of the random pairs mix the languages, and no adjacent pair does: 3 of 4 can be classified.

    A token of 34 costs at least ln 34 = 3.5 nats, one of the language of its context ln 17 = 2.8.
    """
    settings = replace(SETTINGS, batch_size=16, optimizer="muon", learning_rate=0.01, warmup_steps=20)
    model = build(replace(TINY, dropout=0.0), seed=0)
    objective, held_out = MLM(MASKING, next_sentence=True), two_languages(20, seed=1)
    before = objective.score(model.eval(), held_out, CONTEXT)
    assert before.nats / before.tokens == pytest.approx(np.log(VOCAB), abs=0.3)
    for _ in Trainer(model, objective, two_languages(60, seed=0), settings, steps=150):
        pass
    after = objective.score(model.eval(), held_out, CONTEXT)
    assert np.log(17) - 0.05 < after.nats / after.tokens < 3.2
    assert after.accuracy is not None
    assert after.accuracy > 0.65


@pytest.mark.parametrize("pairs", [False, True])
def test_evaluation_masks_the_same_tokens_every_time_and_reads_everything_once(pairs: bool) -> None:
    model, rows = build(TINY, seed=0).eval(), sentence_dataset(documents=60)
    objective = MLM(MASKING, pairs)
    whole = objective.score(model, rows, CONTEXT)
    assert whole == objective.score(model, rows, CONTEXT)
    batches = objective.batches(rows, CONTEXT, 16, 0)
    counted = Counter[str]()
    for number in range(-(-batches.examples_per_epoch // 16)):
        counted.update(
            objective.count_targets(batches.batch(number).micro_batch(0, batches.examples_per_epoch - 16 * number))
        )
    assert (whole.tokens, whole.pairs) == (counted["masked"], counted["next-sentence"])
    some = objective.score(model, rows, CONTEXT, limit=50)
    assert 0 < some.tokens < whole.tokens
    assert objective.score(model, rows, CONTEXT, seed=1) != whole


def test_pseudo_likelihood_masks_one_token_at_a_time() -> None:
    model: Any = build(TINY, seed=0).double().eval()
    ids = [5, 9, 7, 30]
    found = pseudo_nll(model, ids, MaskingTokens(CLS, SEP, MASK), [0, 2])
    for place, nats in zip((0, 2), found, strict=True):
        whole = [CLS, *ids, SEP]
        whole[place + 1] = MASK
        logs = model.logits(model.encode(TokenBatch.from_sequences([whole]))[0, place + 1]).log_softmax(-1).detach()
        assert float(nats) == pytest.approx(-float(logs[ids[place]]), rel=1e-6)


def test_the_names_people_type_are_those_of_the_table() -> None:
    modules = {module.name for module in iter_modules(objectives.__path__)} - {"base", "table"}
    specs = [name for module in modules for name in import_module(f"{objectives.__name__}.{module}").SPECS]
    assert sorted(specs) == sorted(OBJECTIVES)
    assert all(objective_spec(name).architectures for name in OBJECTIVES)


def test_objectives_train_the_architectures_they_are_for() -> None:
    assert resolve_objective("auto", "decoder") == "causal"
    assert resolve_objective("auto", "encoder") == "mlm"
    assert resolve_objective("mlm+nsp", "encoder") == "mlm+nsp"
    with pytest.raises(BadSetting, match=r"does not train an encoder; objectives that do: mlm or mlm\+nsp"):
        resolve_objective("causal", "encoder")
    with pytest.raises(BadSetting, match="objective is mlm, which does not train a decoder"):
        resolve_objective("mlm", "decoder")


def test_whole_words_come_from_the_settings() -> None:
    tokenizer = train_tokenizer("wordpiece:60", ["the cats sat and slept " * 3])
    made: Any = objective_spec("mlm").make(tokenizer, replace(SETTINGS, whole_words=True))
    assert made.masking.is_continuation is not None
    plain: Any = objective_spec("mlm").make(tokenizer, SETTINGS)
    assert plain.masking.is_continuation is None
