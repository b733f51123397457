"""Settings of chat fine-tuning: which tokens are trained, and the template. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How conversations become training sequences.

    Args:
        assistant_only_loss: compute the loss only on the assistant's tokens and their end-of-turn tokens; off: on all
            tokens.
        chat_template: chat template to use instead of the model's, or for a model without one: chatml, or a file with a
            Jinja template.
    """

    assistant_only_loss: bool = True
    chat_template: str | None = None

    def check_used(self, task: str) -> None:
        """Raise BadSetting for a setting that is not the default with another task."""
        changed = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if changed and task != "chat":
            raise BadSetting(f"{changed[0]} is for task chat, but task is {task}; leave it out")
