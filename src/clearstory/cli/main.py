"""Main: selects and runs a command, and turns its outcome into an exit status.

Exit status: 0 success; 1 failure, with one sentence on standard error; 2 an invalid command line or settings file;
130 interrupted with Ctrl-C; 141, without a word, where the reader of the output has closed it, as in `| head`.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clearstory import __version__
from clearstory.errors import ClearstoryError, ModelWarning, UnknownName, nearest

if TYPE_CHECKING:
    from clearstory.cli.command import Command

COMMANDS = {
    "quickstart": "train a small model on a built-in corpus in a few minutes and show what it learned",
    "train": "train a language model on your text",
    "finetune": "fine-tune a model for a task with labeled examples",
    "generate": "generate text from a prompt",
    "chat": "generate a chat model's answers in the terminal, turn by turn",
    "fill-mask": "predict the token at each [MASK] of a text",
    "embed": "compute an embedding vector for each text",
    "classify": "predict the label of each text, or of each of its words",
    "translate": "translate texts with an encoder-decoder or a fine-tuned decoder",
    "summarize": "summarize texts with a fine-tuned model or a chat model",
    "tag": "predict the tag of each word of a text",
    "evaluate": "measure a model's bits per byte on a text, or its metrics on a task",
    "prompt": "measure zero-shot and few-shot prompting on labeled examples",
    "compare": "train or evaluate several models on the same text and rank them by bits per byte",
    "inspect": "show the internals of a model on a text: attention, logit lens and other views",
    "serve": "serve models over HTTP with an OpenAI-compatible API",
    "studio": "serve a local web page for inspecting, running and training models",
    "convert": "convert a model to another file format and verify the result",
    "models": "show all model presets by family, with size and purpose",
    "plan": "estimate the parameters, memory, time and cost of training a model",
    "data": "report the size and splits of a corpus, with excerpts",
    "doctor": "check what this machine supports",
    "completion": "print a completion script for bash, zsh or fish",
}
"""Every command with its line of help. Each is a module of clearstory.cli.commands, dashes as underscores."""

HELP_FLAGS = ("-h", "--help")

SPIN_COUNT = "1000"
"""Iterations for which an idle compute thread of GNU's OpenMP waits before it sleeps. By its default of 300,000 a
command on two threads of a busy machine spends most of its time waiting: SmolLM2 took 28 CPU seconds for what took 3
with this value, and on idle cores both were as fast (100 tokens, 1.2 s). The studio's threads sleep at once.
"""

PIPE_CLOSED = 128 + 13
"""Exit status of a program whose output was closed by its reader, as shells report SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    prepare_output()
    try:
        status = run_command_line(list(sys.argv[1:] if argv is None else argv))
        flush_output()  # a closed pipe is met here, not when the interpreter exits
        if argv is None:
            gc.freeze()  # the interpreter exits 0.3 s earlier if it does not look for garbage among torch's objects
    except KeyboardInterrupt as stop:
        return print_error(str(stop) or "clearstory: stopped", 130)
    except (BrokenPipeError, SystemExit) as error:
        # rich turns a BrokenPipeError into SystemExit.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        discard_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno is None:
            raise  # a bug, with its traceback
        discard_output()
        reason = (error.strerror or str(error)).lower()
        return print_error(f"clearstory: {reason}; check the disk of the output, and the input files", 1)
    return status


def run_command_line(words: list[str]) -> int:
    """Run the command of a command line, or print a page of help, and return the exit status."""
    if not words or words[0] in (*HELP_FLAGS, "help"):
        return print_help(words[1:])
    if words[0] in ("--version", "-V", "version"):
        print(f"clearstory {__version__}")
        return 0
    if words[0] == "__complete" and len(words) > 1:
        from clearstory.cli.completion import complete

        print("\n".join(complete(words[1], words[2:])))
        return 0
    name, *rest = words
    if name not in COMMANDS:
        return print_error(unknown_command(name), 2)
    flags = rest[: rest.index("--")] if "--" in rest else rest  # words after a `--` are not flags
    if found := [position for position, word in enumerate(flags) if word in HELP_FLAGS]:
        return print_help([name, *flags[found[0] + 1 : found[0] + 2]])
    # Imported here: the overview must start at once, without the imports of the commands.
    from clearstory.cli.arguments import UsageError
    from clearstory.cli.command import prepare_command

    if name != "studio":
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is loaded
    command = load_command(name)
    try:
        run = prepare_command(command, rest)
    except (UsageError, ClearstoryError) as error:
        return print_error(f"clearstory {name}: {error}", 2)
    try:
        run()
    except ClearstoryError as error:
        return print_error(f"clearstory {name}: {error}", 1)
    except OSError as error:
        if error.filename is None:
            raise
        reason = str(error.strerror or error).lower()
        return print_error(f"clearstory {name}: {error.filename}: {reason}; check this path and its permissions", 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or "no memory is left"
        return print_error(
            f"clearstory {name}: not enough memory ({reason}); choose a smaller batch, context or model", 1
        )
    except KeyboardInterrupt as stop:
        return print_error(str(stop) or f"clearstory {name}: stopped", 130)
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated: by Python and numpy, or by torch on a CPU or a GPU."""
    return isinstance(error, MemoryError) or any(
        sign in str(error) for sign in ("allocate memory", "out of memory", "Invalid buffer size")
    )


def print_help(words: Sequence[str]) -> int:
    """Print the overview, or the page of a command and a section of its flags: `help`, `help train lora`."""
    names = [word for word in words if not word.startswith("-")]
    if not names or names[0] == "help":
        print(overview())
        return 0
    name, section = names[0], names[1] if len(names) > 1 else None
    if name not in COMMANDS:
        return print_error(unknown_command(name), 2)
    from clearstory.cli.help import command_help

    try:
        page = command_help(name, COMMANDS[name], load_command(name), section)
    except UnknownName as error:
        return print_error(f"clearstory {name}: {error}", 2)
    print(page)
    return 0


def load_command(name: str) -> Command:
    """The Command of a name. Imports its settings, but not the libraries that it runs on."""
    from importlib import import_module

    command: Command = import_module(f"clearstory.cli.commands.{name.replace('-', '_')}").COMMAND
    return command


def unknown_command(name: str) -> str:
    """The error message for a command that does not exist, with the nearest one."""
    return f"unknown command '{name}'; {nearest(name, COMMANDS)}"


def print_error(sentence: str, status: int) -> int:
    """Print an error on standard error and return the exit status."""
    print(sentence, file=sys.stderr)
    return status


def prepare_output() -> None:
    """Redirect streams that the shell has closed (>&-) to the null device; escape characters that cannot be encoded.

    The name of a file that is not UTF-8, for example, is printed as \\udcff, as in JSON.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for the whole program
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = show_warning


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Print a warning about a model in one line, any other as Python does."""
    is_note = issubclass(category, ModelWarning)
    text = f"clearstory: note: {message}\n" if is_note else warnings.formatwarning(message, category, filename, lineno)
    (file or sys.stderr).write(text)


def flush_output() -> None:
    """Write what standard output and standard error have buffered."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def discard_output() -> None:
    """Redirect streams that cannot be written to nowhere, since Python writes the rest of their buffers at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def overview() -> str:
    """The help page of `clearstory` itself: all commands, one line each."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "Train, run, compare and inspect language models of every family on your own machine.\n\n"
        "usage: clearstory COMMAND [--help]\n\n"
        f"{rows}\n\n"
        "every command:\n"
        "  --help         show its arguments and flags, with an example; also clearstory help COMMAND\n"
        "  --json         print one JSON object on standard output, everything else on standard error\n"
        "  --config FILE  read settings from a YAML file; flags on the command line override it\n\n"
        "example: clearstory train book.txt --model clear --minutes 3 --out runs/book"
    )
