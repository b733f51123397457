"""All tasks by their name on the command line."""

from __future__ import annotations

from clearstory.tasks.base import TaskSpec
from clearstory.tasks.chat import CHAT
from clearstory.tasks.choose import CHOOSE
from clearstory.tasks.classify import CLASSIFY, PAIRS
from clearstory.tasks.embed import EMBED
from clearstory.tasks.tag import TAG
from clearstory.tasks.text_to_text import SUMMARIZE, TRANSLATE

TASKS: dict[str, TaskSpec] = {
    "classify": CLASSIFY,
    "pairs": PAIRS,
    "tag": TAG,
    "embed": EMBED,
    "translate": TRANSLATE,
    "summarize": SUMMARIZE,
    "chat": CHAT,
    "choose": CHOOSE,
}
"""A new task is one file and a line here, and its name in `TaskName` of recipes/settings/finetuning.py."""
