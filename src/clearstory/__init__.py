"""Clearstory: small language models of many families, on your own machine.

The public names are imported on first use, so that `import clearstory` takes no time. `__all__` lists them; everything
else may change between releases.

>>> import clearstory
>>> "plan" in dir(clearstory)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; `__getattr__` imports the same names at run time
    from clearstory.errors import ClearstoryError
    from clearstory.formats.folders import OpenedModel
    from clearstory.formats.folders import open_model as open
    from clearstory.recipes.comparison.compare import compare
    from clearstory.recipes.comparison.leaderboard import Leaderboard
    from clearstory.recipes.comparison.scaling import scaling_law
    from clearstory.recipes.comparison.scaling_report import ScalingReport
    from clearstory.recipes.conversion.convert import Conversion, convert
    from clearstory.recipes.data import DataReport, data
    from clearstory.recipes.doctor import DoctorReport, doctor
    from clearstory.recipes.finetuning.loop import FinetuneResult, finetune
    from clearstory.recipes.inference.chat import ChatSession, chat
    from clearstory.recipes.inference.chat_answer import ChatAnswer, ChatText
    from clearstory.recipes.inference.classify import Classification, classify
    from clearstory.recipes.inference.completion import Completion
    from clearstory.recipes.inference.embed import Embeddings, embed
    from clearstory.recipes.inference.evaluate import Evaluation, evaluate
    from clearstory.recipes.inference.evaluate_encoder import EncoderEvaluation
    from clearstory.recipes.inference.fill_mask import MaskFill, fill_mask
    from clearstory.recipes.inference.generate import Generation, generate
    from clearstory.recipes.inference.inspect import inspect
    from clearstory.recipes.inference.similarity_search import Deduplication, SearchResults, deduplicate, search
    from clearstory.recipes.inference.tag import TaggedWords, tag
    from clearstory.recipes.inference.translate import Translation, summarize, translate
    from clearstory.recipes.inference.vector_scores import VectorEvaluation
    from clearstory.recipes.planning.plan import ModelPlan, plan
    from clearstory.recipes.prompting.prompt import prompt
    from clearstory.recipes.prompting.report import PromptReport
    from clearstory.recipes.training.events import TrainingResult
    from clearstory.recipes.training.loop import train

__version__ = "0.1.0"

__all__ = [
    "ChatAnswer",
    "ChatSession",
    "ChatText",
    "Classification",
    "ClearstoryError",
    "Completion",
    "Conversion",
    "DataReport",
    "Deduplication",
    "DoctorReport",
    "Embeddings",
    "EncoderEvaluation",
    "Evaluation",
    "FinetuneResult",
    "Generation",
    "Leaderboard",
    "MaskFill",
    "ModelPlan",
    "OpenedModel",
    "PromptReport",
    "ScalingReport",
    "SearchResults",
    "TaggedWords",
    "TrainingResult",
    "Translation",
    "VectorEvaluation",
    "__version__",
    "chat",
    "classify",
    "compare",
    "convert",
    "data",
    "deduplicate",
    "doctor",
    "embed",
    "evaluate",
    "fill_mask",
    "finetune",
    "generate",
    "inspect",
    "open",
    "plan",
    "prompt",
    "scaling_law",
    "search",
    "summarize",
    "tag",
    "train",
    "translate",
]

FUNCTIONS = {
    "train": "clearstory.recipes.training.loop:train",
    "finetune": "clearstory.recipes.finetuning.loop:finetune",
    "generate": "clearstory.recipes.inference.generate:generate",
    "chat": "clearstory.recipes.inference.chat:chat",
    "fill_mask": "clearstory.recipes.inference.fill_mask:fill_mask",
    "embed": "clearstory.recipes.inference.embed:embed",
    "search": "clearstory.recipes.inference.similarity_search:search",
    "deduplicate": "clearstory.recipes.inference.similarity_search:deduplicate",
    "classify": "clearstory.recipes.inference.classify:classify",
    "translate": "clearstory.recipes.inference.translate:translate",
    "summarize": "clearstory.recipes.inference.translate:summarize",
    "tag": "clearstory.recipes.inference.tag:tag",
    "evaluate": "clearstory.recipes.inference.evaluate:evaluate",
    "prompt": "clearstory.recipes.prompting.prompt:prompt",
    "compare": "clearstory.recipes.comparison.compare:compare",
    "scaling_law": "clearstory.recipes.comparison.scaling:scaling_law",
    "inspect": "clearstory.recipes.inference.inspect:inspect",
    "convert": "clearstory.recipes.conversion.convert:convert",
    "plan": "clearstory.recipes.planning.plan:plan",
    "data": "clearstory.recipes.data:data",
    "doctor": "clearstory.recipes.doctor:doctor",
    "open": "clearstory.formats.folders:open_model",
}
"""Modules of the public functions, whose arguments are checked when they are called from here."""

TYPES = {
    "ClearstoryError": "clearstory.errors",
    "ChatAnswer": "clearstory.recipes.inference.chat_answer",
    "ChatSession": "clearstory.recipes.inference.chat",
    "ChatText": "clearstory.recipes.inference.chat_answer",
    "Classification": "clearstory.recipes.inference.classify",
    "Completion": "clearstory.recipes.inference.completion",
    "Conversion": "clearstory.recipes.conversion.convert",
    "DataReport": "clearstory.recipes.data",
    "Deduplication": "clearstory.recipes.inference.similarity_search",
    "DoctorReport": "clearstory.recipes.doctor",
    "Embeddings": "clearstory.recipes.inference.embed",
    "EncoderEvaluation": "clearstory.recipes.inference.encoder_evaluation",
    "Evaluation": "clearstory.recipes.inference.text_evaluation",
    "FinetuneResult": "clearstory.recipes.finetuning.loop",
    "Generation": "clearstory.recipes.inference.generate",
    "Leaderboard": "clearstory.recipes.comparison.leaderboard",
    "ScalingReport": "clearstory.recipes.comparison.scaling_report",
    "MaskFill": "clearstory.recipes.inference.fill_mask",
    "ModelPlan": "clearstory.recipes.planning.plan",
    "OpenedModel": "clearstory.formats.folders",
    "PromptReport": "clearstory.recipes.prompting.report",
    "SearchResults": "clearstory.recipes.inference.similarity_search",
    "TaggedWords": "clearstory.recipes.inference.tag",
    "TrainingResult": "clearstory.recipes.training.events",
    "Translation": "clearstory.recipes.inference.translate",
    "VectorEvaluation": "clearstory.recipes.inference.vector_scores",
}
"""Modules of the error class and of the types that the public functions return."""


if not TYPE_CHECKING:  # to a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use."""
        if name in FUNCTIONS:
            from clearstory.recipes.settings.arguments import check_arguments

            module, _, attribute = FUNCTIONS[name].partition(":")
            value: Any = check_arguments(getattr(import_module(module), attribute), name)
        elif name in TYPES:
            value = getattr(import_module(TYPES[name]), name)
        else:
            raise AttributeError(f"module 'clearstory' has no attribute '{name}'")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
