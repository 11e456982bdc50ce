"""Score all networks of a space, a sample, or a list with one or several proxies.

``python launch/score.py --space=nasbench201 --proxies=nwot,synflow --networks=all``

Writes a folder: config.json, scores.csv and, with --table, scores.png. Run the same
command again to resume.
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

from collections.abc import Sequence  # noqa: E402

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from zcpt_jax.analysis.correlation import kendall, spearman  # noqa: E402
from zcpt_jax.analysis.score_file import ScoreFile  # noqa: E402
from zcpt_jax.analysis.score_networks import score_networks  # noqa: E402
from zcpt_jax.data import Dataset, load_dataset  # noqa: E402
from zcpt_jax.proxies import PROXIES, get_proxy, jointly  # noqa: E402
from zcpt_jax.scoring import Evaluator, Execution, ScoringConfig  # noqa: E402
from zcpt_jax.search.enumeration import Enumeration  # noqa: E402
from zcpt_jax.tables import Table, load_table  # noqa: E402
from zcpt_jax.types import InputError, Masks, Proxy, Space  # noqa: E402

from . import _command, _devices, _flags, _lowering, _packages  # noqa: E402
from ._accelerators import runs_on  # noqa: E402

_SPACE, _OPTIONS = _flags.text("space"), _flags.space_options()
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_IMAGE_SIZE = _flags.integer("image_size")
_PROXY_NAMES = flags.DEFINE_list(
    "proxies", ["nwot"], f"proxies to score with, of {', '.join(PROXIES)}"
)
_NETWORKS = flags.DEFINE_string(
    "networks",
    "all",
    "networks to score: all, sample:N, or a file with a genotype on each line",
)
_WEIGHTS: Any = flags.DEFINE_enum(
    "weights",
    "supernet",
    ["supernet", "network"],
    "initial weights: the supernet's for all networks, or each network's own",
)
_NUM_BATCHES = flags.DEFINE_integer(
    "num_batches", 1, "minibatches over which scores are averaged"
)
_BATCH_SIZE, _SEED = _flags.setting("batch_size"), _flags.setting("seed")
_TABLE, _COLUMN = _flags.text("table"), _flags.text("column")
_OUTPUT, _OVERWRITE = _flags.text("output_dir"), _flags.overwrite()
flags.adopt_module_key_flags(_flags)
flags.adopt_module_key_flags(_command)
flags.adopt_module_key_flags(_devices)
flags.adopt_module_key_flags(_lowering)

_SCORES, _FIGURE = "scores.csv", "scores.png"
_BLOCK = 64  # Number of networks between two writes.


def main(argv: list[str]) -> None:
    """Score the networks that the flags specify, and write the scores to a file."""
    _command.no_arguments(argv)
    mesh = _devices.open_mesh()
    form = _lowering.choose(mesh)
    space, space_file = _command.load_space(_SPACE.value, _OPTIONS.value)
    proxies = [_single(name) for name in _PROXY_NAMES.value]
    _flags.check_counts(_NUM_BATCHES)
    config = _flags.read_settings(ScoringConfig, initialisations="one", score_batches=1)
    if _TABLE.value:
        _packages.require("matplotlib", extra="report")
    table = load_table(_TABLE.value) if _TABLE.value else None
    column = _column(table)
    networks = _Networks(space, _NETWORKS.value, _SEED.value)
    dataset = load_dataset(_DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value)
    dataset.check_batch_size(config.batch_size)
    output = _OUTPUT.value or _command.default_output(
        "scores", space.name, dataset.name
    )
    folder = Path(_devices.output_folder(output))
    settings = {
        **_command.settings_of_space(space, space_file),
        **dataset.settings(),
        "proxies": [proxy.name for proxy in proxies],
        "weights": _WEIGHTS.value,
        "num_batches": _NUM_BATCHES.value,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "precision": form.precision,
    }
    _command.open_folder(folder, settings, _SCORES, (_FIGURE,), _OVERWRITE.value)
    chunk = _lowering.describe(form, jointly(proxies), space)
    _command.print_start(f"{runs_on(mesh)}, {chunk}", dataset)
    file = ScoreFile(folder / _SCORES, [proxy.name for proxy in proxies])
    evaluator = Evaluator(
        space, jointly(proxies), dataset, config, execution=Execution(form, mesh)
    )
    _score(evaluator, networks, file)
    scores = np.array([file.scores[genotype] for genotype in networks.genotypes])
    print(f"{len(scores):,} networks of {space.name}: {folder / _SCORES}")
    if table is not None:
        _compare(folder, space, dataset, proxies, scores, networks, table, column)


def _score(evaluator: Evaluator, networks: "_Networks", file: ScoreFile) -> None:
    missing = [i for i, g in enumerate(networks.genotypes) if g not in file.scores]
    total = len(networks.genotypes)
    done = total - len(missing)
    with _command.Bar(on_step=lambda: None) as bar:
        bar.update("networks", done, total, "compiling" if missing else "done")
        for start in range(0, len(missing), _BLOCK):
            rows = missing[start : start + _BLOCK]
            genotypes = [networks.genotypes[row] for row in rows]
            masks = [networks.masks(row) for row in rows]
            scores = score_networks(
                evaluator,
                genotypes,
                masks if all(masks) else None,
                _NUM_BATCHES.value,
                own_weights=_WEIGHTS.value == "network",
            )
            file.add(genotypes, scores)
            done += len(rows)
            bar.update("networks", done, total, f"{done:,} of {total:,}")


class _Networks:
    """The requested networks with their genotypes and masks."""

    def __init__(self, space: Space, asked: str, seed: int) -> None:
        self.space, self.enumeration = space, Enumeration(space)
        self.numbers: list[int] | None = None
        if asked == "all":
            most = 10**7
            if self.enumeration.size > most:
                raise InputError(
                    f"{space.name} has {self.enumeration.size:,} networks; "
                    f"--networks=all takes at most {most:,}, --networks=sample:N draws"
                )
            self.numbers = list(range(self.enumeration.size))
        elif asked.startswith("sample:"):
            count = asked.removeprefix("sample:")
            if not count.isdigit():
                raise InputError(f"--networks=sample:N needs a number, got {count!r}")
            self.numbers = list(self.enumeration.sample(int(count), seed))
        if self.numbers is not None:
            made = (self.enumeration.masks(number) for number in self.numbers)
            self.genotypes = [space.genotype(masks) for masks in made]
        else:
            self.genotypes = _read_genotypes(space, Path(asked))

    def masks(self, row: int) -> Masks:
        """Return the discretised masks of a network."""
        if self.numbers is not None:
            return self.enumeration.masks(self.numbers[row])
        masks_of = getattr(self.space, "masks_of", None)
        if masks_of is None:
            if _WEIGHTS.value == "network":
                return {}
            raise InputError(
                f"{self.space.name} cannot turn a genotype into masks; score the list "
                "with --weights=network"
            )
        found: Masks = masks_of(self.genotypes[row])
        return found


def _read_genotypes(space: Space, path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--networks takes all, sample:N or a file with a genotype a line; "
            f"{path} cannot be read ({error})"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(space.parse(line))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    if not found:
        raise InputError(f"{path} holds no genotype")
    return list(dict.fromkeys(found))


def _compare(
    folder: Path,
    space: Space,
    dataset: Dataset,
    proxies: Sequence[Proxy],
    scores: np.ndarray,
    networks: _Networks,
    table: Table,
    column: str,
) -> None:
    keys = [space.table_key(genotype) for genotype in networks.genotypes]
    missing = next((key for key in keys if key not in table.rows), None)
    if missing is not None:
        raise InputError(f"table {_TABLE.value} has no row for {missing}")
    numbers, unit = table.columns.get(column), " %"
    if numbers is None:
        numbers, unit = table.others[column], ""
    accuracy = numbers[[table.rows[key] for key in keys]]
    if not np.isfinite(accuracy).all():
        gap = keys[int(np.argmin(np.isfinite(accuracy)))]
        raise InputError(f"table {_TABLE.value} has no {column} of {gap}")
    print(
        f"rank correlation with {column}: Spearman, Kendall; the network it ranks first"
    )
    signed = {}
    for proxy, values in zip(proxies, scores.T, strict=True):
        signed[proxy.name] = proxy.signed(values)
        best = int(np.nanargmax(signed[proxy.name]))
        reached = f"{accuracy[best]:.2f}{unit}"
        rank = 1 + int((accuracy > accuracy[best]).sum())
        print(
            f"{proxy.name:<20} {spearman(signed[proxy.name], accuracy):6.3f}  "
            f"{kendall(signed[proxy.name], accuracy):6.3f}   {reached}, "
            f"rank {rank:,} of {len(accuracy):,}: {networks.genotypes[best]}"
        )
    title = f"{space.name}, {dataset.name}: {len(accuracy):,} networks"
    from zcpt_jax.analysis.figures import draw_scores  # Needs Matplotlib.

    label = f"{column}, %" if unit else column
    draw_scores(folder / _FIGURE, signed, accuracy, label, title)
    print(f"figure      {folder / _FIGURE}")


def _single(name: str) -> Proxy:
    proxy = get_proxy(name)
    if proxy.members:
        raise InputError(
            f"--proxies={name}: an ensemble ranks what it compares; score its members, "
            f"{','.join(member.name for member in proxy.members)}"
        )
    return proxy


def _column(table: Table | None) -> str:
    if table is None:
        return ""
    column = _COLUMN.value or next(iter(table.columns))
    names = [*table.columns, *table.others]
    if column not in names:
        raise InputError(
            f"--column={column}: the table has the columns {', '.join(names)}"
        )
    return str(column)


if __name__ == "__main__":
    _command.run(main)
