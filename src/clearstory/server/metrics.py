"""Metrics: counts and times of requests and tokens, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from clearstory.server.context import RequestRecord

if TYPE_CHECKING:
    from clearstory.serving.engine_thread import EngineThread

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text format."""

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Upper bounds of the histogram buckets for times of requests and first tokens."""

TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""Upper bounds of the histogram buckets for times per token."""


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, engines: Mapping[str, EngineThread]) -> None:
        self.registry = CollectorRegistry()
        one, model = ("route",), ("model",)
        self.requests = Counter(
            "clearstory_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.cancelled = Counter(
            "clearstory_requests_cancelled", "Requests whose client disconnected before the end.", one,
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "clearstory_request_seconds", "Time from a request to the end of its response.", one,
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self.prompt_tokens = Counter("clearstory_prompt_tokens", "Prompt tokens.", model, registry=self.registry)
        self.cached_tokens = Counter(
            "clearstory_prompt_tokens_cached", "Prompt tokens that were not computed again, because an earlier prompt "
            "has the same prefix.", model, registry=self.registry,
        )  # fmt: skip
        self.generated_tokens = Counter(
            "clearstory_generated_tokens", "Generated tokens.", model, registry=self.registry
        )
        self.first_token = Histogram(
            "clearstory_time_to_first_token_seconds", "Time from a request to its first token.", model,
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self.per_token = Histogram(
            "clearstory_time_per_token_seconds", "Mean time per token of a request after the first token.", model,
            registry=self.registry, buckets=TOKEN_SECONDS,
        )  # fmt: skip
        self.registry.register(EngineCollector(engines))
        ProcessCollector(registry=self.registry)

    def observe(self, record: RequestRecord, seconds: float) -> None:
        """Add a finished request."""
        self.requests.labels(record.route, str(record.status)).inc()
        self.seconds.labels(record.route).observe(seconds)
        if record.cancelled:
            self.cancelled.labels(record.route).inc()
        if record.model is None:
            return
        self.prompt_tokens.labels(record.model).inc(record.prompt_tokens)
        self.cached_tokens.labels(record.model).inc(record.cached_tokens)
        self.generated_tokens.labels(record.model).inc(record.generated_tokens)
        if record.first_token is not None and record.last_token is not None:
            self.first_token.labels(record.model).observe(record.first_token - record.started)
            if record.generated_tokens > 1:
                mean = (record.last_token - record.first_token) / (record.generated_tokens - 1)
                self.per_token.labels(record.model).observe(mean)

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class EngineCollector:
    """Running and waiting requests of each engine, read when the metrics are requested."""

    def __init__(self, engines: Mapping[str, EngineThread]) -> None:
        self.engines = engines

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        running = GaugeMetricFamily("clearstory_requests_running", "Texts in the batch.", labels=["model"])
        waiting = GaugeMetricFamily(
            "clearstory_requests_waiting", "Texts that wait for their prefill.", labels=["model"]
        )
        for name, engine in self.engines.items():
            statistics = engine.statistics()
            running.add_metric([name], statistics.running)
            waiting.add_metric([name], statistics.waiting)
        yield running
        yield waiting
