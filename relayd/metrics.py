"""What Prometheus is told. It needs prometheus-client, the extra `metrics`.

Streams and viewers have no labels of their own: the number of time series is the same for ten and
for ten thousand of them.
"""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from . import __version__
from .config import Config
from .counters import Histogram
from .protocol import REFUSALS
from .relay.backlog import DROP_REASONS
from .session import Registry
from .tls import Certificate

REFUSAL_REASONS = (*(refusal.reason() for refusal in REFUSALS), "origin", "full", "draining")
"""Why a WebSocket is refused: by an `error` message, or by HTTP 403 or 503."""


class Exposition(Collector):
    """Reads what a relay has counted, when it is asked.

    Args:
        config: The limits.
        registry: The streams and what has been counted of them.
        connections: The open connections.
        is_draining: Whether the relay is about to stop.
        loop_lag: How late the event loop was.
        certificate: The certificate in use.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        connections: Collection[Any],
        is_draining: Callable[[], bool],
        loop_lag: Histogram,
        certificate: Certificate | None,
    ) -> None:
        self._config = config
        self._registry = registry
        self._connections = connections
        self._is_draining = is_draining
        self._loop_lag = loop_lag
        self._certificate = certificate
        self._build_info = _build_info()  # reads files
        self._metrics = CollectorRegistry()
        self._metrics.register(self)
        ProcessCollector(registry=self._metrics)
        GCCollector(registry=self._metrics)

    def render(self, accept: str) -> tuple[str, str]:
        """Return the metrics without the last line end, and the content type that was accepted."""
        encode, content_type = choose_encoder(accept)
        return encode(self._metrics).decode().removesuffix("\n"), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that is relayd's own."""
        registry, counters = self._registry, self._registry.counters
        fan_outs = [stream.fan_out for stream in registry.streams]
        frames_sent, bytes_sent = counters.frames_sent, counters.bytes_sent
        drops = Counter(counters.drops)
        for viewer in registry.attendance.viewers.values():
            frames_sent += viewer.delivered
            bytes_sent += viewer.delivered_size
            if viewer.dropped:
                drops.update(viewer.drops)

        yield _gauge("streams", "Streams at the moment.", registry.stream_count)
        yield _gauge("viewers", "Viewers at the moment.", registry.viewer_count)
        yield _gauge("connections", "Open connections of every kind.", len(self._connections))
        yield _gauge("connections_limit", "MAX_CONNECTIONS.", self._config.max_connections)
        yield _gauge("draining", "1 while relayd is about to stop.", int(self._is_draining()))
        if self._certificate is not None:
            yield _gauge(
                "certificate_expiry_timestamp_seconds",
                "When the certificate expires.",
                self._certificate.expires,
            )
        yield self._build_info
        yield _counter("streams_started", "Streams that have begun.", counters.streams)
        yield _counter("viewers_joined", "Viewers that have joined.", counters.viewers)
        yield _counter("connections_accepted", "TCP connections accepted.", counters.connections)
        yield _counter("resumes", "Streams taken up again by their streamer.", counters.resumes)
        yield _counter("kicks", "Streams and viewers ended by the operator.", counters.kicks)
        yield _counter(
            "frames_received",
            "Frames from streamers.",
            counters.frames_received + sum(fan_out.frames for fan_out in fan_outs),
        )
        yield _counter(
            "bytes_received",
            "Their bytes, payload and header.",
            counters.bytes_received + sum(fan_out.size for fan_out in fan_outs),
        )
        yield _counter("frames_sent", "Frames handed over to viewers' networks.", frames_sent)
        yield _counter("bytes_sent", "Their bytes, payload and header.", bytes_sent)
        yield _counter_by_reason(
            "frames_dropped", "Frames that viewers did not get.", DROP_REASONS, drops
        )
        yield _counter_by_reason(
            "refusals", "WebSockets refused.", REFUSAL_REASONS, counters.refusals
        )
        waited = sum(counters.frame_lag.counts)
        yield _histogram(
            "frame_lag_seconds",
            "Time that a frame waited in relayd for its viewer's network.",
            counters.frame_lag,
            # Frames that did not wait are not observed one by one.
            within_first=max(0, frames_sent - waited),
        )
        yield _histogram(
            "event_loop_lag_seconds", "Time by which the event loop was late.", self._loop_lag
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"relayd_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"relayd_{name}", text, value)


def _counter_by_reason(
    name: str, text: str, reasons: Collection[str], counts: Counter[str]
) -> Metric:
    family = CounterMetricFamily(f"relayd_{name}", text, labels=["reason"])
    for reason in reasons:
        family.add_metric([reason], counts[reason])
    return family


def _histogram(name: str, text: str, histogram: Histogram, within_first: int = 0) -> Metric:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    counts = accumulate(histogram.counts)
    buckets = [(bound, count + within_first) for bound, count in zip(bounds, counts, strict=True)]
    return HistogramMetricFamily(f"relayd_{name}", text, buckets, histogram.sum)


def _build_info() -> Metric:
    versions = {
        "version": __version__,
        "python": platform.python_version(),
        "websockets": _installed("websockets"),
        "uvloop": _installed("uvloop"),
    }
    family = GaugeMetricFamily("relayd_build_info", "What runs.", labels=list(versions))
    family.add_metric(list(versions.values()), 1)
    return family


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Windows has no uvloop
        return ""
