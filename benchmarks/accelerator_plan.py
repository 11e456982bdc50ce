"""What is measured in a short stay on an accelerator: steps, each with a limit.

Nothing here imports JAX or PyTorch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ITEMS = (
    "where",
    "steps",
    "searches",
    "golden",
    "trainings",
    "forms",
    "compiled",
    "gradients",
)
"""The groups of steps, the most important first."""

SPACES = ("nasbench201", "darts")
_SMALL = {
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "darts": {"channels": 4, "cells": 1},
}
_SMALL_TRAINING = {
    "channels": 4,
    "cells": 2,
    "batch_size": 8,
    "seconds": 0.5,
    "warm_up": 1,
}
_SHALLOW = {"nasbench201": {"cells_per_stage": 1}, "darts": {"cells": 3}}
_FLAGFILES = Path(__file__).resolve().parents[1] / "launch" / "flagfiles"
_SMALL_SEARCH = ("--num_proposals=1", "--num_validation_batches=1", "--batch_size=8")
_GOLDEN = ("nwot", "snip", "synflow", "grad_norm", "jacob_cov")
_CHUNKS = (1, 2, 4, 7, 10, 14)
FORMS: dict[str, dict[str, Any]] = {
    "as is": {},
    "skips=none": {"skips": "none"},
    "groups=False": {"groups": False},
    "pointwise=product": {"pointwise": "product"},
    "pointwise=convolution": {"pointwise": "convolution"},
    "depthwise=shifted": {"depthwise": "shifted"},
    "depthwise=grouped": {"depthwise": "grouped"},
    "pooling=shifted": {"pooling": "shifted"},
    "pooling=windows": {"pooling": "windows"},
    **{f"chunk={count}": {"chunk": count} for count in _CHUNKS},
    "precision=high": {"precision": "high"},
    "precision=default": {"precision": "default"},
}
"""Changes of the device's :class:`zcpt_jax.lowering.Lowering` that are tried."""


@dataclass(frozen=True)
class Step:
    """One child process.

    Attributes:
      name: for messages.
      kind: a function of ``accelerator_steps.py``.
      limit: seconds after which the child is killed.
      section: the section of the report that its rows go to.
      row: what tells its row from others of the section.
      options: arguments of the function.
    """

    name: str
    kind: str
    limit: float
    section: str
    row: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What a stay is to measure.

    Attributes:
      items: some of :data:`ITEMS`.
      spaces: some of :data:`SPACES`.
      forms: some of :data:`FORMS`.
      data: ``--dataset`` of searches and trainings.
      golden_dir: folder of golden files, or None.
      folder: for files that steps leave to one another.
      smoke: toy sizes.
      shallow: whether forms are tried on networks of fewer cells.
      reference: whether PyTorch is measured too.
    """

    items: Sequence[str]
    spaces: Sequence[str]
    forms: Sequence[str]
    data: str
    golden_dir: str | None
    folder: str
    smoke: bool = False
    shallow: bool = False
    reference: bool = True


def plan(choice: Choice) -> list[Step]:
    """All steps of a stay, the most important first."""
    makers = {
        "where": _where,
        "steps": lambda choice: _steps(choice, ("nwot",)),
        "searches": _searches,
        "golden": _golden,
        "trainings": lambda choice: _trainings(choice, ("training", "eager")),
        "forms": _forms,
        "compiled": lambda choice: _trainings(choice, ("compiled",)),
        "gradients": _gradients,
    }
    return [
        step for item in ITEMS if item in choice.items for step in makers[item](choice)
    ]


def _where(choice: Choice) -> Iterator[Step]:
    yield Step("where it runs", "where", 90, "environment")


def _steps(choice: Choice, proxies: Sequence[str]) -> Iterator[Step]:
    spaces = choice.spaces if proxies == ("nwot",) else ("nasbench201",)
    for space in spaces:
        for proxy in proxies:
            job = _job(choice, space, proxy)
            job["masks_file"] = str(Path(choice.folder, f"{space}-{proxy}.npz"))
            row = {"space": space, "proxy": proxy}
            name = f"a step of {space} by {proxy}"
            yield Step(name, "step", 150, "steps", row, {"job": job})
            if choice.reference:
                job = {**job, "side": "reference"}
                options = {"job": job}
                yield Step(f"{name}, PyTorch", "reference", 60, "steps", row, options)


def _job(choice: Choice, space: str, proxy: str) -> dict[str, Any]:
    """Fields of :class:`benchmarks.jobs.Job`."""
    return {
        "side": "ours",
        "kind": "step",
        "space": space,
        "proxy": proxy,
        "options": _SMALL[space] if choice.smoke else {},
        "batch_size": 8 if choice.smoke else 64,
        "proposals": 2 if choice.smoke else 10,
        "repeats": 3,
    }


def _searches(choice: Choice) -> Iterator[Step]:
    """Cold and warm searches; how busy the card was belongs to the warm ones."""
    limits = {"nasbench201": (120, 60), "darts": (240, 120)}
    for space in choice.spaces:
        flagfile = _FLAGFILES / f"{space}_cifar10.flags"
        args = [f"--flagfile={flagfile}", f"--dataset={choice.data}", "--seed=0"]
        if choice.smoke:
            small = ",".join(f"{k}={v}" for k, v in _SMALL[space].items())
            args += [*_SMALL_SEARCH, f"--space_options={small}"]
        row = {"space": space, "proxy": "nwot"}
        for cache, limit in zip(("cold", "warm"), limits[space], strict=True):
            folder = str(Path(choice.folder, f"{space}-search"))
            options = {"args": args, "cache": cache, "folder": folder}
            name = f"a {cache} search of {space}"
            yield Step(name, "search", limit, "searches", row, options)


def _golden(choice: Choice) -> Iterator[Step]:
    """By all proxies the file of NAS-Bench-201, by nwot the others.

    In DARTS the sum of logits does not depend on the images, so that jacob_cov is
    rounding noise there; it is compared on NAS-Bench-201 only.
    """
    if choice.golden_dir is None:
        return
    files = sorted(Path(choice.golden_dir).resolve().glob("*.npz"))
    first = [file for file in files if file.name.startswith("nasbench201")]
    rest = [file for file in files if file not in first]
    if choice.smoke:
        yield from (_golden_step(file, ("nwot",)) for file in first)
        return
    yield from (_golden_step(file, _GOLDEN) for file in first)
    yield from (_golden_step(file, ("nwot",)) for file in rest)


def _gradients(choice: Choice) -> Iterator[Step]:
    """What may take minutes to compile: scores with a derivative."""
    yield from _steps(choice, ("snip", "synflow"))
    if choice.golden_dir is None or choice.smoke:
        return
    for file in sorted(Path(choice.golden_dir).resolve().glob("*.npz")):
        if not file.name.startswith("nasbench201"):
            yield _golden_step(file, _GOLDEN[1:-1])


def _golden_step(file: Path, proxies: Sequence[str]) -> Step:
    options = {"file": str(file), "proxies": list(proxies)}
    name = f"golden scores of {file.stem}"
    return Step(name, "golden", 90, "golden", {"variant": file.stem}, options)


def _trainings(choice: Choice, kinds: Sequence[str]) -> Iterator[Step]:
    limits = {"training": 150, "eager": 60, "compiled": 200}
    for kind in kinds:
        for precision in ("float32", "bfloat16"):
            if kind != "training" and not choice.reference:
                continue
            if choice.smoke and kind == "compiled":
                continue  # minutes of a C++ compiler on a CPU
            row = {"space": "darts", "proxy": "", "variant": precision}
            job: dict[str, Any] = {"precision": precision, "dataset": choice.data}
            if choice.smoke:
                job |= _SMALL_TRAINING
            name = f"training in {precision}, {kind}"
            yield Step(name, kind, limits[kind], "trainings", row, {"job": job})


def _forms(choice: Choice) -> Iterator[Step]:
    for name in choice.forms:
        for space in choice.spaces[:1] if choice.smoke else choice.spaces:
            measured = "steps" in choice.items and not choice.shallow
            if name == "as is" and measured:
                continue  # the step itself
            job = _job(choice, space, "nwot")
            job["form"] = FORMS[name]
            if choice.shallow:
                job["options"] = {**job["options"], **_SHALLOW[space]}
            row = {"space": space, "proxy": "nwot", "variant": name}
            title = f"a step of {space} with {name}"
            yield Step(title, "step", 120, "forms", row, {"job": job})
