"""Wall time by phase."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any


class Stopwatch:
    """Wall time by phase. Phases may nest; each second is counted once.

    Attributes:
      programs: what was compiled meanwhile.
      busy_seconds: for how long devices had something to do.
    """

    def __init__(self) -> None:
        """Starts with no phase."""
        self._seconds: dict[str, float] = {}
        self._active: list[str] = []
        self._last = 0.0
        self.programs: list[Any] = []
        self.busy_seconds = 0.0

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Counts the time inside to ``phase``, less what nested phases take."""
        self._settle()
        self._active.append(phase)
        try:
            yield
        finally:
            self._settle()
            self._active.pop()

    def add(self, phase: str, seconds: float) -> None:
        """Adds seconds to ``phase``, taken from the phase now measured, if any."""
        self._add(phase, seconds)
        if self._active:
            self._add(self._active[-1], -seconds)

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase up to now."""
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
    """Adds up wall times of several runs, phase by phase."""
    phases = dict.fromkeys(phase for part in parts for phase in part)
    return {phase: sum(part.get(phase, 0.0) for part in parts) for phase in phases}
