"""Renders untrusted Jinja templates in a separate process with limited memory and time. Imports only jinja2.

`template_process` starts this file as a script. A request is a line of JSON on standard input, and its answer a line on
standard output: {"text": ...}, or {"error": KIND, "message": ...} with one of the kinds below.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

INVALID, UNSAFE, REFUSED, FAILED, TOO_LARGE = "invalid", "unsafe", "refused", "failed", "too large"
"""Kinds of errors: invalid Jinja, access to Python's internals, `raise_exception`, other errors, too much memory."""


class MessagesRefused(Exception):
    """A template called `raise_exception`."""


def main(cpu_seconds: float, memory: int, max_text: int) -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is sent to this process, too
    limit_memory(memory)
    for line in sys.stdin:
        limit_time(cpu_seconds)
        answer = json.dumps(answer_request(json.loads(line), max_text))
        limit_time(0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def limit_memory(size: int) -> None:
    """Limit the memory of this process, and forbid it to write files, where the system has such limits."""
    try:
        import resource
    except ImportError:
        return
    for limit, value in ((resource.RLIMIT_AS, size), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # macOS does not limit address space
            continue


def limit_time(seconds: float) -> None:
    """End this process after a number of seconds of CPU time; 0: no limit."""
    if hasattr(signal, "setitimer"):
        # The signal is not handled, so it ends a loop in C code as well.
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer_request(request: dict[str, Any], max_text: int) -> dict[str, str]:
    """The rendered text, or the error."""
    now = datetime.fromisoformat(request["now"])
    functions = {"strftime_now": lambda form: now.strftime(str(form)), "raise_exception": raise_exception}
    try:
        try:
            template = compile_template(request["source"])
        except (TemplateError, RecursionError, SyntaxError, ValueError) as error:
            return {"error": INVALID, "message": one_line(error)}
        text = template.render(**request["variables"], **functions)
        if len(text) > max_text:
            return {"error": TOO_LARGE, "message": f"it outputs more than {max_text:,} characters"}
        return {"text": text}
    except SecurityError as error:
        return {"error": UNSAFE, "message": one_line(error)}
    except MessagesRefused as error:
        return {"error": REFUSED, "message": one_line(error)}
    except (MemoryError, OverflowError):
        return {"error": TOO_LARGE, "message": "it creates a value that is too large"}
    except TemplateError as error:
        return {"error": FAILED, "message": one_line(error)}
    except Exception as error:  # whatever a template's arithmetic and filters may raise
        return {"error": FAILED, "message": f"{type(error).__name__}: {one_line(error)}"}


@lru_cache(maxsize=16)
def compile_template(source: str) -> Template:
    """The compiled template, in the environment that transformers renders chat templates in."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    return environment.from_string(source)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it, without Jinja's HTML escaping."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: object) -> NoReturn:
    """Raises MessagesRefused; templates call it for messages that they do not support."""
    raise MessagesRefused(str(message))


def one_line(error: object) -> str:
    """A message shortened to one line of at most 200 characters."""
    return " ".join(str(error)[:2000].split())[:200]


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
