"""Compare operation scores with the ground truth on a space with a table.

``python launch/correlate.py --flagfile=launch/flagfiles/study_nasbench201.flags``

Writes a folder: config.json, trials.jsonl, study.csv, study.json and study.png. Run the
same command again to resume.
"""

import sys
from pathlib import Path

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

import dataclasses  # noqa: E402

from absl import flags  # noqa: E402

from zcpt_jax.analysis.study import Method, Trial, agreements, get_method, run_trial  # noqa: E402
from zcpt_jax.analysis.study_files import (  # noqa: E402
    FIGURE,
    RESULTS,
    TABLE,
    TRIALS,
    append_trial,
    read_trials,
    summary,
    write_tables,
)
from zcpt_jax.data import Dataset, load_dataset  # noqa: E402
from zcpt_jax.scoring import Evaluator, Execution, ScoringConfig  # noqa: E402
from zcpt_jax.search.edge_orders import get_order  # noqa: E402
from zcpt_jax.search.operation_scores import Accuracies, Trained  # noqa: E402
from zcpt_jax.tables import load_table  # noqa: E402
from zcpt_jax.types import InputError, Proxy, Space, Variables  # noqa: E402

from . import _command, _devices, _flags, _lowering, _packages  # noqa: E402
from ._accelerators import runs_on  # noqa: E402

_SPACE, _OPTIONS = _flags.text("space"), _flags.space_options()
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_IMAGE_SIZE = _flags.integer("image_size")
_TABLE, _COLUMN = _flags.text("table"), _flags.text("column")
_SCORERS = flags.DEFINE_list(
    "scorers",
    ["zc-pt(nwot)", "zc-pt(synflow)", "disc-zc(nwot)", "disc-zc(synflow)", "random"],
    "operation scores to compare, with a proxy in brackets where they use one",
)
_SEEDS = flags.DEFINE_list(
    "seeds", ["0", "1", "2", "3"], "seeds; each scorer has a trial with each of them"
)
_ORDER, _SUPERNET = _flags.setting("edge_order"), _flags.text("supernet")
_NAMES = ("batch_size", "score_batches", "initialisations")
_SETTINGS = [_flags.setting(name) for name in _NAMES]
_OUTPUT, _OVERWRITE = _flags.text("output_dir"), _flags.overwrite()
flags.adopt_module_key_flags(_flags)
flags.adopt_module_key_flags(_command)
flags.adopt_module_key_flags(_devices)
flags.adopt_module_key_flags(_lowering)


def main(argv: list[str]) -> None:
    """Run the trials that the flags specify, and write tables and a figure."""
    _command.no_arguments(argv)
    _packages.require("matplotlib", extra="report")
    mesh = _devices.open_mesh()
    form = _lowering.choose(mesh)
    scorers = [get_method(name) for name in _SCORERS.value]
    seeds = [_seed(text) for text in _SEEDS.value]
    scoring = _flags.read_settings(ScoringConfig, seed=0)
    order = get_order(_ORDER.value)
    space, space_file = _command.load_space(_SPACE.value, _OPTIONS.value)
    if not _TABLE.value:
        raise InputError("--table is needed: the accuracies that scorers are held to")
    table = load_table(_TABLE.value)
    accuracies = Accuracies(space, table, _COLUMN.value)
    dataset = load_dataset(_DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value)
    dataset.check_batch_size(scoring.batch_size)
    trained = _trained(space, space_file, dataset, scorers)
    held_out = dataset
    if trained is not None:  # Scored on images that its weights were not trained on.
        held_out = load_dataset(
            _DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value, whole=True
        ).halves()[1]
    output = _OUTPUT.value or _command.default_output("study", space.name, dataset.name)
    folder = Path(_devices.output_folder(output))
    settings = {
        **_command.settings_of_space(space, space_file),
        **dataset.settings(),
        "table": accuracies.digest(),
        "column": accuracies.column,
        "edge_order": order.name,
        **{name: getattr(scoring, name) for name in _NAMES},
        "supernet": trained.digest() if trained else None,
        "precision": form.precision,
    }
    results = (TABLE, RESULTS, FIGURE)
    _command.open_folder(folder, settings, TRIALS, results, _OVERWRITE.value)
    _command.print_start(runs_on(mesh), dataset)
    trials = {(t.scorer, t.seed): t for t in read_trials(folder)}

    def evaluator(seed: int, proxy: Proxy, variables: Variables | None) -> Evaluator:
        return Evaluator(
            space,
            proxy,
            dataset if variables is None else held_out,
            dataclasses.replace(scoring, seed=seed),
            variables=variables,
            execution=Execution(form, mesh),
        )

    wanted = [(scorer, seed) for scorer in scorers for seed in seeds]
    with _command.Bar(on_step=lambda: None) as bar:
        for done, (scorer, seed) in enumerate(wanted):
            bar.update("trials", done, len(wanted), f"{scorer.name}, seed {seed}")
            if (scorer.name, seed) not in trials:
                trial = run_trial(
                    space, scorer, seed, evaluator, accuracies, order, trained
                )
                append_trial(folder, trial)
                trials[scorer.name, seed] = trial
        bar.update("trials", len(wanted), len(wanted), "done")
    chosen = [trials[scorer.name, seed] for scorer, seed in wanted]
    _write(folder, chosen, f"{space.name}, {dataset.name}: {accuracies.column}")


def _write(folder: Path, trials: list[Trial], title: str) -> None:
    found = agreements(trials)
    write_tables(folder, trials, found)
    from zcpt_jax.analysis.figures import draw_study  # Needs Matplotlib.

    draw_study(folder / FIGURE, trials, found, title)
    print(summary(trials, found))
    print("Spearman, mean over edges and then seeds, +- its 95 % interval over seeds")
    print(f"tables      {folder / TABLE}, {folder / RESULTS}")
    print(f"figure      {folder / FIGURE}")


def _trained(
    space: Space, space_file: str | None, dataset: Dataset, scorers: list[Method]
) -> Trained | None:
    if not _SUPERNET.value or all(s.operation.needs != "supernet" for s in scorers):
        return None
    return _command.load_trained(_SUPERNET.value, space, dataset, space_file)


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        raise InputError(f"--seeds takes integers from 0 to 2**32 - 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    _command.run(main)
