"""Chat terminal: reads messages and commands line by line, and prints answers as they are generated."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from clearstory.cli.command import Output
from clearstory.errors import BadInput, ClearstoryError
from clearstory.recipes.inference.chat import ChatSession
from clearstory.recipes.inference.chat_answer import ChatAnswer, ChatText
from clearstory.recipes.inference.chat_client import printable

HELP = """\
  /help              this page
  /system [TEXT]     show the system message, or set it; /system - removes it
  /retry             answer the last message again
  /edit [TEXT]       change the last message and answer it again
  /undo              remove the last message and its answer
  /clear             clear the conversation; the system message is kept
  /save FILE         write the conversation as JSON (OpenAI's messages)
  /load FILE         continue a conversation that was saved
  /set NAME VALUE    change a sampling setting: /set temperature 0.7; /set shows them
  /stats             tokens, speed and used part of the context
  /exit              exit, like Ctrl-D
A message of several lines is between lines of three quotation marks, or each line but the last ends in a backslash.
Ctrl-C stops an answer and keeps its text. A message that starts with a slash needs two slashes."""

PROMPT, MORE = "> ", ". "

LEAVING = ("/exit", "/quit", "/bye")

QUOTES = '"""'


class ChatTerminal:
    """A chat in a terminal.

    Args:
        session: the conversation.
        output: where answers and notes are printed.
        read_line: reads a line after a prompt; raises EOFError at the end of the input.
    """

    def __init__(self, session: ChatSession, output: Output, read_line: Callable[[str], str] | None = None) -> None:
        self.session, self.output = session, output
        self.read_line = read_line or editable_input()
        self.commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self.output.console.print(HELP),
            "system": self.system,
            "retry": lambda _: self.show(self.session.retry()),
            "edit": self.edit,
            "undo": self.undo,
            "clear": self.clear,
            "save": self.save,
            "load": self.load,
            "set": self.set,
            "stats": self.stats,
        }

    def run(self) -> None:
        """Read messages and commands until the end of the input."""
        self.note("/help lists the commands; Ctrl-D exits")
        while True:
            try:
                text = read_message(self.read_line)
                if text.strip() in LEAVING:
                    return
                self.handle(text)
            except EOFError:
                self.output.write("\n")
                return
            except KeyboardInterrupt:  # at the prompt, or a second one in an answer
                self.output.write("\n")
                self.note("Ctrl-D or /exit exits")
            except ClearstoryError as error:
                self.note(str(error))
            except OSError as error:
                self.note(f"{error.filename or 'the file'}: {(error.strerror or str(error)).lower()}")

    def handle(self, text: str) -> None:
        """Answer a message, or run a command."""
        if not text.strip():
            return
        if not text.startswith("/") or text.startswith("//"):
            self.show(self.session.send(text.removeprefix("/") if text.startswith("//") else text))
            return
        name, _, argument = text[1:].partition(" ")
        if name not in self.commands:
            raise BadInput(
                f"the command /{name[:40]} does not exist; /help lists all commands; use two slashes to start a "
                "message with a slash"
            )
        self.commands[name](argument.strip())

    def show(self, events: Iterable[ChatText | ChatAnswer]) -> None:
        """Print an answer as it is generated, and how it ended. Ctrl-C ends it."""
        with interrupting(self.session.interrupt):
            for event in events:
                if isinstance(event, ChatText):
                    self.output.write(printable(event.text))
                else:
                    self.output.write("\n")
                    self.note(describe(event, self.session.sampling.max_tokens))

    def system(self, argument: str) -> None:
        """Show, set or remove the system message."""
        if argument:
            self.session.system = None if argument == "-" else argument
        shown = self.session.system
        self.note("there is no system message" if shown is None else f"system message: {shown}")

    def edit(self, argument: str) -> None:
        """Replace the last message; without a text, edit it in the line editor."""
        if not argument:
            questions = [each["content"] for each in self.session.messages if each["role"] == "user"]
            if not questions:
                raise BadInput("there is no message to change; write one first")
            with prefilled(questions[-1]):
                argument = self.read_line(PROMPT)
        self.show(self.session.edit(argument))

    def undo(self, argument: str) -> None:
        """Remove the last message and its answer."""
        self.note(f"removed: {self.session.undo()[:60]}")

    def clear(self, argument: str) -> None:
        """Clear the conversation."""
        self.session.clear()
        self.note("the conversation is empty")

    def save(self, argument: str) -> None:
        """Write the conversation to a file."""
        if not argument:
            raise BadInput("the file name is missing; use /save FILE")
        self.note(f"{len(self.session.messages)} messages written to {self.session.save(argument)}")

    def load(self, argument: str) -> None:
        """Continue the conversation in a file."""
        if not argument:
            raise BadInput("the file name is missing; use /load FILE")
        self.session.load(argument)
        for each in self.session.messages:
            self.output.write(f"{PROMPT if each['role'] == 'user' else ''}{printable(each['content'])}\n")
        unanswered = self.session.messages and self.session.messages[-1]["role"] == "user"
        self.note(f"{len(self.session.messages)} messages read{'; /retry answers the last' if unanswered else ''}")

    def set(self, argument: str) -> None:
        """Change a sampling setting, or show all."""
        name, _, value = argument.partition(" ")
        if value:
            self.session.set(name, value.strip())
        sampling = self.session.sampling
        penalties = ["repetition_penalty", "presence_penalty", "frequency_penalty"]
        names = [name] if value else ["max_tokens", "temperature", "top_k", "top_p", "min_p", *penalties]
        given = {each: getattr(sampling, each) for each in names}
        self.note(", ".join(f"{each} {'default' if value is None else value}" for each, value in given.items()))

    def stats(self, argument: str) -> None:
        """Show statistics of the conversation."""
        found = self.session.stats()
        context = f" of {found['context']:,}" if found["context"] else ""
        kept = found["prompt_tokens"] - found["read_tokens"]
        self.note(
            f"{found['messages']} messages, {found['context_tokens']:,}{context} tokens of the context; "
            f"{found['generated_tokens']:,} tokens in {found['answers']} answers, the last at "
            f"{found['tokens_per_second']:.1f} tokens per second; {kept:,} of {found['prompt_tokens']:,} prompt tokens "
            "were cached from previous turns"
        )

    def note(self, sentence: str) -> None:
        """Print a note on standard error."""
        self.output.stderr.print(sentence, style="dim")


def describe(answer: ChatAnswer, max_tokens: int | None) -> str:
    """Speed and ending of an answer, in one line."""
    parts = [f"{answer.generated_tokens:,} tokens, {answer.tokens_per_second:.1f} tokens per second"]
    if answer.finished == "length":
        most = max_tokens or answer.generated_tokens
        parts.append(f"truncated after {most:,} tokens (/set max_tokens {2 * most})")
    elif answer.finished == "context":
        parts.append("the context is full: remove turns (/undo), clear it (/clear), or restart with --truncate left")
    elif answer.finished == "interrupted":
        parts.append("interrupted")
    if answer.left_out:
        parts.append(f"the first {answer.left_out} messages are dropped from the context")
    if not answer.text:
        parts.append("the answer is empty; the message was removed")
    return "; ".join(parts)


def answer_lines(session: ChatSession, lines: TextIO, output: Output) -> list[ChatAnswer]:
    """The answers to the lines of a file that are not blank, printed as they are generated."""
    answers = []
    for line in lines:
        if not line.strip():
            continue
        for event in session.send(line.rstrip("\n").removesuffix("\r")):
            if isinstance(event, ChatAnswer):
                answers.append(event)
            elif not output.json:
                output.write(printable(event.text))
        if not output.json:
            output.write("\n")
    return answers


def read_message(read_line: Callable[[str], str]) -> str:
    """One message: a line, lines of which all but the last end in a backslash, or lines between three quotation marks.

    >>> lines = iter(['one \\\\', 'two', '\"\"\"', 'three', '\"\"\"'])
    >>> [read_message(lambda prompt: next(lines)) for _ in range(2)]
    ['one \\ntwo', 'three']
    """
    line = read_line(PROMPT)
    if line.strip().startswith(QUOTES):
        text = [line.strip().removeprefix(QUOTES)]
        if text[0].endswith(QUOTES):
            return text[0].removesuffix(QUOTES)
        while not text[-1].rstrip().endswith(QUOTES) or len(text) == 1:
            text.append(read_line(MORE))
        text[-1] = text[-1].rstrip().removesuffix(QUOTES)
        return "\n".join(text).strip("\n")
    text = [line]
    while text[-1].endswith("\\"):
        text[-1] = text[-1].removesuffix("\\")
        text.append(read_line(MORE))
    return "\n".join(text)


def editable_input() -> Callable[[str], str]:
    """`input` with line editing and history, where the system has it."""
    with suppress(ImportError):
        import readline  # noqa: F401  # `input` uses it once it is imported
    return input


@contextmanager
def prefilled(text: str) -> Iterator[None]:
    """A block in which the next line that is read begins as this text, to be edited."""
    try:
        import readline
    except ImportError:
        raise BadInput("this system has no line editor; use /edit TEXT") from None
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        yield
    finally:
        readline.set_startup_hook()


@contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """A block in which Ctrl-C calls `interrupt`, and a second one raises KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupt()

    try:
        signal.signal(signal.SIGINT, on_signal)
    except ValueError:  # not in the main thread, which alone is sent signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
