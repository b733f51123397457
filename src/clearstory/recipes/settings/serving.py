"""Settings of the command serve. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearstory.errors import BadSetting
from clearstory.models.precision import Precision, resolve_precision
from clearstory.recipes.settings.schema import positional_setting

MAX_PORT = 2**16 - 1
"""The largest port."""


@dataclass(frozen=True, kw_only=True)
class ServeRecipe:
    """Serve models over HTTP with OpenAI's API.

    Args:
        models: model folders, run folders, checkpoints or .gguf files; NAME=PATH sets the name of a model; default: the
            name of its folder.
        host: address to listen on; 127.0.0.1 is reachable only from this machine, 0.0.0.0 also from others.
        port: port to listen on; 0 chooses a free one.
        api_key: API key that requests must send as "Authorization: Bearer KEY"; required for all addresses except
            loopback. A key in a file or in the environment variable CLEARSTORY_API_KEY does not appear in the list of
            processes.
        api_key_file: file with API keys, one per line.
        open_access: allow an address that other machines can reach without an API key.
        allow_host: additional host name of this server, such as that of a proxy; repeatable.
        allow_origin: origin whose web pages may use the server (CORS), such as http://localhost:3000; *: all;
            repeatable; default: none.
        precision: precision of the weights; auto: fp32 or fp16, whichever is faster on this machine.
        int8: same as --precision int8: faster on a CPU, with slightly different probabilities.
        threads: number of CPU threads; 0: measured when the server starts.
        device: cpu, cuda, mps or auto; default: cpu.
        max_running: maximum number of texts that a model generates at the same time; others wait.
        max_waiting: maximum number of waiting texts per model; further requests get status 503.
        max_tokens: maximum number of generated tokens of a text; default: the model's context.
        max_request_bytes: maximum size of a request in bytes; larger requests get status 413.
        timeout: time limit of a text in seconds, after which it ends with an error; 0: no limit.
        drain_seconds: seconds for which running requests may continue after a SIGTERM; a second SIGTERM stops the
            server immediately.
        log_contents: log the contents of requests; by default only numbers are logged.
    """

    models: tuple[str, ...] = positional_setting("MODEL")
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    api_key_file: Path | None = None
    open_access: bool = False
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    precision: Precision = "auto"
    int8: bool = False
    threads: int = 0
    device: str | None = None
    max_running: int = 32
    max_waiting: int = 256
    max_tokens: int | None = None
    max_request_bytes: int = 2 * 2**20
    timeout: float = 600.0
    drain_seconds: int = 30
    log_contents: bool = False

    def __post_init__(self) -> None:
        if not self.models:
            raise BadSetting("MODEL is missing; give a model folder, such as runs/NAME, or several")
        for name, low, high in (
            ("port", 0, MAX_PORT),
            ("threads", 0, 1024),
            ("max_running", 1, 4096),
            ("max_waiting", 0, 10**6),
            ("max_tokens", 1, 2**31),
            ("max_request_bytes", 1024, 2**30),
            ("timeout", 0, 10**6),
            ("drain_seconds", 0, 86_400),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise BadSetting(f"{name} is {value:,}; it must be between {low:,} and {high:,}")
        for origin in self.allow_origin:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise BadSetting(f"allow_origin is '{origin}'; give an origin such as http://localhost:3000, or *")
        resolve_precision(self.precision, self.int8)
        if self.api_key is not None:
            check_api_key(self.api_key, "api_key")


def check_api_key(key: str, source: str) -> None:
    """Raises BadSetting for a key that is not valid in a header; the key itself is not shown."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise BadSetting(f"{source} contains an empty key, or one with spaces or characters other than printable ASCII")


def split_name(model: str) -> tuple[str | None, str]:
    """The name and the path of NAME=PATH; None and the path if there is no name.

    >>> split_name("small=models/a.gguf"), split_name("models/b.gguf")
    (('small', 'models/a.gguf'), (None, 'models/b.gguf'))
    """
    name, equals, path = model.partition("=")
    return (None, model) if not equals or not name or Path(model).exists() else (name, path)
