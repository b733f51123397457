"""Translation of Multi30k, lower-cased: BLEU, chrF and TER on test_2016, greedy and with beams; prints one JSON object.

    python benchmarks/multi30k.py [--pair de-en] [--cpu-seconds 3500] [--folder runs/multi30k] [--spacy PYTHON]
        [-- FLAGS of clearstory train]
    python benchmarks/multi30k.py --run FOLDER ...

The training sentences are used as they are but for their case, 2 % of them held out to select the best checkpoint, and
the corpus's validation sentences not at all. A run of its own is trained, or one that exists is scored. BLEU, chrF and
TER are sacrebleu's. The figures that others report for this corpus are BLEU of spaCy's tokens: PYTHON is one that has
spaCy and sacrebleu. No sentence of the corpus is shown.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from common import data_file, print_result, run_clearstory

import clearstory
from clearstory.evaluation.text_scores import translation_scores

TOKENIZED_BLEU = """
import json, sys
import sacrebleu, spacy

asked = json.load(sys.stdin)
words = spacy.blank(asked["language"]).tokenizer
split = lambda side: [" ".join(word.text for word in words(text)) for text in asked[side]]
texts, references = split("texts"), split("references")
print(sacrebleu.corpus_bleu(texts, [references], tokenize="none", force=True).score)
"""


def main() -> None:
    """Train or open a model, translate and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=("de-en", "en-de", "fr-en", "en-fr"), default="de-en")
    parser.add_argument("--cpu-seconds", type=float, default=3500)
    parser.add_argument("--folder", type=Path, default=Path("runs/multi30k"))
    parser.add_argument("--run", type=Path, help="score this run instead of training one")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--spacy", help="a Python that has spaCy and sacrebleu")
    parser.add_argument("flags", nargs="*", help="flags of clearstory train, after --")
    args = parser.parse_args()
    source, target = args.pair.split("-")
    args.folder.mkdir(parents=True, exist_ok=True)
    training: dict[str, Any] = {}
    if args.run is None:
        training = train(args.folder, source, target, args.cpu_seconds, args.flags)
        args.run = args.folder / args.pair
    texts, references = lines("test_2016_flickr", source), lines("test_2016_flickr", target)
    opened = clearstory.open(args.run)
    print_result(
        {
            "pair": args.pair,
            "sentences": len(texts),
            "training": training,
            "scores": {
                f"beam {beam}": score(opened, texts, references, beam, target, args.spacy) for beam in args.beams
            },
        }
    )


def train(folder: Path, source: str, target: str, cpu_seconds: float, flags: list[str]) -> dict[str, Any]:
    """Train a model on the lower-cased sentences; what the run tells."""
    files = [folder / f"train.{language}" for language in (source, target)]
    for file, language in zip(files, (source, target), strict=True):
        file.write_text("\n".join(lines("train", language)) + "\n", encoding="utf-8")
    made = run_clearstory(
        "train",
        *map(str, files),
        *("--objective", "seq2seq", "--data.validation", "0.02", "--cpu-seconds", str(cpu_seconds)),
        *("--training.threads", "1", "--out", str(folder / f"{source}-{target}"), "--overwrite"),
        *flags,
    )
    names = ("parameters", "steps", "tokens", "cpu_seconds", "nats_per_token")
    return {"flags": flags, **{name: made[name] for name in names}}


def lines(split: str, language: str) -> list[str]:
    """The lower-cased sentences of a split."""
    packed = data_file(f"multi30k/{split}.{language}.gz").read_bytes()
    return gzip.decompress(packed).decode().lower().splitlines()


def score(
    opened: Any, texts: list[str], references: list[str], beam: int, language: str, spacy: str | None
) -> dict[str, Any]:
    """Scores of the translations by one width of the beam."""
    started = time.process_time()
    outputs = [each.text for each in clearstory.translate(opened, texts, beam=beam).texts]
    seconds = time.process_time() - started
    scores = translation_scores(outputs, [[reference] for reference in references], lowercase=True)
    found = {
        **{name: round(value, 2) for name, value in scores.values().items()},
        "intervals": {name: [round(end, 2) for end in ends] for name, ends in scores.intervals().items()},
        "signatures": scores.signatures(),
        "source_words_per_cpu_second": round(sum(len(text.split()) for text in texts) / seconds),
    }
    if spacy is not None:
        asked = json.dumps({"language": language, "texts": outputs, "references": references})
        answer = subprocess.run([spacy, "-c", TOKENIZED_BLEU], input=asked, capture_output=True, text=True, check=True)
        found["bleu_of_spacy_tokens"] = round(float(answer.stdout), 2)
    return found


if __name__ == "__main__":
    main()
