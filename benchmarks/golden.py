"""Scores of the published code met on this machine's devices: largest differences."""

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs import Tell
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.spaces import get_space, space_options
from zcpt_jax.types import Batch, Variables


def measure(file: str, proxies: list[str], tell: Tell) -> None:
    """Score the masks of a golden file as a search scores them.

    Args:
      file: an archive as ``tests/golden_test.py`` reads it.
      proxies: those of them that the file has scores of.
      tell: takes, for each proxy, the largest relative difference.
    """
    with np.load(file, allow_pickle=False) as archive:
        golden = dict(archive)
    meta = json.loads(str(golden["meta"]))
    known = space_options(get_space(meta["space"]))
    space = get_space(meta["space"], **{k: v for k, v in meta.items() if k in known})
    module = space.supernet(meta["classes"])
    batch, variables = _inputs(golden, meta, module)
    masks = {
        name.removeprefix("mask/"): value
        for name, value in golden.items()
        if name.startswith("mask/")
    }
    for name in proxies:
        expected = golden.get(f"score/{name}")
        if expected is None:
            continue
        proxy = PROXIES[name]
        scorer = Scorer(proxy.score, module.apply, forward_only=proxy.forward_only)
        row = {"space": meta["space"], "proxy": name, "variant": Path(file).stem}
        try:
            scores = scorer(variables, batch, masks)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            tell({**row, "error": str(error).splitlines()[0]})
            continue
        difference = np.abs(scores - expected) / np.abs(expected)
        tell(
            {
                **row,
                "difference": float(difference.max()),
                "masks": len(expected),
                "compile_seconds": scorer.compile_seconds,
            }
        )


def _inputs(
    golden: dict[str, np.ndarray], meta: dict[str, Any], module: Any
) -> tuple[Batch, Variables]:
    """The file's minibatch, and its weights as variables of the module."""
    names = importlib.import_module("tests.torch_names")
    batch = Batch(*names.batch_from(golden))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(batch.images))
    return batch, names.variables_from(golden, meta, shapes)
