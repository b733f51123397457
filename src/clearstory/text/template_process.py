"""The process that renders chat templates: started for the first one, then kept, ended when it takes too long.

Jinja's sandbox prevents access to Python's objects, but does not limit the computation: a macro that calls itself
twice to a depth of sixty runs practically forever. The limits here are those of the operating system, so they apply to
any template. Starting takes 0.1 s, a rendering then less than 1 ms.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CannotDo

CPU_SECONDS = 0.5
"""CPU time of one rendering. An ordinary template takes milliseconds."""

WALL_SECONDS = 2.0 if os.name == "nt" else 15.0
"""Time of one rendering by the clock, for systems without limits of CPU time, and busy ones."""

MAX_MEMORY = 256 * 2**20
"""Memory of the process, of which Python and jinja2 take about 50 MB."""

MAX_TEXT = 2**22
"""Maximum number of characters of a template's output."""

TOO_SLOW = "the chat template takes more than {seconds:g} s of CPU time; use another template"

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def render_template(source: str, variables: Mapping[str, Any], now: datetime) -> str:
    """The text of a template with these variables, which must be JSON. `now` is what `strftime_now` prints.

    Raises BadInput for a template that is invalid, fails, refuses the messages, or needs too much time or memory.
    """
    try:
        request = json.dumps({"source": source, "variables": variables, "now": now.isoformat()})
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"the messages of a chat must be text, numbers and lists of them ({error})") from None
    with _lock:
        answer = _ask(request.encode() + b"\n")
    if "text" in answer:
        return str(answer["text"])
    from clearstory.text import template_worker as worker  # jinja2 takes 0.1 s to import

    message = answer["message"]
    sentences = {
        worker.INVALID: f"the chat template is not valid Jinja: {message}",
        worker.UNSAFE: f"the chat template tries to access unsafe attributes ({message}) and was stopped; do not trust "
        "the folder of this model",
        worker.REFUSED: f"the chat template does not accept these messages ({roles_of(variables)}): {message}",
        worker.TOO_LARGE: f"the chat template needs too much memory ({message}); use another template",
    }
    raise BadInput(sentences.get(answer["error"], f"the chat template fails on these messages: {message}"))


def roles_of(variables: Mapping[str, Any]) -> str:
    """The roles of the messages in their order, of many only the first.

    >>> roles_of({"messages": [{"role": "user"}, {"role": "user"}]})
    'user, user'
    """
    roles = [str(each.get("role"))[:20] for each in variables.get("messages", ())]
    return ", ".join(roles[:SHOWN_ROLES]) + (
        f" and {len(roles) - SHOWN_ROLES} more" if len(roles) > SHOWN_ROLES else ""
    )


SHOWN_ROLES = 12
"""Number of roles in an error message."""


def _ask(request: bytes) -> dict[str, str]:
    """The answer of the process to a request; it is started if it does not run."""
    process = _running_process()
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(WALL_SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(request)
            process.stdin.flush()
        line = process.stdout.readline()
    finally:
        timer.cancel()
    try:
        answer: dict[str, str] = json.loads(line)
    except ValueError:
        raise BadInput(_why_it_ended(process)) from None
    return answer


def _running_process() -> subprocess.Popen[bytes]:
    """The process, started if there is none, or if the last one ended."""
    global _process
    if _process is not None and _process.poll() is None:
        return _process
    stop_process()
    if not sys.executable:
        raise CannotDo("chat templates are rendered in a separate Python process, but the Python executable is unknown")
    limits = [str(CPU_SECONDS), str(MAX_MEMORY), str(MAX_TEXT)]
    # -P: the folder of the script holds modules with names of the standard library.
    command = [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py")), *limits]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    _process = subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONUTF8": "1"})  # type: ignore[call-overload]
    return _process


def _why_it_ended(process: subprocess.Popen[bytes]) -> str:
    """Why the process ended before it answered."""
    stop_process()
    code = process.returncode
    if code is not None and code < 0 and code not in (-11, -6):  # not a crash: a signal of a limit
        return TOO_SLOW.format(seconds=CPU_SECONDS)
    return "the chat template needs too much memory or nests too deeply; use another template"


def stop_process() -> None:
    """End the process. The next rendering starts another."""
    global _process
    process, _process = _process, None
    if process is None:
        return
    process.kill()
    process.wait()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def _forget_process() -> None:
    """A forked child starts its own process: two must not read one pipe."""
    global _process, _lock
    if _process is not None:
        _close_pipes(_process)
        _process.returncode = 0  # it is not this process's child, and cannot be waited for
    _process, _lock = None, threading.Lock()


atexit.register(stop_process)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_process)
