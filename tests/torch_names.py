"""PyTorch state dicts of the published networks as Flax variables.

One function a space: Flax path to the name in the published state dict.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def nasbench201(path, meta):
    leaf, stages = LEAVES[path[-1]], meta["cells_per_stage"] + 1
    cell = re.match(r"stage(\d)_cell(\d+)", path[0])
    if cell:
        node, source, op, kind = re.match(
            r"(\d)_(\d)_(nor_conv_\dx\d)_(conv|norm)", path[1]
        ).groups()
        number = int(cell[1]) * stages + int(cell[2])
        index = 2 if op == "nor_conv_1x1" else 3
        slot = 1 if kind == "conv" else 2
        return f"cells.{number}.edges.{node}<-{source}.{index}.op.{slot}.{leaf}"
    reduction = re.match(r"reduction(\d)", path[0])
    if reduction:
        number = int(reduction[1]) * stages + stages - 1
        if path[1] == "shortcut":
            return f"cells.{number}.downsample.1.{leaf}"
        kind, letter = path[1].split("_")
        return f"cells.{number}.conv_{letter}.op.{1 if kind == 'conv' else 2}.{leaf}"
    heads = {
        "stem_conv": "stem.0",
        "stem_norm": "stem.1",
        "last_norm": "lastact.0",
        "classifier": "classifier",
    }
    return f"{heads[path[0]]}.{leaf}"


NAMES = {"nasbench201": nasbench201}


def variables_from(golden, meta, shapes):
    """Variables of the given shapes, filled from ``param/<name>`` entries."""
    name_of = NAMES[meta["space"]]
    flat, used = {}, set()
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        name = "param/" + name_of(path[1:], meta)
        value = golden[name]
        if path[-1] == "kernel":
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        assert value.shape == leaf.shape, (path, value.shape, leaf.shape)
        flat[path] = jnp.asarray(value)
        used.add(name)
    unused = {k for k in golden if k.startswith("param/")} - used
    assert not unused, f"parameters without a place: {sorted(unused)[:5]}"
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(flat))


def batch_from(golden):
    images = np.ascontiguousarray(golden["inputs"].transpose(0, 2, 3, 1))
    return images, golden["targets"].astype(np.int32)
