"""NAS-Bench-Macro: 8 layers, each an identity or one of two inverted residuals.

Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.
The supernet is the one that Zero-Cost-PT scores (Xiang et al. 2023, and the authors'
published code).
"""

import re
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import layers, torch_init
from zcpt_jax.nn.capture import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn.zero_weights import weighted_sum
from zcpt_jax.types import Drawing, InputError, Masks, Owner, Phase

OPS = ("identity", "mb3_k3", "mb6_k5")
STAGES = (2, 3, 3)
STAGE_OF = tuple(stage for stage, size in enumerate(STAGES) for _ in range(size))
LAYERS = len(STAGE_OF)
GROUP = "layers"
HEAD = 1280
_BLOCKS = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}  # (expansion, kernel size)

Candidates = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NasBenchMacro(torch_init.TorchDefault):
    """The space NAS-Bench-Macro.

    A genotype is the table's key: 8 digits, 0 for identity, 1 for ``mb3_k3`` and 2 for
    ``mb6_k5``, in the order of the layers. Two mistakes of the published search script
    are not copied: it joins the digits in the order in which the layers were decided,
    and it never discretises a layer (the chosen weight becomes 1, the others stay 1/3).

    Attributes:
      channels: number of channels of the stem, doubled by each of the three stages; the
        head always has 1280.
    """

    channels: int = 32
    name: str = "nasbench_macro"

    def init_masks(self) -> Masks:
        """Masks ``{'layers': [8, 3]}``, every entry 1/3."""
        return {GROUP: mask_algebra.undecided(LAYERS, len(OPS))}

    def phases(self) -> tuple[Phase, ...]:
        """One phase of eight layer decisions."""
        names = [f"layer {layer}" for layer in range(LAYERS)]
        layers = mask_algebra.edge_decisions(GROUP, names, (OPS,) * LAYERS)
        return (Phase("operations", (layers,)),)

    def supernet(self, num_classes: int) -> nn.Module:
        """All operations in all layers, with affine BatchNorm as in the networks."""
        return Network((OPS,) * LAYERS, self.channels, num_classes)

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module:
        """Return the supernet."""
        del scales
        return self.supernet(num_classes)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Discrete network of a genotype."""
        candidates = tuple((OPS[int(digit)],) for digit in self.parse(genotype))
        return Network(candidates, self.channels, num_classes)

    def genotype(self, masks: Masks) -> str:
        """Key of discretised masks, such as ``22212220``."""
        return "".join(map(str, mask_algebra.chosen(masks[GROUP], GROUP)))

    def parse(self, text: str) -> str:
        """Return the key without surrounding white space.

        Keys of isomorphic networks (:meth:`canonical`) stay distinct, because the table
        has a separate result for each.

        Raises:
          InputError: if the key is not 8 digits from 0 to 2.
        """
        key = text.strip()
        if not re.fullmatch(f"[0-2]{{{LAYERS}}}", key):
            meaning = ", ".join(f"{digit} = {op}" for digit, op in enumerate(OPS))
            raise InputError(
                f"malformed NAS-Bench-Macro genotype {text!r}; expected {LAYERS} "
                f"digits, one a layer ({meaning}), such as 22212220"
            )
        return key

    def canonical(self, key: str) -> str:
        """Move each stage's identities to its end, except in its first layer.

        After a stage's first layer an identity has no effect, so keys with the same
        canonical key are the same network. The 6,561 keys have 3,969 canonical keys.

        Raises:
          InputError: if the key is malformed.
        """
        key, parts = self.parse(key), []
        for stage, size in enumerate(STAGES):
            first = STAGE_OF.index(stage)
            rest = key[first + 1 : first + size]
            parts += [key[first], rest.replace("0", "").ljust(size - 1, "0")]
        return "".join(parts)

    def forms(self, genotype: str) -> dict[str, str]:
        """Canonical key, shared by all keys of the same network."""
        return {"identities last in each stage": self.canonical(genotype)}

    def masks_of(self, genotype: str) -> Masks:
        """The one-hot masks ``{'layers': [8, 3]}`` of a genotype."""
        choices = np.array([int(digit) for digit in self.parse(genotype)])
        return {GROUP: mask_algebra.one_hot(choices, len(OPS))}

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Drawing of the layers in a row, with a wider gap before each stage."""
        ops = [OPS[int(digit)] for digit in self.parse(genotype)]
        nodes = {str(i): (0.5 * i + 0.25 * STAGE_OF[i], 0.0) for i in range(LAYERS)}
        edges = tuple((str(i), str(i + 1), "") for i in range(LAYERS - 1))
        labels = dict(zip(nodes, ops, strict=True))
        return (Drawing("layers", nodes, edges, frozenset({"identity"}), labels),)

    def owner(self, path: tuple[str, ...]) -> Owner | None:
        """Operation that owns a layer of the supernet, None for stem and head."""
        found = re.fullmatch(r"layer(\d+)_(\w+)", path[0])
        return Owner(GROUP, (int(found[1]), OPS.index(found[2]))) if found else None


class Downsample(nn.Module):
    """Identity where the shape changes: 1x1 convolution and BatchNorm.

    Attributes:
      features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H/2, W/2, features]``.

        Args:
          x: input feature map.
          used: zero if the result is not used.
        """
        y = layers.Conv(self.features, 1, stride=2, name="conv")(x, used)
        return layers.batch_norm(name="norm")(y)


class Network(nn.Module):
    """Supernet or discrete network: stem, eight layers and head.

    An operation of weight zero counts as if its input were zero, as in the published
    code: its ReLUs have the same pattern for all images.

    Attributes:
      candidates: operations in each of the eight layers.
      channels: number of channels of the stem.
      num_classes: number of logits.
    """

    candidates: Candidates
    channels: int
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Compute the logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images; H and W divisible by 8.
          masks: ``{'layers': [8, 3]}``, or None for weight one on every candidate.

        Raises:
          InputError: if the images or masks have another shape.
        """
        if images.shape[1] % 8 or images.shape[2] % 8:
            raise InputError(
                "NAS-Bench-Macro halves its images three times: height and width must "
                f"be divisible by 8, got {images.shape[1]}x{images.shape[2]}"
            )
        weights = layers.mask_weights(masks, GROUP, (OPS,) * LAYERS, "layers")
        blocked = layers.blocked(masks)
        x = layers.Conv(self.channels, 3, name="stem_conv")(images)
        x = ReLU(name="stem_relu")(layers.batch_norm(name="stem_norm")(x))
        for layer, ops in enumerate(self.candidates):
            (x,) = CutPoint()(x)
            used, terms = [], []
            for op in ops:
                weight = weights[layer][OPS.index(op)]
                on = jnp.float32(weight != 0)
                out = self._run(layer, op, x, on, (1 - on) * blocked)
                used.append(weight)
                terms.append(out)
            x = weighted_sum(used, terms)
        x = layers.batch_norm(name="head_norm")(
            layers.Conv(HEAD, 1, name="head_conv")(x)
        )
        x = ReLU(name="head_relu")(x)
        pooled = GlobalAverage()(x)
        return layers.Linear(self.num_classes, name="classifier")(pooled)

    def _run(
        self, layer: int, op: str, x: jax.Array, on: jax.Array, zero_count: Any
    ) -> jax.Array:
        stage = STAGE_OF[layer]
        features = self.channels * 2 ** (stage + 1)
        first = layer == STAGE_OF.index(stage)
        name = f"layer{layer}_{op}"
        if op == "identity":
            return Downsample(features, name=name)(x, on) if first else x
        expansion, size = _BLOCKS[op]
        stride = 2 if first else 1
        block = layers.InvertedResidual(features, expansion, size, stride, name=name)
        return block(x, count=on, zero_count=zero_count, used=on)
