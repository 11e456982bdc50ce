"""Scores of the authors' published code, met from the same weights and inputs.

``pytest tests/golden_test.py --golden_dir=DIR``: every .npz file says in its ``meta``
what to build. Without such a folder the files are those of tests/golden. See the
tolerances below; a larger difference is a mistake.
"""

import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import compiling, helpers, torch_names
from zcpt_jax.lowering import GPU, TPU, default, using
from zcpt_jax.nn import capture
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.spaces import get_space, space_options
from zcpt_jax.types import Batch

# Inputs of ReLUs that are zero but for rounding change sides when compiled otherwise.
pytestmark = pytest.mark.optimised

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


def skip_where_it_is_rounding(golden):
    """Skips where the sum of logits does not depend on the images.

    It does not where every path ends in a BatchNorm on the batch's statistics before
    the average over pixels and the classifier, as in DARTS: then the sum over images
    of every feature is fixed. jacob_cov takes correlations of its gradients, of which
    nothing but rounding is left.
    """
    first = {group: jnp.asarray(masks[0]) for group, masks in golden.masks.items()}

    def logits(images):
        args = (golden.apply, golden.variables, images, first)
        return capture.forward(*args, norm="batch")

    def largest_gradients(images):
        out, pull_back = jax.vjp(logits, images)
        cotangents = (jnp.ones_like(out), 2 * out)  # of the sum, and of squares
        return [jnp.abs(pull_back(c)[0]).max() for c in cotangents]

    with using(helpers.QUICK_TO_COMPILE), compiling.quickly_here():
        plain, squared = jax.jit(largest_gradients)(jnp.asarray(golden.batch.images))
    if plain < ROUNDING * squared:
        assert golden.space != "nasbench201", "its last BatchNorm is followed by a ReLU"
        pytest.skip(
            "jacob_cov is rounding noise here: the sum of logits has gradients up to "
            f"{plain:.0e}, that of squared logits up to {squared:.0e}"
        )


# One compilation serves proxies of the same gradients.
TOGETHER = ("grad_norm", "snip", "plain")


class Golden(NamedTuple):
    """A file: the network it asks for, its inputs, its scores."""

    space: str
    apply: Any
    variables: Any
    batch: Batch
    masks: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]


@functools.cache
def read(path):
    with np.load(path, allow_pickle=False) as archive:
        golden = dict(archive)
    meta = json.loads(str(golden["meta"]))
    known = space_options(get_space(meta["space"]))
    space = get_space(meta["space"], **{k: v for k, v in meta.items() if k in known})
    module = space.supernet(meta["classes"])
    batch = Batch(*torch_names.batch_from(golden))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(batch.images))
    variables = torch_names.variables_from(golden, meta, shapes)
    masks, scores = (helpers.part(golden, kind) for kind in ("mask/", "score/"))
    return Golden(space.name, module.apply, variables, batch, masks, scores)


def score(golden, proxy, form):
    """The scores as a search computes them."""
    scorer = Scorer(
        PROXIES[proxy].score,
        golden.apply,
        form=form,
        forward_only=PROXIES[proxy].forward_only,
    )
    return scorer(golden.variables, golden.batch, golden.masks)


@functools.cache
def score_together(path):
    """Scores of all proxies in TOGETHER that the file has."""
    golden = read(path)
    names = [name for name in TOGETHER if name in golden.scores]

    @jax.jit
    def run(mask):
        args = (golden.apply, golden.variables, golden.batch, mask)
        with jax.default_matmul_precision("highest"):
            return {name: PROXIES[name].score(*args) for name in names}

    rows = range(len(golden.scores[names[0]]))
    found = [run({g: m[row] for g, m in golden.masks.items()}) for row in rows]
    return {name: np.array([row[name] for row in found]) for name in names}


def pytest_generate_tests(metafunc):
    """A test for each score of each file, known to us or not."""
    cases = []
    for file in helpers.golden_files(metafunc.config):
        with np.load(file, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.startswith("score/")]
            space = json.loads(str(archive["meta"]))["space"]
        for proxy in (name.removeprefix("score/") for name in names):
            if SUITED.get(metafunc.function, lambda *_: True)(space, proxy):
                marks = [pytest.mark.slow] if slow(space, proxy) else []
                name = f"{file.stem}-{proxy}"
                cases.append(pytest.param(file, proxy, marks=marks, id=name))
    metafunc.parametrize(("golden_file", "proxy"), cases)


def slow(space, proxy):
    """Gradients of DARTS, which take long to compile; those of other spaces do not."""
    return space.startswith("darts") and proxy != "nwot"


def test_scores_are_those_of_the_published_code(golden_file, proxy):
    golden = read(golden_file)
    assert proxy in PROXIES
    if proxy == "jacob_cov":
        skip_where_it_is_rounding(golden)
    if proxy == "nwot":
        scores = score(golden, proxy, default())
    else:
        # Gradients of shifted windows take minutes to compile; that both forms are
        # equal is tested in layers_test.py.
        form = helpers.QUICK_TO_COMPILE
        with using(form):
            together = proxy in TOGETHER
            found = score_together(golden_file) if together else {}
            scores = found[proxy] if together else score(golden, proxy, form)
    check(golden, proxy, scores)


@pytest.mark.parametrize("form", [GPU, TPU], ids=["gpu", "tpu"])
def test_scores_in_the_forms_of_accelerators(golden_file, proxy, form):
    golden = read(golden_file)
    check(golden, proxy, score(golden, proxy, form))


@pytest.mark.slow
def test_scores_with_a_derivative_in_loops_and_conditions(golden_file, proxy):
    golden = read(golden_file)
    check(golden, proxy, score(golden, proxy, GPU))


# The scores that a test is about; all, where it is not said.
SUITED = {
    test_scores_in_the_forms_of_accelerators: lambda space, proxy: proxy == "nwot",
    # Of other spaces it takes tens of times longer on CPU than outside of loops.
    test_scores_with_a_derivative_in_loops_and_conditions: lambda space, proxy: (
        space == "nasbench201" and proxy in ("snip", "synflow")
    ),
}


def check(golden, proxy, scores):
    expected = golden.scores[proxy]
    rtol, scale_tol = TOLERANCES[proxy]
    atol = scale_tol * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=rtol, atol=atol)
