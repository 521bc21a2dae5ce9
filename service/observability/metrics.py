"""What Klingel counts about itself, for Prometheus. One registry for each app, so that tests do not share."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.domain.lifecycle import Status, Verdict

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
STATUS_QUERY: Final = "status_query"


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._provider_calls = Counter(
            "klingel_provider_calls",
            "Requests sent to the provider. kind=status_query stays 0 but for refreshes that a person ordered.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._status_queries = Counter(
            "klingel_provider_status_queries", "Status queries sent to the provider.", registry=self.registry
        )
        self._callbacks = Counter(
            "klingel_callbacks",
            "Callbacks received, by what became of them.",
            ["verdict"],
            registry=self.registry,
        )
        self._attempts = Counter(
            "klingel_delivery_attempts", "Attempts by outcome.", ["kind", "outcome"], registry=self.registry
        )
        self._tasks = Gauge("klingel_tasks", "Tasks stored, by status.", ["status"], registry=self.registry)
        self._oldest_due = Gauge(
            "klingel_oldest_due_delivery_seconds",
            "For how long the oldest due delivery has been due.",
            registry=self.registry,
        )
        self._dead = Gauge(
            "klingel_dead_letters", "Deliveries with no attempts left.", registry=self.registry
        )
        self._commit_seconds = Histogram(
            "klingel_commit_seconds",
            "How long one batch took to be on disk.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._batch_size = Histogram(
            "klingel_batch_items",
            "Writes that shared one commit.",
            registry=self.registry,
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
        )
        self._delivery_seconds = Histogram(
            "klingel_delivery_seconds",
            "From the event to the end of the attempt that delivered it.",
            ["kind"],
            registry=self.registry,
            buckets=(*_SECONDS, 60, 300, 3600, 36_000),
        )
        # Asking for a counter by its labels takes longer than counting.
        self._attempt = cache(self._attempts.labels)
        self._delivery = cache(self._delivery_seconds.labels)
        self._callback = cache(self._callbacks.labels)
        # There from the start, at 0: what appears with its first count, Prometheus takes for no increase.
        for outcome in ("ok", "failed"):
            self._provider_calls.labels(STATUS_QUERY, outcome)
        for outcome in ("accepted", "refused", "deferred", "unknown"):
            self._provider_calls.labels("create", outcome)
        for verdict in (*Verdict, "not_found", "too_large"):
            self._callbacks.labels(verdict)

    def provider_called(self, kind: str, outcome: str) -> None:
        self._provider_calls.labels(kind, outcome).inc()
        if kind == STATUS_QUERY:
            self._status_queries.inc()

    def callback_received(self, verdict: str) -> None:
        self._callback(verdict).inc()

    def attempt_ended(self, kind: str, outcome: str) -> None:
        self._attempt(kind, outcome).inc()

    def delivered(self, kind: str, seconds: float) -> None:
        self._delivery(kind).observe(seconds)

    def committed(self, items: int, seconds: float) -> None:
        self._batch_size.observe(items)
        self._commit_seconds.observe(seconds)

    def render(
        self, *, tasks: Mapping[Status, int], oldest_due: datetime | None, dead: int, now: datetime
    ) -> bytes:
        """The exposition text; what is counted in the database is given."""
        for status, number in tasks.items():
            self._tasks.labels(status).set(number)
        self._oldest_due.set(0 if oldest_due is None else max((now - oldest_due).total_seconds(), 0))
        self._dead.set(dead)
        return generate_latest(self.registry)
