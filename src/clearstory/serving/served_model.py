"""ServedModel: an opened model with its name, its tokenizer, and what it can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clearstory.errors import CannotDo, ClearstoryError
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.generation.prompt_format import PromptFormat
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.inference_encoder import inference_encoder
from clearstory.models.inference_model import inference_model
from clearstory.models.precision import Precision, resolve_precision
from clearstory.models.prompts import is_chat
from clearstory.recipes.inference.embed import Embedder, Pooling, load_embedder
from clearstory.recipes.inference.fill_mask import MaskFill, fill_mask
from clearstory.recipes.inference.loading import load_generator
from clearstory.tasks.sentence_inputs import SentenceInputs, TruncationSide
from clearstory.text.tokenizers import Tokenizer

Ability = Literal["chat", "text", "vectors", "masks"]
"""chat: answers a conversation; text: continues a prompt or generates from a source; vectors: embeds texts; masks:
predicts masked tokens.
"""

SERVED_ROWS = 32
"""Number of sequences that weights are packed for, if the fastest layout depends on it."""


@dataclass(frozen=True)
class ServedModel:
    """A model that is served.

    Args:
        name: its name in requests.
        opened: the model as it was opened.
        model: model for generation: in the fastest layout for inference, or the model itself.
        tokenizer: its tokenizer.
        generation_config: its generation config.
        prompt_format: what starts, ends and constrains its texts.
        int8: whether linear layers are rounded to 8 bits for vectors.
        pooling: pooling of vectors; None: that of the model folder.
    """

    name: str
    opened: OpenedModel
    model: LanguageModel
    tokenizer: Tokenizer
    generation_config: GenerationConfig
    prompt_format: PromptFormat
    int8: bool = False
    pooling: Pooling | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        precision: Precision = "auto",
        int8: bool = False,
        device: str | None = None,
        pooling: Pooling | None = None,
    ) -> ServedModel:
        """The model at a path, with this name or `model_name(path)`. Raises the errors of `open_model`."""
        precision = resolve_precision(precision, int8)
        opened = open_model(path, keep_blocks=precision in ("auto", "int8", "int4") and device in (None, "cpu"))
        return cls.of(
            opened, model_name(path) if name is None else name, precision=precision, device=device, pooling=pooling
        )

    @classmethod
    def of(
        cls,
        opened: OpenedModel,
        name: str,
        *,
        precision: Precision = "auto",
        device: str | None = None,
        pooling: Pooling | None = None,
    ) -> ServedModel:
        """An opened model with this name. Raises BadInput for one without a tokenizer."""
        model, tokenizer, config = load_generator(opened, device)
        if has_capability(model, Capability.CAUSAL):
            model = inference_model(model, precision, SERVED_ROWS)
        prompt_format = PromptFormat.of(model, tokenizer, None, generation_config=config)
        return cls(name, opened, model, tokenizer, config, prompt_format, precision == "int8", pooling)

    @property
    def family(self) -> str:
        """The model's architecture or family."""
        return family_name(self.opened.model)

    @cached_property
    def abilities(self) -> tuple[Ability, ...]:
        """What the model can do."""
        found: list[Ability] = []
        if has_capability(self.model, Capability.CAUSAL):
            found += ["chat", "text"] if is_chat(self.model, self.tokenizer) else ["text"]
        try:
            _ = self.embedder
            found.append("vectors")
        except ClearstoryError:
            pass
        if has_capability(self.opened.model, Capability.MLM_HEAD) and self.tokenizer.mask_token_id is not None:
            found.append("masks")
        return tuple(found)

    def require(self, ability: Ability) -> None:
        """Raises CannotDo for a model without this ability."""
        if ability not in self.abilities:
            named = ", ".join(ABILITY_NAMES[each] for each in self.abilities) or "nothing that can be served"
            raise CannotDo(f"the model '{self.name}' ({self.family}) has no {ABILITY_NAMES[ability]}; it has: {named}")

    def require_chat(self) -> None:
        """Raises CannotDo for a model without a chat template."""
        self.require("chat")

    def require_text(self) -> None:
        """Raises CannotDo for a model that does not generate text."""
        self.require("text")

    def require_vectors(self) -> None:
        """Raises CannotDo for a model without sentence vectors."""
        self.require("vectors")

    def require_masks(self) -> None:
        """Raises CannotDo for a model without a head for masked tokens."""
        self.require("masks")

    @cached_property
    def embedder(self) -> Embedder:
        """The sentence embedder. Raises CannotDo for a model without sentence vectors."""
        return load_embedder(self.opened, self.pooling, None, int8=self.int8)

    @cached_property
    def vector_network(self) -> Any:
        """The network that embeds texts, in the fastest layout for inference."""
        return inference_encoder(self.embedder.network, int8=self.int8)

    def vector_inputs(self, prompt: str | None = None, truncate: TruncationSide | None = None) -> SentenceInputs:
        """Encoder of texts as the ids of a `VectorRequest`."""
        return self.embedder.inputs(prompt, truncate)

    def vectors(self, rows: Sequence[Sequence[int]], skipped: int, normalize: bool) -> npt.NDArray[np.float32]:
        """One vector per row of ids, (N, W); the first `skipped` ids of each row are not pooled."""
        return self.embedder.vectors_of_ids(rows, self.vector_network, skipped, normalize=normalize)

    def fill_masks(self, texts: Sequence[str], top: int = 5) -> list[MaskFill]:
        """The `top` most likely tokens at each [MASK] of each text."""
        return fill_mask(self.opened, list(texts), top=top)


ABILITY_NAMES: dict[Ability, str] = {
    "chat": "chat template, which chats need",
    "text": "text generation",
    "vectors": "sentence vectors",
    "masks": "prediction of masked tokens",
}
"""Names of the abilities in messages."""


def model_name(path: str | Path) -> str:
    """The name of the model at a path: that of its folder or run, or of its file without the suffix.

    >>> [model_name(path) for path in ("runs/book/model", "models/smollm2", "SmolLM2.Q8_0.gguf", "corpus.arpa")]
    ['book', 'smollm2', 'SmolLM2.Q8_0', 'corpus']
    """
    path = Path(path)
    if path.suffix in (".gguf", ".arpa", ".bin"):
        return path.stem
    path = path.absolute()
    return path.parent.name if path.name == "model" else path.name
