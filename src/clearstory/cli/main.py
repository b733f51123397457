"""Main: which command is meant, and what its end means to the shell.

Exit status: 0 done; 1 failed, one sentence on standard error; 2 the command line or the settings file asks for
something that does not exist; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clearstory import __version__
from clearstory.errors import ClearstoryError, nearest

if TYPE_CHECKING:
    from clearstory.cli.command import Command

COMMANDS = {
    "quickstart": "from nothing to a model that writes, in a few minutes",
    "train": "train a model on your text",
    "generate": "let a model write",
    "fill": "what may stand at a [MASK], with probabilities",
    "embed": "a vector for each text",
    "classify": "the label of each text, or of each of its words",
    "translate": "let a model that has learnt from pairs rewrite texts",
    "tag": "let a model that has learnt tags say which each word has",
    "evaluate": "measure a model in bits per byte",
    "compare": "which model foresees a text best, in bits per byte",
    "inspect": "see what happens between the text and the prediction",
    "studio": "a web page over your models: look into them, let them write, train",
    "convert": "a model in another format",
    "plan": "parameters, memory, time and cost, before anything is spent",
    "data": "look at a text and count it",
    "doctor": "what this machine can do",
}
"""Every command with its line of help; each lives in the module of its name in clearstory.cli.commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"clearstory {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        return complain(f"there is no command called '{name}'; {nearest(name, COMMANDS)}", 2)
    # Imported here: the overview above must not wait for what a command needs.
    from clearstory.cli.command import UsageError, understand
    from clearstory.cli.help import page

    command: Command = load(name)
    if wants_help(rest):
        print(page(name, COMMANDS[name], command))
        return 0
    try:
        task = understand(command, rest)
    except (UsageError, ClearstoryError) as error:
        return complain(f"clearstory {name}: {error}", 2)
    try:
        task()
    except ClearstoryError as error:
        return complain(f"clearstory {name}: {error}", 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # What a disk or its rights refuse, wherever that comes to light; all else is a mistake of ours, and is shown.
        if error.filename is None:
            raise
        reason = str(error.strerror or error).lower()
        return complain(f"clearstory {name}: {error.filename}: {reason}; check this path, and who may write there", 1)
    except KeyboardInterrupt as stop:
        return complain(str(stop) or f"clearstory {name}: stopped", 130)
    return 0


def load(name: str) -> Command:
    """A command's settings, function and example, without the libraries it runs on."""
    from importlib import import_module

    command: Command = import_module(f"clearstory.cli.commands.{name}").COMMAND
    return command


def wants_help(words: Sequence[str]) -> bool:
    """Whether help is asked for, before a `--` that ends the flags."""
    flags = words[: words.index("--")] if "--" in words else words
    return "--help" in flags or "-h" in flags


def complain(sentence: str, status: int) -> int:
    """Say what is wrong on standard error; the exit status."""
    print(sentence, file=sys.stderr)
    return status


def overview() -> str:
    """The help of `clearstory` itself."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "Language models of every kind on your own machine.\n\n"
        "usage: clearstory COMMAND [--help]\n\n"
        f"{rows}\n\n"
        "every command:\n"
        "  --help         what it takes, with an example\n"
        "  --json         one JSON object on standard output, everything else on standard error\n"
        "  --config FILE  settings from a YAML file; the command line wins over it\n\n"
        "example: clearstory train book.txt --model clear --minutes 3 --out runs/book"
    )
