"""Timings of a command: phases, compiled programs and device utilisation."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zcpt_jax.scoring.scorer import Program
from zcpt_jax.stopwatch import merge_seconds


@dataclass(frozen=True)
class Timings:
    """Timings of a command.

    Attributes:
      seconds: wall time in seconds by phase.
      busy_seconds: time in seconds in which devices were busy, without compilation.
      devices: description of the devices, such as ``1 gpu device (NVIDIA H200)``.
      programs: compiled programs, in order.
    """

    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    busy_seconds: float = 0.0
    devices: str = ""
    programs: tuple[Program, ...] = ()

    def after(self, earlier: "Timings") -> "Timings":
        """Add the timings of earlier runs of the same work."""
        return Timings(
            merge_seconds(earlier.seconds, self.seconds),
            earlier.busy_seconds + self.busy_seconds,
            self.devices,
            earlier.programs + self.programs,
        )

    @property
    def total(self) -> float:
        """Wall time in seconds."""
        return sum(self.seconds.values())

    def describe(self) -> str:
        """Describe devices, their utilisation and compilation in one sentence."""
        count = len(self.programs)
        compiled = sum(p.trace_seconds + p.compile_seconds for p in self.programs)
        share = 100 * self.busy_seconds / (self.total or 1.0)
        what = "program" if count == 1 else "programs"
        return (
            f"{self.devices}, busy for {self.busy_seconds:.1f} s, {share:.0f} % of the "
            f"time; {count} {what} compiled in {compiled:.1f} s"
        )

    def chunk_on(self, devices: str) -> int | None:
        """Return the last chunk size in masks, or None for timings of other devices."""
        if devices != self.devices or not self.programs:
            return None
        last = {program.name: program.chunk for program in self.programs}
        return min(last.values())

    def as_json(self) -> dict[str, Any]:
        """Convert to plain dictionaries and lists."""
        return dataclasses.asdict(self)

    @staticmethod
    def of_json(found: Any) -> "Timings":
        """Inverse of :meth:`as_json`; return empty timings for anything malformed."""
        try:
            programs = tuple(Program(**one) for one in found["programs"])
            seconds = {str(k): float(v) for k, v in found["seconds"].items()}
            busy, devices = float(found["busy_seconds"]), str(found["devices"])
        except (TypeError, KeyError, AttributeError, ValueError):
            return Timings()
        return Timings(seconds, busy, devices, programs)
