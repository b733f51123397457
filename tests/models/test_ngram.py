"""n-gram models: counts by hand, smoothing as in the papers, perplexity as KenLM's."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadSetting, CannotDo, UnknownName, VocabularyMismatch
from clearstory.evaluation.windows import score_dataset
from clearstory.formats.arpa.write import write_arpa
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.formats.ngram_tables import is_ngram_model, open_ngram_tables
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.ngram import counting
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.counting import count_ngrams as count_rows
from clearstory.models.ngram.lookup import find_keys
from clearstory.models.ngram.smoothing import FALLBACK, counts_of_counts, kneser_ney_discounts
from clearstory.models.ngram.sorted_runs import sort_groups, sorting_indices
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.text.corpus import Corpus
from clearstory.text.token_dataset import encode_text
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.base import load_weights
from clearstory.training.count_trainer import CountTrainer
from clearstory.training.settings import TrainingSettings
from tiny import VOCAB, counted
from trained import words

Gram = tuple[int, ...]


def rows(*documents: Sequence[int]) -> Any:
    starts = np.cumsum([0, *map(len, documents)])
    ids = np.array([id for document in documents for id in document], np.uint16)
    return SimpleNamespace(ids=ids, starts=starts, byte_lengths=np.ones(VOCAB, int))


def text(size: int = 900, seed: int = 3, begin: int = 2) -> list[int]:
    """Tokens of which 19 occur, `begin` at the end of each of its sentences."""
    random, ids = Random(seed), [0]
    while len(ids) < size:
        ids.append(begin if random.random() < 0.1 else (3 * ids[-1] + random.choice((1, 1, 1, 4, 6, 7))) % 19)
    return [*ids, begin]


def learnt(documents: Sequence[Sequence[int]], **settings: Any) -> Any:
    model = build(NGramConfig(vocab=VOCAB, **settings)).double()
    for _ in model.fit(rows(*documents)):
        pass
    return model


class Oracle:
    """Every formula as it is printed, with dictionaries, one probability at a time."""

    def __init__(self, documents: Sequence[Sequence[int]], order: int, smoothing: str, begin: int | None) -> None:
        self.order, self.smoothing = order, smoothing
        self.counts: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for document in documents:
            before: Gram = () if begin is None else (begin,)
            for id in document:
                for n in range(1, order + 1):
                    if n - 1 <= len(before):
                        self.counts[n][(*before[len(before) - n + 1 :], id)] += 1
                before = (begin,) if id == begin and begin is not None else (*before, id)
        self.used = self.counts
        if smoothing == "kneser-ney":
            self.used = [Counter(), *(self.adjusted(n, begin) for n in range(1, order)), self.counts[order]]
        self.after: list[dict[Gram, Counter[int]]] = [defaultdict(Counter) for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, times in self.used[n].items():
                self.after[n - 1][gram[:-1]][gram[-1]] = times
        self.of = [Counter(self.used[n].values()) for n in range(order + 1)]  # counts of counts

    def adjusted(self, n: int, begin: int | None) -> Counter[Gram]:
        found = Counter(gram[1:] for gram in self.counts[n + 1])
        if n > 1:
            found |= Counter({gram: times for gram, times in self.counts[n].items() if gram[0] == begin})
        return found

    def p(self, id: int, context: Gram) -> float:
        """P(id | context)."""
        n = len(context)
        below = self.p(id, context[1:]) if n else 1 / VOCAB
        if n >= self.order:
            return below
        if context not in self.after[n]:
            return below
        return float(getattr(self, self.smoothing.replace("-", "_"))(id, context, below))

    def kneser_ney(self, id: int, context: Gram, below: float) -> float:
        after, of = self.after[len(context)][context], self.of[len(context) + 1]
        y = of[1] / (of[1] + 2 * of[2]) if of[1] else 0
        d = [0.0, *FALLBACK]
        if all(of[k] for k in (1, 2, 3, 4)):
            exact = [0.0, *(k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3))]
            d = exact if all(0 <= exact[k] <= k for k in (1, 2, 3)) else d
        total = sum(after.values())
        left = sum(d[min(times, 3)] for times in after.values())
        return (after[id] - d[min(after[id], 3)]) / total + left / total * below

    def witten_bell(self, id: int, context: Gram, below: float) -> float:
        after = self.after[len(context)][context]
        kinds = len(after)
        return (after[id] + kinds * below) / (sum(after.values()) + kinds)

    def katz(self, id: int, context: Gram, below: float) -> float:
        after, of = self.after[len(context)][context], self.of[len(context) + 1]
        ratio = {r: (r - 0.5) / r for r in range(1, 6)}
        if all(of[r] for r in range(1, 7)):
            common = 6 * of[6] / of[1]
            exact = {r: ((r + 1) * of[r + 1] / (r * of[r]) - common) / (1 - common) for r in range(1, 6)}
            ratio = exact if common < 1 and all(0 < each <= 1 for each in exact.values()) else ratio
        total = sum(after.values())
        kept = {w: times * ratio.get(times, 1.0) for w, times in after.items() if times}
        if math.isclose(sum(kept.values()), total):
            total += 1
        unseen = 1 - sum(self.p(w, context[1:]) if context else 1 / VOCAB for w in kept)
        if unseen < 1e-12:
            total = sum(kept.values())
        if id in kept:
            return kept[id] / total
        return (1 - sum(kept.values()) / total) / unseen * below

    def laplace(self, id: int, context: Gram, below: float) -> float:
        after = self.after[len(context)][context]
        return (after[id] + 1) / (sum(after.values()) + VOCAB)

    def none(self, id: int, context: Gram, below: float) -> float:
        after = self.after[len(context)][context]
        return after[id] / sum(after.values())


SMOOTHINGS = ["kneser-ney", "witten-bell", "katz", "laplace", "none"]


@pytest.mark.parametrize("begin", [2, None])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_probabilities_equal_the_papers_formulas(smoothing: str, begin: int | None) -> None:
    documents = [text(), text(300, seed=4), [5, 5]]
    model = learnt(documents, order=4, smoothing=smoothing, bos_token_id=begin)
    oracle = Oracle(documents, 4, smoothing, begin)
    contexts = [(), (7,), (2,), (2, 5), (22, 3), (4, 22), *(tuple(text()[i : i + 3]) for i in range(0, 60, 7))]
    for context in contexts:
        if begin in context[1:]:  # no n-gram reaches past it
            continue
        hidden, _ = model.forward(TokenBatch(torch.tensor([[9, 9, *context]])))
        known = hidden[0, -1].clone()
        known[len(context) + 1 :] = -1
        logs = model.logits(known)
        wanted = [oracle.p(id, context) for id in range(VOCAB)]
        assert logs.exp().tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-15), (context, smoothing)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("prune", [(), (0, 1, 2)])
def test_probabilities_sum_to_one_without_normalisation(smoothing: str, prune: tuple[int, ...]) -> None:
    model = learnt([text()], order=4, smoothing=smoothing, prune=prune, bos_token_id=2)
    hidden, _ = model.forward(TokenBatch(torch.arange(VOCAB)[None]))
    more, _ = model.forward(TokenBatch(torch.tensor([text(60, seed=9)])))
    sums = torch.cat([model.logits(hidden), model.logits(more)], 1).exp().sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums), rtol=1e-9, atol=1e-9)


def test_a_bigram_by_hand() -> None:
    """0 1 0 2 0 1 | P(1 | 0) with both discounts of order 2 at their fallback."""
    model = learnt([[0, 1, 0, 2, 0, 1]], order=2)
    logs = model.logits(model.forward(TokenBatch(torch.tensor([[0]])))[0])[0, 0]
    # Bigrams: 01 twice, 10, 02, 20 once. Unigrams follow: 0 follows 1 and 2, so 2; 1 and 2 follow 0, so 1 each.
    # Discounts fall back: once 0.5, twice 1. Order 1: (1 - 0.5) / 4 + (0.5 + 0.5 + 1) / 4 / 23 for token 1.
    below = 0.5 / 4 + 2 / 4 / 23
    # Order 2, context 0: counts 2 and 1, of 3 in all; (2 - 1) / 3, and (1 + 0.5) / 3 is left.
    assert float(logs[1].exp()) == pytest.approx(1 / 3 + 1.5 / 3 * below, rel=1e-12)
    assert float(logs[9].exp()) == pytest.approx(1.5 / 3 * 2 / 4 / 23, rel=1e-12)


def test_the_discounts_are_those_of_chen_and_goodman() -> None:
    adjusted = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 11, 7])
    values, note = kneser_ney_discounts(counts_of_counts(adjusted), 2)
    y = 100 / (100 + 2 * 40)  # 0.5556
    assert values.tolist() == pytest.approx([1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.55])
    assert note is None
    values, note = kneser_ney_discounts(counts_of_counts(np.repeat([1, 2, 4], [3, 2, 1])), 3)
    assert values.tolist() == list(FALLBACK)
    assert "order 3" in str(note)
    assert "3, 2, 0 and 1" in str(note)


@pytest.mark.parametrize("begin", [2, None])
@pytest.mark.parametrize("stretch", [7, 100, 1 << 20])
def test_counts_equal_a_dictionarys_in_memory_and_on_disk(stretch: int, begin: int | None) -> None:
    documents = [text(200), [], [7], text(150, seed=5), [2, 2, 2], []]
    oracle = Oracle(documents, 4, "none", begin)
    shorter: list[Gram] = []
    for order, table in enumerate(count_rows(rows(*documents), 4, VOCAB, begin, stretch), start=1):
        if order == 1:
            grams: list[Gram] = [(id,) for id in range(VOCAB)]
        else:
            grams = [(*shorter[key // VOCAB], key % VOCAB) for key in table.keys.tolist()]
            assert grams == sorted(set(grams))
            assert [shorter[row] for row in table.suffixes] == [gram[1:] for gram in grams]
        found = {gram: times for gram, times in zip(grams, table.counts.tolist(), strict=True) if times}
        assert found == dict(oracle.counts[order])
        shorter = grams


def test_tokens_are_sorted_within_their_contexts_only() -> None:
    keys = np.array([5, 3, 5, 9, 3, 3])
    for scale in (1, 2**17, 2**59):
        assert sorting_indices(keys * scale).tolist() == [1, 4, 5, 0, 2, 3]
        assert sorting_indices(keys[::-1] * scale, keys // 5).tolist() == np.lexsort((keys[::-1], keys // 5)).tolist()
    contexts, tokens = np.array([8, 2, 2, 2, 6, 6, 1]), np.array([1, 9, 3, 9, 7, 0, 4])
    assert sort_groups(contexts, tokens).tolist() == [0, 2, 1, 3, 5, 4, 6]
    assert sort_groups(contexts[:0], tokens[:0]).tolist() == []


@pytest.mark.parametrize("scale", [1, 2**40])
@pytest.mark.parametrize("size", [0, 3, 5000])
def test_keys_are_found(size: int, scale: int) -> None:
    random = np.random.default_rng(size)
    keys = np.unique(random.integers(0, 9000, 3000)) * scale
    wanted = random.integers(-1, 9100, size) * scale
    places = {key: place for place, key in enumerate(keys.tolist())}
    found = find_keys(keys, wanted)
    assert found.tolist() == [places.get(key, -1) for key in wanted.tolist()]


def test_contexts_do_not_reach_past_the_start_of_a_text() -> None:
    """N-grams reach back to the token that starts a text, and no further."""
    model = learnt([text()], order=4, bos_token_id=2)
    after = [
        model.logits(model.forward(TokenBatch(torch.tensor([ids])))[0])[0, -1]
        for ids in ([5, 7, 2, 7], [9, 2, 7], [2, 7])
    ]
    assert torch.equal(after[0], after[2])
    assert torch.equal(after[1], after[2])
    assert not torch.equal(after[2], model.logits(model.forward(TokenBatch(torch.tensor([[7]])))[0])[0, -1])


@pytest.mark.parametrize("order", [1, 2, 5])
def test_arbitrary_targets_cost_as_much_as_next_tokens(order: int) -> None:
    """Scoring has a faster path where each target is the next token."""
    model = learnt([text()], order=order, bos_token_id=2)
    ids = torch.tensor([text(400, seed=8)])
    nats, _ = model.token_nll(TokenBatch(ids[:, :-1]), ids[:, 1:])
    apart, _ = model.token_nll(TokenBatch(ids[:, :-1].repeat(2, 1)), torch.cat([ids[:, 1:], ids[:, :-1]]))
    assert torch.allclose(nats[0], apart[0], rtol=1e-12)
    hidden, _ = model.forward(TokenBatch(ids[:, :-1]))
    logs = model.logits(hidden)
    assert torch.allclose(apart[1], -logs[0].gather(1, ids[0, :-1, None])[:, 0], rtol=1e-12)
    some = ids[:, 1:].clone()
    some[:, 100:] = IGNORE_INDEX
    assert torch.allclose(model.token_nll(TokenBatch(ids[:, :-1]), some)[0], nats * (some != IGNORE_INDEX), rtol=1e-12)


def test_an_unsmoothed_model_predicts_only_seen_tokens() -> None:
    model = learnt([[0, 1, 0, 1, 2]], order=2, smoothing="none")
    nats, _ = model.token_nll(TokenBatch(torch.tensor([[0, 1, 1]])), torch.tensor([[1, 2, 1]]))
    assert nats[0].tolist() == pytest.approx([0, math.log(2), math.inf])


def test_before_fitting_all_tokens_are_equally_likely() -> None:
    model = build(NGramConfig(vocab=VOCAB, order=3))
    nats, state = model.token_nll(TokenBatch(torch.tensor([[1, 2, 3]])), torch.tensor([[2, 3, 4]]), model.init_state())
    assert nats[0].tolist() == pytest.approx([math.log(VOCAB)] * 3)
    assert state.lengths == [3]
    assert model.logits(model.forward(TokenBatch(torch.tensor([[1]])))[0]).exp().sum() == pytest.approx(1)


def test_pruning_drops_n_grams_up_to_the_given_count() -> None:
    whole, pruned = (learnt([text()], order=3, prune=prune) for prune in ((), (0, 1, 2)))
    assert pruned.config.sizes == tuple(
        int((whole.table(order).counts > least).sum()) for order, least in ((2, 1), (3, 2))
    )
    assert int(pruned.table(3).counts.min()) == 3


def test_another_dtype_leaves_keys_and_counts_unchanged() -> None:
    model = counted(order=3)
    assert count_parameters(model) == sum(len(model.table(n).log_probs) for n in (1, 2, 3)) + sum(
        len(model.table(n).log_probs) for n in (1, 2)
    )
    keys, counts = model.table(3).keys.clone(), model.table(3).counts.clone()
    model.half()
    assert model.table(3).log_probs.dtype == torch.float16
    assert torch.equal(model.table(3).keys, keys)
    assert torch.equal(model.table(3).counts, counts)


@pytest.mark.parametrize(
    "settings", [{"bos_token_id": 2}, {"counts": False, "order": 2}, {"order": 1}, {"smoothing": "katz"}]
)
def test_a_folder_holds_all_of_it(settings: dict[str, Any], tmp_path: Any) -> None:
    model = counted(**settings)
    opened = open_model(save_model(tmp_path / "model", model, None, ModelCard())).model
    assert opened.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor)


def test_a_finished_fit_can_be_repeated() -> None:
    """Its tables are larger than those of an unfitted model."""
    model = counted(order=3)
    again = build(NGramConfig(vocab=VOCAB, order=3)).double()
    load_weights(again, {f"model.{name}": value for name, value in model.state_dict().items()})
    assert again.config == model.config
    ids = torch.tensor([text(50)])
    assert torch.equal(again.logits(again.forward(TokenBatch(ids))[0]), model.logits(model.forward(TokenBatch(ids))[0]))


def test_a_run_is_trained_and_resumed_like_any_other(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearstory.recipes.training.events import TrainingResult, TrainingWarning
    from clearstory.recipes.training.loop import train_events

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(words(3000), encoding="utf-8")
    given = {"text": (str(tmp_path / "text.txt"),), "model": "ngram", "model.order": 3, "out": str(tmp_path / "run")}
    with mock.patch("os.fsync"):  # durability is not tested here
        events = list(train_events(build_train_recipe({**given, "tokenizer": "words"})))
        again = list(train_events(build_train_recipe({**given, "tokenizer": "words", "resume": True})))
    assert [
        event.message for event in events if isinstance(event, TrainingWarning)
    ]  # some discounts cannot be estimated
    first, second = events[-1], again[-1]
    assert isinstance(first, TrainingResult)
    assert isinstance(second, TrainingResult)
    assert (first.steps, second.steps, second.nats_per_token) == (3, 3, first.nats_per_token)
    opened = open_model(tmp_path / "run")
    assert opened.model.config.bos_token_id == opened.tokenizer.eos_token_id  # type: ignore[union-attr]
    assert opened.card.parameters == first.parameters == count_parameters(opened.model)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"order": 0}, "between 1 and 32"),
        ({"order": 40}, "between 1 and 32"),
        ({"vocab": 0}, "between 1"),
        ({"prune": (1,)}, "begin with 0"),
        ({"prune": (0, 2, 1)}, "non-decreasing counts"),
        ({"order": 2, "prune": (0, 1, 1)}, "up to 2 non-decreasing counts"),
        ({"bos_token_id": 23}, "one of the 23 tokens"),
        ({"sizes": (3,) * 5}, "from 2 to 5"),
    ],
)
def test_invalid_configs_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        NGramConfig(**{"vocab": VOCAB, **settings})


def test_texts_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(VocabularyMismatch, match=r"token id 40, but the model's vocabulary is 23"):
        learnt([[1, 40]], order=2)
    with pytest.raises(
        BadSetting, match=r"model.order is 5, but the longest sequence .* 3 tokens; set model.order to 3 or less"
    ):
        learnt([[1, 2, 3], [4, 5]], order=5)
    with pytest.raises(BadSetting, match=r"longest sequence in this text has 4 tokens"):
        learnt([[1, 2, 3], [4, 5]], order=5, bos_token_id=0)
    with pytest.raises(BadSetting, match="read from a file"):
        learnt([[1, 2, 3]], order=2, smoothing="given")


def test_unknown_ids_are_refused() -> None:
    model = counted(order=2)
    for ids, targets in ([[3, VOCAB]], [[1, 1]]), ([[3, 3]], [[1, VOCAB]]):
        with pytest.raises(VocabularyMismatch, match="lies outside"):
            model.token_nll(TokenBatch(torch.tensor(ids)), torch.tensor(targets))


def test_unsupported_views_are_refused(tmp_path: Any) -> None:
    import clearstory
    from clearstory.models.inference_model import inference_model

    tokenizer = train_tokenizer("characters", ["abcdefghij klmnopqrst"])
    model = counted(order=2)
    opened = open_model(save_model(tmp_path / "model", model, tokenizer, ModelCard()))
    for view in ("attention", "neighbours"):
        with pytest.raises(CannotDo, match=r"this model \(ngram\) .*it supports tokens.*next-token.*surprisal"):
            clearstory.inspect(opened, "abc", view)
    with pytest.raises(CannotDo, match="without --precision"):
        inference_model(load_model_and_tokenizer(opened)[0], "int8")
    with pytest.raises(UnknownName):
        clearstory.inspect(opened, "abc", "entropies")


# What KenLM's lmplz (0.3.0) and query say of the same lines:
#   lmplz -o ORDER [--prune ...] < first 1,500 lines | query -v summary < lines 4,001 to 4,200; "including OOVs"
KENLM = [((3, ()), 618.4465), ((5, ()), 595.7741), ((4, (0, 0, 1, 2)), 594.5533), ((6, ()), 595.1607)]


@pytest.mark.parametrize(("settings", "perplexity"), KENLM)
def test_perplexity_is_that_of_kenlm(settings: tuple[int, tuple[int, ...]], perplexity: float) -> None:
    whole = "\n".join(Corpus.open(("corpus:kjv",)).texts("train"))
    lines = [line + "\n" for line in whole.split("\n") if line.strip()]
    train, held = "".join(lines[:1500]), "".join(lines[4000:4200])
    tokenizer = train_tokenizer("words", [train])
    order, prune = settings
    model = build(NGramConfig(vocab=tokenizer.vocab, order=order, prune=prune, bos_token_id=tokenizer.eos_token_id))
    assert list(model.fit(encode_text(tokenizer, [train])))[-1].note is None
    found = score_dataset(model, encode_text(tokenizer, [held]), start_token_id=tokenizer.eos_token_id)
    assert found.perplexity == pytest.approx(perplexity, rel=2e-6)


def test_the_memory_setting_bounds_what_is_sorted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [text(3000), text(2000, seed=5)]
    models, longest = [], []
    sort = counting.TextCounter.sort_chunk

    def watched(self: Any, shorter: Any, order: int) -> Any:
        longest[-1] = max(longest[-1], len(shorter.ends))
        return sort(self, shorter, order)

    monkeypatch.setattr(counting.TextCounter, "sort_chunk", watched)
    for megabytes in (1, 256):
        longest.append(0)
        monkeypatch.setattr(counting, "TOKEN_BYTES", 700)  # as if a token took so much: a megabyte holds 1,497
        model = build(NGramConfig(vocab=VOCAB, order=4, bos_token_id=2))
        trainer = CountTrainer(model, rows(*documents), TrainingSettings(sort_memory=megabytes), steps=4)
        assert len(list(trainer)) == 4
        models.append(model.state_dict())
    assert longest[0] <= 1498
    assert longest[1] > 4000
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_a_saved_model_is_evaluated_without_torch(tmp_path: Any) -> None:
    train, held_out = words(4000), words(700, seed=9)
    tokenizer = train_tokenizer("words", [train])
    dataset = encode_text(tokenizer, [train])
    model = build(NGramConfig(vocab=tokenizer.vocab, order=4, bos_token_id=tokenizer.eos_token_id))
    assert list(model.fit(dataset))
    save_model(tmp_path / "model", model, tokenizer, ModelCard(name="counts", family="ngram"))
    write_arpa(tmp_path / "counts.arpa", model, tokenizer)
    texts = [held_out, "", held_out[:90]]
    module = clearstory.evaluate(open_model(tmp_path / "model"), texts=texts)
    assert clearstory.evaluate(tmp_path / "model", texts=texts).score == module.score
    code = (
        "import sys, json, clearstory; found = clearstory.evaluate(sys.argv[1], texts=json.loads(sys.argv[2]));"
        "assert 'torch' not in sys.modules; print(found.score.nats, found.score.tokens)"
    )
    for name in ("model", "counts.arpa"):
        command = [sys.executable, "-c", code, str(tmp_path / name), json.dumps(texts)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert float(printed[0]) == pytest.approx(module.score.nats, rel=1e-6)
        assert int(printed[1]) == module.score.tokens


def test_a_folder_that_is_not_as_saved_is_opened_tensor_by_tensor(tmp_path: Any) -> None:
    model = counted()
    folder = save_model(tmp_path / "model", model, None, ModelCard(name="counts", family="ngram"))
    assert is_ngram_model(folder)
    assert not is_ngram_model(tmp_path / "nothing")
    assert open_ngram_tables(folder) is None  # no tokenizer: open_model says so
    (folder / "checksums.json").unlink()
    assert open_ngram_tables(folder) is None
