"""Translation learnt in minutes: chrF and BLEU on held-out sentences, beside copying the source.

    python benchmarks/translation.py [--minutes 20 | --cpu-seconds 2400] [--pairs tatoeba-en-de]
        [--model clear-translate] [--threads 2]
    python benchmarks/translation.py --model transformer-base --parameters 8000000 --curve docs/pictures/transformer-2017.svg

Pairs are tatoeba-en-de, tatoeba-en-fr or tanaka-en-ja of the test data, whose dev split is nobody's to learn from; one
in a hundred of the training pairs is held out to choose the best model by. Translations are found with a beam of 4.
BLEU is sacrebleu's with its usual tokens, for Japanese with those of the corpus; chrF takes no notice of white space.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
from pathlib import Path

from shared import clearstory, data, show

from clearstory.metrics import bleu, chrf
from clearstory.recipes.inference.translate import translate

FILES = {
    "tatoeba-en-de": (("train.tsv.gz",), ("dev.tsv.gz",)),
    "tatoeba-en-fr": (("train.tsv.gz",), ("dev.tsv.gz",)),
    "tanaka-en-ja": (("train.en.gz", "train.ja.gz"), ("dev.en.gz", "dev.ja.gz")),
}
"""What is learnt from and what is translated: a file of pairs, or one for each side."""

SAMPLES = 10


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--cpu-seconds", type=float, help="the same in processor time; for machines that are shared")
    parser.add_argument("--pairs", choices=FILES, default="tatoeba-en-de")
    parser.add_argument("--model", default="clear-translate")
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/translation"))
    parser.add_argument("--curve", type=Path, help="where to keep the learning curve")
    args = parser.parse_args()
    train, dev = FILES[args.pairs]
    files = [str(data(f"{args.pairs}/{name}")) for name in train]
    sources, targets = sides(args.pairs, dev)
    time = ["--minutes", str(args.minutes)] if args.cpu_seconds is None else ["--cpu-seconds", str(args.cpu_seconds)]
    made = clearstory(
        "train",
        *files,
        *("--model", args.model, "--objective", "seq2seq", *time),
        *(() if args.parameters is None else ("--parameters", str(args.parameters))),
        *("--data.validation", "0.01", "--training.threads", str(args.threads), "--training.seed", str(args.seed)),
        *("--out", str(args.folder / f"{args.pairs}-{args.model}"), "--overwrite"),
        threads=args.threads,
    )
    print({key: made[key] for key in ("nats_per_token", "steps", "tokens", "seconds")}, file=sys.stderr)
    if args.curve is not None:
        shutil.copy(made["curve"], args.curve)
    tokens = None if args.pairs == "tanaka-en-ja" else "13a"
    found = translate(made["folder"], sources)
    written = [each.text for each in found.texts]
    step = max(1, len(sources) // SAMPLES)
    show(
        {
            "pairs": args.pairs,
            "model": args.model,
            "budget": f"{' '.join(time)}, {args.threads} thread{'s' * (args.threads > 1)}",
            "parameters": made["parameters"],
            "steps": made["steps"],
            "tokens": made["tokens"],
            "cpu_seconds": made["cpu_seconds"],
            "nats_per_target_token": made["nats_per_token"],
            "sentences": len(sources),
            "chrf": round(chrf(written, targets), 2),
            "bleu": round(bleu(written, targets, tokens), 2),
            "copied": {"chrf": round(chrf(sources, targets), 2), "bleu": round(bleu(sources, targets, tokens), 2)},
            "exactly_right": sum(map(str.__eq__, written, targets)) / len(targets),
            "seconds_to_translate": round(found.seconds, 1),
            "samples": [
                {"source": sources[at], "written": written[at], "reference": targets[at]}
                for at in range(0, step * SAMPLES, step)
            ],
        }
    )


def sides(pairs: str, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Sources and targets of a split."""
    texts = [gzip.decompress(data(f"{pairs}/{name}").read_bytes()).decode().split("\n") for name in names]
    if len(texts) == 2:
        return [line for line in texts[0] if line], [line for line in texts[1] if line]
    columns = [line.split("\t") for line in texts[0] if line]
    return [source for source, *_ in columns], [target for _, target, *_ in columns]


if __name__ == "__main__":
    main()
