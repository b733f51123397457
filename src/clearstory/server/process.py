"""Process: binds the address, opens the models, starts their threads and serves until a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearstory.durable import read_file
from clearstory.errors import BadSetting
from clearstory.http.access import LOCAL_HOSTS
from clearstory.http.connection_limits import TimedProtocol
from clearstory.http.listening import QUEUED_CONNECTIONS, BoundedServer, bind_address, http_address, make_server
from clearstory.recipes.settings.serving import ServeRecipe, check_api_key, split_name
from clearstory.server.access_policy import AccessPolicy, make_policy
from clearstory.server.errors import RequestError

if TYPE_CHECKING:
    from clearstory.serving.engine_thread import EngineThread

KEY_VARIABLE = "CLEARSTORY_API_KEY"
"""The environment variable with an API key."""

MAX_KEY_FILE_BYTES = 2**16
"""Maximum size of a file of API keys in bytes."""


@dataclass(frozen=True)
class OpenedServer:
    """A server that is ready to serve.

    Args:
        listener: the bound socket.
        url: the address for clients of this machine, without /v1.
        policy: who is answered.
        engines: the threads of the models, by name.
        threads: the number of CPU threads, in words.
    """

    listener: socket.socket
    url: str
    policy: AccessPolicy
    engines: Mapping[str, EngineThread]
    threads: str

    def to_json(self) -> dict[str, Any]:
        """The server as JSON, without its API keys."""
        models = {name: engine.served.abilities for name, engine in self.engines.items()}
        host, port = self.listener.getsockname()[:2]
        return {
            "url": f"{self.url}/v1",
            "host": host,
            "port": port,
            "needs_key": bool(self.policy.keys),
            "models": models,
            "threads": self.threads,
        }


class OpenAIProtocol(TimedProtocol):
    """The HTTP protocol with errors in OpenAI's format."""

    def error_body(self, status: int, sentence: str) -> bytes:
        """The body of an error outside of routes."""
        code = "request_timeout" if status == 408 else "invalid_http"
        return json.dumps(RequestError(sentence, code=code, status=status).body()).encode()


def open_server(recipe: ServeRecipe, note: Callable[[str], None]) -> OpenedServer:
    """Bind the address, open the models, and start their threads. `note` takes a sentence for each.

    Raises BadSetting if the address cannot be bound, or if other machines can reach it and there is no key; and the
    errors of opening a model.
    """
    named = named_models(recipe)
    keys = api_keys(recipe)
    if recipe.host not in LOCAL_HOSTS and not keys and not recipe.open_access:
        raise BadSetting(
            f"host is {recipe.host}, which other machines can reach, and there is no API key; set --api-key-file or "
            f"{KEY_VARIABLE}, or allow access without a key with --open-access"
        )
    listener = bind_address(recipe.host, recipe.port)  # first: a port that is taken is reported at once
    try:
        engines, threads = open_engines(recipe, named, note)
    except BaseException:
        listener.close()
        raise
    policy = make_policy(recipe.host, socket.gethostname(), keys, recipe.allow_host, recipe.allow_origin)
    return OpenedServer(listener, http_address(recipe.host, listener.getsockname()[1]), policy, engines, threads)


def named_models(recipe: ServeRecipe) -> dict[str, str]:
    """Paths of the models by name. Raises BadSetting for two models with the same name."""
    from clearstory.serving.served_model import model_name

    found: dict[str, str] = {}
    for each in recipe.models:
        given, path = split_name(each)
        name = given or model_name(path)
        if name in found:
            raise BadSetting(f"two models have the name '{name}': {found[name]} and {path}; name them with NAME=PATH")
        if len(name) > 256 or not name.isprintable():
            raise BadSetting(
                f"'{name[:80]}' is not a valid model name; use NAME=PATH with at most 256 printable characters"
            )
        found[name] = path
    return found


def open_engines(
    recipe: ServeRecipe, named: Mapping[str, str], note: Callable[[str], None]
) -> tuple[dict[str, EngineThread], str]:
    """The threads of the models by name, and the number of CPU threads that each computes with, in words."""
    import torch

    from clearstory.server.thread_choice import ThreadChoice, choose_threads
    from clearstory.serving.engine_thread import EngineLimits, EngineThread
    from clearstory.serving.served_model import ServedModel

    models = []
    for name, path in named.items():
        note(f"opening {path}" + (f" as {name}" if name not in path else ""))
        models.append(ServedModel.open(path, name, precision=recipe.precision, int8=recipe.int8, device=recipe.device))
    if recipe.threads:
        choice = ThreadChoice(recipe.threads, {})
    else:
        choice = choose_threads((each.model for each in models), torch.get_num_threads())
    torch.set_num_threads(choice.threads)
    limits = EngineLimits(
        max_running=recipe.max_running,
        max_waiting=recipe.max_waiting,
        timeout=recipe.timeout or None,
        threads=choice.threads,
    )
    return {each.name: EngineThread(each, limits) for each in models}, str(choice)


def api_keys(recipe: ServeRecipe) -> list[str]:
    """The API keys of the settings, of their file and of the environment."""
    keys = [] if recipe.api_key is None else [recipe.api_key]
    if recipe.api_key_file is not None:
        text = read_file(Path(recipe.api_key_file), MAX_KEY_FILE_BYTES).decode("utf-8", errors="replace")
        found = [line.strip() for line in text.splitlines() if line.strip()]
        if not found:
            raise BadSetting(f"{recipe.api_key_file} contains no API key; write one per line")
        keys += found
    if variable := os.environ.get(KEY_VARIABLE):
        keys.append(variable)
    for key in keys:
        check_api_key(key, "an API key")
    return keys


def serving_server(opened: OpenedServer, recipe: ServeRecipe) -> BoundedServer:
    """The uvicorn server of the models, with the limits of the settings."""
    from clearstory.server.app import server_app
    from clearstory.server.context import ServerLimits
    from clearstory.server.request_log import RequestLog

    limits = ServerLimits(max_body_bytes=recipe.max_request_bytes, max_tokens=recipe.max_tokens)
    app = server_app(opened.engines, policy=opened.policy, limits=limits, log=RequestLog(contents=recipe.log_contents))
    return make_server(app, OpenAIProtocol, recipe.drain_seconds)


def serve(opened: OpenedServer, recipe: ServeRecipe, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal: after SIGTERM or Ctrl-C requests may finish, a second signal stops them.

    `ready` is called once the socket accepts connections.
    """
    # Models compute in threads; with Python's 5 ms, a request that needs several turns waits for tens of milliseconds.
    sys.setswitchinterval(0.001)
    server = serving_server(opened, recipe)
    opened.listener.listen(QUEUED_CONNECTIONS)
    ready()

    def end(sig: int, _: object) -> None:
        """Exit after all responses have ended, without waiting for threads that still encode a long prompt."""
        if not server.force_exit:
            stop_engines(opened)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + sig if server.force_exit else 0)

    # uvicorn raises a signal that it has received once more in the end, for the handler that was there before.
    previous = signal.signal(signal.SIGTERM, end)
    try:
        server.run(sockets=[opened.listener])
    finally:
        signal.signal(signal.SIGTERM, previous)
        stop_engines(opened)


def stop_engines(opened: OpenedServer) -> None:
    """Stop the threads of the models."""
    for engine in opened.engines.values():
        engine.stop(timeout=5)
