"""Request log: one JSON line per request, by default without its contents."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import Any, TextIO

from clearstory.server.context import RequestRecord

MAX_CONTENTS = 20_000
"""Maximum number of characters of a request's body in the log."""


class RequestLog:
    """Writes the log.

    Args:
        stream: where lines are written; standard error by default.
        contents: whether bodies of requests are logged.
    """

    def __init__(self, stream: TextIO | None = None, contents: bool = False) -> None:
        self.stream = stream
        self.contents = contents

    def request(self, record: RequestRecord, seconds: float, failure: BaseException | None = None) -> None:
        """Write the line of a finished request; `failure` is an unexpected exception."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "request",
            "id": record.id,
            "route": record.route,
            "model": record.model,
            "status": record.status,
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
            "milliseconds": round(1000 * seconds, 1),
        }
        if record.first_token is not None:
            line["first_token_milliseconds"] = round(1000 * (record.first_token - record.started), 1)
        if record.cancelled:
            line["cancelled"] = True
        if record.error is not None:
            line["error"] = record.error
        if failure is not None:
            line["where"] = frames(failure)
        if self.contents and record.contents is not None:
            line["contents"] = record.contents.decode("utf-8", errors="replace")[:MAX_CONTENTS]
        self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Write one line; a closed stream is ignored."""
        stream = self.stream or sys.stderr
        try:
            stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            stream.flush()
        except (OSError, ValueError):
            return


def frames(error: BaseException, limit: int = 8) -> list[str]:
    """Where an exception was raised, the innermost call last, and its type. Its message is omitted: it may hold what a
    client sent.
    """
    calls = traceback.extract_tb(error.__traceback__)[-limit:]
    return [*(f"{each.filename}:{each.lineno} {each.name}" for each in calls), type(error).__name__]
