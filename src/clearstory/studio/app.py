"""App: every HTTP route of the studio and its handler.

torch is not imported before the first request that needs a model, so the page loads at once; it is imported in a
thread, as everything that takes long runs in one, so that the server answers other requests meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clearstory import __version__
from clearstory.http.access import LOCAL_HOSTS
from clearstory.http.json_values import json_bytes
from clearstory.studio.http_json import EXCEPTION_HANDLERS, json_response, parse_body, parse_query
from clearstory.studio.model_cache import ModelCache
from clearstory.studio.model_index import find_model, list_models
from clearstory.studio.run_processes import RecordsRequest, RunProcesses, RunRequest, StartRunRequest
from clearstory.studio.security import SecurityMiddleware

if TYPE_CHECKING:
    from clearstory.formats.folders import OpenedModel
    from clearstory.studio.embedding_api import CheckpointProjectionRequest
    from clearstory.studio.generation_session import GeneratedTokenRequest
    from clearstory.studio.sampling_distribution import NextTokenRequest
    from clearstory.studio.trace_api import TraceRequest
    from clearstory.studio.view_api import ArrayRequest, ViewRequest
    from clearstory.studio.view_difference import ViewDifferenceRequest

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
"""The folder of the page's files."""

JSON = "application/json"

MEDIA_TYPES = {"svg": "image/svg+xml", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
"""Media types of the file formats of a view."""


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Args:
        method: GET or POST.
        path: the path.
        handler: the name of a method of `Studio`.
        request: the dataclass of its query parameters or JSON body as "module:name", imported when it is needed; None
            for a route without any.
    """

    method: str
    path: str
    handler: str
    request: str | None = None

    def request_class(self) -> type[Any]:
        """The dataclass of the request. Importing it may import torch."""
        module, _, name = (self.request or "").partition(":")
        found: type[Any] = getattr(import_module(f"clearstory.studio.{module}"), name)
        return found


ENDPOINTS = (
    Endpoint("GET", "/", "index_page"),
    Endpoint("GET", "/health", "health"),
    Endpoint("GET", "/api/models", "models"),
    Endpoint("GET", "/api/model", "model", "run_processes:RunRequest"),
    Endpoint("GET", "/api/views", "views", "run_processes:RunRequest"),
    Endpoint("POST", "/api/view", "view", "view_api:ViewRequest"),
    Endpoint("POST", "/api/view-difference", "view_difference", "view_difference:ViewDifferenceRequest"),
    Endpoint(
        "POST", "/api/checkpoint-projection", "checkpoint_projection", "embedding_api:CheckpointProjectionRequest"
    ),
    Endpoint("POST", "/api/trace", "trace", "trace_api:TraceRequest"),
    Endpoint("POST", "/api/arrays", "arrays", "view_api:ArrayRequest"),
    Endpoint("POST", "/api/next-token", "next_token", "sampling_distribution:NextTokenRequest"),
    Endpoint("POST", "/api/generated-token", "generated_token", "generation_session:GeneratedTokenRequest"),
    Endpoint("GET", "/api/train-form", "train_form"),
    Endpoint("POST", "/api/runs", "start_run", "run_processes:StartRunRequest"),
    Endpoint("POST", "/api/runs/stop", "stop_run", "run_processes:RunRequest"),
    Endpoint("POST", "/api/runs/resume", "resume_run", "run_processes:RunRequest"),
    Endpoint("GET", "/api/runs/records", "run_records", "run_processes:RecordsRequest"),
    Endpoint("GET", "/api/runs/learning-curve", "learning_curve", "run_processes:RunRequest"),
    Endpoint("GET", "/api/runs/report", "run_report", "run_processes:RunRequest"),
)
"""Every route of the studio except the page's files."""


class Studio:
    """The request handlers and their shared state: opened models, run processes, cached logits and states."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model_cache = ModelCache(root)
        self.run_processes = RunProcesses(root)
        self.distributions: Any = None
        self.generation_sessions: Any = None

    def route(self, endpoint: Endpoint) -> Route:
        """The route of an endpoint: the request is parsed before its handler is called."""
        handler: Callable[..., Awaitable[Response]] = getattr(self, endpoint.handler)

        async def parse_and_handle(request: Request) -> Response:
            kind = await self.model_cache.in_file_thread(endpoint.request_class)
            parsed = await parse_body(request, kind) if endpoint.method == "POST" else parse_query(request, kind)
            return await handler(request, parsed)

        return Route(endpoint.path, parse_and_handle if endpoint.request else handler, methods=[endpoint.method])

    async def index_page(self, request: Request) -> Response:
        """The page, whatever the query string is."""
        return FileResponse(STATIC / "index.html")

    async def health(self, request: Request) -> Response:
        """The server's status and version."""
        return json_response({"status": "ok", "version": __version__})

    async def models(self, request: Request) -> Response:
        """The models and runs of the folder, and the names of the runs that are training."""

        def list_all() -> Any:
            models, complete = list_models(self.root)
            return {
                "root": self.root.name or str(self.root),
                "models": [asdict(each) for each in models],
                "complete": complete,
                "training": self.run_processes.running(),
            }

        return await self.file_response(list_all)

    async def model(self, request: Request, parsed: RunRequest) -> Response:
        """The model or run at a path, also one nested too deep for the list."""
        return await self.file_response(lambda: {"model": asdict(find_model(self.root, parsed.name))})

    async def views(self, request: Request, parsed: RunRequest) -> Response:
        """All views: which ones this model supports, and why it does not support the others."""

        def work(opened: OpenedModel) -> Any:
            from clearstory.studio.view_api import list_views

            return {"views": list_views(opened)}

        return await self.model_response(request, parsed.name, work)

    async def view(self, request: Request, parsed: ViewRequest) -> Response:
        """A view as JSON or as a file."""
        from clearstory.studio.view_api import render_view

        return await self.model_response(
            request, parsed.model, lambda opened: render_view(opened, parsed), parsed.format
        )

    async def checkpoint_projection(self, request: Request, parsed: CheckpointProjectionRequest) -> Response:
        """The word projection at one checkpoint of a run, on the axes of the run's final model."""
        from clearstory.studio.embedding_api import checkpoint_projection, projection_frame

        frame = await self.run_on_model(request, parsed.final_model, lambda opened: projection_frame(opened, parsed))
        return await self.model_response(
            request, parsed.model, lambda opened: checkpoint_projection(opened, frame, parsed), parsed.format
        )

    async def view_difference(self, request: Request, parsed: ViewDifferenceRequest) -> Response:
        """A view of two models or two texts, and their difference B − A."""
        from clearstory.studio.view_difference import view_difference, view_or_error

        text_b = parsed.text if parsed.compare_text is None else parsed.compare_text
        model_b = parsed.compare_model or parsed.model
        a = await self.run_on_model(request, parsed.model, lambda opened: view_or_error(opened, parsed.text, parsed))
        b = await self.run_on_model(request, model_b, lambda opened: view_or_error(opened, text_b, parsed))
        content = await self.model_cache.in_thread(lambda: encode_view(view_difference(a, b, parsed), parsed.format))
        return Response(content, media_type=MEDIA_TYPES.get(parsed.format, JSON))

    async def trace(self, request: Request, parsed: TraceRequest) -> Response:
        """The tokens of a text, the likeliest next tokens, and the activations at the requested taps."""
        from clearstory.studio.trace_api import trace

        return await self.model_response(request, parsed.model, lambda opened: trace(opened, parsed))

    async def arrays(self, request: Request, parsed: ArrayRequest) -> Response:
        """Arrays as bytes: see `view_api.pack_arrays`."""
        from clearstory.studio.view_api import compute_arrays

        packed = await self.run_on_model(request, parsed.model, lambda opened: compute_arrays(opened, parsed))
        return Response(packed, media_type="application/octet-stream")

    async def next_token(self, request: Request, parsed: NextTokenRequest) -> Response:
        """The next-token distribution before and after temperature and truncation."""
        from clearstory.studio.sampling_distribution import NextTokenDistributions

        distributions = self.distributions = self.distributions or NextTokenDistributions()
        return await self.model_response(request, parsed.model, lambda opened: distributions.compute(opened, parsed))

    async def generated_token(self, request: Request, parsed: GeneratedTokenRequest) -> Response:
        """The next generated token and its alternatives."""
        from clearstory.studio.generation_session import GenerationSessions

        sessions = self.generation_sessions = self.generation_sessions or GenerationSessions()
        return await self.model_response(request, parsed.model, lambda opened: sessions.next_token(opened, parsed))

    async def train_form(self, request: Request) -> Response:
        """The settings of a training run as form fields, with presets, corpora and tokenizers."""
        from clearstory.studio.train_form import train_form

        return await self.file_response(train_form)

    async def start_run(self, request: Request, parsed: StartRunRequest) -> Response:
        """Start a training run."""
        return await self.file_response(lambda: self.run_processes.start(parsed), 201)

    async def stop_run(self, request: Request, parsed: RunRequest) -> Response:
        """Stop a training run after it has saved a checkpoint."""
        return await self.file_response(lambda: self.run_processes.stop(parsed))

    async def resume_run(self, request: Request, parsed: RunRequest) -> Response:
        """Resume a stopped run from its newest checkpoint."""
        return await self.file_response(lambda: self.run_processes.resume(parsed))

    async def run_records(self, request: Request, parsed: RecordsRequest) -> Response:
        """The records of a run's metrics.jsonl after a byte offset, and the run's status."""
        return await self.file_response(lambda: self.run_processes.records(parsed))

    async def learning_curve(self, request: Request, parsed: RunRequest) -> Response:
        """A run's learning curve over the reference curve of its model family; of a fine-tuning run, its metrics."""
        return await self.file_response(lambda: {"view": self.run_processes.learning_curve(parsed)})

    async def run_report(self, request: Request, parsed: RunRequest) -> Response:
        """All scores of a fine-tuning run."""
        return await self.file_response(lambda: {"report": self.run_processes.report(parsed)})

    async def run_on_model(self, request: Request, name: str, work: Callable[[OpenedModel], T]) -> T:
        """What `work` returns for an opened model. Raises RequestCancelled if the client disconnects first."""
        return await self.model_cache.run(name, work, request.is_disconnected)

    async def model_response(
        self, request: Request, name: str, work: Callable[[OpenedModel], Any], format: str = "json"
    ) -> Response:
        """The response with what `work` returns for an opened model, encoded in its thread."""
        content = await self.run_on_model(request, name, lambda opened: encode_view(work(opened), format))
        return Response(content, media_type=MEDIA_TYPES.get(format, JSON))

    async def file_response(self, work: Callable[[], Any], status: int = 200) -> Response:
        """The JSON response with what `work` returns, computed and encoded in a thread."""
        return Response(await self.model_cache.in_file_thread(lambda: json_bytes(work())), status, media_type=JSON)


def encode_view(view: Any, format: str) -> bytes:
    """A view as JSON for the format "json"; otherwise the text of a file."""
    return json_bytes(view) if format == "json" else str(view).encode("utf-8", errors="replace")


def studio_app(
    root: Path, *, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None, cookie: str = "clearstory"
) -> Starlette:
    """The studio over a folder as an ASGI app, behind the access control of `SecurityMiddleware`."""
    studio = Studio(root.absolute())
    return Starlette(
        routes=[*map(studio.route, ENDPOINTS), Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[Middleware(SecurityMiddleware, hosts=hosts, token=token, cookie=cookie)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
