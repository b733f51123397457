"""App: every HTTP route of the studio and its handler.

torch is not imported before the first request that needs a model, so the page loads at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clearstory import __version__
from clearstory.studio.http_json import EXCEPTION_HANDLERS, json_response, parse_body, parse_query
from clearstory.studio.model_cache import ModelCache
from clearstory.studio.model_index import find_model, list_models
from clearstory.studio.run_processes import RecordsRequest, RunProcesses, RunRequest, StartRunRequest
from clearstory.studio.security import LOCAL_HOSTS, SecurityMiddleware

if TYPE_CHECKING:
    from clearstory.formats.folders import OpenedModel

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
"""The folder of the page's files."""

MEDIA_TYPES = {"svg": "image/svg+xml", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
"""Media types of the file formats of a view."""


class Studio:
    """The request handlers and their shared state: opened models, run processes, cached logits and states."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model_cache = ModelCache(root)
        self.run_processes = RunProcesses(root)
        self.distributions: Any = None
        self.generation_sessions: Any = None

    async def index_page(self, request: Request) -> Response:
        """The page, whatever the query string is."""
        return FileResponse(STATIC / "index.html")

    async def health(self, request: Request) -> Response:
        """The server's status and version."""
        return json_response({"status": "ok", "version": __version__})

    async def models(self, request: Request) -> Response:
        """The models and runs of the folder, and the names of the runs that are training."""
        models, complete = await self.model_cache.in_file_thread(lambda: list_models(self.root))
        training = await self.model_cache.in_file_thread(self.run_processes.running)
        return json_response(
            {
                "root": self.root.name or str(self.root),
                "models": [asdict(each) for each in models],
                "complete": complete,
                "training": training,
            }
        )

    async def model(self, request: Request) -> Response:
        """The model or run at a path, also one nested too deep for the list."""
        name = parse_query(request, RunRequest).name
        return json_response(
            {"model": asdict(await self.model_cache.in_file_thread(lambda: find_model(self.root, name)))}
        )

    async def views(self, request: Request) -> Response:
        """All views: which ones this model supports, and why it does not support the others."""
        name = parse_query(request, RunRequest).name

        def work(opened: OpenedModel) -> Any:
            from clearstory.studio.view_api import list_views

            return list_views(opened)

        return json_response({"views": await self.run_on_model(request, name, work)})

    async def view(self, request: Request) -> Response:
        """A view as JSON or as a file."""
        from clearstory.studio.view_api import ViewRequest, render_view

        parsed = await parse_body(request, ViewRequest)
        view = await self.run_on_model(request, parsed.model, lambda opened: render_view(opened, parsed))
        return data_or_file(view, parsed.format)

    async def checkpoint_projection(self, request: Request) -> Response:
        """The word projection at one checkpoint of a run, on the axes of the run's final model."""
        from clearstory.studio.embedding_api import CheckpointProjectionRequest, checkpoint_projection, projection_frame

        parsed = await parse_body(request, CheckpointProjectionRequest)
        frame = await self.run_on_model(request, parsed.final_model, lambda opened: projection_frame(opened, parsed))
        view = await self.run_on_model(
            request, parsed.model, lambda opened: checkpoint_projection(opened, frame, parsed)
        )
        return data_or_file(view, parsed.format)

    async def view_difference(self, request: Request) -> Response:
        """A view of two models or two texts, and their difference B − A."""
        from clearstory.studio.view_difference import ViewDifferenceRequest, view_difference, view_or_error

        parsed = await parse_body(request, ViewDifferenceRequest)
        text_b = parsed.text if parsed.compare_text is None else parsed.compare_text
        model_b = parsed.compare_model or parsed.model
        a = await self.run_on_model(request, parsed.model, lambda opened: view_or_error(opened, parsed.text, parsed))
        b = await self.run_on_model(request, model_b, lambda opened: view_or_error(opened, text_b, parsed))
        difference = await self.model_cache.in_thread(lambda: view_difference(a, b, parsed))
        return data_or_file(difference, parsed.format)

    async def trace(self, request: Request) -> Response:
        """The tokens of a text, the likeliest next tokens, and the activations at the requested taps."""
        from clearstory.studio.view_api import TraceRequest, trace

        parsed = await parse_body(request, TraceRequest)
        return json_response(await self.run_on_model(request, parsed.model, lambda opened: trace(opened, parsed)))

    async def arrays(self, request: Request) -> Response:
        """Arrays as bytes: see `view_api.pack_arrays`."""
        from clearstory.studio.view_api import ArrayRequest, compute_arrays

        parsed = await parse_body(request, ArrayRequest)
        packed = await self.run_on_model(request, parsed.model, lambda opened: compute_arrays(opened, parsed))
        return Response(packed, media_type="application/octet-stream")

    async def next_token(self, request: Request) -> Response:
        """The next-token distribution before and after temperature and truncation."""
        from clearstory.studio.sampling_distribution import NextTokenDistributions, NextTokenRequest

        distributions = self.distributions = self.distributions or NextTokenDistributions()
        parsed = await parse_body(request, NextTokenRequest)
        return json_response(
            await self.run_on_model(request, parsed.model, lambda opened: distributions.compute(opened, parsed))
        )

    async def generated_token(self, request: Request) -> Response:
        """The next generated token and its alternatives."""
        from clearstory.studio.generation_session import GeneratedTokenRequest, GenerationSessions

        sessions = self.generation_sessions = self.generation_sessions or GenerationSessions()
        parsed = await parse_body(request, GeneratedTokenRequest)
        return json_response(
            await self.run_on_model(request, parsed.model, lambda opened: sessions.next_token(opened, parsed))
        )

    async def train_form(self, request: Request) -> Response:
        """The settings of a training run as form fields, with presets, corpora and tokenizers."""
        from clearstory.studio.train_form import train_form

        return json_response(await self.model_cache.in_file_thread(train_form))

    async def start_run(self, request: Request) -> Response:
        """Start a training run."""
        parsed = await parse_body(request, StartRunRequest)
        return json_response(await self.model_cache.in_file_thread(lambda: self.run_processes.start(parsed)), 201)

    async def stop_run(self, request: Request) -> Response:
        """Stop a training run after it has saved a checkpoint."""
        parsed = await parse_body(request, RunRequest)
        return json_response(await self.model_cache.in_file_thread(lambda: self.run_processes.stop(parsed)))

    async def resume_run(self, request: Request) -> Response:
        """Resume a stopped run from its newest checkpoint."""
        parsed = await parse_body(request, RunRequest)
        return json_response(await self.model_cache.in_file_thread(lambda: self.run_processes.resume(parsed)))

    async def run_records(self, request: Request) -> Response:
        """The records of a run's metrics.jsonl after a byte offset, and the run's status."""
        parsed = parse_query(request, RecordsRequest)
        return json_response(await self.model_cache.in_file_thread(lambda: self.run_processes.records(parsed)))

    async def learning_curve(self, request: Request) -> Response:
        """A run's learning curve over the reference curve of its model family."""
        parsed = parse_query(request, RunRequest)
        view = await self.model_cache.in_file_thread(lambda: self.run_processes.learning_curve(parsed))
        return json_response({"view": view})

    async def run_on_model(self, request: Request, name: str, work: Callable[[OpenedModel], T]) -> T:
        """What `work` returns for an opened model. Raises RequestCancelled if the client disconnects first."""
        return await self.model_cache.run(name, work, request.is_disconnected)


def data_or_file(view: Any, format: str) -> Response:
    """A JSON response for the format "json", otherwise a file with its media type."""
    return json_response(view) if format == "json" else Response(view, media_type=MEDIA_TYPES[format])


def studio_app(
    root: Path, *, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None, cookie: str = "clearstory"
) -> Starlette:
    """The studio over a folder as an ASGI app, behind the access control of `SecurityMiddleware`."""
    studio = Studio(root.absolute())
    routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", studio.index_page),
        ("GET", "/health", studio.health),
        ("GET", "/api/models", studio.models),
        ("GET", "/api/model", studio.model),
        ("GET", "/api/views", studio.views),
        ("POST", "/api/view", studio.view),
        ("POST", "/api/view-difference", studio.view_difference),
        ("POST", "/api/checkpoint-projection", studio.checkpoint_projection),
        ("POST", "/api/trace", studio.trace),
        ("POST", "/api/arrays", studio.arrays),
        ("POST", "/api/next-token", studio.next_token),
        ("POST", "/api/generated-token", studio.generated_token),
        ("GET", "/api/train-form", studio.train_form),
        ("POST", "/api/runs", studio.start_run),
        ("POST", "/api/runs/stop", studio.stop_run),
        ("POST", "/api/runs/resume", studio.resume_run),
        ("GET", "/api/runs/records", studio.run_records),
        ("GET", "/api/runs/learning-curve", studio.learning_curve),
    ]
    return Starlette(
        routes=[
            *(Route(path, handler, methods=[method]) for method, path, handler in routes),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(SecurityMiddleware, hosts=hosts, token=token, cookie=cookie)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
