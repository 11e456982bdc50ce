"""PyTorch state dicts of the published networks as Flax variables.

One function a space: Flax path to the name in the published state dict, or to a list of
names for a stack of layers.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zcpt_jax.spaces import get_space

DARTS = ("darts", "darts_s1", "darts_s2", "darts_s3", "darts_s4")
LEAVES = {
    "kernel": "weight",
    "kernels": "weight",
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


def darts(path, meta):
    leaf = LEAVES[path[-1]]
    heads = {
        "stem_conv": "stem.0",
        "stem_norm": "stem.1",
        "stem_conv_1": "stem0.0",
        "stem_norm_1": "stem0.1",
        "stem_conv_2": "stem0.3",
        "stem_norm_2": "stem0.4",
        "stem_conv_3": "stem1.1",
        "stem_norm_3": "stem1.2",
        "classifier": "classifier",
    }
    if path[0] in heads:
        return f"{heads[path[0]]}.{leaf}"
    cell = f"cells.{path[0].removeprefix('cell')}"
    if path[1].startswith("input_"):
        slots = {"conv": "op.1", "norm": "op.2"}
        slot = _factorized(path[3]) if path[2] == "reduce" else slots[path[2]]
        return f"{cell}.preprocess{path[1][-1]}.{slot}.{leaf}"
    op = path[1].split("_", 1)[1]
    if "pool" in op:
        slot = "1"
    elif op == "skip_connect":
        slot = _factorized(path[2])
    else:
        kind, _, number = path[2].partition("_")
        first = {"depthwise": 1, "pointwise": 2, "norm": 3}[kind]
        slot = f"op.{first + (4 if number == '2' else 0)}"
    owners = get_space(meta["space"], cells=meta["cells"]).owner(path[:-1])
    return [
        f"{cell}._ops.{row}._ops.{column}.{slot}.{leaf}" for _, (row, column) in owners
    ]


def _factorized(name):
    return "bn" if name == "norm" else name


def nasbench1shot1(path, meta):
    leaf = LEAVES[path[-1]]
    if path[0].startswith("last_"):
        return f"postprocess.op.{1 if path[0] == 'last_conv' else 2}.{leaf}"
    if path[0] == "classifier":
        return f"classifier.{leaf}"
    if path[0] == "stem":
        return f"stem.op.{0 if path[1] == 'conv' else 1}.{leaf}"
    stage, cell = map(int, re.match(r"stage(\d)_cell(\d+)", path[0]).groups())
    cell = f"cells.{stage * meta['cells'] // 3 + cell}"
    slot = 0 if path[2] == "conv" else 1
    kind, number, op = re.match(r"(projection|node)(\d)_?(\w*)", path[1]).groups()
    if kind == "projection":
        return f"{cell}._input_projections.{int(number) - 1}.op.{slot}.{leaf}"
    block = f"{cell}._choice_blocks.{int(number) - 1}.mixed_op._ops"
    if op == "maxpool3x3":
        return f"{block}.0.op.1.{leaf}"
    return f"{block}.{1 if op == 'conv3x3' else 2}.op.op.{slot}.{leaf}"


def nasbench_macro(path, meta):
    del meta
    leaf = LEAVES[path[-1]]
    layer = re.match(r"layer(\d+)_(identity|mb3_k3|mb6_k5)", path[0])
    if not layer:
        heads = {
            "stem_conv": "stem.0",
            "stem_norm": "stem.1",
            "head_conv": "out.0",
            "head_norm": "out.1",
            "classifier": "classifier",
        }
        return f"{heads[path[0]]}.{leaf}"
    index = ("identity", "mb3_k3", "mb6_k5").index(layer[2])
    if index == 0:
        slot = f"downsample.{0 if path[1] == 'conv' else 1}"
    else:
        slot = f"conv.{INVERTED_RESIDUAL.index(path[1])}"
    return f"features.{layer[1]}._ops.{index}.{slot}.{leaf}"


INVERTED_RESIDUAL = (
    "expand",
    "expand_norm",
    "expand_relu",
    "depthwise",
    "depthwise_norm",
    "depthwise_relu",
    "project",
    "project_norm",
)


def mobilenet(path, meta):
    del meta
    leaf = LEAVES[path[-1]]
    if path[0] == "first":  # expansion 1: no first convolution, three modules fewer
        slot = INVERTED_RESIDUAL.index(path[1]) - 3
        return f"MBConv_ratio_1.conv.{slot}.{leaf}"
    layer = re.match(r"layer(\d+)_k(\d)e(\d)", path[0])
    if not layer:
        heads = {
            "stem_conv": "conv_bn.0",
            "stem_norm": "conv_bn.1",
            "head_conv": "conv_1x1_bn.0",
            "head_norm": "conv_1x1_bn.1",
            "classifier": "classifier.0",
        }
        return f"{heads[path[0]]}.{leaf}"
    index = ("33", "36", "53", "56", "73", "76").index(layer[2] + layer[3])
    slot = INVERTED_RESIDUAL.index(path[1])
    return f"features.{layer[1]}._ops.{index}.conv.{slot}.{leaf}"


NAMES = {
    "nasbench201": nasbench201,
    **dict.fromkeys(DARTS, darts),
    **{f"nasbench1shot1_{number}": nasbench1shot1 for number in (1, 2, 3)},
    "nasbench_macro": nasbench_macro,
    "mobilenet": mobilenet,
}


def variables_from(golden, meta, shapes):
    """Variables of the given shapes, filled from ``param/<name>`` entries."""
    name_of = NAMES[meta["space"]]
    flat, used = {}, set()
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        names = name_of(path[1:], meta)
        stack = isinstance(names, list)
        values = [
            _flax_layout(golden[f"param/{name}"], path[-1])
            for name in (names if stack else [names])
        ]
        value = np.stack(values) if stack else values[0]
        assert value.shape == leaf.shape, (path, value.shape, leaf.shape)
        flat[path] = jnp.asarray(value)
        used |= {f"param/{name}" for name in (names if stack else [names])}
    unused = {k for k in golden if k.startswith("param/")} - used
    assert not unused, f"parameters without a place: {sorted(unused)[:5]}"
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(flat))


def _flax_layout(value, leaf):
    if not leaf.startswith("kernel"):
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def batch_from(golden):
    images = np.ascontiguousarray(golden["inputs"].transpose(0, 2, 3, 1))
    return images, golden["targets"].astype(np.int32)
