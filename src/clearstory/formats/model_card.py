"""Cards: what a model is and what it was trained on, for people (README.md) and for us (config.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadInput
from clearstory.formats.hf.config_keys import check_float, check_int

MOST_TEXTS = 10_000


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model is.

    Args:
        name: what it is called.
        family: its kind: transformer, ngram, lstm ...
        parameters: numbers it has learnt; `save_model` counts them.
        trained_on: each text with its size in bytes.
        bits_per_byte: on held-out text, where it was measured.
    """

    name: str = "model"
    family: str = "transformer"
    parameters: int = 0
    trained_on: tuple[tuple[str, int], ...] = ()
    bits_per_byte: float | None = None

    def json(self) -> dict[str, Any]:
        """As it stands in config.json."""
        return {
            "name": self.name,
            "family": self.family,
            "parameters": self.parameters,
            "trained_on": [list(text) for text in self.trained_on],
            "bits_per_byte": self.bits_per_byte,
        }


def read_card(said: object, instead: ModelCard) -> ModelCard:
    """The card in a config.json, or `instead` where it has none. Raises BadInput for one that is none."""
    if said is None:
        return instead
    if not isinstance(said, Mapping):
        raise BadInput("config.json's clearstory.card is no object; remove it")
    texts = said.get("trained_on", [])
    if not isinstance(texts, list) or len(texts) > MOST_TEXTS:
        raise BadInput(f"config.json's card lists no texts, or more than {MOST_TEXTS:,}; remove it")
    trained_on = []
    for text in texts:
        if not isinstance(text, list) or len(text) != 2 or not isinstance(text[0], str):
            raise BadInput("config.json's card lists a text that is not a name and a size in bytes; remove it")
        trained_on.append((text[0], check_int("card.trained_on", text[1], 2**60, least=0)))
    bits = said.get("bits_per_byte")
    return ModelCard(
        name=str(said.get("name", instead.name)),
        family=str(said.get("family", instead.family)),
        # The model is there to be counted; what a file says of it is not needed.
        parameters=instead.parameters,
        trained_on=tuple(trained_on),
        bits_per_byte=None if bits is None else check_float("card.bits_per_byte", bits, 0.0, 1e6),
    )


PIPELINES = {
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForPreTraining": "fill-mask",
    "AutoModel": "feature-extraction",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForSeq2SeqLM": "text2text-generation",
}
"""What a model is for over there, by what opens it; all others write text."""


def readme(card: ModelCard, architecture: str | None, auto: str = "AutoModelForCausalLM") -> str:
    """The model card as Markdown. `architecture` is the class that opens the folder in transformers, if one does, and
    `auto` the one that finds it.
    """
    pipeline = PIPELINES.get(auto, "text-generation")
    library = "transformers" if architecture else "clearstory"
    return f"""---
library_name: {library}
pipeline_tag: {pipeline}
tags:
- clearstory
---

# {plain(card.name)}

A language model made with Clearstory.

{facts(card)}
## Open it here

{USES[pipeline]}
## Open it in transformers

{over_there(architecture, auto)}"""


CLASSIFY = """    clearstory classify FOLDER "Once upon a time"
    clearstory embed FOLDER "Once upon a time"
"""

USES = {
    "text-generation": """    clearstory generate FOLDER "Once upon a time"

```python
import clearstory

opened = clearstory.open("FOLDER")
logits = opened.logits([opened.tokenizer.encode("Once upon a time")])
```
""",
    "fill-mask": """    clearstory fill FOLDER "Once upon a [MASK]"
    clearstory embed FOLDER "Once upon a time"
""",
    "text-classification": CLASSIFY,
    "token-classification": CLASSIFY,
    "text2text-generation": """    clearstory generate FOLDER "Once upon a time" --beam 4
""",
    "feature-extraction": """    clearstory embed FOLDER "Once upon a time"
""",
}
"""How each is used here."""


def adapter_readme(card: ModelCard, architecture: str | None, base: str) -> str:
    """The card of an adapter as Markdown. `architecture` is the class of its base in transformers, if there is one."""
    return f"""---
library_name: {"peft" if architecture else "clearstory"}
pipeline_tag: text-generation
tags:
- lora
- clearstory
---

# {plain(card.name)}

What a language model learnt beside its weights (LoRA), made with Clearstory. The model itself is in `{plain(base)}`.

{facts(card)}
## Open it here

    clearstory generate FOLDER "Once upon a time"
    clearstory convert FOLDER MERGED

## Open it in peft

{beside(architecture)}"""


def onnx_readme(card: ModelCard, files: Sequence[str]) -> str:
    """The card of a folder of ONNX graphs as Markdown."""
    sessions = "\n".join(
        f'{file.split(".")[0].removesuffix("_model")} = onnxruntime.InferenceSession("FOLDER/{file}")' for file in files
    )
    return f"""---
library_name: onnx
tags:
- onnx
- clearstory
---

# {plain(card.name)}

A language model made with Clearstory, as ONNX.

{facts(card)}
## Open it in onnxruntime

```python
import onnxruntime
from tokenizers import Tokenizer

{sessions}
tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
```
"""


def facts(card: ModelCard) -> str:
    """What is known of a model, as tables."""
    texts = "".join(f"| `{plain(name)}` | {size:,} bytes |\n" for name, size in card.trained_on)
    bits = "not measured" if card.bits_per_byte is None else f"{card.bits_per_byte:.4f} on held-out text"
    return f"""| | |
|---|---|
| family | {plain(card.family)} |
| parameters | {card.parameters:,} |
| bits per byte | {bits} |

## Trained on

{"| text | size |" + chr(10) + "|---|---|" + chr(10) + texts if texts else "Not recorded." + chr(10)}"""


def beside(architecture: str | None) -> str:
    """How peft opens an adapter, or why it cannot."""
    if architecture is None:
        return "No class of transformers expresses the base, so only Clearstory opens its adapter.\n"
    return f"""The files are peft's, in the names of `{architecture}`:

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
```
"""


def over_there(architecture: str | None, auto: str) -> str:
    """How transformers opens the folder, or why it cannot."""
    if architecture is None:
        return (
            "No class of transformers expresses this model, so the folder carries Clearstory's own names "
            "(`model_type: clearstory`), and only Clearstory opens it.\n"
        )
    return f"""The folder carries the names of `{architecture}`, so it opens as it is:

```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""


def plain(text: str) -> str:
    """A name within a table: no bars, no line ends, no code marks."""
    return " ".join(text.replace("|", "/").replace("`", "'").split())
