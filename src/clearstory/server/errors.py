"""Errors of the server: one sentence with an HTTP status, in the format of OpenAI's API.

    {"error": {"message": "max_tokens is -1; …", "type": "invalid_request_error", "param": "max_tokens", "code": "…"}}

Every exception becomes a `RequestError` before it leaves the server; none is sent with a traceback.
"""

from __future__ import annotations

from typing import Any

from clearstory.errors import (
    BadInput,
    BadSetting,
    CannotDo,
    ClearstoryError,
    ContextOverflow,
    CorruptFile,
    DiskError,
    Diverged,
    GrammarViolation,
    MissingExtra,
    Overloaded,
    UnknownName,
    VocabularyMismatch,
)

MAX_MESSAGE = 2000
"""Maximum number of characters of an error message; longer ones are shortened in the middle."""


class RequestError(ClearstoryError):
    """An error of a request, with its HTTP status and the invalid field.

    Args:
        message: one sentence: the value received, and what to send instead.
        param: the field, such as "messages[2].content"; None if the error is not that of a single field.
        code: machine-readable code, such as "unknown_parameter".
        status: the HTTP status.
        retry_after: seconds after which the client may try again; sent as the header Retry-After.
        methods: methods that the path supports; sent as the header Allow.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after: int | None = None,
        methods: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.methods = methods

    @property
    def type(self) -> str:
        """Error type of OpenAI's API for this status."""
        return ERROR_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """The error as the body of a response."""
        message = shorten(self.message, MAX_MESSAGE)
        return {"error": {"message": message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers of the response in addition to those of every response."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        found |= {} if self.methods is None else {"Allow": self.methods}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Types of errors by status; otherwise "server_error" from 500 on and "invalid_request_error" below."""

RETRY_SECONDS = 2
"""Seconds after which a request with status 503 may be sent again, as the header Retry-After says."""

CODES: tuple[tuple[type[Exception], int, str | None], ...] = (
    (ContextOverflow, 400, "context_length_exceeded"),
    (Overloaded, 503, "overloaded"),
    (CannotDo, 400, "unsupported_by_model"),
    (MissingExtra, 400, "not_installed"),
    (UnknownName, 400, "unknown_name"),
    (BadSetting, 400, "invalid_value"),
    (BadInput, 400, "invalid_value"),
    (VocabularyMismatch, 400, "invalid_value"),
    (DiskError, 503, "model_unavailable"),
    (CorruptFile, 503, "model_unavailable"),
    (Diverged, 503, "model_unavailable"),
    (GrammarViolation, 500, "grammar_violation"),
    (ClearstoryError, 400, None),
    (OverflowError, 400, "invalid_value"),
    (RecursionError, 400, "invalid_value"),
    (MemoryError, 503, "overloaded"),
)
"""Status and code of each kind of exception; the first that fits. Others are internal errors with status 500."""


def to_request_error(error: BaseException) -> RequestError:
    """An exception as the error that is sent to the client.

    The messages of this library's errors are sent, as they are written for users; those of other exceptions are not.

    >>> to_request_error(ContextOverflow("the prompt has 600 tokens, the context 512; send fewer")).code
    'context_length_exceeded'
    >>> to_request_error(KeyError("secret")).message
    'internal error (KeyError); see the log of the server'
    """
    if isinstance(error, RequestError):
        return error
    for kind, status, code in CODES:
        if isinstance(error, kind):
            message = str(error) if isinstance(error, ClearstoryError) else UNCOMPUTABLE
            return RequestError(message, code=code, status=status, retry_after=RETRY_SECONDS if status == 503 else None)
    name = type(error).__name__
    return RequestError(f"internal error ({name}); see the log of the server", code="internal_error", status=500)


UNCOMPUTABLE = "a value of this request is too large to compute with; send a smaller number or a shorter text"


def model_not_found(name: str, known: str) -> RequestError:
    """The error for a model that is not served; `known` names those that are."""
    return RequestError(
        f"the model '{shorten(name, 200)}' is not served; available: {known}",
        param="model",
        code="model_not_found",
        status=404,
    )


def shorten(text: str, limit: int) -> str:
    """The text as valid Unicode, shortened in the middle if it is longer than the limit."""
    text = text.encode("utf-8", errors="replace").decode()
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"
