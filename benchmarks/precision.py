"""Effect of ``--precision`` on scores, ranks and searches: emulated on a CPU.

``python benchmarks/precision.py --data_dir=DIR --golden_dir=DIR --table=CSV`` compares
each rounding of :data:`benchmarks.emulation.ROUNDINGS` with float32:

* ``golden``: the difference to the scores of the published code, for the networks in
  the files of ``--golden_dir``. Operations take the form that they have on GPUs.
* ``ranks``: how NAS-Bench-201 cells are ranked, each a one-hot mask of one supernet.
* ``searches``: what whole searches of NAS-Bench-201 propose and find.

Ranks and searches use one cell a stage. Every row is printed, and written to
``--output``, as soon as it is known. Nothing here says how fast a precision is.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import jobs  # noqa: E402
from benchmarks.emulation import ROUNDINGS, emulated  # noqa: E402
from launch import _command, _flags  # noqa: E402
from zcpt_jax.analysis.correlation import spearman  # noqa: E402
from zcpt_jax.analysis.score_networks import score_networks  # noqa: E402
from zcpt_jax.data import Dataset, load_dataset  # noqa: E402
from zcpt_jax.io.files import make_folder, write_atomically  # noqa: E402
from zcpt_jax.lowering import GPU, using  # noqa: E402
from zcpt_jax.proxies import PROXIES, jointly  # noqa: E402
from zcpt_jax.scoring import Evaluator, ScoringConfig  # noqa: E402
from zcpt_jax.search import SearchConfig, zero_cost_pt  # noqa: E402
from zcpt_jax.search.enumeration import Enumeration  # noqa: E402
from zcpt_jax.spaces import get_space  # noqa: E402
from zcpt_jax.tables import Table, load_table  # noqa: E402
from zcpt_jax.types import InputError, Masks, Proxy, ScoreFn, Space  # noqa: E402

PARTS = ("golden", "ranks", "searches")
GOLDEN_SPACES = ("nasbench201", "darts", "darts_s1")
GOLDEN_PROXIES = (
    "nwot",
    "synflow",
    "snip",
    "grad_norm",
    "fisher",
    "jacob_cov",
    "plain",
    "grasp",
)
# Their terms cancel, so that single scores lie close to zero.
SIGNED = ("plain", "grasp")
TOP = 10
_BLOCK = 50  # networks between two messages

_PARTS = flags.DEFINE_list("parts", list(PARTS), f"of {', '.join(PARTS)}")
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_GOLDEN = flags.DEFINE_string("golden_dir", None, "scores of the published code")
_TABLE = _flags.text("table")
_CELLS = flags.DEFINE_integer("cells", 1000, "cells that nwot and log_synflow rank")
_GRADIENT_CELLS = flags.DEFINE_integer("gradient_cells", 250, "cells that snip ranks")
_SEEDS = flags.DEFINE_integer("seeds", 4, "searches, with the seeds from 0")
_PROPOSALS = flags.DEFINE_integer("num_proposals", 10, "N of a search")
_BATCHES = flags.DEFINE_integer("num_validation_batches", 10, "V of a search")
_BATCH_SIZE = _flags.integer("batch_size")
_OUTPUT = flags.DEFINE_string(
    "output", None, "the report; default: runs/benchmarks/precision-<utc time>.json"
)

Row = dict[str, Any]


def main(argv: list[str]) -> None:
    """Flags to measurements to a report."""
    _command.no_arguments(argv)
    _flags.check_counts(
        _CELLS, _GRADIENT_CELLS, _SEEDS, _PROPOSALS, _BATCHES, _BATCH_SIZE
    )
    parts = _asked_for()
    output = Path(_OUTPUT.value or _default_output())
    make_folder(output.parent)
    report: dict[str, Any] = {
        "environment": {**_command.environment(), "processor": jobs.processor()},
        "settings": {
            holder.name: holder.value
            for holder in (
                _DATASET,
                _CELLS,
                _GRADIENT_CELLS,
                _SEEDS,
                _PROPOSALS,
                _BATCHES,
                _BATCH_SIZE,
            )
        },
    }
    for name, measure in parts.items():
        report[name] = []
        for row in measure():
            report[name].append(row)
            write_atomically(output, json.dumps(report, indent=1) + "\n")
            print("  ".join(f"{k} {_text(v)}" for k, v in row.items()), flush=True)
    print(f"report     {output}")


def _asked_for() -> dict[str, Callable[[], Iterator[Row]]]:
    """Returns the measurements of ``--parts``, with what they read checked."""
    unknown = sorted(set(_PARTS.value) - set(PARTS))
    if unknown:
        raise InputError(f"--parts: unknown {unknown[0]!r}; known: {', '.join(PARTS)}")
    found: dict[str, Callable[[], Iterator[Row]]] = {}
    if "golden" in _PARTS.value:
        files = sorted(Path(_GOLDEN.value or "").glob("*.npz"))
        if not _GOLDEN.value or not files:
            raise InputError("--parts=golden needs --golden_dir with .npz files")
        found["golden"] = lambda: golden(files)
    if {"ranks", "searches"} & set(_PARTS.value):
        if not _TABLE.value:
            raise InputError("--parts=ranks and searches need --table")
        table = load_table(_TABLE.value)
        dataset = load_dataset(_DATASET.value, _DATA_DIR.value)
        dataset.check_batch_size(_BATCH_SIZE.value)
        if "ranks" in _PARTS.value:
            counts = {"nwot": _CELLS.value, "log_synflow": _CELLS.value}
            counts["snip"] = _GRADIENT_CELLS.value
            found["ranks"] = lambda: ranks(dataset, table, counts)
        if "searches" in _PARTS.value:
            found["searches"] = lambda: searches(dataset, table, range(_SEEDS.value))
    return found


def golden(files: Sequence[Path]) -> Iterator[Row]:
    """Compares with the scores of the published code.

    Args:
      files: of the format that ``tests/golden_test.py`` reads.

    Yields:
      For each network, rounding and proxy the largest difference to the published
      score: relative to that score, for the proxies of :data:`SIGNED` to the largest
      absolute score of the file.
    """
    from tests.golden_test import read  # imports pytest

    for file in files:
        network = read(file)
        if network is None or network.space not in GOLDEN_SPACES:
            continue
        names = [name for name in GOLDEN_PROXIES if name in network.scores]
        if network.space.startswith("darts"):
            names.remove("jacob_cov")  # it consists of rounding errors there
        run = _compiled(jointly([PROXIES[name] for name in names]).score, network)
        for number, rounding in enumerate(ROUNDINGS):
            scores = run(number)
            for name, found in zip(names, scores.T, strict=True):
                published = network.scores[name]
                scale = np.abs(published)
                scale = scale.max() if name in SIGNED else scale
                yield {
                    "space": network.space,
                    "rounding": rounding,
                    "proxy": name,
                    "difference": float(np.max(np.abs(found - published) / scale)),
                    "networks": len(published),
                    "rank correlation": spearman(found, published),
                }


def ranks(dataset: Dataset, table: Table, counts: Mapping[str, int]) -> Iterator[Row]:
    """Ranks random cells of NAS-Bench-201 in the weights of one supernet.

    Args:
      dataset: where the minibatch comes from.
      table: accuracies of the cells; the first column is used.
      counts: proxy to the number of cells.

    Yields:
      For each proxy and rounding: the rank correlation with the scores in float32 and
      with accuracy, and how many of the ten best cells in float32 stay among the ten
      best.
    """
    space = _space()
    enumeration = Enumeration(space)
    accuracies = next(iter(table.columns.values()))
    for name, count in counts.items():
        masks = [enumeration.masks(n) for n in enumeration.sample(count, seed=0)]
        cells = [space.genotype(one) for one in masks]
        accuracy = accuracies[[table.rows[space.table_key(cell)] for cell in cells]]
        exact = None
        for rounding in ROUNDINGS:
            proxy = _rounded(name, rounding)
            evaluator = Evaluator(
                space, proxy, dataset, ScoringConfig(batch_size=_BATCH_SIZE.value)
            )
            started, parts = time.perf_counter(), []
            for start in range(0, count, _BLOCK):
                some = slice(start, start + _BLOCK)
                parts.append(
                    score_networks(
                        evaluator, cells[some], masks[some], 1, own_weights=False
                    )
                )
            scores = np.concatenate(parts)[:, 0]
            exact = scores if exact is None else exact
            best, before = (set(np.argsort(-s)[:TOP]) for s in (scores, exact))
            yield {
                "proxy": name,
                "rounding": rounding,
                "cells": count,
                "with float32": spearman(scores, exact),
                "with accuracy": spearman(scores, accuracy),
                f"of the top {TOP}": len(best & before),
                "largest difference": _largest_difference(scores, exact),
                "spread": float(np.std(exact[np.isfinite(exact)])),
                "seconds": time.perf_counter() - started,
            }


def searches(dataset: Dataset, table: Table, seeds: Sequence[int]) -> Iterator[Row]:
    """Searches NAS-Bench-201 by nwot with each rounding.

    Args:
      dataset: where minibatches come from.
      table: accuracies of the cells; the first column is used.
      seeds: of the searches.

    Yields:
      For each seed and rounding: how many proposals, and whether the cell found, are
      those of the search in float32, the accuracy of that cell, and the largest
      difference of the validation scores of proposals that both searches made.
    """
    space = _space()
    accuracies = next(iter(table.columns.values()))
    for seed in seeds:
        exact = None
        for rounding in ROUNDINGS:
            started = time.perf_counter()
            result = zero_cost_pt(
                space,
                _rounded("nwot", rounding),
                dataset,
                SearchConfig(
                    num_proposals=_PROPOSALS.value,
                    num_validation_batches=_BATCHES.value,
                    batch_size=_BATCH_SIZE.value,
                    seed=seed,
                ),
            )
            exact = result if exact is None else exact
            pairs = zip(result.proposals, exact.proposals, strict=True)
            row = table.rows[space.table_key(result.genotype)]
            shared = sorted(set(result.validation) & set(exact.validation))
            scores, before = (
                np.array([one.validation[cell] for cell in shared])
                for one in (result, exact)
            )
            yield {
                "seed": seed,
                "rounding": rounding,
                "same proposals": sum(one == other for one, other in pairs),
                "same cell": result.genotype == exact.genotype,
                "accuracy": float(accuracies[row]),
                "largest difference": _largest_difference(scores, before),
                "cell": result.genotype,
                "seconds": time.perf_counter() - started,
            }


def _compiled(score: ScoreFn, network: Any) -> Callable[[int], np.ndarray]:
    """Returns a function from the number of a rounding to a file's scores ``[P, M]``.

    All roundings share one program, since the gradients of a DARTS supernet take
    minutes to compile. Expensive optimisations are left out for the same reason.
    """
    count = len(next(iter(network.masks.values())))
    masks = [
        jax.tree.map(lambda leaf, p=p: leaf[p], network.masks) for p in range(count)
    ]
    args = (network.variables, network.batch)

    def run(number: jax.Array, mask: Masks) -> jax.Array:
        def rounding(x: jax.Array) -> jax.Array:
            rounded = [one(x) if one else x for one in ROUNDINGS.values()]
            return jax.lax.select_n(number, *rounded)

        return emulated(score, rounding)(network.apply, *args, mask)

    call = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})

    def scores(number: int) -> np.ndarray:
        # On CPUs loops and conditions slow gradients down many times.
        with using(GPU.replace(loops=False, skips="none")):
            return np.stack([call(number, mask) for mask in masks])

    return scores


def _space() -> Space:
    return get_space("nasbench201", cells_per_stage=1)


def _rounded(name: str, rounding: str) -> Proxy:
    proxy = PROXIES[name]
    score = emulated(proxy.score, ROUNDINGS[rounding])
    return dataclasses.replace(proxy, score=score)


def _largest_difference(scores: np.ndarray, exact: np.ndarray) -> float:
    """Returns the largest absolute difference of finite scores, 0 without any."""
    finite = np.isfinite(scores) & np.isfinite(exact)
    return float(np.abs(scores[finite] - exact[finite]).max(initial=0.0))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _default_output() -> str:
    name = time.strftime("precision-%Y%m%dT%H%M%SZ", time.gmtime())
    return str(Path("runs", "benchmarks", f"{name}.json"))


if __name__ == "__main__":
    flags.set_default(_DATASET, "cifar10")
    flags.set_default(_BATCH_SIZE, 32)
    app.run(_command.without_traceback(main))
