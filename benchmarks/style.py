"""Style, shown: models of two corpora need fewer bits for their own, and a trigram judge tells their samples apart.

    python benchmarks/style.py [--cpu-seconds 40] [--samples 40] [--folder runs/style]

Writers are `clear` and `ngram` on subwords, one of each for corpus:kjv and corpus:python-docs; bits per byte are those
of each on the held-out part of both. The judge is a trigram of bytes for each corpus, learnt from the same text as the
writers: a sample is said to be of the corpus whose trigram needs fewer bits for it. Samples are of 200 characters,
drawn at temperature 0.8 after an empty prompt. One thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from shared import clearstory, show

from clearstory.formats.folders import open_model
from clearstory.metrics import NATS_PER_BIT
from clearstory.recipes.inference.generate import generate
from clearstory.evaluation.units import EvalText, score_units
from clearstory.text.corpus import Corpus
from clearstory.text.document import Document

CORPORA = ("kjv", "python-docs")
CHARACTERS = 200


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=40)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("runs/style"))
    args = parser.parse_args()
    budget = ("--cpu-seconds", str(args.cpu_seconds), "--training.threads", "1", "--overwrite")
    opened: dict[tuple[str, str], Any] = {}
    for corpus in CORPORA:
        for name, model, more in (
            ("clear", "clear", budget),
            ("ngram", "ngram", ("--overwrite",)),
            ("judge", "ngram", ("--model.order", "3", "--tokenizer", "bytes", "--overwrite")),
        ):
            out = str(args.folder / f"{name}-{corpus}")
            opened[name, corpus] = open_model(
                clearstory("train", f"corpus:{corpus}", "--model", model, *more, "--out", out)["folder"]
            )
    held = {corpus: held_out(corpus) for corpus in CORPORA}
    bits = {
        name: {of: {on: needed(opened[name, of], held[on]) for on in CORPORA} for of in CORPORA}
        for name in ("clear", "ngram", "judge")
    }
    print(bits, file=sys.stderr)
    judged = {name: judge(opened, name, args.samples) for name in ("clear", "ngram")}
    real = {of: share(passages(of, args.samples), opened, of) for of in CORPORA}
    show({"bits_per_byte_of_model_on_text": bits, "samples_told_apart": judged, "held_out_passages_told_apart": real})


def held_out(corpus: str) -> EvalText:
    """Some of the held-out documents."""
    documents = list(Corpus.open((f"corpus:{corpus}",)).documents("validation"))
    return EvalText.from_documents(corpus, documents[:: max(1, len(documents) // 60)], True)


def needed(opened: Any, held: EvalText) -> float:
    """Bits per byte."""
    bits = score_units(opened.model, opened.tokenizer, held, windows="strided").bits_per_byte(held)
    assert bits is not None
    return round(bits, 4)


def passages(corpus: str, count: int) -> list[str]:
    """Real text as long as the samples."""
    texts = [text for text in Corpus.open((f"corpus:{corpus}",)).texts("validation") if len(text) > CHARACTERS]
    return [text[:CHARACTERS] for text in texts[:: max(1, len(texts) // count)]][:count]


def judge(opened: dict[tuple[str, str], Any], name: str, count: int) -> dict[str, float]:
    """The share of each corpus's samples that the judge gives to it."""
    found = {}
    for of in CORPORA:
        written = [
            generate(opened[name, of], "", max_tokens=CHARACTERS, temperature=0.8, seed=seed).text[:CHARACTERS]
            for seed in range(count)
        ]
        found[of] = share([text for text in written if text.strip()], opened, of)
    return found


def share(texts: list[str], opened: dict[tuple[str, str], Any], of: str) -> float:
    """How many of the texts need the fewest bits under the trigram of `of`."""
    right = 0
    for text in texts:
        held = EvalText.from_documents("sample", [Document(name="sample", text=text)])
        nats = {}
        for corpus in CORPORA:
            each = opened["judge", corpus]
            nats[corpus] = score_units(each.model, each.tokenizer, held, windows="strided").model_nats / NATS_PER_BIT
        right += min(nats, key=nats.__getitem__) == of
    return round(right / len(texts), 3)


if __name__ == "__main__":
    main()
