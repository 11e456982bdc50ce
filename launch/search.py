"""Finds an architecture without training: ``python launch/search.py --flagfile=...``.

Writes a run directory: config.json, decisions.jsonl, validation.jsonl, genotype.json,
timings.json and report.html. Run the same command again to resume.
"""

import sys
import time

START = time.perf_counter()

import dataclasses  # noqa: E402  the clock starts before the imports
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags  # noqa: E402

from launch import _command  # noqa: E402
from zcpt_jax.budgets import make_budgets  # noqa: E402
from zcpt_jax.data import Dataset, load_dataset  # noqa: E402
from zcpt_jax.genotypes import load_genotype  # noqa: E402
from zcpt_jax.networks import count_params  # noqa: E402
from zcpt_jax.orders import ORDERS, get_order  # noqa: E402
from zcpt_jax.outcome import merge_seconds, write_outcome  # noqa: E402
from zcpt_jax.proxies import PROXIES, get_proxy  # noqa: E402
from zcpt_jax.runs import GENOTYPE, TIMINGS, RunDirectory  # noqa: E402
from zcpt_jax.search import zero_cost_pt  # noqa: E402
from zcpt_jax.spaces import SPACES, space_options  # noqa: E402
from zcpt_jax.stopwatch import Stopwatch  # noqa: E402
from zcpt_jax.tables import Table, load_table  # noqa: E402
from zcpt_jax.types import InputError, Space  # noqa: E402

_SPACE = flags.DEFINE_string(
    "space", "nasbench201", f"FILE.py:CLASS, or one of {', '.join(SPACES)}"
)
_OPTIONS = flags.DEFINE_list(
    "space_options", [], "options of the space, such as channels=8,cells_per_stage=2"
)
_DATASET = flags.DEFINE_string(
    "dataset", "digits", "a TFDS name, folder:PATH, npz:FILE or digits"
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS keeps its datasets")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "default: the dataset's own")
_PROXY = flags.DEFINE_string("proxy", "nwot", f"one of {', '.join(PROXIES)}")
_ORDER = flags.DEFINE_string("edge_order", "random", f"one of {', '.join(ORDERS)}")
_PROPOSALS = flags.DEFINE_integer("num_proposals", 10, "N of the paper")
_BATCHES = flags.DEFINE_integer("num_validation_batches", 100, "V of the paper")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "images of a minibatch")
_SEED = flags.DEFINE_integer("seed", 0, "everything random derives from it")
_RANDOM = flags.DEFINE_bool(
    "random_proposals", False, "draw proposals at random: the baseline"
)
_INITS: Any = flags.DEFINE_enum(
    "initialisations", "one", ["one", "each"], "weights: one draw, or one a step"
)
_MAX_PARAMS = flags.DEFINE_float("max_params", None, "most parameters, such as 3.5e6")
_MAX_FLOPS = flags.DEFINE_float(
    "max_flops", None, "most multiply-adds for one image, such as 600e6"
)
_CHUNK = flags.DEFINE_integer(
    "chunk_size", None, "masks scored in one call; default: what suits the device"
)
_OUTPUT = flags.DEFINE_string(
    "output_dir", None, "default: runs/SPACE-DATASET-PROXY-ORDER-SEED"
)
_TABLE = flags.DEFINE_string(
    "table", None, "accuracies to look the result up in: a CSV, or as published"
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "start anew in output_dir")
_REPAIR = flags.DEFINE_bool("repair", False, "drop damaged lines and go on")


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides the result of a search; kept in config.json."""

    space: str
    options: dict[str, Any]
    dataset: str
    num_images: int
    num_classes: int
    image_size: int
    mean: list[float]
    std: list[float]
    proxy: str
    edge_order: str
    num_proposals: int
    num_validation_batches: int
    batch_size: int
    seed: int
    random_proposals: bool
    initialisations: str
    max_params: float | None
    max_flops: float | None


def main(argv: list[str]) -> None:
    """Flags to a configuration to one call of the library."""
    _command.no_arguments(argv)
    stopwatch = Stopwatch()
    stopwatch.add("imports", time.perf_counter() - START)
    space = _command.load_space(_SPACE.value, _OPTIONS.value)
    proxy, order = get_proxy(_PROXY.value), get_order(_ORDER.value)
    _check_counts()
    table = load_table(_TABLE.value) if _TABLE.value else None
    if table:
        _check_table(table, space)
    with stopwatch.measure("data"):
        dataset = load_dataset(_DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value)
        dataset.check_batch_size(_BATCH_SIZE.value)
    # Traces the supernet: images it cannot take, and budgets it cannot meet, are
    # refused before anything is written.
    count_params(space.supernet(dataset.num_classes), dataset.image_shape)
    budgets = make_budgets(
        space,
        dataset.num_classes,
        dataset.image_shape,
        max_params=_MAX_PARAMS.value,
        max_flops=_MAX_FLOPS.value,
    )
    config = _config(space, proxy.name, order.name, dataset)
    run = RunDirectory(
        _OUTPUT.value or _default_output(config),
        dataclasses.asdict(config),
        environment=_command.environment(),
        overwrite=_OVERWRITE.value,
        repair=_REPAIR.value,
    )
    earlier = run.read_json(TIMINGS, _REPAIR.value) or {}
    finished = (run.path / GENOTYPE).exists() and not _REPAIR.value
    if finished:
        _check_genotype(run.path / GENOTYPE)
        print("this search is finished; run it with --overwrite to do it anew")

    def seconds() -> dict[str, float]:
        return earlier if finished else merge_seconds(earlier, stopwatch.seconds())

    def keep_seconds() -> None:
        run.write(TIMINGS, json.dumps(seconds()) + "\n")

    # All scores of a finished search are recalled, so that this only replays it.
    with _command.Bar(on_step=keep_seconds) as bar:
        result = zero_cost_pt(
            space,
            proxy,
            dataset,
            edge_order=order.name,
            num_proposals=config.num_proposals,
            num_validation_batches=config.num_validation_batches,
            batch_size=config.batch_size,
            seed=config.seed,
            random_proposals=config.random_proposals,
            initialisations=_INITS.value,
            budgets=budgets,
            chunk_size=_CHUNK.value,
            memory=run,
            progress=bar.update,
            stopwatch=stopwatch,
        )
    keep_seconds()
    print(write_outcome(run, space, dataset, result, seconds(), table))


def _config(space: Space, proxy: str, order: str, dataset: Dataset) -> Config:
    return Config(
        space=space.name,
        options=space_options(space),
        dataset=dataset.name,
        num_images=len(dataset.source),
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        mean=list(dataset.mean),
        std=list(dataset.std),
        proxy=proxy,
        edge_order=order,
        num_proposals=_PROPOSALS.value,
        num_validation_batches=_BATCHES.value,
        batch_size=_BATCH_SIZE.value,
        seed=_SEED.value,
        random_proposals=_RANDOM.value,
        initialisations=_INITS.value,
        max_params=_MAX_PARAMS.value,
        max_flops=_MAX_FLOPS.value,
    )


def _check_genotype(path: Path) -> None:
    try:
        load_genotype(path)
    except InputError as error:
        raise InputError(
            f"{error}; the scores are kept in the other files: run again with --repair "
            "to write it anew from them"
        ) from error


def _check_table(table: Table, space: Space) -> None:
    """Before the search: a table of another space knows none of its genotypes."""
    keys = space.table_keys()
    try:
        if keys is None:
            space.parse(next(iter(table.rows)))
        elif not any(key in table.rows for key in keys):
            raise InputError(f"it holds none of the space's {len(keys):,} networks")
    except InputError as error:
        raise InputError(
            f"table {_TABLE.value} is not one of {space.name}: {error}"
        ) from error


def _check_counts() -> None:
    """Before any data is read: counts that no search can have."""
    for flag in (_PROPOSALS, _BATCHES, _BATCH_SIZE):
        if flag.value < 1:
            raise InputError(f"--{flag.name} must be at least 1, got {flag.value}")
    if _CHUNK.value is not None and _CHUNK.value < 1:
        raise InputError(f"--chunk_size must be at least 1, got {_CHUNK.value}")
    if not 0 <= _SEED.value < 2**32:
        raise InputError(f"--seed must be from 0 to 2**32 - 1, got {_SEED.value}")


def _default_output(config: Config) -> str:
    dataset = config.dataset.replace(":", "-").replace("/", "-")
    order = "random_proposals" if config.random_proposals else config.edge_order
    parts = [config.space, dataset, config.proxy, order, str(config.seed)]
    return str(Path("runs", "-".join(parts)))


if __name__ == "__main__":
    app.run(_command.without_traceback(main))
