"""Counters, gauges and histograms as plain objects: an increment is an addition, nothing more.

A `Registry` is made in main and passed to whoever counts; there is no global one. It belongs to one
thread (the loop's). `exposition` renders it for Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Counter:
    """A number that only rises while the process lives."""

    value: float = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Add `amount` (>= 0)."""
        self.value += amount


@dataclass(slots=True)
class Gauge:
    """A number that is now so; read from a function when one is given."""

    value: float = 0.0
    read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        """Say what it is now."""
        self.value = value

    def current(self) -> float:
        """Return what it is now."""
        return self.read() if self.read is not None else self.value


@dataclass(slots=True)
class Histogram:
    """How often values fell at or below each bound, and their sum."""

    bounds: Sequence[float] = SECONDS_BUCKETS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        """Make one count per bound and one for what lies above all."""
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


Metric = Counter | Gauge | Histogram


@dataclass(slots=True)
class Family:
    """All metrics of one name, told apart by their labels."""

    name: str
    help: str
    kind: type[Metric]
    by_labels: dict[Labels, Metric] = field(default_factory=dict)


class Registry:
    """The metrics of a process. Asking again for the same name and labels gives the same object."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._read_by: dict[str, tuple[str, Callable[[], Mapping[str, float]]]] = {}

    def counter(self, name: str, help_text: str, **labels: str) -> Counter:
        """Return a counter; names end in `_total`."""
        metric = self._metric(name, help_text, Counter, labels)
        assert isinstance(metric, Counter)
        return metric

    def gauge(
        self,
        name: str,
        help_text: str,
        *,
        read: Callable[[], float] | None = None,
        **labels: str,
    ) -> Gauge:
        """Return a gauge; `read` computes it whenever it is asked for."""
        metric = self._metric(name, help_text, Gauge, labels)
        assert isinstance(metric, Gauge)
        metric.read = read or metric.read
        return metric

    def gauges(
        self, name: str, help_text: str, *, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Have gauges of one label; `read` says which there are, and computes them when asked.

        Whoever gives `read` bounds how many.
        """
        self._families.setdefault(name, Family(name, help_text, Gauge))
        self._read_by[name] = (label, read)

    def histogram(self, name: str, help_text: str, **labels: str) -> Histogram:
        """Return a histogram; names end in their unit, `_seconds` for the standard bounds."""
        metric = self._metric(name, help_text, Histogram, labels)
        assert isinstance(metric, Histogram)
        return metric

    def families(self) -> Iterator[Family]:
        """Yield what was made so far, by name."""
        for name in sorted(self._families):
            family = self._families[name]
            if name in self._read_by:
                label, read = self._read_by[name]
                family.by_labels = {
                    ((label, value),): Gauge(number) for value, number in read().items()
                }
            yield family

    def _metric(
        self, name: str, help_text: str, kind: type[Metric], labels: dict[str, str]
    ) -> Metric:
        family = self._families.setdefault(name, Family(name, help_text, kind))
        assert family.kind is kind, f"{name} is a {family.kind.__name__}"
        key = tuple(sorted(labels.items()))
        if key not in family.by_labels:
            family.by_labels[key] = kind()
        return family.by_labels[key]
