"""The report of a stay: rows that grow as numbers arrive, tables, and targets."""

from collections.abc import Mapping
from typing import Any

from benchmarks.table import TARGET, Sections, render
from benchmarks.targets import Target, judge

# On an NVIDIA H200.
TARGETS = (
    Target("steps", "nasbench201", "nwot", "ratio", 120),
    Target("steps", "darts", "nwot", "ratio", 60),
    Target("searches", "nasbench201", "nwot", "cold_seconds", 30, at_least=False),
    Target("searches", "nasbench201", "nwot", "warm_seconds", 8, at_least=False),
    Target("searches", "darts", "nwot", "cold_seconds", 120, at_least=False),
    Target("searches", "darts", "nwot", "warm_seconds", 40, at_least=False),
    Target("searches", "darts", "nwot", "cold_programs", 3, at_least=False),
    Target("searches", "nasbench201", "nwot", "warm_card_busy", 0.7),
    Target("searches", "darts", "nwot", "warm_card_busy", 0.7),
    Target("trainings", "darts", "", "compile_seconds", 60, False, "float32"),
    Target("trainings", "darts", "", "compile_seconds", 60, False, "bfloat16"),
    Target("trainings", "darts", "", "ratio", 1.3, variant="float32"),
    Target("trainings", "darts", "", "ratio", 1.5, variant="bfloat16"),
)

_STEP = (
    ("space", "space", "{}"),
    ("proxy", "proxy", "{}"),
    ("together", "chunk", "{}"),
    ("trace s", "trace_seconds", "{:.1f}"),
    ("trace + compile s", "compile_seconds", "{:.1f}"),
    ("ours ms", "ours_ms", "{:.2f}"),
    ("PyTorch ms", "reference_ms", "{:.1f}"),
    ("ratio", "ratio", "{:.2f}"),
    ("PyTorch on", "reference_device", "{}"),
)
_SEARCH = (
    ("space", "space", "{}"),
    ("cold s", "cold_seconds", "{:.1f}"),
    ("programs", "cold_programs", "{}"),
    ("busy", "cold_busy", "{:.0%}"),
    ("warm s", "warm_seconds", "{:.1f}"),
    ("programs", "warm_programs", "{}"),
    ("busy", "warm_busy", "{:.0%}"),
    ("card busy", "warm_card_busy", "{:.0%}"),
)
_GOLDEN = (
    ("file", "variant", "{}"),
    ("proxy", "proxy", "{}"),
    ("masks", "masks", "{}"),
    ("largest relative difference", "difference", "{:.1e}"),
)
_TRAINING = (
    ("precision", "variant", "{}"),
    ("trace s", "trace_seconds", "{:.1f}"),
    ("trace + compile s", "compile_seconds", "{:.1f}"),
    ("ours images/s", "ours_images", "{:,.0f}"),
    ("eager", "eager_images", "{:,.0f}"),
    ("ratio", "ratio", "{:.2f}"),
    ("torch.compile", "compiled_images", "{:,.0f}"),
    ("ratio", "ratio_compiled", "{:.2f}"),
)
_FORM = (
    ("space", "space", "{}"),
    ("form", "variant", "{}"),
    ("together", "chunk", "{}"),
    ("trace + compile s", "compile_seconds", "{:.1f}"),
    ("ours ms", "ours_ms", "{:.2f}"),
    ("beside as is", "beside", "{:.2f}"),
)
SECTIONS: Sections = {
    "steps": ("one step of the undecided supernet, a perturbation", _STEP),
    "searches": (
        "whole searches; busy: of the search's own clock, of nvidia-smi",
        _SEARCH,
    ),
    "golden": ("scores of the published code", _GOLDEN),
    "trainings": ("training DARTS_V2, images/s", _TRAINING),
    "forms": ("the same step written otherwise; 2 takes twice as long", _FORM),
    "targets": ("targets, on an H200", TARGET),
}
"""The tables of ``benchmarks/accelerator.py``."""

_KEYS = ("space", "proxy", "variant")


class Report:
    """Rows by section; numbers of one row may arrive in parts."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Starts without rows."""
        self.content: dict[str, Any] = {"settings": dict(settings), "environment": {}}
        self.content |= {name: [] for name in SECTIONS if name != "targets"}
        self.content["not_begun"] = []

    def add(self, section: str, part: Mapping[str, Any]) -> None:
        """Add numbers to the row of their space, proxy and variant.

        Args:
          section: of the report; ``environment`` is one row.
          part: the numbers, or an error.
        """
        row = self._row(section, part)
        if "error" in row and "error" in part:
            part = {**part, "error": f"{row['error']}; {part['error']}"}
        row |= part
        _derive(row)
        self._compare_forms()
        self.content["targets"] = judge(self.content, TARGETS)

    def _row(self, section: str, part: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any]
        if section == "environment":
            found = self.content["environment"]
            return found
        name = [part.get(key, "") for key in _KEYS]
        for found in self.content[section]:
            if [found.get(key, "") for key in _KEYS] == name:
                return found
        found = dict(zip(_KEYS, name, strict=True))
        self.content[section].append(found)
        return found

    def _compare_forms(self) -> None:
        """What each form takes beside that of the device."""
        steps = [row for row in self.content["steps"] if row["proxy"] == "nwot"]
        if self.content["settings"].get("shallow"):
            steps = []  # those are of whole networks
        steps += [row for row in self.content["forms"] if row["variant"] == "as is"]
        default = {row["space"]: row for row in steps}
        for row in self.content["forms"]:
            base = default.get(row["space"], {}).get("ours_ms")
            if row.get("same"):
                row["beside"] = 1.0
            elif base and row.get("ours_ms"):
                row["beside"] = row["ours_ms"] / base

    def __str__(self) -> str:
        """The tables."""
        text = render(self.content, SECTIONS)
        missing = self.content["not_begun"]
        return f"{text}\n\nnot begun: {'; '.join(missing)}" if missing else text


def _derive(row: dict[str, Any]) -> None:
    """Ratios of numbers that are there."""
    for name, ours, theirs in (
        ("ratio", "reference_ms", "ours_ms"),
        ("ratio", "ours_images", "eager_images"),
        ("ratio_compiled", "ours_images", "compiled_images"),
    ):
        if row.get(ours) and row.get(theirs):
            row[name] = row[ours] / row[theirs]


def describe(part: Mapping[str, Any]) -> str:
    """Numbers in one line, for the moment they are known."""
    texts = []
    for name, value in part.items():
        if name in _KEYS or not isinstance(value, str | int | float | dict):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
            texts.append(f"{name} ({value})")
        else:
            texts.append(f"{name} {_short(value)}")
    return "; ".join(texts)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
