"""Shelf: models opened once and kept while there is room; each answers one request at a time.

 request ─► lock of its model ─► still wanted? ─► a thread: open or take ─► work(model, tokenizer) ─► answer

Work happens in a thread, so that the page goes on answering. A model whose files have changed is opened anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter, create_task_group, to_thread

from clearstory.studio.http_json import RequestCancelled
from clearstory.studio.model_index import mark_used, resolve_name

if TYPE_CHECKING:
    from clearstory.formats.folders import Opened

T = TypeVar("T")

FileSignature = tuple[tuple[str, int, int], ...]
"""Names, times and sizes of a model's files: when it differs, so does the model."""

MEMORY = 4 * 2**30
"""Bytes of models kept open; one that is larger is kept alone."""

THREADS = 2
"""Models that work at a time."""


@dataclass(frozen=True)
class CachedModel:
    """A model that is open."""

    opened: Opened
    stamp: FileSignature
    bytes: int


class ModelCache:
    """The models of a folder, by their paths in it."""

    def __init__(self, root: Path, memory: int = MEMORY) -> None:
        self.root = root
        self.memory = memory
        self.held: OrderedDict[str, CachedModel] = OrderedDict()
        self.locks: dict[str, asyncio.Lock] = {}
        self.limiter: CapacityLimiter | None = None

    async def use(self, name: str, work: Callable[[Opened], T], gone: Callable[[], Awaitable[bool]] | None = None) -> T:
        """What `work` makes of a model, in a thread. Raises Dropped where nobody waits any more, before its turn comes
        or between two layers of the model; and what `open_model` raises.
        """
        resolve_name(self.root, name)
        async with self.locks.setdefault(name, asyncio.Lock()):
            if gone is not None and await gone():
                raise RequestCancelled
            dropped = Event()

            def worked() -> T:
                opened = self.take(name)
                with cancellable(opened.model, dropped):
                    return work(opened)

            async with create_task_group() as beside:
                if gone is not None:
                    beside.start_soon(watch_disconnect, gone, dropped)
                try:
                    return await self.thread(worked)
                except Exception as error:
                    failed = error  # raised as it is, and not in a group
                finally:
                    beside.cancel_scope.cancel()
            raise failed

    async def thread(self, work: Callable[[], T]) -> T:
        """Work that would keep the page waiting, elsewhere."""
        if self.limiter is None:
            self.limiter = CapacityLimiter(THREADS)  # belongs to the loop that runs
        return await to_thread.run_sync(work, limiter=self.limiter)

    def take(self, name: str) -> Opened:
        """The model of this name, opened if it must be. In the thread of who has its lock."""
        from clearstory.formats.folders import open_model

        path = resolve_name(self.root, name)
        stamp = file_signature(path)
        held = self.held.get(name)
        if held is None or held.stamp != stamp:
            self.held.pop(name, None)
            opened = open_model(path)
            opened.model.eval()
            held = CachedModel(opened, stamp, model_bytes(opened))
            self.held[name] = held
            self.make_room(name)
        self.held.move_to_end(name)
        mark_used(self.root, name)
        return held.opened

    def make_room(self, newest: str) -> None:
        """Put away what was used longest ago."""
        while sum(each.bytes for each in list(self.held.values())) > self.memory and len(self.held) > 1:
            oldest = next(iter(self.held))
            if oldest == newest:
                break
            self.held.pop(oldest, None)


async def watch_disconnect(gone: Callable[[], Awaitable[bool]], dropped: Event) -> None:
    """Tells when nobody waits any more."""
    while not dropped.is_set():
        await asyncio.sleep(0.25)
        if await gone():
            dropped.set()


@contextmanager
def cancellable(model: Any, dropped: Event) -> Iterator[None]:
    """A model whose next layer raises Dropped when nobody waits any more. Models without layers are quick."""

    def check(*_: Any) -> None:
        if dropped.is_set():
            raise RequestCancelled

    layers = [
        layer
        for owner in model.modules()
        for name in ("blocks", "layers")
        for layer in (getattr(owner, name, None) or ())
        if hasattr(layer, "register_forward_pre_hook")
    ]
    handles = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def file_signature(path: Path) -> FileSignature:
    """What is seen of a model's files without reading them. Raises as `resolve` does where it has vanished."""
    from clearstory.formats.model_path import resolve

    files = [path] if path.is_file() else sorted(each for each in resolve(path).iterdir() if each.is_file())
    return tuple((str(each), (seen := each.stat()).st_mtime_ns, seen.st_size) for each in files)


def model_bytes(opened: Opened) -> int:
    """The memory of a model's numbers, those that are shared counted once."""
    tensors = [*opened.model.parameters(), *opened.model.buffers()]
    return sum({each.data_ptr(): each.numel() * each.element_size() for each in tensors}.values())
