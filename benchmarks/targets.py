"""What the measurements are to reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEARCH_PROXY = "nwot"
"""The proxy whose whole searches are measured, the paper's default."""


@dataclass(frozen=True)
class Target:
    """A bound on one measured number.

    Attributes:
      section: ``steps``, ``proposals`` or ``searches`` of a report.
      space: of the row.
      proxy: of the row.
      number: the key of the number in the row.
      bound: what it is to reach.
      at_least: whether it is to be at least, or else below it.
      variant: of the row, where one space and proxy have several.
    """

    section: str
    space: str
    proxy: str
    number: str
    bound: float
    at_least: bool = True
    variant: str = ""

    def __str__(self) -> str:
        """``step ratio >= 8 (nwot, darts)``."""
        sign = ">=" if self.at_least else "<"
        name = f"{_SINGULAR[self.section]} {self.number}"
        row = ", ".join(filter(None, (self.proxy, self.space, self.variant)))
        return f"{name} {sign} {self.bound:g} ({row})"


_SINGULAR = {
    "steps": "step",
    "proposals": "proposal",
    "searches": "search",
    "trainings": "training",
}

TARGETS = (
    Target("steps", "nasbench201", "nwot", "ratio", 8),
    Target("steps", "darts", "nwot", "ratio", 8),
    *(
        Target("steps", space, proxy, "ratio", 4)
        for space in ("nasbench201", "darts")
        for proxy in ("snip", "synflow")
    ),
    Target("steps", "darts", "nwot", "compile_seconds", 15, at_least=False),
    Target("proposals", "nasbench201", "nwot", "ratio", 10),
    Target("proposals", "darts", "nwot", "ratio", 10),
    # N=10, V=10, batches of 64, everything compiled before.
    Target("searches", "nasbench201", "nwot", "warm_seconds", 60, at_least=False),
)


def judge(
    report: Mapping[str, Any], targets: Sequence[Target] = TARGETS
) -> list[dict[str, Any]]:
    """Each target beside what was measured, as far as it was.

    Args:
      report: sections of rows, each a mapping.
      targets: what the numbers are to reach.

    Returns:
      Rows of target, value and whether it is met.
    """
    rows = []
    for target in targets:
        value = _find(report.get(target.section, ()), target)
        if value is not None:
            met = value >= target.bound if target.at_least else value < target.bound
            rows.append({"target": str(target), "value": value, "met": bool(met)})
    return rows


def _find(rows: Sequence[Mapping[str, Any]], target: Target) -> float | None:
    wanted = (target.space, target.proxy, target.variant)
    for row in rows:
        if (row["space"], row["proxy"], row.get("variant", "")) == wanted:
            return row.get(target.number)
    return None
