"""A space that the library has never seen is searched without a change to it."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.own_space import Chain
from zcpt_jax import (
    SearchConfig,
    count_flops,
    count_params,
    get_proxy,
    load_dataset,
    zero_cost_pt,
)
from zcpt_jax.search.budgets import flop_costs, param_costs
from zcpt_jax.types import InputError

ROOT = Path(__file__).resolve().parents[1]
CODE = (ROOT / "tests" / "own_space.py").read_text()
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def search(digits, proxy="nwot", **options):
    config = SearchConfig(
        num_proposals=2, num_validation_batches=2, batch_size=16, **options
    )
    return zero_cost_pt(Chain(), get_proxy(proxy), digits, config)


def test_it_has_under_60_lines_and_stands_in_the_workspace_guide():
    assert len([line for line in CODE.splitlines() if line.strip()]) < 60
    body = CODE[CODE.index("from dataclasses") :]
    assert body in (ROOT / "WORKSPACE.md").read_text()
    imported = {
        node.module
        for node in ast.walk(ast.parse(CODE))
        if isinstance(node, ast.ImportFrom)
    }
    assert not any("spaces" in name for name in imported)


@pytest.mark.parametrize("proxy", ["nwot", "log_synflow", "snip"])
def test_it_is_searched(digits, proxy):
    result = search(digits, proxy)
    assert len(result.genotype.split()) == 4
    assert result.genotype in result.proposals
    assert all(np.isfinite(v).all() for v in result.validation.values())


def test_it_keeps_budgets(digits):
    space = Chain()
    costs = param_costs(space, 10, digits.image_shape)
    flops = flop_costs(space, 10, digits.image_shape)
    for genotype in ("conv3x3 skip conv1x1 conv3x3", "skip skip skip skip"):
        ops = [("conv3x3", "conv1x1", "skip").index(op) for op in genotype.split()]
        masks = {"layers": np.eye(3)[ops]}
        network = space.network(genotype, 10)
        assert costs.of(masks) == count_params(network, digits.image_shape)
        assert flops.of(masks) == count_flops(network, digits.image_shape)
    smallest = count_params(space.network("skip skip skip skip", 10), SHAPE)
    found = search(digits, max_params=smallest + 700).genotype
    used = count_params(space.network(found, 10), digits.image_shape)
    assert smallest < used <= smallest + 700
    with pytest.raises(InputError, match="no network of chain has at most 9 param"):
        search(digits, max_params=9)
