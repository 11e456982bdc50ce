"""Where the time of a command went: phases, compiled programs, busy devices."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zcpt_jax.scoring.scorer import Program
from zcpt_jax.stopwatch import merge_seconds


@dataclass(frozen=True)
class Timings:
    """Where the time went.

    Attributes:
      seconds: wall time by phase.
      busy_seconds: for how long devices had something to do, compiling left out.
      devices: what they are, such as ``1 gpu device (NVIDIA H200)``.
      programs: what was compiled, in order.
    """

    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    busy_seconds: float = 0.0
    devices: str = ""
    programs: tuple[Program, ...] = ()

    def after(self, earlier: "Timings") -> "Timings":
        """These timings and those of earlier runs of the same work."""
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
        """On what it ran, how busy that was, and what was compiled, in a sentence."""
        count = len(self.programs)
        compiled = sum(p.trace_seconds + p.compile_seconds for p in self.programs)
        share = 100 * self.busy_seconds / (self.total or 1.0)
        what = "program" if count == 1 else "programs"
        return (
            f"{self.devices}, busy for {self.busy_seconds:.1f} s, {share:.0f} % of the "
            f"time; {count} {what} compiled in {compiled:.1f} s"
        )

    def chunk_on(self, devices: str) -> int | None:
        """The masks that were put together last, None if it was on other devices."""
        if devices != self.devices or not self.programs:
            return None
        last = {program.name: program.chunk for program in self.programs}
        return min(last.values())

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return dataclasses.asdict(self)

    @staticmethod
    def of_json(found: Any) -> "Timings":
        """The inverse of :meth:`as_json`; what is not of its form counts as nothing."""
        try:
            programs = tuple(Program(**one) for one in found["programs"])
            seconds = {str(k): float(v) for k, v in found["seconds"].items()}
            busy, devices = float(found["busy_seconds"]), str(found["devices"])
        except (TypeError, KeyError, AttributeError, ValueError):
            return Timings()
        return Timings(seconds, busy, devices, programs)
