"""What a finished search leaves: genotype file, report, summary."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zcpt_jax.data import Dataset
from zcpt_jax.io.colours import drawn_operations, space_operations
from zcpt_jax.io.genotype_file import GENOTYPE, GenotypeFile, dump_genotype
from zcpt_jax.io.run_directory import CONFIG, REPORT, RunDirectory
from zcpt_jax.io.search_page import ProposalRow, Report, render
from zcpt_jax.io.timings import Timings
from zcpt_jax.nn.size import count_flops, count_params, describe
from zcpt_jax.search import SearchResult
from zcpt_jax.search.decision_rule import compare_together
from zcpt_jax.search.operation_scores import OperationScore
from zcpt_jax.spaces import space_options
from zcpt_jax.tables import Table, TableRank
from zcpt_jax.types import Proxy, Space


def write_outcome(
    run: RunDirectory,
    space: Space,
    proxy: Proxy,
    operation_score: OperationScore,
    dataset: Dataset,
    result: SearchResult,
    timings: Timings,
    table: Table | None,
) -> str:
    """Write ``genotype.json``, which marks a finished run, and ``report.html``.

    Args:
      run: the run directory.
      space: the space that was searched.
      proxy: the proxy of the search.
      operation_score: the operation score that decided.
      dataset: the dataset of the search.
      result: the result of the search.
      timings: wall time and compiled programs, earlier runs included.
      table: table of accuracies that has the genotype.

    Returns:
      The summary, a few lines of text.

    Raises:
      InputError: if the table does not know the genotype, or writing fails.
    """
    network = space.network(result.genotype, dataset.num_classes)
    params = count_params(network, dataset.image_shape)
    flops = count_flops(network, dataset.image_shape)
    run.write(GENOTYPE, _genotype_text(space, dataset, result))
    table_ranks = _table_ranks(space, result.genotype, table)
    record = run.read_json(CONFIG)
    installed = str(record.get("command", "")).startswith("zcpt-")
    retrain = "zcpt-retrain" if installed else "python launch/retrain.py"
    training = f"{retrain} --genotype={run.path} --dataset={dataset.name}"
    config = record.pop("config")
    rows = [_row(space, proxy, result, table, g) for g in result.proposals]
    report = Report(
        title=f"{space.name}: an architecture found by {_method(config)}",
        lead=_lead(config, dataset),
        genotype=result.genotype,
        forms=space.forms(result.genotype),
        operations=space_operations(space),
        drawings=space.drawings(result.genotype),
        facts=(
            ("parameters", f"{params:,}"),
            ("multiply-adds", f"{flops / 1e6:,.1f} M"),
            ("distinct proposals", f"{len(result.validation)} of {len(rows)}"),
        ),
        table_ranks=table_ranks,
        training=training,
        proposals=rows,
        decisions=[_comparable(line, proxy) for line in run.decisions()],
        explanation=_explanation(operation_score),
        low_is_strong=_low_is_strong(operation_score, proxy),
        timings=timings,
        config=config,
        environment=record,
    )
    run.write(REPORT, render(report))
    described = describe(params, flops, dataset.num_classes, dataset.image_size)
    lines = [*_summary(report, described), f"report      {run.path / REPORT}"]
    return "\n".join(lines)


def _table_ranks(
    space: Space, genotype: str, table: Table | None
) -> tuple[TableRank, ...]:
    if table is None:
        return ()
    keys = space.table_keys()
    among = None if keys is None else [key for key in keys if key in table.rows]
    return table.ranks(space.table_key(genotype), among)


def _row(
    space: Space,
    proxy: Proxy,
    result: SearchResult,
    table: Table | None,
    genotype: str | None,
) -> ProposalRow:
    if genotype is None:
        return ProposalRow(None, math.nan, None)
    score = result.totals[genotype]
    if proxy.combine is None:  # the mean says more than the sum
        score /= len(result.validation[genotype])
    key = space.table_key(genotype)
    accuracy = table.ranks(key)[0].accuracy if table else None
    operations = drawn_operations(space.drawings(genotype))
    return ProposalRow(genotype, score, accuracy, operations)


def _lead(config: Mapping[str, Any], dataset: Dataset) -> str:
    return (
        f"{config['proxy']} on {dataset.name}, {config['num_proposals']} "
        f"{_proposals(config)}, {config['num_validation_batches']} validation batches "
        f"of {config['batch_size']}, seed {config['seed']}"
    )


def _summary(report: Report, described: str) -> list[str]:
    seconds = report.timings.seconds.items()
    return [
        f"found       {report.genotype}",
        *(f"{name:<11} {form}" for name, form in report.forms.items()),
        f"network     {described}",
        *(
            f"{s.column:<20} {s.accuracy:.2f} %  regret {s.regret:.2f}  "
            f"rank {s.rank:,} of {s.count:,}  at random {s.mean:.2f} %"
            for s in report.table_ranks
        ),
        "wall time   "
        + ", ".join(f"{name} {value:.1f} s" for name, value in seconds)
        + f"; together {report.timings.total:.1f} s",
        f"ran on      {report.timings.describe()}",
        f"train it    {report.training}",
    ]


def _comparable(line: dict[str, Any], proxy: Proxy) -> dict[str, Any]:
    """Return a decision with one number a candidate: an ensemble's combined."""
    if proxy.combine is None or not line["scores"]:
        return line
    if np.ndim(next(iter(line["scores"].values()))) == 1:  # scored by no proxy
        return line
    return {**line, "scores": compare_together(line["scores"], proxy.comparable)}


def _method(config: Mapping[str, Any]) -> str:
    names = {"zc-pt": "Zero-Cost-PT", "random": "random search"}
    return names.get(config["operation_score"], config["operation_score"])


def _proposals(config: Mapping[str, Any]) -> str:
    if config["operation_score"] == "random":
        return "random proposals"
    return f"proposals in {config['edge_order']} order"


def _explanation(operation_score: OperationScore) -> str:
    if operation_score.needs == "nothing":
        return "Each number is drawn at random"
    if operation_score.perturbation.lowest_stays:
        return (
            "Each number is the score of the supernet without that candidate. The "
            "strongest colour marks the one it can spare least"
        )
    return (
        "Each number is the score of the supernet with that candidate alone. The "
        "strongest colour marks the best"
    )


def _low_is_strong(operation_score: OperationScore, proxy: Proxy) -> bool:
    low = operation_score.perturbation.lowest_stays
    turned = operation_score.needs == "proxy" and not proxy.higher_is_better
    return low != turned


def _genotype_text(space: Space, dataset: Dataset, result: SearchResult) -> str:
    record = GenotypeFile(
        space.name,
        space_options(space),
        result.genotype,
        dataset.name,
        dataset.num_classes,
    )
    return dump_genotype(record)
