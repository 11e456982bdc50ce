"""What a finished search leaves: genotype file, report, summary."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zcpt_jax.data import Dataset
from zcpt_jax.io.genotype_file import GENOTYPE, GenotypeFile, dump_genotype
from zcpt_jax.io.html import ProposalRow, Report, render
from zcpt_jax.io.run_directory import CONFIG, REPORT, RunDirectory
from zcpt_jax.io.timings import Timings
from zcpt_jax.nn.size import count_flops, count_params, describe
from zcpt_jax.search import SearchResult
from zcpt_jax.search.operation_scores import OperationScore
from zcpt_jax.spaces import space_options
from zcpt_jax.tables import Standing, Table
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
    """Writes ``genotype.json``, which marks a finished run, and ``report.html``.

    Args:
      run: the run directory.
      space: the space that was searched.
      proxy: what it was searched with.
      operation_score: how.
      dataset: what it was searched on.
      result: what was found.
      timings: where the time went, earlier runs included.
      table: accuracies to look the genotype up in.

    Returns:
      The summary, a few lines of text.

    Raises:
      InputError: if the table does not know the genotype, or writing fails.
    """
    network = space.network(result.genotype, dataset.num_classes)
    params = count_params(network, dataset.image_shape)
    flops = count_flops(network, dataset.image_shape)
    described = describe(params, flops, dataset.num_classes, dataset.image_size)
    training = (
        f"python launch/retrain.py --genotype={run.path} --dataset={dataset.name}"
    )
    run.write(GENOTYPE, _genotype_text(space, dataset, result))
    standings: tuple[Standing, ...] = ()
    if table:
        key = space.table_key(result.genotype)
        keys = space.table_keys()
        among = None if keys is None else [k for k in keys if k in table.rows]
        standings = table.standing(key, among)
    record = run.read_json(CONFIG)
    rows = []
    for genotype in result.proposals:
        if genotype is None:
            rows.append(ProposalRow(None, math.nan, None))
            continue
        key = space.table_key(genotype)
        accuracy = table.standing(key)[0].accuracy if table else None
        score = result.totals[genotype]
        if proxy.combine is None:  # the mean says more than the sum
            score /= len(result.validation[genotype])
        rows.append(ProposalRow(genotype, score, accuracy))
    config = record.pop("config")
    report = Report(
        title=f"{space.name}: an architecture found by {_method(config)}",
        lead=f"{config['proxy']} on {dataset.name}, {config['num_proposals']} "
        f"{_proposals(config)}, "
        f"{config['num_validation_batches']} validation batches of "
        f"{config['batch_size']}, seed {config['seed']}",
        genotype=result.genotype,
        forms=space.forms(result.genotype),
        drawings=space.drawings(result.genotype),
        facts=(
            ("parameters", f"{params:,}"),
            ("multiply-adds", f"{flops / 1e6:,.1f} M"),
            ("distinct proposals", f"{len(result.validation)} of {len(rows)}"),
        ),
        standings=standings,
        training=training,
        proposals=rows,
        decisions=[_comparable(line, proxy) for line in run.decisions()],
        explanation=_explanation(operation_score),
        dark_is_low=_dark_is_low(operation_score, proxy),
        timings=timings,
        config=config,
        environment=record,
    )
    run.write(REPORT, render(report))
    lines = [
        f"found       {result.genotype}",
        *(f"{name:<11} {form}" for name, form in space.forms(result.genotype).items()),
        f"network     {described}",
        *(
            f"{s.column:<20} {s.accuracy:.2f} %  regret {s.regret:.2f}  "
            f"rank {s.rank:,} of {s.count:,}  at random {s.mean:.2f} %"
            for s in standings
        ),
        "wall time   "
        + ", ".join(f"{name} {value:.1f} s" for name, value in timings.seconds.items())
        + f"; together {timings.total:.1f} s",
        f"ran on      {timings.describe()}",
        f"train it    {training}",
        f"report      {run.path / REPORT}",
    ]
    return "\n".join(lines)


def _comparable(line: dict[str, Any], proxy: Proxy) -> dict[str, Any]:
    """A decision with one number a candidate: an ensemble's scores, combined."""
    if proxy.combine is None or not line["scores"]:
        return line
    parts = [np.asarray(scores) for scores in line["scores"].values()]
    if parts[0].ndim == 1:  # random search scores by no proxy
        return line
    together = proxy.comparable(np.concatenate(parts))
    split = np.split(together, np.cumsum([len(part) for part in parts])[:-1])
    return {**line, "scores": dict(zip(line["scores"], split, strict=True))}


def _method(config: Mapping[str, Any]) -> str:
    names = {"zc-pt": "Zero-Cost-PT", "random": "random search"}
    return names.get(config["operation_score"], config["operation_score"])


def _proposals(config: Mapping[str, Any]) -> str:
    if config["operation_score"] == "random":
        return "random proposals"
    return f"proposals in {config['edge_order']} order"


def _explanation(operation_score: OperationScore) -> str:
    if operation_score.perturbation.lowest_stays:
        return (
            "Each number is the score of the supernet without that candidate. The "
            "darkest is the one it can spare least"
        )
    return (
        "Each number is the score of the supernet with that candidate alone. The "
        "darkest is the best"
    )


def _dark_is_low(operation_score: OperationScore, proxy: Proxy) -> bool:
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
