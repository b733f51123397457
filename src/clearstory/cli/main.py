"""Main: selects and runs a command, and turns its outcome into an exit status.

Exit status: 0 success; 1 failure, with one sentence on standard error; 2 an invalid command line or settings file;
130 interrupted with Ctrl-C.
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
    "quickstart": "train a small model on a built-in corpus in a few minutes and show what it learned",
    "train": "train a language model on your text",
    "generate": "generate text from a prompt",
    "fill-mask": "predict the token at each [MASK] of a text",
    "embed": "compute an embedding vector for each text",
    "classify": "predict the label of each text, or of each of its words",
    "translate": "translate texts with an encoder-decoder model",
    "tag": "predict the tag of each word of a text",
    "evaluate": "measure how well a model predicts a text, in bits per byte",
    "compare": "train or measure several models on the same text and rank them by bits per byte",
    "inspect": "show what a model computes between a text and its prediction",
    "studio": "serve a local web page for inspecting, running and training models",
    "convert": "convert a model to another file format and verify the result",
    "plan": "estimate the parameters, memory, time and cost of training a model",
    "data": "read a corpus and report its size, its splits and some of its text",
    "doctor": "check what this machine supports",
}
"""Every command with its line of help. Each is a module of clearstory.cli.commands, dashes as underscores."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"clearstory {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        return print_error(f"unknown command '{name}'; {nearest(name, COMMANDS)}", 2)
    # Imported here: the overview above must start at once, without the imports of the commands.
    from clearstory.cli.arguments import UsageError
    from clearstory.cli.command import prepare_command
    from clearstory.cli.help import command_help

    command = load_command(name)
    if is_help_requested(rest):
        print(command_help(name, COMMANDS[name], command))
        return 0
    try:
        run = prepare_command(command, rest)
    except (UsageError, ClearstoryError) as error:
        return print_error(f"clearstory {name}: {error}", 2)
    try:
        run()
    except ClearstoryError as error:
        return print_error(f"clearstory {name}: {error}", 1)
    except BrokenPipeError:
        # The reader of standard output has closed it; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Errors of the file system are reported in one sentence; any other OSError is a bug, with its traceback.
        if error.filename is None:
            raise
        reason = str(error.strerror or error).lower()
        return print_error(
            f"clearstory {name}: {error.filename}: {reason}; check this path, and who may write there", 1
        )
    except KeyboardInterrupt as stop:
        return print_error(str(stop) or f"clearstory {name}: stopped", 130)
    return 0


def load_command(name: str) -> Command:
    """The Command of a name. Imports its settings, but not the libraries that it runs on."""
    from importlib import import_module

    command: Command = import_module(f"clearstory.cli.commands.{name.replace('-', '_')}").COMMAND
    return command


def is_help_requested(words: Sequence[str]) -> bool:
    """Whether -h or --help is among the flags; words after a `--` are not flags."""
    flags = words[: words.index("--")] if "--" in words else words
    return "--help" in flags or "-h" in flags


def print_error(sentence: str, status: int) -> int:
    """Print an error on standard error and return the exit status."""
    print(sentence, file=sys.stderr)
    return status


def overview() -> str:
    """The help page of `clearstory` itself: all commands, one line each."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "Train, run, compare and inspect language models of every family on your own machine.\n\n"
        "usage: clearstory COMMAND [--help]\n\n"
        f"{rows}\n\n"
        "every command:\n"
        "  --help         show its arguments and flags, with an example\n"
        "  --json         print one JSON object on standard output, everything else on standard error\n"
        "  --config FILE  read settings from a YAML file; flags on the command line override it\n\n"
        "example: clearstory train book.txt --model clear --minutes 3 --out runs/book"
    )
