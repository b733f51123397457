"""Few-shot prompting: accuracy of three tasks by number of examples shown, five draws, with and without calibration.

    python benchmarks/few_shot.py --model FOLDER [--tasks sst2 capitals arc_easy] [--shots 0 1 2 4 8 16] [--out FILE]

SST-2 (labels, calibrated too), capitals of countries (composed here: five cities to choose from) and ARC-easy, each
without the chat template; --chat applies it where the model has one. --out adds to the results of a file, so that the
whole can be measured in several runs. Prints one JSON object: means over draws with 95 % intervals, beside the majority
label and chance.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from common import data_file, machine_info

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "Egypt": "Cairo",
    "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Portugal": "Lisbon", "Ireland": "Dublin", "Hungary": "Budapest",
    "Russia": "Moscow", "China": "Beijing", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad", "Kenya": "Nairobi", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Argentina": "Buenos Aires", "Brazil": "Brasilia", "Canada": "Ottawa",
    "Mexico": "Mexico City", "Australia": "Canberra", "Belgium": "Brussels", "Netherlands": "Amsterdam",
    "Switzerland": "Bern", "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade", "Croatia": "Zagreb",
    "Iceland": "Reykjavik", "South Korea": "Seoul", "Philippines": "Manila", "Indonesia": "Jakarta",
    "Malaysia": "Kuala Lumpur", "Ethiopia": "Addis Ababa", "Ghana": "Accra", "Senegal": "Dakar",
}  # fmt: skip

TASKS: dict[str, dict[str, Any]] = {
    "sst2": {
        "template": "Review: {text}\nSentiment: {label}",
        "examples": "sst/sst2-train.tsv.gz",
        "test": "sst/sst2-dev.tsv.gz",
        "labels": "0=negative,1=positive",
        "calibrate": True,
        "limit": 200,
    },
    "capitals": {"template": "The capital of {text} is {label}", "separator": "\\n", "limit": 32},
    "arc_easy": {
        "template": "Question: {text}\nAnswer: {label}",
        "examples": "arc/easy-train.jsonl.gz",
        "test": "arc/easy-dev.jsonl.gz",
        "limit": 100,
    },
}


def write_capitals(folder: Path) -> dict[str, str]:
    """Write countries to show and countries to ask about, each with five cities to choose from."""
    order = random.Random(0).sample(sorted(CAPITALS), len(CAPITALS))
    files = {}
    for name, countries in (("examples", order[:16]), ("test", order[16:])):
        rows = []
        for country in countries:
            others = [city for city in CAPITALS.values() if city != CAPITALS[country]]
            choices = [CAPITALS[country], *random.Random(country).sample(others, 4)]
            random.Random(country[::-1]).shuffle(choices)
            rows.append({"question": country, "choices": choices, "answer": CAPITALS[country]})
        files[name] = str(folder / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def main() -> None:
    """Measure, and print the means of each task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", help="name of the model in the results")
    parser.add_argument("--tasks", nargs="*", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--shots", nargs="*", type=int, default=[0, 1, 2, 4, 8, 16])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    import clearstory

    kept: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    name = f"{arguments.name or Path(arguments.model).name}{', chat template' if arguments.chat else ''}"
    model = clearstory.open(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        for task in arguments.tasks:
            settings = dict(TASKS[task])
            files = {key: str(data_file(settings[key])) for key in ("examples", "test") if key in settings}
            settings |= files or write_capitals(Path(folder))
            if arguments.limit:
                settings["limit"] = arguments.limit
            part = kept.setdefault(name, {}).setdefault(task, {"means": {}, "cpu_seconds": 0.0})
            for shots in arguments.shots:
                started = time.process_time()
                report = clearstory.prompt(
                    model, shots=(shots,), draws=arguments.draws, raw=not arguments.chat, **settings
                )
                part["cpu_seconds"] = round(part["cpu_seconds"] + time.process_time() - started, 2)
                for each in report.means:
                    part["means"][f"{each.answers}, {shots}"] = {
                        "mean": round(each.mean, 4),
                        "interval": each.interval and [round(end, 4) for end in each.interval],
                        "draws": each.draws,
                    }
                part |= {"rows": report.rows, "chance": round(report.chance, 4), "majority": report.majority}
                if arguments.out is not None:
                    arguments.out.write_text(json.dumps(kept))
    print(json.dumps({"machine": machine_info(), "models": kept}, indent=2))


if __name__ == "__main__":
    main()
