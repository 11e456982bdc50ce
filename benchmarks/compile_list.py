"""Which programs are compiled for which chips. Nothing here imports JAX."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CLASSES = 10
GPUS, TPUS = ("h200", "h100"), ("v5e", "v4")
EXTENTS = ("default", "reduced", "all")
"""How much is compiled, see :func:`list_checks`."""
PROXIES = ("nwot", "log_synflow", "snip", "jacob_cov", "zico")
_CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
_DARTS = ("darts", "darts_s1", "darts_s2", "darts_s3", "darts_s4")
_1SHOT1 = ("nasbench1shot1_1", "nasbench1shot1_2", "nasbench1shot1_3")

REDUCED: dict[str, dict[str, Any]] = {
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    **{name: {"channels": 4, "cells": 3} for name in _DARTS},
    **{name: {"channels": 4, "cells_per_stage": 1} for name in _1SHOT1},
    "nasbench_macro": {"channels": 4},
    "mobilenet": {"width_multiplier": 0.1},
}
"""Options of every space with which it compiles fastest."""

_OF_FAMILIES = (
    "nasbench201",
    "darts_s1",
    "nasbench1shot1_1",
    "nasbench_macro",
    "mobilenet",
)
"""One space of each family, which all have the operations of their family. TPUs take
the first two: gradients compile slowly for them."""

_OWN_NETWORKS = _DARTS
"""Spaces whose networks need a module besides the supernet, with nwot."""


@dataclass(frozen=True)
class Check:
    """One program to compile for one chip.

    Attributes:
      kind: a search's scores, a step of the final trainer, a step of the supernet
        trainer, or the form that aborts XLA (see ``compile_child``).
      chip: the name of the chip.
      space: the search space.
      proxy: the proxy, of scores.
      module: the supernet or the masked network of validation, of scores.
      options: what differs from the published space.
      genotype: the network that is trained, or its published name.
      batch_size: images of a minibatch.
      image_size: height and width of the images in pixels.
      proposals: proposals that are scored in one call.
      programs: how many programs a search may compile for this module and validation,
        None if it is not checked.
      limit: seconds after which the check is given up.
      bytes_limit: bytes that JAX can allocate on the chip, None for the chip's own.
    """

    kind: Literal["scores", "training", "supernet training", "strided product"]
    chip: str
    space: str = ""
    proxy: str = ""
    module: Literal["supernet", "networks", ""] = ""
    options: dict[str, Any] = field(default_factory=dict)
    genotype: str = ""
    batch_size: int = 64
    image_size: int = 32
    proposals: int = 10
    programs: int | None = None
    limit: int = 900
    bytes_limit: int | None = None

    @property
    def what(self) -> str:
        """The program in words, such as ``darts nwot supernet``."""
        size = ",".join(f"{key}={value}" for key, value in self.options.items())
        if size and self.options == REDUCED.get(self.space):
            size = "reduced"
        kind = "" if self.kind == "scores" else self.kind
        parts = (self.space, self.proxy, self.module, kind, size)
        return " ".join(part for part in parts if part)

    @property
    def name(self) -> str:
        """The program and the chip; ``--only`` looks into it."""
        return f"{self.what} {self.chip}"


def list_checks(extent: str, chips: Sequence[str]) -> list[Check]:
    """All checks, those of the published sizes first.

    Args:
      extent: one of :data:`EXTENTS`. All of them have NAS-Bench-201 and DARTS with nwot
        at their published size, and a step of each trainer. ``default`` adds every
        space with nwot and one space of each family with the other proxies, reduced
        (two families for TPUs);
        ``reduced`` adds every space with every proxy, reduced; ``all`` adds them at
        their published size, for every chip.
      chips: names of the chips.
    """
    checks = [*_published(), *_trainers(), *_others(extent)]
    return [check for check in checks if check.chip in chips]


def _published() -> Iterator[Check]:
    """Searches of the two main spaces at their published size."""
    for chip in (*GPUS, *TPUS):
        yield _scores("nasbench201", "nwot", "supernet", chip)
    for module in ("supernet", "networks"):
        for chip in (*GPUS, *TPUS):
            yield _scores("darts", "nwot", module, chip)


def _trainers() -> Iterator[Check]:
    chip = "h200"
    yield Check("training", chip, "nasbench201", genotype=_CELL, batch_size=256)
    sizes = {"channels": 36, "cells": 20}
    yield Check(
        "training", chip, "darts", options=sizes, genotype="DARTS_V2", batch_size=96
    )
    tiny = REDUCED["darts_s2"]
    yield Check("supernet training", chip, "darts_s2", options=tiny, batch_size=8)


def _others(extent: str) -> Iterator[Check]:
    """Every other space and proxy, nwot of every space first."""
    done = {(check.space, check.proxy) for check in _published()}
    for proxy in PROXIES:
        for space, options in REDUCED.items():
            if (space, proxy) in done:
                continue
            for chip in (*GPUS, *TPUS) if extent == "all" else ("h200", "v5e"):
                usual = _OF_FAMILIES[:2] if chip in TPUS else _OF_FAMILIES
                if extent == "default" and proxy != "nwot" and space not in usual:
                    continue
                check = _scores(space, proxy, "supernet", chip)
                if extent != "all":
                    check = dataclasses.replace(
                        check, options=options, batch_size=8, limit=600
                    )
                yield check


def _scores(space: str, proxy: str, module: Any, chip: str) -> Check:
    programs = None
    if proxy == "nwot":
        programs = 2 if space in _OWN_NETWORKS else 1
    return Check("scores", chip, space, proxy, module, programs=programs)
