"""Stopwatch of wall time, in seconds, by phase."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any


class Stopwatch:
    """Stopwatch of wall time by phase; phases may nest and each second counts once.

    Attributes:
      programs: programs compiled while it ran.
      busy_seconds: seconds during which devices had work.
    """

    def __init__(self) -> None:
        """Start with no phase."""
        self._seconds: dict[str, float] = {}
        self._active: list[str] = []
        self._last = 0.0
        self.programs: list[Any] = []
        self.busy_seconds = 0.0

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time inside to ``phase``, minus the time of nested phases."""
        self._settle()
        self._active.append(phase)
        try:
            yield
        finally:
            self._settle()
            self._active.pop()

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to ``phase`` and subtract them from the current phase, if any."""
        self._add(phase, seconds)
        if self._active:
            self._add(self._active[-1], -seconds)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far."""
        self._settle()
        return dict(self._seconds)

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._active:
            self._add(self._active[-1], now - self._last)
        self._last = now

    def _add(self, phase: str, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds


def merge_seconds(*parts: Mapping[str, float]) -> dict[str, float]:
    """Add up the wall times of several runs, phase by phase."""
    phases = dict.fromkeys(phase for part in parts for phase in part)
    return {phase: sum(part.get(phase, 0.0) for part in parts) for phase in phases}
