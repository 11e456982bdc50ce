"""Scores of the authors' published code, met from the same weights and inputs.

``pytest tests/golden_test.py --golden_dir=DIR``: every .npz file says in its ``meta``
what to build. See the tolerances below; a larger difference is a mistake.
"""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import torch_names
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import Scorer
from zcpt_jax.spaces import SPACES, _ops, get_space, space_options
from zcpt_jax.types import Batch

# |ours - golden| <= rtol * |golden| + scale_tol * max |golden| of the file.
TOLERANCES = {
    "nwot": (1e-5, 0),
    "jacob_cov": (1e-5, 0),
    "grad_norm": (1e-5, 0),
    "snip": (1e-5, 0),
    "synflow": (1e-5, 0),
    "fisher": (1e-5, 0),
    "plain": (0, 1e-4),
    "grasp": (0, 1e-3),
    "ntk_cond": (0, 1e-3),
}


@pytest.mark.parametrize("proxy", TOLERANCES)
def test_scores_are_those_of_the_published_code(golden_file, proxy):
    with np.load(golden_file, allow_pickle=False) as archive:
        golden = dict(archive)
    meta = json.loads(str(golden["meta"]))
    if f"score/{proxy}" not in golden:
        pytest.skip(f"{golden_file.name} holds no score of {proxy}")
    if meta["space"] not in SPACES:
        pytest.skip(f"space {meta['space']} does not exist yet")
    if proxy not in PROXIES:
        pytest.skip(f"proxy {proxy} does not exist yet")
    known = space_options(get_space(meta["space"]))
    space = get_space(meta["space"], **{k: v for k, v in meta.items() if k in known})
    module = space.supernet(meta["classes"])
    batch = Batch(*torch_names.batch_from(golden))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(batch.images))
    variables = torch_names.variables_from(golden, meta, shapes)
    masks = {
        key.removeprefix("mask/"): golden[key]
        for key in golden
        if key.startswith("mask/")
    }
    expected = golden[f"score/{proxy}"]
    # Gradients of shifted windows take minutes to compile; that both forms are equal
    # is tested in ops_test.py.
    forward = proxy == "nwot"
    with contextlib.nullcontext() if forward else _ops.shifted(False):
        scorer = Scorer(PROXIES[proxy].score, module.apply)
        scores = scorer(variables, batch, masks)
    rtol, scale_tol = TOLERANCES[proxy]
    atol = scale_tol * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=rtol, atol=atol)
