"""The MobileNet space: kernel size and expansion of each of 21 inverted residuals.

The space of ProxylessNAS (Cai et al., ICLR 2019) as searched by Zero-Cost-PT (Xiang et
al. 2023, and the authors' published code).
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import layers, torch_init
from zcpt_jax.nn.capture import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn.zero_weights import weighted_sum
from zcpt_jax.types import Drawing, InputError, Masks, Owner, Phase, Space, Variables

OPS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "identity")
IDENTITY = OPS.index("identity")
CODES = ("0", "1", "2", "3", "4", "5", "-1")
"""The code of each operation in a genotype."""
GROUP = "layers"
STEM, FIRST, HEAD = 40, 24, 1728
_STAGES = ((32, 4, 2), (56, 4, 2), (112, 4, 2), (128, 4, 1), (256, 4, 2), (432, 1, 1))
"""Number of channels, number of layers and stride of each stage."""


class Layer(NamedTuple):
    """Place and shape of one of the 21 layers.

    Attributes:
      stage: index of the stage, 0 to 5.
      position: index in the stage; layer 0 changes the shape and has no identity.
      channels: number of output channels, before the width multiplier.
      stride: stride of the depthwise convolution.
    """

    stage: int
    position: int
    channels: int
    stride: int

    @property
    def ops(self) -> tuple[str, ...]:
        """Candidate operations of the layer."""
        return OPS if self.position else OPS[:IDENTITY]


LAYERS = tuple(
    Layer(stage, position, channels, stride if position == 0 else 1)
    for stage, (channels, size, stride) in enumerate(_STAGES)
    for position in range(size)
)

Candidates = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class MobileNet(Space):
    """The MobileNet space.

    A genotype is 21 integers joined by spaces, the published form: 0 to 5 for
    ``k3e3, k3e6, k5e3, k5e6, k7e3, k7e6`` (kernel size, expansion) and -1 for
    identity.

    Attributes:
      width_multiplier: factor of all channel counts, rounded down, except the head's
        1728.
    """

    width_multiplier: float = 1.0
    name: str = "mobilenet"

    def init_masks(self) -> Masks:
        """Masks ``{'layers': [21, 7]}``: 1 per candidate, as outputs are summed.

        The last column is identity; it is 0 in the first layer of each stage, which
        has no identity.
        """
        return {GROUP: np.array([[op in x.ops for op in OPS] for x in LAYERS], "f4")}

    def phases(self) -> tuple[Phase, ...]:
        """One phase of 21 layer decisions, with 6 or 7 candidates."""
        names = [f"layer {index}" for index in range(len(LAYERS))]
        candidates = tuple(layer.ops for layer in LAYERS)
        layers = mask_algebra.edge_decisions(GROUP, names, candidates)
        return (Phase("operations", (layers,)),)

    def supernet(self, num_classes: int) -> nn.Module:
        """All operations in all layers, with affine BatchNorm as in the networks."""
        return self._build(tuple(layer.ops for layer in LAYERS), num_classes)

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module:
        """Return the supernet."""
        del scales
        return self.supernet(num_classes)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Discrete network of a genotype.

        The published network applies dropout of 20 % before the classifier in training.
        There is no dropout here; in evaluation mode, which scoring uses, it is the
        same.
        """
        candidates = tuple((OPS[index],) for index in _parse(genotype))
        return self._build(candidates, num_classes)

    def _build(self, candidates: Candidates, num_classes: int) -> nn.Module:
        if int(FIRST * self.width_multiplier) < 1:
            raise InputError(
                f"width_multiplier={self.width_multiplier} leaves no channel of the "
                f"{FIRST} before the first layer; it must be at least 1/{FIRST}"
            )
        return Network(candidates, self.width_multiplier, num_classes)

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Initialise as published, which differs between supernet and network.

        Convolutions of the supernet are normal with variance ``2 / (k * k * C_out)``;
        those of a discrete network have PyTorch's default.
        """
        candidates: Candidates = getattr(module, "candidates", ())
        choice = any(len(ops) > 1 for ops in candidates)
        return torch_init.torch_init(module, key, image_shape, normal=choice)

    def init_networks(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Initialise with PyTorch's default."""
        return torch_init.torch_init(module, key, image_shape)

    def genotype(self, masks: Masks) -> str:
        """Genotype of discretised masks: 21 integers joined by spaces."""
        chosen = mask_algebra.chosen(masks[GROUP], GROUP)
        return self.parse(" ".join(CODES[index] for index in chosen))

    def parse(self, text: str) -> str:
        """Normalise a genotype to 21 integers joined by single spaces.

        Raises:
          InputError: if there are not 21 integers from -1 to 5, or if the first layer
            of a stage is an identity.
        """
        return " ".join(CODES[index] for index in _parse(text))

    def masks_of(self, genotype: str) -> Masks:
        """The one-hot masks ``{'layers': [21, 7]}`` of a genotype."""
        return {GROUP: mask_algebra.one_hot(np.array(_parse(genotype)), len(OPS))}

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Drawing of the layers, one row per stage."""
        nodes, labels = {}, {}
        for number, (layer, index) in enumerate(
            zip(LAYERS, _parse(genotype), strict=True)
        ):
            nodes[str(number)] = (float(layer.position), -0.8 * layer.stage)
            labels[str(number)] = OPS[index]
        edges = tuple((str(i), str(i + 1), "") for i in range(len(LAYERS) - 1))
        return (Drawing("layers", nodes, edges, frozenset({"identity"}), labels),)

    def owner(self, path: tuple[str, ...]) -> Owner | None:
        """Operation that owns a layer of the supernet, None for stem and head."""
        found = re.fullmatch(r"layer(\d+)_(\w+)", path[0])
        return Owner(GROUP, (int(found[1]), OPS.index(found[2]))) if found else None


def _parse(text: str) -> list[int]:
    """Index of the operation in each layer."""
    codes = text.split()
    unknown = [code for code in codes if code not in CODES]
    if unknown or len(codes) != len(LAYERS):
        what = f"has {unknown[0]!r}" if unknown else f"has {len(codes)} layers"
        raise InputError(
            f"malformed MobileNet genotype {text!r}: it {what}; expected {len(LAYERS)} "
            f"integers joined by spaces, from -1 (identity) to {IDENTITY - 1}"
        )
    chosen = [CODES.index(code) for code in codes]
    for number, (layer, index) in enumerate(zip(LAYERS, chosen, strict=True)):
        if OPS[index] not in layer.ops:
            raise InputError(
                f"MobileNet genotype {text!r} has -1 (identity) in layer {number}, "
                f"which begins a stage and changes the shape; expected 0 to "
                f"{IDENTITY - 1} there"
            )
    return chosen


class Network(nn.Module):
    """Supernet or discrete network: stem, 21 layers and head.

    The outputs of a layer's candidates are summed with their architecture weights,
    without a factor 1/O. An operation of weight zero is absent: its ReLUs do not count.

    The published network averages 7x7 pixels before the classifier and so needs images
    of 224x224; here all pixels are averaged, which is the same at that size.

    Attributes:
      candidates: operations in each of the 21 layers.
      width_multiplier: factor of all channel counts except the head's, rounded down.
      num_classes: number of logits.
    """

    candidates: Candidates
    width_multiplier: float
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Compute the logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images; H and W divisible by 32.
          masks: ``{'layers': [21, 7]}``, or None for weight one on every candidate.

        Raises:
          InputError: if the images or masks have another shape.
        """
        if images.shape[1] % 32 or images.shape[2] % 32:
            raise InputError(
                "MobileNet halves its images five times: height and width must be "
                f"divisible by 32, got {images.shape[1]}x{images.shape[2]}"
            )
        weights = layers.mask_weights(masks, GROUP, (OPS,) * len(LAYERS), "layers")
        x = layers.Conv(self._width(STEM), 3, stride=2, name="stem_conv")(images)
        x = ReLU(6, name="stem_relu")(layers.batch_norm(name="stem_norm")(x))
        x = layers.InvertedResidual(self._width(FIRST), 1, 3, 1, 6, name="first")(x)
        for index, ops in enumerate(self.candidates):
            (x,) = CutPoint(homogeneous=False)(x)
            used = [weights[index][OPS.index(op)] for op in ops]
            terms = [
                self._run(index, op, x, weight)
                for op, weight in zip(ops, used, strict=True)
            ]
            x = weighted_sum(used, terms)
        x = layers.Conv(HEAD, 1, name="head_conv")(x)
        x = ReLU(6, name="head_relu")(layers.batch_norm(name="head_norm")(x))
        pooled = GlobalAverage()(x)
        return layers.Linear(self.num_classes, name="classifier")(pooled)

    def _width(self, channels: int) -> int:
        return int(channels * self.width_multiplier)

    def _run(self, index: int, op: str, x: jax.Array, weight: Any) -> jax.Array:
        if op == "identity":
            return x
        layer, size, expansion = LAYERS[index], int(op[1]), int(op[3])
        block = layers.InvertedResidual(
            self._width(layer.channels),
            expansion,
            size,
            layer.stride,
            cap=6,
            name=f"layer{index}_{op}",
        )
        on = jnp.float32(weight != 0)
        return block(x, count=on, used=on)
