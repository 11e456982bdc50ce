"""Train a found network from scratch: ``python launch/retrain.py --flagfile=...``.

Writes config.json, metrics.jsonl, checkpoints/, tensorboard/, network.json,
network.msgpack, timings.json and report.html. Run the same command again to resume.
"""

import sys
import time

START = time.perf_counter()

import dataclasses  # noqa: E402  The clock starts before the imports.
import json  # noqa: E402
import zlib  # noqa: E402
from pathlib import Path  # noqa: E402

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

import jax  # noqa: E402
from absl import flags  # noqa: E402

from zcpt_jax.data import Dataset, load_splits  # noqa: E402
from zcpt_jax.io.files import read_json, write_atomically  # noqa: E402
from zcpt_jax.io.genotype_file import (  # noqa: E402
    find_genotype_file,
    load_genotype,
    resolve_genotype,
)
from zcpt_jax.io.run_directory import REPORT, TIMINGS  # noqa: E402
from zcpt_jax.nn.size import count_flops, count_params, describe  # noqa: E402
from zcpt_jax.spaces import SPACES, space_options  # noqa: E402
from zcpt_jax.stopwatch import Stopwatch, merge_seconds  # noqa: E402
from zcpt_jax.tables import Table, load_table  # noqa: E402
from zcpt_jax.training import (  # noqa: E402
    NetworkFile,
    Outcome,
    OwnSpace,
    Preempted,
    Saving,
    best_test,
    make_input,
    save_network,
    train_network,
    write_report,
)
from zcpt_jax.types import InputError, Space  # noqa: E402

from . import _command, _devices, _flags, _recipe  # noqa: E402
from ._accelerators import runs_on  # noqa: E402

_GENOTYPE = flags.DEFINE_string(
    "genotype",
    None,
    "network to train: a run directory of search.py, a genotype file, a genotype, or "
    "the name of a published one",
)
_SPACE, _OPTIONS = _flags.text("space"), _flags.space_options()
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_IMAGE_SIZE, _TABLE = _flags.integer("image_size"), _flags.text("table")
_SAVE_EVERY = _flags.integer("save_every")
_LOG_EVERY = flags.DEFINE_integer("log_every", 50, "steps between two lines of metrics")
_KEEP = flags.DEFINE_integer("keep", 2, "newest checkpoints to keep, besides the best")
_SHARDED = flags.DEFINE_bool(
    "fully_sharded",
    False,
    "split large parameters and optimiser states over the devices too",
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "threads that decode images; default: number of cores"
)
_OUTPUT, _OVERWRITE = _flags.text("output_dir"), _flags.overwrite()
for _module in (_flags, _command, _devices, _recipe):
    flags.adopt_module_key_flags(_module)


def main(argv: list[str]) -> None:
    """Train the network with the recipe that the flags specify."""
    _command.no_arguments(argv)
    mesh, sharding = _devices.share_batches()
    stopwatch = Stopwatch()
    stopwatch.add("imports", time.perf_counter() - START)
    recipe = _recipe.read()
    _flags.check_counts(_SAVE_EVERY, _LOG_EVERY, _KEEP, _WORKERS)
    if _GENOTYPE.value is None:
        raise InputError("--genotype is needed: what to train")
    space, space_file = _space(_GENOTYPE.value)
    genotype = resolve_genotype(_GENOTYPE.value, space)
    table = load_table(_TABLE.value) if _TABLE.value else None
    with stopwatch.measure("data"):
        splits = load_splits(_DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value)
        data = make_input(
            splits,
            cutout=recipe.cutout,
            sharding=sharding,
            workers=_WORKERS.value,
        )
    record = _record(space, space_file, genotype, splits.train)
    module = space.evaluation_network(
        genotype, splits.train.num_classes, auxiliary=recipe.auxiliary > 0
    )
    settings = {
        **dataclasses.asdict(record),
        "num_images": data.num_images,
        "fully_sharded": _SHARDED.value,
        **dataclasses.asdict(recipe),
    }
    key = jax.random.key(recipe.seed)
    with stopwatch.measure("initialisation"):
        variables = space.init_variables(module, key, data.image_shape)
    output = Path(_devices.output_folder(_OUTPUT.value or _default_output(record)))
    saving = Saving(
        output,
        settings,
        environment=_command.environment(),
        overwrite=_OVERWRITE.value,
        save_every=_SAVE_EVERY.value,
        log_every=_LOG_EVERY.value,
        keep=_KEEP.value,
    )
    _command.print_start(runs_on(mesh), splits.train)
    earlier = {} if _OVERWRITE.value else read_json(output / TIMINGS) or {}
    try:
        with (
            data,
            _command.Bar(on_step=lambda: None) as bar,
            stopwatch.measure("training"),
        ):
            outcome = train_network(
                module,
                variables,
                data,
                recipe,
                mesh,
                saving,
                fully_sharded=_SHARDED.value,
                progress=bar.update,
            )
    except Preempted as error:
        print(f"{error}; run the same command again to go on", file=sys.stderr)
        sys.exit(128 + 15)
    finally:
        seconds = merge_seconds(earlier, stopwatch.seconds())
        if output.is_dir():
            write_atomically(output / TIMINGS, json.dumps(seconds) + "\n")
    if jax.process_index() == 0:
        print(_finish(output, space, record, outcome, seconds, table))


def _record(
    space: Space, space_file: str | None, genotype: str, images: Dataset
) -> NetworkFile:
    return NetworkFile(
        space.name,
        space_options(space),
        genotype,
        images.name,
        images.num_classes,
        images.image_size,
        list(images.mean),
        list(images.std),
        space_file,
        list(images.classes),
    )


def _space(genotype: str) -> tuple[Space, str | None]:
    """Space of ``--space`` if it is given, otherwise that of a genotype file."""
    file = find_genotype_file(genotype)
    if file is None or flags.FLAGS["space"].present:
        return _command.load_space(_SPACE.value, _OPTIONS.value)
    try:
        name = load_genotype(file).space
    except InputError:  # A text with a genotype of the default space, or no genotype.
        return _command.load_space(_SPACE.value, _OPTIONS.value)
    if name not in SPACES:  # A file must not choose the code that runs.
        raise InputError(
            f"the genotype file {file} is of the space {name!r}, which is not one of "
            f"this package ({', '.join(SPACES)}); if you trust the file that defines "
            "it, name it with --space=FILE.py:CLASS"
        )
    return _command.load_space(name, _OPTIONS.value)


def _default_output(record: NetworkFile) -> str:
    which = f"{zlib.crc32(record.genotype.encode()):08x}"
    return _command.default_output(
        "retrain", record.space, record.dataset, which, _flags.setting("seed").value
    )


def _finish(
    output: Path,
    space: Space,
    record: NetworkFile,
    outcome: Outcome,
    seconds: dict[str, float],
    table: Table | None,
) -> str:
    """Export the network, write the report, and return a summary."""
    own = OwnSpace(space, record.space_file) if record.space_file else None
    save_network(output, record, outcome.variables, own)
    shape = (record.image_size, record.image_size, 3)
    module = record.module(own)
    params, flops = count_params(module, shape), count_flops(module, shape)
    network = describe(params, flops, record.num_classes, record.image_size)
    best = best_test(output)
    facts = {
        "network": network,
        "test": f"top-1 {outcome.test['test_top1']:.2f} %, "
        f"top-5 {outcome.test['test_top5']:.2f} %",
        "best": f"top-1 {best['test_top1']:.2f} % after epoch {best['epoch']:.0f}",
        **_standing(space, record, table),
        "wall time": ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items())
        + f"; on {jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    write_report(output, record, space, facts)
    lines = {"trained": record.genotype, **facts, "report": str(output / REPORT)}
    return "\n".join(f"{name:<11} {value}" for name, value in lines.items())


def _standing(space: Space, record: NetworkFile, table: Table | None) -> dict[str, str]:
    """Accuracies of the network in a benchmark's table, if there is one."""
    if table is None:
        return {}
    table_ranks = table.ranks(space.table_key(record.genotype))
    listed = ", ".join(f"{s.column} {s.accuracy:.2f} %" for s in table_ranks)
    return {"table": listed}


if __name__ == "__main__":
    _command.run(main)
