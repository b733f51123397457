"""App: every path of the studio and who answers it.

Nothing here imports torch before a model is asked for, so the page is there at once.
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
from clearstory.studio import http_json as asking
from clearstory.studio import run_processes
from clearstory.studio.http_json import json_response, parse_body
from clearstory.studio.model_index import found, find_model
from clearstory.studio.security import LOCAL_HOSTS, SecurityMiddleware
from clearstory.studio.model_cache import ModelCache

if TYPE_CHECKING:
    from clearstory.formats.folders import Opened

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
"""The page."""

KINDS = {"svg": "image/svg+xml", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
"""What a view's files are to a browser."""


class Studio:
    """What all requests share: the models, the runs, and what was reckoned last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shelf = ModelCache(root)
        self.trainings = run_processes.RunProcesses(root)
        self.chooser: Any = None
        self.pen: Any = None

    async def page(self, request: Request) -> Response:
        """The page itself, whatever stands behind the question mark."""
        return FileResponse(STATIC / "index.html")

    async def health(self, request: Request) -> Response:
        """Whether the studio is there."""
        return json_response({"status": "ok", "version": __version__})

    async def models(self, request: Request) -> Response:
        """What lies in the folder, and which runs were begun here and have written nothing yet."""
        models, whole = await self.shelf.thread(lambda: found(self.root))
        at_work = [name for name in self.trainings.recorded() if self.trainings.alive(name)]
        return json_response(
            {
                "root": self.root.name or str(self.root),
                "models": [asdict(each) for each in models],
                "whole": whole,
                "training": at_work,
            }
        )

    async def model(self, request: Request) -> Response:
        """The model or run at a path that the list does not reach."""
        name = asking.query(request, run_processes.RunRequest).name
        return json_response({"model": asdict(await self.shelf.thread(lambda: find_model(self.root, name)))})

    async def views(self, request: Request) -> Response:
        """Which views a model can show, and why not the others."""
        name = asking.query(request, run_processes.RunRequest).name

        def work(opened: Opened) -> Any:
            from clearstory.studio.view_api import views

            return views(opened)

        return json_response({"views": await self.ask(request, name, work)})

    async def view(self, request: Request) -> Response:
        """A view."""
        from clearstory.studio.view_api import ViewRequest, view

        wanted = await parse_body(request, ViewRequest)
        seen = await self.ask(request, wanted.model, lambda opened: view(opened, wanted))
        return json_response(seen) if wanted.format == "json" else Response(seen, media_type=KINDS[wanted.format])

    async def film(self, request: Request) -> Response:
        """Words at a checkpoint of a run, on the axes of its end."""
        from clearstory.studio.embedding_api import CheckpointProjectionRequest, film, scene

        wanted = await parse_body(request, CheckpointProjectionRequest)
        still = await self.ask(request, wanted.last, lambda opened: scene(opened, wanted))
        seen = await self.ask(request, wanted.model, lambda opened: film(opened, still, wanted))
        return json_response(seen) if wanted.format == "json" else Response(seen, media_type=KINDS[wanted.format])

    async def difference(self, request: Request) -> Response:
        """A view of two sides, and what one says more than the other."""
        from clearstory.studio.view_difference import ViewDifferenceRequest, compared, side

        wanted = await parse_body(request, ViewDifferenceRequest)
        other = wanted.text if wanted.against_text is None else wanted.against_text
        a = await self.ask(request, wanted.model, lambda opened: side(opened, wanted.text, wanted))
        b = await self.ask(request, wanted.against or wanted.model, lambda opened: side(opened, other, wanted))
        seen = await self.shelf.thread(lambda: compared(a, b, wanted))
        return json_response(seen) if wanted.format == "json" else Response(seen, media_type=KINDS[wanted.format])

    async def trace(self, request: Request) -> Response:
        """A trace."""
        from clearstory.studio.view_api import TraceRequest, trace

        wanted = await parse_body(request, TraceRequest)
        return json_response(await self.ask(request, wanted.model, lambda opened: trace(opened, wanted)))

    async def numbers(self, request: Request) -> Response:
        """Numbers as bytes."""
        from clearstory.studio.view_api import ArrayRequest, numbers

        wanted = await parse_body(request, ArrayRequest)
        made = await self.ask(request, wanted.model, lambda opened: numbers(opened, wanted))
        return Response(made, media_type="application/octet-stream")

    async def next(self, request: Request) -> Response:
        """The next token under a way of choosing."""
        from clearstory.studio.sampling_distribution import NextTokenDistributions, NextTokenRequest

        self.chooser = self.chooser or NextTokenDistributions()
        wanted = await parse_body(request, NextTokenRequest)
        return json_response(await self.ask(request, wanted.model, lambda opened: self.chooser.choose(opened, wanted)))

    async def step(self, request: Request) -> Response:
        """One more token."""
        from clearstory.studio.generation_session import GenerationSessions, GeneratedTokenRequest

        self.pen = self.pen or GenerationSessions()
        wanted = await parse_body(request, GeneratedTokenRequest)
        return json_response(await self.ask(request, wanted.model, lambda opened: self.pen.step(opened, wanted)))

    async def form(self, request: Request) -> Response:
        """A training's settings."""
        from clearstory.studio.train_form import form

        return json_response(await self.shelf.thread(form))

    async def begin(self, request: Request) -> Response:
        """Begin a run."""
        wanted = await parse_body(request, run_processes.StartRunRequest)
        return json_response(await self.shelf.thread(lambda: self.trainings.begin(wanted)), 201)

    async def stop(self, request: Request) -> Response:
        """Stop a run."""
        wanted = await parse_body(request, run_processes.RunRequest)
        return json_response(await self.shelf.thread(lambda: self.trainings.stop(wanted)))

    async def resume(self, request: Request) -> Response:
        """Let a run go on."""
        wanted = await parse_body(request, run_processes.RunRequest)
        return json_response(await self.shelf.thread(lambda: self.trainings.resume(wanted)))

    async def rows(self, request: Request) -> Response:
        """What a run has told since."""
        wanted = asking.query(request, run_processes.RecordsRequest)
        return json_response(await self.shelf.thread(lambda: self.trainings.rows(wanted)))

    async def curve(self, request: Request) -> Response:
        """A run's learning curve."""
        wanted = asking.query(request, run_processes.RunRequest)
        return json_response({"view": await self.shelf.thread(lambda: self.trainings.curve(wanted))})

    async def ask(self, request: Request, name: str, work: Callable[[Opened], T]) -> T:
        """What a model answers, unless whoever asked has gone when its turn comes."""
        return await self.shelf.use(name, work, request.is_disconnected)


def studio_app(
    root: Path, *, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None, cookie: str = "clearstory"
) -> Starlette:
    """The studio over a folder, guarded, as an ASGI app."""
    studio = Studio(root.absolute())
    routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", studio.page),
        ("GET", "/health", studio.health),
        ("GET", "/api/models", studio.models),
        ("GET", "/api/model", studio.model),
        ("GET", "/api/views", studio.views),
        ("POST", "/api/view", studio.view),
        ("POST", "/api/film", studio.film),
        ("POST", "/api/difference", studio.difference),
        ("POST", "/api/trace", studio.trace),
        ("POST", "/api/numbers", studio.numbers),
        ("POST", "/api/next", studio.next),
        ("POST", "/api/step", studio.step),
        ("GET", "/api/form", studio.form),
        ("POST", "/api/runs", studio.begin),
        ("POST", "/api/runs/stop", studio.stop),
        ("POST", "/api/runs/resume", studio.resume),
        ("GET", "/api/runs/rows", studio.rows),
        ("GET", "/api/runs/curve", studio.curve),
    ]
    return Starlette(
        routes=[
            *(Route(path, answers, methods=[method]) for method, path, answers in routes),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(SecurityMiddleware, hosts=hosts, token=token, cookie=cookie)],
        exception_handlers=asking.HANDLERS,
    )
