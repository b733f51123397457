"""Start-up: CPU seconds of the whole process that generates one token with a small model, beside transformers.

python benchmarks/start_up.py [--model FOLDER] [--runs N]

The model is the one of `clearstory quickstart --minutes 0.2`, or of --model. The processes alternate, with one thread
each; `import torch` alone is the floor of both. Results: results/start_up.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from common import print_result, run_process

PROMPT = "The king said"

TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
ids = model.generate(**tokenizer(sys.argv[2], return_tensors="pt"), max_new_tokens=1, do_sample=False)
print(tokenizer.decode(ids[0]))
"""


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a run folder of a model that transformers opens")
    parser.add_argument("--runs", type=int, default=5, help="runs of each process [5]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = options.model or Path(temporary, "run")
        program = [sys.executable, "-m", "clearstory"]
        if options.model is None:
            run_process([*program, "quickstart", "--minutes", "0.2", "--out", str(run)])
        one = ["--max-tokens", "1", "--temperature", "0"]
        commands = {
            "clearstory generate": [*program, "generate", str(run), PROMPT, *one],
            "transformers": [sys.executable, "-c", TRANSFORMERS, str(run / "model"), PROMPT],
            "import torch": [sys.executable, "-c", "import torch"],
            "clearstory --help": [*program, "--help"],
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        texts: dict[str, str] = {}
        for _ in range(options.runs + 1):
            for name, command in commands.items():
                texts[name], usage = run_process(command)
                found[name].append(usage)
    # The first run of each reads the files from the disk.
    medians = {
        name: {key: statistics.median(usage[key] for usage in usages[1:]) for key in usages[0]}
        for name, usages in found.items()
    }
    ratio = medians["transformers"]["cpu_seconds"] / medians["clearstory generate"]["cpu_seconds"]
    same = texts["clearstory generate"].strip() == texts["transformers"].strip()
    print_result({"times_transformers": round(ratio, 2), "same_text": same, "runs": options.runs, "processes": medians})


if __name__ == "__main__":
    main()
