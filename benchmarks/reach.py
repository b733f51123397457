"""How far back networks feel, and how far back they remember: RNN, GRU, LSTM and Transformer of like size.

    python benchmarks/reach.py [--seconds 40] [--steps 1500] [--folder runs/reach] [--pictures docs/pictures]

Gradient reach: each model learns characters of corpus:kjv for so many processor seconds; then the norm of the gradient
of a token's loss by the input k tokens back, a mean over 16 tokens in each of 24 windows of the held-out text, and the
same at birth. The Transformer's window ends at its context.

Memory: each row begins with four pairs of a key and a value (of eight each), and later, among noise, keys come again,
at places drawn by chance up to 64 tokens on; the model is to say their values (multi-query associative recall, Arora et
al. 2024, with noise between). By chance an eighth is right; who knows the values but not whose they are is right in
about a third. Accuracy by the distance to where the pair was last read, on rows that were not learnt from. All losses
but the values' are left out. One thread.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from shared import clearstory, show

from clearstory.formats.folders import open_model
from clearstory.lens.rendering.render import save_view
from clearstory.lens.probes.gradient_reach import gradient_norms_by_distance
from clearstory.lens.views import Curve, Line
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.training_presets import scale_learning_rates
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.text.corpus import Corpus
from clearstory.training.optimizers import OptimizerSet
from clearstory.training.lr_schedule import lr_factor

MODELS = ("rnn", "gru", "lstm", "clear")
LENGTH, WINDOWS, TARGETS = 256, 24, 16
KEYS, PAIRS, NOISE, SPAN = 8, 4, 8, 56
BINS = (4, 8, 16, 24, 32, 48, 64)
RECALL_PARAMETERS, ROWS, TRIALS = 60_000, 64, 2048


def main() -> None:
    """Measure, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--steps", type=int, default=4000, help="of the memory task; 0 leaves it out")
    parser.add_argument("--folder", type=Path, default=Path("runs/reach"))
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reach = [felt(name, args.seconds, args.folder) for name in MODELS]
    memory = [remembered(name, args.steps) for name in MODELS if args.steps]
    if args.pictures:
        save_view(reach_picture(reach), args.pictures / "gradient-reach.svg")
        if memory:
            save_view(memory_picture(memory), args.pictures / "recall-by-distance.svg")
    show(
        {"seconds": args.seconds, "reach": reach, "recall": {"steps": args.steps, "chance": 1 / KEYS, "models": memory}}
    )


def felt(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """How a model's gradient falls with the distance, at birth and after learning."""
    run = folder / name
    said = clearstory(
        "train", "corpus:kjv", "--model", name, "--tokenizer", "characters", "--cpu-seconds", str(seconds), "--out",
        str(run), "--parameters", "300000", "--training.threads", "1", "--resume",
    )  # fmt: skip
    opened = open_model(run / "model")
    assert opened.tokenizer is not None
    # Not as the presets are born, whose unembedding begins at zero and lets no gradient through.
    born = build(opened.model.config, seed=0)
    texts = [text for text in Corpus.open(("corpus:kjv",)).texts("validation") if len(text) > LENGTH + 1][:WINDOWS]
    longest = min(LENGTH, opened.model.context or LENGTH)
    curves = {}
    for label, model in (("trained", opened.model), ("born", born)):
        rows = [opened.tokenizer.encode(text[: longest + 1]) for text in texts]
        curves[label] = torch.stack([gradient_norms_by_distance(model, ids, TARGETS) for ids in rows]).mean(0).tolist()
    print(name, said["bits_per_byte"], file=sys.stderr)
    return {
        "model": name,
        "parameters": count_parameters(opened.model),
        "shape": opened.model.config.summary,
        "bits_per_byte": said["bits_per_byte"],
        "cpu_seconds": said["cpu_seconds"],
        **curves,
    }


def remembered(name: str, steps: int) -> dict[str, Any]:
    """How often a model says the right value, by how long ago it was read."""
    choice = ModelChoice(name=name, overrides={"layers": 2, "width": 48} if name == "clear" else {})
    parameters = None if name == "clear" else RECALL_PARAMETERS
    config = choice.config(vocab=2 * KEYS + NOISE, context=2 * PAIRS + SPAN, parameters=parameters)
    settings = scale_learning_rates(name, config, build_train_recipe({"model": name}).training)
    model = build(config, seed=0, initialization=settings.initialization)
    optimizers, began = OptimizerSet(model, settings), time.process_time()
    chance = torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        ids, targets, _ = rows(ROWS, chance)
        nats, _ = model.token_nll(TokenBatch(ids), targets)
        (nats.sum() / (ROWS * PAIRS)).backward()  # type: ignore[no-untyped-call]  # torch's
        if settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizers.step(lr_factor(step, steps, settings))
    spent = time.process_time() - began
    model.eval()
    with torch.no_grad():
        ids, targets, distances = rows(TRIALS, chance)
        hidden, _ = model.forward(TokenBatch(ids))
        asked = targets != IGNORE_INDEX
        right = model.logits(hidden[asked]).argmax(-1) == targets[asked]
    bins = torch.bucketize(distances[asked], torch.tensor(BINS))
    accuracy = {end: round(float(right[bins == at].double().mean()), 4) for at, end in enumerate(BINS)}
    print(name, accuracy, file=sys.stderr)
    return {
        "model": name,
        "parameters": count_parameters(model),
        "shape": config.summary,
        "cpu_seconds": round(spent, 1),
        "accuracy_up_to": accuracy,
    }


def rows(many: int, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows; the value to be said after each key that comes again, else IGNORE_INDEX; and how long ago it was read."""
    ids = 2 * KEYS + torch.randint(NOISE, (many, 2 * PAIRS + SPAN), generator=chance)
    keys = torch.rand(many, KEYS, generator=chance).argsort(1)[:, :PAIRS]
    values = KEYS + torch.randint(KEYS, (many, PAIRS), generator=chance)
    ids[:, 0 : 2 * PAIRS : 2], ids[:, 1 : 2 * PAIRS : 2] = keys, values
    places = 2 * PAIRS + 2 * torch.rand(many, SPAN // 2, generator=chance).argsort(1)[:, :PAIRS].sort(1).values
    # Any key may come twice, or the last values could be told from those that are still missing.
    asked = torch.randint(PAIRS, (many, PAIRS), generator=chance)
    keys, values = keys.gather(1, asked), values.gather(1, asked)
    ids.scatter_(1, places, keys).scatter_(1, places + 1, values)
    targets = torch.full_like(ids, IGNORE_INDEX).scatter_(1, places, values)
    before = 2 * asked
    for late in range(PAIRS):
        for early in range(late):
            again = asked[:, early] == asked[:, late]
            before[:, late] = torch.where(again, places[:, early], before[:, late])
    return ids, targets, torch.zeros_like(ids).scatter_(1, places, places - before)


def reach_picture(found: list[dict[str, Any]]) -> Curve:
    """Gradients over distances, each as a share of its first."""
    lines = []
    for each in found:
        for label in ("trained", "born"):
            norms = each[label]
            share = tuple(norm / norms[0] for norm in norms)
            places = tuple(float(k) for k in range(1, len(norms) + 1))
            own = f"{each['model']}" if label == "trained" else f"{each['model']}, initial weights"
            lines.append(
                Line(
                    own,
                    places,
                    share,
                    dashed=label == "born",
                    same_color_as=None if label == "trained" else each["model"],
                )
            )
    return Curve(
        title="Gradient of a token's loss with respect to earlier inputs",
        lines=tuple(lines),
        x_label="distance k in characters",
        y_label="gradient norm relative to that at k = 1",
        log_x=True,
        caption="Dashed: initial weights.",
    )


def memory_picture(found: list[dict[str, Any]]) -> Curve:
    """Accuracy over distances."""
    return Curve(
        title="Associative recall: accuracy by distance",
        lines=tuple(
            Line(each["model"], tuple(map(float, each["accuracy_up_to"])), tuple(each["accuracy_up_to"].values()))
            for each in found
        ),
        x_label="largest distance from the value in tokens",
        y_label="accuracy",
        caption=f"Chance is {1 / KEYS:.0%}.",
    )


if __name__ == "__main__":
    main()
