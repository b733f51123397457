"""Entities by spaCy as benchmarks/tagging.py asks; run by a Python that has spaCy and seqeval, never imported.

Reads JSON lines from standard input: {"model": NAME}, {"sentences": [[word, ...]]} or {"gold": [[tag, ...]], "tags":
[[tag, ...]]}, and answers each with one JSON line: version; CPU seconds and BIO tags; seqeval's scores.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

TYPES = {"PERSON": "PER", "ORG": "ORG", "GPE": "LOC", "LOC": "LOC", "FAC": "LOC"}
"""OntoNotes' types of entities as those of Universal NER; others are none of its entities."""


def bio_tags(doc: Any) -> list[str]:
    """The BIO tags of a document's words."""
    tags = ["O"] * len(doc)
    for entity in doc.ents:
        if kind := TYPES.get(entity.label_):
            tags[entity.start] = f"B-{kind}"
            tags[entity.start + 1 : entity.end] = [f"I-{kind}"] * (entity.end - entity.start - 1)
    return tags


def main() -> None:
    import importlib

    import spacy
    from seqeval.metrics import f1_score, precision_score, recall_score

    nlp: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        if "model" in asked:
            nlp = importlib.import_module(asked["model"]).load(exclude=["tagger", "parser", "lemmatizer", "senter"])
            nlp.disable_pipes("attribute_ruler")
            answer = {"spacy": spacy.__version__, "model": asked["model"], "pipes": nlp.pipe_names}
        elif "sentences" in asked:
            started = time.process_time()
            docs = (spacy.tokens.Doc(nlp.vocab, words=words) for words in asked["sentences"])
            tags = [bio_tags(doc) for doc in nlp.pipe(docs, batch_size=256)]
            answer = {"cpu_seconds": time.process_time() - started, "tags": tags}
        else:
            pair = asked["gold"], asked["tags"]
            answer = {"f1": f1_score(*pair), "precision": precision_score(*pair), "recall": recall_score(*pair)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
