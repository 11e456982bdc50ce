"""The PyTorch reference of benchmarks/ against the scores of the published code.

``pytest tests/torch_reference_test.py --golden_dir=DIR``: what is timed in benchmarks/
computes what the published code computes. PyTorch is needed only here and there.
"""

import functools
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch to test the reference")

from benchmarks.torch_reference import SUPERNETS  # noqa: E402  after torch is found
from benchmarks.torch_reference.proxies import PROXIES, Batch  # noqa: E402
from tests import helpers  # noqa: E402

torch.set_num_threads(1)  # threads that wait for each other crawl on busy machines

RTOL = 1e-5

# Every path of a DARTS cell ends in a BatchNorm on the batch's statistics before the
# average over pixels, which fixes the sum of logits over a batch: its gradients, which
# jacob_cov correlates, are rounding noise, and differ with every build of PyTorch.
ROUNDING = {("darts", "jacob_cov")}


class Golden(NamedTuple):
    """A file: its network, inputs, masks and scores."""

    space: str
    net: Any
    batch: Batch
    masks: dict[str, Any]
    scores: dict[str, np.ndarray]


def tensors(golden, kind):
    found = helpers.part(golden, kind)
    return {key: torch.from_numpy(value) for key, value in found.items()}


@functools.cache
def read(path):
    with np.load(path, allow_pickle=False) as archive:
        found = dict(archive)
    meta = json.loads(str(found["meta"]))
    if meta["space"] not in SUPERNETS:
        return None
    options = ("channels", "cells", "cells_per_stage", "classes")
    net = SUPERNETS[meta["space"]](**{k: meta[k] for k in options if k in meta})
    net.load_state_dict(tensors(found, "param/"))
    images, labels = found["inputs"], found["targets"].astype(np.int64)
    batch = Batch(torch.from_numpy(images), torch.from_numpy(labels))
    scores = {key: found[f"score/{key}"] for key in PROXIES if f"score/{key}" in found}
    return Golden(meta["space"], net, batch, tensors(found, "mask/"), scores)


def pytest_generate_tests(metafunc):
    files = helpers.golden_files(metafunc.config)
    metafunc.parametrize("golden_file", files, ids=lambda file: file.stem)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", PROXIES)
def test_scores_are_those_of_the_published_code(golden_file, proxy):
    golden = read(golden_file)
    if golden is None:
        pytest.skip(f"the reference has no supernet for {golden_file.name}")
    if (golden.space, proxy) in ROUNDING:
        pytest.skip(f"{proxy} is rounding noise on {golden.space}")
    if proxy not in golden.scores:
        pytest.skip(f"{golden_file.name} holds no score of {proxy}")
    expected = golden.scores[proxy]
    found = []
    for row in range(len(expected)):
        masks = {group: stack[row] for group, stack in golden.masks.items()}
        found.append(PROXIES[proxy](golden.net, golden.batch, masks))
    np.testing.assert_allclose(found, expected, rtol=RTOL)
