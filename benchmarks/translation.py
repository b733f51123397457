"""Translation after minutes of training: chrF and BLEU on the dev set, compared with copying the source.

    python benchmarks/translation.py [--minutes 20 | --cpu-seconds 2400] [--pairs tatoeba-en-de]
        [--model clear-translate] [--threads 2]
    python benchmarks/translation.py --model transformer-base --parameters 8000000 \\
        --curve docs/pictures/transformer-2017.svg

Pairs are tatoeba-en-de, tatoeba-en-fr or tanaka-en-ja of the test data; their dev sets are not used in training. One
percent of the training pairs is held out to select the best checkpoint. Beam search with 4 beams. BLEU is as in
sacrebleu with its default tokenizer, for Japanese with the tokens of the corpus; chrF ignores white space.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
from pathlib import Path

from common import data_file, print_result, run_clearstory

from clearstory.metrics import bleu, chrf
from clearstory.recipes.inference.translate import translate

FILES = {
    "tatoeba-en-de": (("train.tsv.gz",), ("dev.tsv.gz",)),
    "tatoeba-en-fr": (("train.tsv.gz",), ("dev.tsv.gz",)),
    "tanaka-en-ja": (("train.en.gz", "train.ja.gz"), ("dev.en.gz", "dev.ja.gz")),
}
"""Training and dev files of each corpus: a file of pairs, or a file for each side."""

SAMPLES = 10


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--cpu-seconds", type=float, help="limit of CPU time in place of --minutes, for shared machines"
    )
    parser.add_argument("--pairs", choices=FILES, default="tatoeba-en-de")
    parser.add_argument("--model", default="clear-translate")
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/translation"))
    parser.add_argument("--curve", type=Path, help="write the learning curve to this .svg file")
    args = parser.parse_args()
    train, dev = FILES[args.pairs]
    files = [str(data_file(f"{args.pairs}/{name}")) for name in train]
    sources, targets = read_pairs(args.pairs, dev)
    budget = ["--minutes", str(args.minutes)] if args.cpu_seconds is None else ["--cpu-seconds", str(args.cpu_seconds)]
    training = run_clearstory(
        "train",
        *files,
        *("--model", args.model, "--objective", "seq2seq", *budget),
        *(() if args.parameters is None else ("--parameters", str(args.parameters))),
        *("--data.validation", "0.01", "--training.threads", str(args.threads), "--training.seed", str(args.seed)),
        *("--out", str(args.folder / f"{args.pairs}-{args.model}"), "--overwrite"),
        threads=args.threads,
    )
    print({key: training[key] for key in ("nats_per_token", "steps", "tokens", "seconds")}, file=sys.stderr)
    if args.curve is not None:
        shutil.copy(training["curve"], args.curve)
    tokens = None if args.pairs == "tanaka-en-ja" else "13a"
    translation = translate(training["folder"], sources)
    hypotheses = [each.text for each in translation.texts]
    step = max(1, len(sources) // SAMPLES)
    print_result(
        {
            "pairs": args.pairs,
            "model": args.model,
            "budget": f"{' '.join(budget)}, {args.threads} thread{'s' * (args.threads > 1)}",
            "parameters": training["parameters"],
            "steps": training["steps"],
            "tokens": training["tokens"],
            "cpu_seconds": training["cpu_seconds"],
            "nats_per_target_token": training["nats_per_token"],
            "sentences": len(sources),
            "chrf": round(chrf(hypotheses, targets), 2),
            "bleu": round(bleu(hypotheses, targets, tokens), 2),
            "copied": {"chrf": round(chrf(sources, targets), 2), "bleu": round(bleu(sources, targets, tokens), 2)},
            "exactly_right": sum(map(str.__eq__, hypotheses, targets)) / len(targets),
            "seconds_to_translate": round(translation.seconds, 1),
            "samples": [
                {"source": sources[index], "written": hypotheses[index], "reference": targets[index]}
                for index in range(0, step * SAMPLES, step)
            ],
        }
    )


def read_pairs(pairs: str, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Sources and targets of a split."""
    texts = [gzip.decompress(data_file(f"{pairs}/{name}").read_bytes()).decode().split("\n") for name in names]
    if len(texts) == 2:
        return [line for line in texts[0] if line], [line for line in texts[1] if line]
    columns = [line.split("\t") for line in texts[0] if line]
    return [source for source, *_ in columns], [target for _, target, *_ in columns]


if __name__ == "__main__":
    main()
