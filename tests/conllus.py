"""A small language with tags, written as CoNLL-U: the endings of its words say what they are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from clearstory.text.conllu import TaggedSentence

TAGS = ("ADV", "DET", "NOUN", "PUNCT", "VERB")


def sentences(count: int = 60, seed: int = 0) -> list[TaggedSentence]:
    """the NOUN VERB ADV . with a name made up now and then, which verbs (s) and adverbs (ly) end as theirs do."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        made = "".join(rng.choices("bdgkmnprtz", k=3))
        noun = rng.choice(("dog", "cat", "bird", made + rng.choice("oa") + rng.choice("tg")))
        verb = rng.choice(("barks", "runs", "sings", made + "es"))
        adverb = rng.choice(("loudly", "slowly", made + "ly"))
        found.append(TaggedSentence(("the", noun, verb, adverb, "."), ("DET", "NOUN", "VERB", "ADV", "PUNCT")))
    return found


def conllu(file: Path, told: Sequence[TaggedSentence] | None = None, documents: int = 6) -> Path:
    """Sentences as a file, in so many documents."""
    told = sentences() if told is None else told
    lines: list[str] = []
    for number, sentence in enumerate(told):
        if number % max(1, len(told) // documents) == 0:
            lines.append(f"# newdoc id = {number}")
        lines.append(f"# text = {sentence.text}")
        for place, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True), start=1):
            lines.append("\t".join([str(place), word, word, tag, *["_"] * 6]))
        lines.append("")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
