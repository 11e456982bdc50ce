"""A search space of one's own: a chain of layers with three candidates each."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from zcpt_jax import masks
from zcpt_jax.nn.capture import ReLU
from zcpt_jax.types import InputError, Owner, Phase, Space

SIZES = {"conv3x3": (3, 3), "conv1x1": (1, 1), "skip": None}


class Net(nn.Module):
    candidates: tuple[tuple[str, ...], ...]
    channels: int
    num_classes: int

    @nn.compact
    def __call__(self, images, masks=None):
        x = nn.Conv(self.channels, (3, 3), name="stem")(images)
        for layer, ops in enumerate(self.candidates):
            weights = masks["layers"][layer] if masks else jnp.ones(len(ops))
            z, total = ReLU()(x), 0.0
            for op, weight in zip(ops, weights, strict=True):
                conv = nn.Conv(self.channels, SIZES[op] or 1, name=f"{layer}_{op}")
                total += weight * (z if op == "skip" else conv(z))
            x = total
        return nn.Dense(self.num_classes, name="classifier")(x.mean((1, 2)))


@dataclass(frozen=True)
class Chain(Space):
    layers: int = 4
    channels: int = 8
    name: str = "chain"

    def init_masks(self):
        return {"layers": masks.undecided(self.layers, len(SIZES))}

    def phases(self):
        names = [f"layer {number}" for number in range(self.layers)]
        ops = (tuple(SIZES),) * self.layers
        track = masks.edge_decisions("layers", names, ops)
        return (Phase("operations", (track,)),)

    def supernet(self, num_classes):
        return Net((tuple(SIZES),) * self.layers, self.channels, num_classes)

    def network(self, genotype, num_classes):
        ops = tuple((op,) for op in self.parse(genotype).split())
        return Net(ops, self.channels, num_classes)

    def genotype(self, decided):
        chosen = masks.chosen(decided["layers"], "layers")
        return " ".join(tuple(SIZES)[index] for index in chosen)

    def parse(self, text):
        ops = text.split()
        if len(ops) != self.layers or not set(ops) <= set(SIZES):
            raise InputError(f"{text!r} is not {self.layers} of {', '.join(SIZES)}")
        return " ".join(ops)

    def owner(self, path):  # for --max_params and --max_flops only
        layer, _, op = path[-1].partition("_")
        return Owner("layers", (int(layer), list(SIZES).index(op))) if op else None
