"""Gradient reach and associative recall by distance: RNN, GRU, LSTM and Transformer of similar size.

    python benchmarks/gradient_reach.py [--seconds 40] [--steps 1500] [--folder runs/reach] [--pictures docs/pictures]

Gradient reach: each model is trained on characters of corpus:kjv for --seconds CPU seconds; then the norm of the
gradient of a token's loss with respect to the input k tokens back, a mean over 16 tokens in each of 24 windows of the
validation text, and the same for random weights. The Transformer's window ends at its context.

Recall: each sequence begins with four key-value pairs (of eight keys and eight values); later, among noise, keys occur
again at random positions up to 64 tokens on, and the model must predict their values (multi-query associative recall,
Arora et al. 2024, with noise between). Chance accuracy is 1/8; a model that knows the values but not their keys is
right in about a third. Accuracy by the distance to the last occurrence of the pair, on new sequences. Only the values
count in the loss. One thread. Results: results/reach.json.
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
from common import print_result, run_clearstory

from clearstory.formats.folders import open_model
from clearstory.lens.probes.gradient_reach import gradient_norms_by_distance
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.training_presets import scale_learning_rates
from clearstory.text.corpus import Corpus
from clearstory.training.optimizers import OptimizerSet, lr_factor

MODELS = ("rnn", "gru", "lstm", "clear")
LENGTH, WINDOWS, TARGETS = 256, 24, 16
KEYS, PAIRS, NOISE, SPAN = 8, 4, 8, 56
BINS = (4, 8, 16, 24, 32, 48, 64)
RECALL_PARAMETERS, BATCH_SIZE, TRIALS = 60_000, 64, 2048


def main() -> None:
    """Run the benchmark, draw the figures and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--steps", type=int, default=4000, help="training steps of the recall task; 0 skips it")
    parser.add_argument("--folder", type=Path, default=Path("runs/reach"))
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reach = [measure_gradient_reach(name, args.seconds, args.folder) for name in MODELS]
    recall = [measure_recall(name, args.steps) for name in MODELS if args.steps]
    if args.pictures:
        save_view(plot_reach(reach), args.pictures / "gradient-reach.svg")
        if recall:
            save_view(plot_recall(recall), args.pictures / "recall-by-distance.svg")
    print_result(
        {"seconds": args.seconds, "reach": reach, "recall": {"steps": args.steps, "chance": 1 / KEYS, "models": recall}}
    )


def measure_gradient_reach(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Gradient norms of a model by distance, with random weights and after training."""
    run = folder / name
    training = run_clearstory(
        "train", "corpus:kjv", "--model", name, "--tokenizer", "characters", "--cpu-seconds", str(seconds), "--out",
        str(run), "--parameters", "300000", "--training.threads", "1", "--resume",
    )  # fmt: skip
    loaded = open_model(run / "model")
    assert loaded.tokenizer is not None
    # Not initialised as in the presets, whose zero output layer passes no gradient.
    untrained = build(loaded.model.config, seed=0)
    texts = [text for text in Corpus.open(("corpus:kjv",)).texts("validation") if len(text) > LENGTH + 1][:WINDOWS]
    longest = min(LENGTH, loaded.model.context or LENGTH)
    curves = {}
    for label, model in (("trained", loaded.model), ("born", untrained)):
        batch = [loaded.tokenizer.encode(text[: longest + 1]) for text in texts]
        curves[label] = torch.stack([gradient_norms_by_distance(model, ids, TARGETS) for ids in batch]).mean(0).tolist()
    print(name, training["bits_per_byte"], file=sys.stderr)
    return {
        "model": name,
        "parameters": count_parameters(loaded.model),
        "shape": loaded.model.config.summary,
        "bits_per_byte": training["bits_per_byte"],
        "cpu_seconds": training["cpu_seconds"],
        **curves,
    }


def measure_recall(name: str, steps: int) -> dict[str, Any]:
    """Accuracy of a model in associative recall, by the distance to the key-value pair."""
    choice = ModelChoice(name=name, overrides={"layers": 2, "width": 48} if name == "clear" else {})
    parameters = None if name == "clear" else RECALL_PARAMETERS
    config = choice.config(vocab=2 * KEYS + NOISE, context=2 * PAIRS + SPAN, parameters=parameters)
    settings = scale_learning_rates(name, config, build_train_recipe({"model": name}).training)
    model = build(config, seed=0, initialization=settings.initialization)
    optimizers, started = OptimizerSet(model, settings), time.process_time()
    generator = torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        ids, targets, _ = recall_batch(BATCH_SIZE, generator)
        nats, _ = model.token_nll(TokenBatch(ids), targets)
        (nats.sum() / (BATCH_SIZE * PAIRS)).backward()  # type: ignore[no-untyped-call]  # torch's
        if settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizers.step(lr_factor(step, steps, settings))
    cpu_seconds = time.process_time() - started
    model.eval()
    with torch.no_grad():
        ids, targets, distances = recall_batch(TRIALS, generator)
        hidden, _ = model.forward(TokenBatch(ids))
        is_target = targets != IGNORE_INDEX
        correct = model.logits(hidden[is_target]).argmax(-1) == targets[is_target]
    bins = torch.bucketize(distances[is_target], torch.tensor(BINS))
    accuracy = {end: round(float(correct[bins == index].double().mean()), 4) for index, end in enumerate(BINS)}
    print(name, accuracy, file=sys.stderr)
    return {
        "model": name,
        "parameters": count_parameters(model),
        "shape": config.summary,
        "cpu_seconds": round(cpu_seconds, 1),
        "accuracy_up_to": accuracy,
    }


def recall_batch(batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, targets (the value after each repeated key, else IGNORE_INDEX) and distances to the pair, each (B, T)."""
    ids = 2 * KEYS + torch.randint(NOISE, (batch_size, 2 * PAIRS + SPAN), generator=generator)
    keys = torch.rand(batch_size, KEYS, generator=generator).argsort(1)[:, :PAIRS]
    values = KEYS + torch.randint(KEYS, (batch_size, PAIRS), generator=generator)
    ids[:, 0 : 2 * PAIRS : 2], ids[:, 1 : 2 * PAIRS : 2] = keys, values
    positions = (
        2 * PAIRS + 2 * torch.rand(batch_size, SPAN // 2, generator=generator).argsort(1)[:, :PAIRS].sort(1).values
    )
    # Keys may repeat; otherwise the last values could be inferred from those not yet used.
    queried = torch.randint(PAIRS, (batch_size, PAIRS), generator=generator)
    keys, values = keys.gather(1, queried), values.gather(1, queried)
    ids.scatter_(1, positions, keys).scatter_(1, positions + 1, values)
    targets = torch.full_like(ids, IGNORE_INDEX).scatter_(1, positions, values)
    before = 2 * queried
    for late in range(PAIRS):
        for early in range(late):
            again = queried[:, early] == queried[:, late]
            before[:, late] = torch.where(again, positions[:, early], before[:, late])
    return ids, targets, torch.zeros_like(ids).scatter_(1, positions, positions - before)


def plot_reach(results: list[dict[str, Any]]) -> Curve:
    """Gradient norms by distance, relative to distance 1."""
    lines = []
    for each in results:
        for label in ("trained", "born"):
            norms = each[label]
            share = tuple(norm / norms[0] for norm in norms)
            distances = tuple(float(k) for k in range(1, len(norms) + 1))
            label_text = f"{each['model']}" if label == "trained" else f"{each['model']}, initial weights"
            lines.append(
                Line(
                    label_text,
                    distances,
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


def plot_recall(results: list[dict[str, Any]]) -> Curve:
    """Recall accuracy by distance."""
    return Curve(
        title="Associative recall: accuracy by distance",
        lines=tuple(
            Line(each["model"], tuple(map(float, each["accuracy_up_to"])), tuple(each["accuracy_up_to"].values()))
            for each in results
        ),
        x_label="largest distance from the value in tokens",
        y_label="accuracy",
        caption=f"Chance is {1 / KEYS:.0%}.",
    )


if __name__ == "__main__":
    main()
