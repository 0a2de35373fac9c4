"""What /metrics tells: a Prometheus registry of its own, so that two servers in one process differ.

Counts of requests and times are observed here; the state of the backends is read when scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minimind.inference.backend import Backend, BackendStats
from minimind.serve.running import Run

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1)

Backends = Callable[[], Mapping[str, Backend]]


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, backends: Backends) -> None:
        """Register everything; `backends` gives the models by name at each scrape."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "minimind_requests",
            "Requests answered; 499: the client left before that.",
            ["route", "status"],
            registry=self.registry,
        )
        self._first = Histogram(
            "minimind_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._token = Histogram(
            "minimind_time_per_token_seconds",
            "Mean time between the tokens of a request, after the first.",
            ["model"],
            buckets=_TOKEN_SECONDS,
            registry=self.registry,
        )
        self._whole = Histogram(
            "minimind_request_seconds",
            "From the request's arrival to its last token.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_BackendCollector(backends))

    def answered(self, route: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()

    def ran(self, model: str, run: Run, *, choices: int) -> None:
        """Observe the times of a run that is over; one without tokens has none."""
        if not run.tokens:
            return
        self._first.labels(model).observe(run.first_token - run.started)
        self._whole.labels(model).observe(run.last_token - run.started)
        if run.tokens > choices:
            per_token = (run.last_token - run.first_token) / (run.tokens / choices - 1)
            self._token.labels(model).observe(per_token)

    def render(self) -> bytes:
        """Return Prometheus's text format."""
        return generate_latest(self.registry)


_GAUGES: tuple[tuple[str, str, Callable[[BackendStats], int]], ...] = (
    ("requests_running", "Answers that hold a slot.", lambda s: s.running),
    ("requests_waiting", "Answers in the queue.", lambda s: s.waiting),
    ("slots", "Answers that can run at once.", lambda s: s.slots),
    ("queue_limit", "Answers that can wait.", lambda s: s.queue_limit),
    ("kv_cache_bytes", "Size of the preallocated cache.", lambda s: s.kv_cache_bytes),
)
_COUNTERS: tuple[tuple[str, str, Callable[[BackendStats], int]], ...] = (
    ("prompt_tokens", "Prompt tokens read, cached ones excepted.", lambda s: s.prompt_tokens),
    ("cached_tokens", "Prompt tokens from the prefix cache.", lambda s: s.cached_tokens),
    ("generated_tokens", "Tokens made.", lambda s: s.generated_tokens),
)


class _BackendCollector(Collector):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def collect(self) -> Iterable[Metric]:
        stats = {name: backend.stats() for name, backend in self._backends().items()}
        for kinds, family in ((_GAUGES, GaugeMetricFamily), (_COUNTERS, CounterMetricFamily)):
            for name, text, value_of in kinds:
                metric = family(f"minimind_{name}", text, labels=["model"])
                for model, stat in stats.items():
                    metric.add_metric([model], value_of(stat))
                yield metric
