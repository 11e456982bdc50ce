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
from zcpt_jax import taps
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import Scorer
from zcpt_jax.spaces import SPACES, _windows, get_space, space_options
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


# Below it, gradients that are zero on paper are what float32 leaves of them.
ROUNDING = 1e-5


def skip_where_it_is_rounding(space, apply_fn, variables, batch, masks):
    """Skips where the sum of logits does not depend on the images.

    It does not where every path ends in a BatchNorm on the batch's statistics before
    the average over pixels and the classifier, as in DARTS: then the sum over images
    of every feature is fixed. jacob_cov takes correlations of its gradients, of which
    nothing but rounding is left.
    """
    first = {group: jnp.asarray(weights[0]) for group, weights in masks.items()}

    def logits(images):
        return taps.forward(apply_fn, variables, images, first, norm="batch")

    def largest_gradients(images):
        out, pull_back = jax.vjp(logits, images)
        cotangents = (jnp.ones_like(out), 2 * out)  # of the sum, and of squares
        return [jnp.abs(pull_back(c)[0]).max() for c in cotangents]

    with _windows.shifted(False):
        plain, squared = jax.jit(largest_gradients)(jnp.asarray(batch.images))
    if plain < ROUNDING * squared:
        assert space != "nasbench201", "its last BatchNorm is followed by a ReLU"
        pytest.skip(
            "jacob_cov is rounding noise here: the sum of logits has gradients up to "
            f"{plain:.0e}, that of squared logits up to {squared:.0e}"
        )


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
    if proxy == "jacob_cov":
        skip_where_it_is_rounding(meta["space"], module.apply, variables, batch, masks)
    # Gradients of shifted windows take minutes to compile; that both forms are equal
    # is tested in ops_test.py.
    forward = proxy == "nwot"
    with contextlib.nullcontext() if forward else _windows.shifted(False):
        scorer = Scorer(PROXIES[proxy].score, module.apply)
        scores = scorer(variables, batch, masks)
    rtol, scale_tol = TOLERANCES[proxy]
    atol = scale_tol * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=rtol, atol=atol)
