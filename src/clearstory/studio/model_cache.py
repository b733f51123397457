"""Model cache: models opened once and kept while memory allows; each serves one request at a time.

 request ─► lock of its model ─► still connected? ─► worker thread: open or reuse ─► work(opened) ─► response

Work runs in a thread, so the server stays responsive. A model whose files have changed is opened again.
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
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, create_task_group, to_thread

from clearstory.durable import is_regular_file
from clearstory.studio.bounded_files import list_entries, refuse_irregular_files
from clearstory.studio.http_json import RequestCancelled
from clearstory.studio.model_index import mark_used, relative_name, resolve_name

if TYPE_CHECKING:
    from clearstory.formats.folders import OpenedModel

T = TypeVar("T")

FileSignature = tuple[tuple[str, int, int], ...]
"""Paths, modification times and sizes of a model's files; it differs if the model has changed."""

MAX_BYTES = 4 * 2**30
"""Bytes of all opened models; a larger single model is kept alone."""

MAX_THREADS, MAX_FILE_THREADS = 2, 4
"""Models that compute at the same time, and requests that read or write small files at the same time."""


@dataclass(frozen=True)
class CachedModel:
    """An opened model with the signature of its files and the bytes of its tensors."""

    opened: OpenedModel
    signature: FileSignature
    bytes: int


class ModelCache:
    """OpenedModel models of a folder by their paths in it, least recently used first."""

    def __init__(self, root: Path, max_bytes: int = MAX_BYTES) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.models: OrderedDict[str, CachedModel] = OrderedDict()
        # Weak values: a lock lives as long as a request holds it or waits for it.
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.limiter: CapacityLimiter | None = None
        self.file_limiter: CapacityLimiter | None = None

    async def run(
        self, name: str, work: Callable[[OpenedModel], T], is_disconnected: Callable[[], Awaitable[bool]] | None = None
    ) -> T:
        """What `work` returns for a model, computed in a thread.

        Raises RequestCancelled if the client disconnects before its turn or between two layers of the model, and
        whatever `open_model` raises.
        """
        name = relative_name(self.root, resolve_name(self.root, name))  # one name for each folder
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = asyncio.Lock()
        async with lock:
            if is_disconnected is not None and await is_disconnected():
                raise RequestCancelled
            cancelled = Event()

            def open_and_work() -> T:
                opened = self.get(name)
                with cancellable(opened.model, cancelled):
                    return work(opened)

            async with create_task_group() as group:
                if is_disconnected is not None:
                    group.start_soon(watch_disconnect, is_disconnected, cancelled)
                try:
                    return await self.in_thread(open_and_work)
                except Exception as error:
                    failure = error  # raised outside of the task group, which would wrap it
                finally:
                    group.cancel_scope.cancel()
            raise failure

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns, computed in a worker thread."""
        if self.limiter is None:
            self.limiter = CapacityLimiter(MAX_THREADS)  # belongs to the running event loop
        return await to_thread.run_sync(work, limiter=self.limiter)

    async def in_file_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns, in a thread for short work on files, which does not wait for models that compute."""
        if self.file_limiter is None:
            self.file_limiter = CapacityLimiter(MAX_FILE_THREADS)
        return await to_thread.run_sync(work, limiter=self.file_limiter)

    def get(self, name: str) -> OpenedModel:
        """The opened model of this name. Call it only while holding the model's lock."""
        from clearstory.formats.folders import open_model
        from clearstory.formats.model_path import weights_of_step

        path = resolve_name(self.root, name)
        refuse_irregular_files(weights_of_step(path))
        signature = file_signature(path)
        # Taken out while it is used here: the thread of another model may evict this one at any moment.
        cached = self.models.pop(name, None)
        if cached is None or cached.signature != signature:
            opened = open_model(path)
            opened.model.eval()
            cached = CachedModel(opened, signature, model_bytes(opened))
        self.models[name] = cached
        self.evict(name)
        mark_used(self.root, name)
        return cached.opened

    def evict(self, newest: str) -> None:
        """Remove the least recently used models until the rest fits into `max_bytes`."""
        while sum(each.bytes for each in list(self.models.values())) > self.max_bytes and len(self.models) > 1:
            oldest = next(iter(list(self.models)))
            if oldest == newest:
                break
            self.models.pop(oldest, None)


async def watch_disconnect(is_disconnected: Callable[[], Awaitable[bool]], cancelled: Event) -> None:
    """Set the event once the client has disconnected."""
    while not cancelled.is_set():
        await asyncio.sleep(0.25)
        if await is_disconnected():
            cancelled.set()


@contextmanager
def cancellable(model: Any, cancelled: Event) -> Iterator[None]:
    """Let every layer of the model raise RequestCancelled once the event is set; no effect without layers."""

    def check(*_: Any) -> None:
        if cancelled.is_set():
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
    """The paths, modification times and sizes of a model's files. Raises as `resolve` does if the folder is gone."""
    from clearstory.formats.model_path import resolve_model_path

    files = (
        [path]
        if is_regular_file(path)
        else [each for each in list_entries(resolve_model_path(path)) if is_regular_file(each)]
    )
    return tuple((str(each), (stat := each.stat()).st_mtime_ns, stat.st_size) for each in files)


def model_bytes(opened: OpenedModel) -> int:
    """Bytes of a model's parameters and buffers; shared tensors count once."""
    tensors = [*opened.model.parameters(), *opened.model.buffers()]
    return sum({each.data_ptr(): each.numel() * each.element_size() for each in tensors}.values())
