"""Find an architecture without training: ``python launch/search.py --flagfile=...``.

Writes a run directory: config.json, decisions.jsonl, validation.jsonl, genotype.json,
timings.json and report.html. Run the same command again to resume.
"""

import sys
import time

START = time.perf_counter()

import dataclasses  # noqa: E402  The clock starts before the imports.
import json  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

from absl import flags  # noqa: E402

from zcpt_jax.data import Dataset, load_dataset  # noqa: E402
from zcpt_jax.io.genotype_file import GENOTYPE, load_genotype  # noqa: E402
from zcpt_jax.io.run_directory import TIMINGS, RunDirectory  # noqa: E402
from zcpt_jax.io.search_report import write_outcome  # noqa: E402
from zcpt_jax.io.timings import Timings  # noqa: E402
from zcpt_jax.nn.size import count_params  # noqa: E402
from zcpt_jax.proxies import get_proxy  # noqa: E402
from zcpt_jax.scoring import Execution  # noqa: E402
from zcpt_jax.search import SearchConfig, make_budgets, zero_cost_pt  # noqa: E402
from zcpt_jax.search.operation_scores import (  # noqa: E402
    Accuracies,
    OperationScore,
    Trained,
    get_operation_score,
)
from zcpt_jax.stopwatch import Stopwatch  # noqa: E402
from zcpt_jax.tables import Table, load_table  # noqa: E402
from zcpt_jax.types import InputError, Space  # noqa: E402

from . import _command, _devices, _flags, _lowering  # noqa: E402
from ._accelerators import runs_on  # noqa: E402

_SPACE, _OPTIONS = _flags.text("space"), _flags.space_options()
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_IMAGE_SIZE = _flags.integer("image_size")
_PROXY, _SETTINGS = _flags.text("proxy"), _flags.settings(SearchConfig)
_SUPERNET, _TABLE = _flags.text("supernet"), _flags.text("table")
_OUTPUT, _OVERWRITE = _flags.text("output_dir"), _flags.overwrite()
_REPAIR = flags.DEFINE_bool(
    "repair", False, "put damaged files aside and go on from what is good"
)
flags.adopt_module_key_flags(_flags)
flags.adopt_module_key_flags(_command)
flags.adopt_module_key_flags(_devices)
flags.adopt_module_key_flags(_lowering)


def main(argv: list[str]) -> None:
    """Run the search that the flags specify."""
    _command.no_arguments(argv)
    mesh = _devices.open_mesh()
    form = _lowering.choose(mesh)
    stopwatch = Stopwatch()
    stopwatch.add("imports", time.perf_counter() - START)
    space, space_file = _command.load_space(_SPACE.value, _OPTIONS.value)
    proxy, config = get_proxy(_PROXY.value), _flags.read_settings(SearchConfig)
    operation_score = get_operation_score(config.operation_score)
    table = load_table(_TABLE.value) if _TABLE.value else None
    if table:
        _check_table(table, space)
    with stopwatch.measure("data"):
        dataset = _load_dataset(operation_score, config.batch_size)
    # Trace the supernet, so that unsuitable images and budgets that cannot be met are
    # refused before anything is written.
    count_params(space.supernet(dataset.num_classes), dataset.image_shape)
    make_budgets(
        space,
        dataset.num_classes,
        dataset.image_shape,
        max_params=config.max_params,
        max_flops=config.max_flops,
    )
    evidence = _evidence(operation_score, space, space_file, dataset, table)
    settings = {
        **_command.settings_of_space(space, space_file),
        **dataset.settings(),
        "proxy": proxy.name,
        **dataclasses.asdict(config),
        "evidence": evidence.digest() if evidence else None,
        "precision": form.precision,
    }
    run = RunDirectory(
        _devices.output_folder(_OUTPUT.value or _default_output(settings)),
        settings,
        environment=_command.environment(),
        overwrite=_OVERWRITE.value,
        repair=_REPAIR.value,
    )
    earlier = Timings.of_json(run.read_json(TIMINGS, _REPAIR.value))
    devices = runs_on(mesh)
    if form.chunk is None:
        form = form.replace(chunk=earlier.chunk_on(devices))
    chunk = _lowering.describe(form, proxy, space)
    _command.print_start(f"{devices}, {chunk}", dataset)
    finished = (run.path / GENOTYPE).exists() and not _REPAIR.value
    if finished:
        _check_genotype(run.path / GENOTYPE)
        print("this search is finished; run it with --overwrite to do it anew")

    def timings() -> Timings:
        if finished:
            return earlier
        programs = tuple(stopwatch.programs)
        busy, seconds = stopwatch.busy_seconds, stopwatch.seconds()
        return Timings(seconds, busy, devices, programs).after(earlier)

    def keep_timings() -> None:
        run.write(TIMINGS, json.dumps(timings().as_json()) + "\n")

    # All scores of a finished search are recalled, so this only replays it.
    with _command.Bar(on_step=keep_timings) as bar:
        result = zero_cost_pt(
            space,
            proxy,
            dataset,
            config,
            evidence=evidence,
            execution=Execution(form, mesh, stopwatch),
            memory=run,
            progress=bar.update,
        )
    keep_timings()
    print(
        write_outcome(
            run, space, proxy, operation_score, dataset, result, timings(), table
        )
    )


def _load_dataset(operation_score: OperationScore, batch_size: int) -> Dataset:
    # A trained supernet is scored on images that its weights were not trained on.
    held_out = operation_score.needs == "supernet"
    dataset = load_dataset(
        _DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value, whole=held_out
    )
    dataset = dataset.halves()[1] if held_out else dataset
    dataset.check_batch_size(batch_size)
    return dataset


def _evidence(
    operation_score: OperationScore,
    space: Space,
    space_file: str | None,
    dataset: Dataset,
    table: Table | None,
) -> Trained | Accuracies | None:
    """Table or supernet from which the operation score is computed, if not a proxy."""
    if operation_score.needs == "table" and table is not None:
        return Accuracies(space, table)
    if operation_score.needs == "supernet" and _SUPERNET.value:
        return _command.load_trained(_SUPERNET.value, space, dataset, space_file)
    return None


def _check_genotype(path: Path) -> None:
    try:
        load_genotype(path)
    except InputError as error:
        raise InputError(
            f"{error}; the scores are kept in the other files: run again with --repair "
            "to write it anew from them"
        ) from error


def _check_table(table: Table, space: Space) -> None:
    """Check before the search that the table has genotypes of the space."""
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


def _default_output(settings: Mapping[str, Any]) -> str:
    names = ["space", "dataset", "proxy", "edge_order", "seed"]
    if settings["operation_score"] != "zc-pt":
        names.insert(3, "operation_score")
    return _command.default_output(*(settings[name] for name in names))


if __name__ == "__main__":
    _command.run(main)
