"""Model cards: description of a model and its training data, as README.md and in config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadInput
from clearstory.formats.hf.config_keys import check_float, check_int

MAX_TEXTS = 10_000


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a model.

    Args:
        name: its name.
        family: its family: transformer, ngram, lstm ...
        parameters: number of parameters; `save_model` counts them.
        trained_on: (name, size in bytes) of each training text.
        bits_per_byte: bits per byte on held-out text; None if not measured.
    """

    name: str = "model"
    family: str = "transformer"
    parameters: int = 0
    trained_on: tuple[tuple[str, int], ...] = ()
    bits_per_byte: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The card as stored in config.json."""
        return {
            "name": self.name,
            "family": self.family,
            "parameters": self.parameters,
            "trained_on": [list(text) for text in self.trained_on],
            "bits_per_byte": self.bits_per_byte,
        }


def read_card(value: object, default: ModelCard) -> ModelCard:
    """The card stored in a config.json, or `default` if there is none. Raises BadInput for an invalid one."""
    if value is None:
        return default
    if not isinstance(value, Mapping):
        raise BadInput("config.json's clearstory.card must be an object; remove it")
    texts = value.get("trained_on", [])
    if not isinstance(texts, list) or len(texts) > MAX_TEXTS:
        raise BadInput(
            f"clearstory.card.trained_on in config.json must be a list of at most {MAX_TEXTS:,} texts; remove it"
        )
    trained_on = []
    for text in texts:
        if not isinstance(text, list) or len(text) != 2 or not isinstance(text[0], str):
            raise BadInput(
                "clearstory.card.trained_on in config.json must hold pairs of a name and a size in bytes; remove it"
            )
        trained_on.append((text[0], check_int("card.trained_on", text[1], 2**60, minimum=0)))
    bits = value.get("bits_per_byte")
    return ModelCard(
        name=str(value.get("name", default.name)),
        family=str(value.get("family", default.family)),
        # Counted from the model; the stored number is not used.
        parameters=default.parameters,
        trained_on=tuple(trained_on),
        bits_per_byte=None if bits is None else check_float("card.bits_per_byte", bits, 0.0, 1e6),
    )


TEXT_GENERATION = "text-generation"
TEXT_CLASSIFICATION = "text-classification"
TOKEN_CLASSIFICATION = "token-classification"

PIPELINES = {
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForPreTraining": "fill-mask",
    "AutoModel": "feature-extraction",
    "AutoModelForSequenceClassification": TEXT_CLASSIFICATION,
    "AutoModelForTokenClassification": TOKEN_CLASSIFICATION,
    "AutoModelForSeq2SeqLM": "text2text-generation",
}
"""Hugging Face pipeline tags by Auto class; the default is TEXT_GENERATION."""


def readme(card: ModelCard, architecture: str | None, pipeline: str, auto_class: str = "") -> str:
    """The model card as Markdown.

    Args:
        card: the card.
        architecture: the class of transformers that opens the folder; None for the native format.
        pipeline: the Hugging Face pipeline tag.
        auto_class: the Auto class of transformers that finds the architecture.
    """
    kind = "classifier" if pipeline.endswith("-classification") else "language model"
    library = "transformers" if architecture else "clearstory"
    return f"""---
library_name: {library}
pipeline_tag: {pipeline}
tags:
- clearstory
---

# {escape_table_cell(card.name)}

A {kind} trained with Clearstory.

{facts_table(card)}
## Open it with Clearstory

{USAGE[pipeline]}
## Open it in transformers

{transformers_section(architecture, auto_class)}"""


USAGE = {
    TEXT_GENERATION: """    clearstory generate FOLDER "Once upon a time"

```python
import clearstory

opened = clearstory.open("FOLDER")
logits = opened.logits([opened.tokenizer.encode("Once upon a time")])
```
""",
    "fill-mask": """    clearstory fill-mask FOLDER "Once upon a [MASK]"
    clearstory embed FOLDER "Once upon a time"
""",
    TEXT_CLASSIFICATION: """    clearstory classify FOLDER "Once upon a time"
""",
    TOKEN_CLASSIFICATION: """    clearstory tag FOLDER "Once upon a time"
""",
    "text2text-generation": """    clearstory generate FOLDER "Once upon a time" --beam 4
""",
    "feature-extraction": """    clearstory embed FOLDER "Once upon a time"
""",
}
"""Example commands by pipeline tag."""


ADAPTER_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
"""Auto classes of transformers by peft's task type; AutoModel for others."""


def adapter_readme(card: ModelCard, architecture: str | None, base: str, task_type: str | None) -> str:
    """The card of a LoRA adapter as Markdown.

    Args:
        card: the card.
        architecture: the class of its base model in transformers; None without one.
        base: where the base model is.
        task_type: peft's task type.
    """
    auto_class = ADAPTER_CLASSES.get(task_type or "", "AutoModel")
    pipeline = PIPELINES.get(auto_class, TEXT_GENERATION)
    return f"""---
library_name: {"peft" if architecture else "clearstory"}
pipeline_tag: {pipeline}
tags:
- lora
- clearstory
---

# {escape_table_cell(card.name)}

A LoRA adapter trained with Clearstory. Its base model is in `{escape_table_cell(base)}`.

{facts_table(card)}
## Open it with Clearstory

{USAGE[pipeline]}    clearstory convert FOLDER MERGED

## Open it in peft

{peft_section(architecture, auto_class)}"""


def onnx_readme(card: ModelCard, files: Sequence[str]) -> str:
    """The card of a folder of ONNX graphs as Markdown; `files` are the names of the graphs."""
    sessions = "\n".join(
        f'{file.split(".")[0].removesuffix("_model")} = onnxruntime.InferenceSession("FOLDER/{file}")' for file in files
    )
    return f"""---
library_name: onnx
tags:
- onnx
- clearstory
---

# {escape_table_cell(card.name)}

A language model made with Clearstory, exported to ONNX.

{facts_table(card)}
## Open it in onnxruntime

```python
import onnxruntime
from tokenizers import Tokenizer

{sessions}
tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
```
"""


def facts_table(card: ModelCard) -> str:
    """Family, parameters, bits per byte and training texts as Markdown tables."""
    texts = "".join(f"| `{escape_table_cell(name)}` | {size:,} bytes |\n" for name, size in card.trained_on)
    bits = "not measured" if card.bits_per_byte is None else f"{card.bits_per_byte:.4f} on held-out text"
    return f"""| | |
|---|---|
| family | {escape_table_cell(card.family)} |
| parameters | {card.parameters:,} |
| bits per byte | {bits} |

## Trained on

{"| text | size |" + chr(10) + "|---|---|" + chr(10) + texts if texts else "Not recorded." + chr(10)}"""


def peft_section(architecture: str | None, auto_class: str) -> str:
    """How to open an adapter with peft, or why that is not possible."""
    if architecture is None:
        return "No class of transformers can represent the base model, so only Clearstory opens its adapter.\n"
    auto_peft = auto_class.replace("Auto", "AutoPeft", 1)
    return f"""The files have peft's format, with the layer names of `{architecture}`:

```python
from peft import {auto_peft}

model = {auto_peft}.from_pretrained("FOLDER")
```
"""


def transformers_section(architecture: str | None, auto_class: str) -> str:
    """How to open the folder with transformers, or why that is not possible."""
    if architecture is None:
        return (
            "No class of transformers can represent this model, so the folder has Clearstory's own format "
            "(`model_type: clearstory`), which only Clearstory opens.\n"
        )
    return f"""The folder has the format of `{architecture}`:

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""


def escape_table_cell(text: str) -> str:
    """Text for a Markdown table cell: without bars, line breaks and backticks."""
    return " ".join(text.replace("|", "/").replace("`", "'").split())
