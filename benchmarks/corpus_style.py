"""Style of two corpora: bits per byte of models on both texts, and a trigram classifier of their samples.

    python benchmarks/corpus_style.py [--cpu-seconds 40] [--samples 40] [--folder runs/style]

The models are `clear` and `ngram` on subwords, one of each trained on corpus:kjv and on corpus:python-docs, and
evaluated on the held-out part of both. The classifier ("judge") is a byte trigram model of each corpus, trained on the
same text: a sample is assigned to the corpus whose trigram model gives it fewer bits. Samples have 200 characters and
are generated at temperature 0.8 after an empty prompt. One thread. Results: results/style.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import print_result, run_clearstory

from clearstory.evaluation.units import EvalText, score_units
from clearstory.formats.folders import open_model
from clearstory.metrics import NATS_PER_BIT
from clearstory.recipes.inference.generate import generate
from clearstory.text.corpus import Corpus
from clearstory.text.document import Document

CORPORA = ("kjv", "python-docs")
CHARACTERS = 200


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=40)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("runs/style"))
    args = parser.parse_args()
    budget = ("--cpu-seconds", str(args.cpu_seconds), "--training.threads", "1", "--overwrite")
    opened: dict[tuple[str, str], Any] = {}
    for corpus in CORPORA:
        for name, model, options in (
            ("clear", "clear", budget),
            ("ngram", "ngram", ("--overwrite",)),
            ("judge", "ngram", ("--model.order", "3", "--tokenizer", "bytes", "--overwrite")),
        ):
            out = str(args.folder / f"{name}-{corpus}")
            opened[name, corpus] = open_model(
                run_clearstory("train", f"corpus:{corpus}", "--model", model, *options, "--out", out)["folder"]
            )
    eval_texts = {corpus: held_out_text(corpus) for corpus in CORPORA}
    bits = {
        name: {of: {on: bits_per_byte(opened[name, of], eval_texts[on]) for on in CORPORA} for of in CORPORA}
        for name in ("clear", "ngram", "judge")
    }
    print(bits, file=sys.stderr)
    judged = {name: classify_samples(opened, name, args.samples) for name in ("clear", "ngram")}
    real = {of: assigned_fraction(passages(of, args.samples), opened, of) for of in CORPORA}
    print_result(
        {"bits_per_byte_of_model_on_text": bits, "samples_told_apart": judged, "held_out_passages_told_apart": real}
    )


def held_out_text(corpus: str) -> EvalText:
    """About 60 of the held-out documents."""
    documents = list(Corpus.open((f"corpus:{corpus}",)).documents("validation"))
    return EvalText.from_documents(corpus, documents[:: max(1, len(documents) // 60)], True)


def bits_per_byte(opened: Any, text: EvalText) -> float:
    """Bits per byte of a model on a text."""
    bits = score_units(opened.model, opened.tokenizer, text, windows="strided").bits_per_byte(text)
    assert bits is not None
    return round(bits, 4)


def passages(corpus: str, count: int) -> list[str]:
    """Held-out passages with the length of the samples."""
    texts = [text for text in Corpus.open((f"corpus:{corpus}",)).texts("validation") if len(text) > CHARACTERS]
    return [text[:CHARACTERS] for text in texts[:: max(1, len(texts) // count)]][:count]


def classify_samples(opened: dict[tuple[str, str], Any], name: str, count: int) -> dict[str, float]:
    """Fraction of each corpus's samples that are assigned to it."""
    fractions = {}
    for of in CORPORA:
        samples = [
            generate(opened[name, of], "", max_tokens=CHARACTERS, temperature=0.8, seed=seed).text[:CHARACTERS]
            for seed in range(count)
        ]
        fractions[of] = assigned_fraction([text for text in samples if text.strip()], opened, of)
    return fractions


def assigned_fraction(texts: list[str], opened: dict[tuple[str, str], Any], of: str) -> float:
    """Fraction of the texts with the fewest bits under the trigram model of `of`."""
    correct = 0
    for text in texts:
        eval_text = EvalText.from_documents("sample", [Document(name="sample", text=text)])
        nats = {}
        for corpus in CORPORA:
            each = opened["judge", corpus]
            nats[corpus] = (
                score_units(each.model, each.tokenizer, eval_text, windows="strided").model_nats / NATS_PER_BIT
            )
        correct += min(nats, key=nats.__getitem__) == of
    return round(correct / len(texts), 3)


if __name__ == "__main__":
    main()
