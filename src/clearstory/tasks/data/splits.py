"""Splits: training, validation and test data, by file, by column, or by a share of each label."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from clearstory.errors import BadInput, BadSetting
from clearstory.tasks.data.examples import (
    DataExample,
    DataSplits,
    Example,
    LabeledData,
    LabeledText,
    LabeledWords,
    SimilarityExample,
)

BINS = 10
"""Number of value ranges for stratified splits of regression data."""

STRANGE_SHARE, STRANGE_EXAMPLES = 0.5, 50
"""Training examples whose labels do not occur among this many examples of a validation file: other labels are meant."""


def split_data(
    data: LabeledData[Example],
    validation: float | LabeledData[Example] = 0.1,
    test: float | LabeledData[Example] | None = None,
    seed: int = 0,
) -> DataSplits[Example]:
    """Split data stratified by label; no text is in two parts.

    A part given by the examples (`part`: a split column or files of a `datasets` folder) takes precedence over a
    fraction. Training texts that are also in a validation or test file are removed from training. Raises BadInput
    if training would have only one label, or validation a label that is not in training.

    >>> texts = [LabeledText(f"text {number}", labels=(str(number % 2),)) for number in range(20)]
    >>> splits = split_data(LabeledData(tuple(texts), ("0", "1")), validation=0.2)
    >>> len(splits.train), sorted(each.labels[0] for each in splits.validation.examples)
    (16, ['0', '0', '1', '1'])
    """
    notes: list[str] = []
    parts: dict[str, list[Example]] = defaultdict(list)
    for example in data.examples:
        parts[example.part or "train"].append(example)
    train = tuple(parts["train"])
    if not train:
        raise BadInput(
            f"{data.name} has no training part, only {' and '.join(sorted(filter(None, parts)))}; name its files"
        )
    held_out: dict[str, LabeledData[Example] | None] = {}
    for name, wanted in (("test", test), ("validation", validation)):
        if isinstance(wanted, LabeledData):
            held_out[name] = wanted
        elif parts.get(name):
            held_out[name] = replace(data, examples=tuple(parts[name]), name=f"the {name} part of {data.name}")
            notes.append(f"{len(parts[name]):,} examples for {name} are those of the data's own split")
        elif wanted:
            train, taken = _hold_out(replace(data, examples=train), wanted, seed, name)
            held_out[name] = replace(data, examples=taken, name=f"the {name} split of {data.name}")
            alike = ", stratified by label" if data.kind in ("single", "multi") else ""
            notes.append(f"{len(taken):,} of {len(data):,} examples held out for {name}{alike}")
        else:
            held_out[name] = None
    train, dropped = _without_texts(train, [each for each in held_out.values() if each is not None])
    if dropped:
        plural = "s are" if dropped > 1 else " is"
        notes.append(f"{dropped:,} training example{plural} also held out, and removed from training")
    training = replace(data, examples=train)
    check_training(training)
    notes += _rare_labels(training)
    found = {name: _with_labels_of(training, each, notes) for name, each in held_out.items() if each is not None}
    empty = replace(data, examples=())
    return DataSplits(training, found.get("validation", empty), found.get("test"), tuple(notes))


def check_training(data: LabeledData[Example]) -> None:
    """Raise BadInput for training data with no examples or with one label only, and for one number only."""
    if not data.examples:
        raise BadInput(
            f"no example of {data.name} is left for training; give more, or a smaller fraction for validation"
        )
    if data.kind == "regression":
        values = {example.value for example in data.examples if isinstance(example, LabeledText)}
        if len(values) < 2:
            raise BadInput(f"all examples of {data.name} have the value {values.pop()}; give examples with others")
        return
    labels = {label for example in data.examples for label in labels_of(example)}
    if data.label_names and len(labels) < 2 and data.kind in ("single", "tags"):
        what = "tag" if data.kind == "tags" else "label"
        raise BadInput(
            f"all {len(data):,} training examples of {data.name} have the {what} {next(iter(labels), '')!r}; give "
            "examples of at least two"
        )
    if data.kind == "multi" and not labels:
        raise BadInput(f"no training example of {data.name} has a label; check the label column")


def _rare_labels(data: LabeledData[Example]) -> list[str]:
    """Notes on labels with no training example or one, and on texts that have different labels."""
    if data.kind not in ("single", "multi"):
        return []
    counts = Counter(label for example in data.examples for label in labels_of(example))
    found = []
    for number, what in ((0, "no training example"), (1, "one training example")):
        rare = [repr(name) for name in data.label_names if counts[name] == number]
        if rare:
            found.append(f"{what} of {', '.join(rare[:6])}{' …' if len(rare) > 6 else ''}")
    by_text: dict[str, set[Sequence[str]]] = defaultdict(set)
    for example in data.examples:
        by_text[text_key(example)].add(labels_of(example))
    several = sum(len(labels) > 1 for labels in by_text.values())
    if several:
        plural = "s occur" if several > 1 else " occurs"
        found.append(f"{several:,} training text{plural} with different labels")
    return found


def few_per_label(data: LabeledData[Example], k: int, seed: int = 0) -> LabeledData[Example]:
    """`k` examples of each label, drawn by `seed`. Raises BadInput if a label has fewer.

    Of examples with several labels, those that have the label, each drawn once; of sentences with tags and of pairs,
    `k` of all.
    """
    if k < 1:
        raise BadSetting(f"{k} examples of each label; give at least 1")
    rng = random.Random(f"{seed} few")
    if data.kind not in ("single", "multi"):
        if len(data) < k:
            raise BadInput(
                f"{data.name} has {len(data):,} examples, fewer than {k}; give more data or a smaller number"
            )
        chosen = set(rng.sample(range(len(data)), k))
    else:
        chosen = set()
        by_label: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(data.examples):
            for label in labels_of(example):
                by_label[label].append(index)
        for label in data.label_names:
            if len(by_label[label]) < k:
                raise BadInput(
                    f"{data.name} has {len(by_label[label])} example{'s' * (len(by_label[label]) != 1)} of the label "
                    f"{label!r}, fewer than {k}; give more data or a smaller number"
                )
            chosen |= set(rng.sample(by_label[label], k))
    return replace(data, examples=tuple(data.examples[index] for index in sorted(chosen)))


def draw_examples(data: LabeledData[Example], n: int, seed: int = 0) -> LabeledData[Example]:
    """`n` examples drawn by `seed`, each label with its share of the data and at least one example. Draws by one seed
    are nested: a smaller one is a part of a larger one.

    Raises BadSetting for more than there are, and for fewer than there are labels.

    >>> texts = [LabeledText(f"text {number}", labels=("ab"[number % 4 == 0],)) for number in range(20)]
    >>> drawn = draw_examples(LabeledData(tuple(texts), ("a", "b")), 8)
    >>> Counter(each.labels[0] for each in drawn.examples)
    Counter({'a': 6, 'b': 2})
    """
    single = data.kind == "single"
    present = {labels_of(example)[0] for example in data.examples} if single else set()
    if not max(1, len(present)) <= n <= len(data):
        labels = f" of {len(present)} labels" if single else ""
        raise BadSetting(
            f"{n:,} examples are to be sampled, but {data.name} has {len(data):,} for training{labels}; sample at "
            "least one per label and at most all"
        )
    order = random.Random(f"{seed} draw").sample(range(len(data)), len(data))
    sizes = Counter(labels_of(example)[0] if single else "" for example in data.examples)
    ranks: Counter[str] = Counter()
    positions = []
    for index in order:
        label = labels_of(data.examples[index])[0] if single else ""
        # The first of each label comes first, and then each label evenly.
        positions.append(((ranks[label] + 0.5) / sizes[label] if ranks[label] else 0.0, index))
        ranks[label] += 1
    chosen = sorted(index for _, index in sorted(positions, key=lambda position: position[0])[:n])
    return replace(data, examples=tuple(data.examples[index] for index in chosen))


def labels_of(example: DataExample) -> Sequence[str]:
    """The labels of an example, or its tags; () for one without."""
    if isinstance(example, LabeledText):
        return example.labels
    return example.tags if isinstance(example, LabeledWords) else ()


def text_key(example: DataExample) -> str:
    """What makes two examples the same text: words and pair, in small letters; of pairs for vectors, the anchor."""
    pair = example.pair if isinstance(example, LabeledText) else None
    return " ".join(example.text.casefold().split()) + (
        "" if pair is None else "\t" + " ".join(pair.casefold().split())
    )


def _whole_key(example: DataExample) -> str:
    """The text of an example with all that belongs to it: of pairs for vectors, the positive too."""
    return text_key(example) + (f"\t{example.positive.casefold()}" if isinstance(example, SimilarityExample) else "")


def _hold_out(
    data: LabeledData[Example], share: float, seed: int, name: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples left for training, and those held out: of each stratum the share, whole groups of one text."""
    if not 0 < share < 1:
        raise BadSetting(f"the fraction for {name} is {share}; it must be above 0 and below 1, such as 0.1, or a file")
    keys_of = _group_keys(data.examples)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example, key in zip(data.examples, keys_of, strict=True):
        groups[key].append(example)
    if len(groups) < 2:
        raise BadInput(
            f"{data.name} has {len(groups)} different text, which cannot be split; give more, or --{name} FILE"
        )
    strata = _strata(data, groups)
    taken: set[str] = set()
    wanted = 0.0
    for stratum in sorted(strata, key=lambda each: (len(strata[each]), each)):
        keys = sorted(strata[stratum], key=lambda key: _rank(seed, name, key))
        if len(keys) == 1:
            _check_single(data, groups[keys[0]], name)
            continue
        # The exact share of all strata so far: rounding of one does not add to that of the next.
        wanted += share * len(keys)
        number = min(len(keys) - 1, max(1 if share * len(keys) >= 0.5 else 0, round(wanted - len(taken))))
        taken |= set(keys[:number])
    if not taken:
        taken = {min(groups, key=lambda key: _rank(seed, name, key))}
    in_part = [key in taken for key in keys_of]
    kept = tuple(example for example, held in zip(data.examples, in_part, strict=True) if not held)
    return kept, tuple(example for example, held in zip(data.examples, in_part, strict=True) if held)


def _group_keys(examples: Sequence[Example]) -> list[str]:
    """A key for each example, the same for those that must be in one part: of one text, or of one line (the phrases of
    a tree, the positives of an anchor).
    """
    first_of: dict[str, int] = {}
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for index, example in enumerate(examples):
        for key in (f"text\0{text_key(example)}", f"line\0{example.location}" if example.location else ""):
            if key:
                parent[root(index)] = root(first_of.setdefault(key, index))
    return [text_key(examples[root(index)]) for index in range(len(examples))]


def _strata(data: LabeledData[Example], groups: dict[str, list[Example]]) -> dict[str, list[str]]:
    """Strata of a split: the label, the rarest of several labels, or the range of a value; otherwise one stratum."""
    found: dict[str, list[str]] = defaultdict(list)
    if data.kind == "regression":
        order = sorted(groups, key=lambda key: (getattr(groups[key][0], "value", 0.0) or 0.0, key))
        for index, key in enumerate(order):
            found[str(index * BINS // len(order))].append(key)
        return found
    counts = Counter(label for key in groups for label in set(labels_of(groups[key][-1])))
    for key, examples in groups.items():  # the last of a group: the whole sentence of a tree
        labels = labels_of(examples[-1]) if data.kind in ("single", "multi") else ()
        found[min(labels, key=lambda label: (counts[label], label), default="")].append(key)
    return found


def _check_single(data: LabeledData[Example], examples: Sequence[Example], name: str) -> None:
    """Raise BadInput for a label with one text, which cannot be both in training and held out."""
    if data.kind == "single":
        only = examples[0]
        raise BadInput(
            f"the label {labels_of(only)[0][:40]!r} has only one text ({only.location}), which cannot be in training "
            f"and in {name}; give more of it, remove it, or give --{name} FILE"
        )


def _rank(seed: int, name: str, key: str) -> bytes:
    """A random rank that depends on the text, not on its position in the data."""
    return hashlib.blake2b(f"{seed}\0{name}\0{key}".encode(), digest_size=8).digest()


def _without_texts(
    train: tuple[Example, ...], held_out: Iterable[LabeledData[Example]]
) -> tuple[tuple[Example, ...], int]:
    """Training examples whose text is not held out, and how many were left out."""
    known = {_whole_key(example) for data in held_out for example in data.examples}
    kept = tuple(example for example in train if _whole_key(example) not in known)
    return kept, len(train) - len(kept)


def _with_labels_of(
    training: LabeledData[Example], held_out: LabeledData[Example], notes: list[str]
) -> LabeledData[Example]:
    """Held-out data with the label ids of training. Raises BadInput for labels that are not in training."""
    if held_out.kind != training.kind:
        raise BadInput(
            f"{held_out.name} has {_DESCRIBED[held_out.kind]}, and {training.name} has {_DESCRIBED[training.kind]}; "
            "give data of one kind, or choose one with --problem"
        )
    counts = Counter(label for example in training.examples for label in set(labels_of(example)))
    for example in held_out.examples:
        unseen = next((label for label in labels_of(example) if label not in counts), None)
        if unseen is not None and unseen not in training.label_names:
            known = ", ".join(training.label_names[:12])
            raise BadInput(
                f"{example.location}: the label {unseen[:40]!r} does not occur in training ({known}); give training "
                "examples of it, or correct it"
            )
    present = {label for example in held_out.examples for label in labels_of(example)}
    missing = [label for label in training.label_names if label not in present and counts[label]]
    absent = sum(counts[label] for label in missing)
    if training.kind == "single" and absent > STRANGE_SHARE * counts.total() and len(held_out) >= STRANGE_EXAMPLES:
        raise BadInput(
            f"{held_out.name} has only the labels {', '.join(sorted(present))}, and {absent / counts.total():.0%} of "
            f"the training examples have others ({', '.join(missing[:8])}), so their labels differ; give data with "
            "the same labels (trees have two with --trees binary-phrases)"
        )
    if missing and training.kind in ("single", "multi"):
        notes.append(f"{held_out.name} has no example of {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}")
    return replace(held_out, label_names=training.label_names)


_DESCRIBED = {
    "single": "one label for each text",
    "multi": "several labels for each text",
    "regression": "numbers to predict",
    "tags": "a tag for each word",
    "pairs": "pairs of texts",
    "triplets": "triplets of texts",
    "scores": "pairs of texts with a score",
    "targets": "targets to generate",
    "conversations": "conversations",
    "choices": "questions with choices",
}
