"""The supernet of NAS-Bench-201 as Zero-Cost-PT's published code runs it.

Dong and Yang, NAS-Bench-201, ICLR 2020; Xiang et al., AAAI 2023. Names of parameters
are those of the published state dicts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NODES = 4


class ReLUConvBN(nn.Module):
    """ReLU, convolution, BatchNorm: one candidate, or half a residual block.

    Hooks on names with "ReLU" in them fire for this module and for the one inside.
    """

    def __init__(
        self, c_in: int, c_out: int, size: int, stride: int, affine: bool
    ) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )

    def forward(self, x: Tensor, blocked: bool = False) -> Tensor:
        """Blocked, it runs on zeros; hooks on this module still see ``x``."""
        return self.op(x * 0 if blocked else x)


class Zero(nn.Module):
    """The candidate ``none``."""

    def forward(self, x: Tensor, blocked: bool = False) -> Tensor:
        """Zeros of the same shape."""
        del blocked
        return x * 0


class Identity(nn.Module):
    """The candidate ``skip_connect``."""

    def forward(self, x: Tensor, blocked: bool = False) -> Tensor:
        """The input, or zeros when blocked."""
        return x * 0 if blocked else x


class Pooling(nn.Module):
    """The candidate ``avg_pool_3x3``, which does not count padding."""

    def __init__(self) -> None:
        super().__init__()
        self.op = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor, blocked: bool = False) -> Tensor:
        """The local means, of zeros when blocked."""
        return self.op(x * 0 if blocked else x)


def candidates(channels: int) -> nn.ModuleList:
    """The five operations of an edge, in the order of the masks' columns."""
    return nn.ModuleList(
        [
            Zero(),
            Identity(),
            ReLUConvBN(channels, channels, 1, 1, affine=False),
            ReLUConvBN(channels, channels, 3, 1, affine=False),
            Pooling(),
        ]
    )


class Cell(nn.Module):
    """Four nodes, each the sum of its mixed edges from all nodes before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{node}<-{source}": candidates(channels)
                for node in range(1, NODES)
                for source in range(node)
            }
        )
        self.rows = {name: row for row, name in enumerate(sorted(self.edges))}

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps a feature map to one of the same shape; ``weights`` is ``[6, 5]``."""
        nodes: list[Any] = [x]
        for node in range(1, NODES):
            terms = [
                self._mixed(f"{node}<-{source}", nodes[source], weights)
                for source in range(node)
            ]
            nodes.append(sum(terms))
        return nodes[-1]

    def _mixed(self, name: str, x: Tensor, weights: Tensor) -> Any:
        """An operation of weight zero runs on zeros; it is not left out."""
        ops: Any = self.edges[name]
        pairs = zip(ops, weights[self.rows[name]], strict=True)
        return sum(op(x, blocked=bool(weight == 0)) * weight for op, weight in pairs)


class Residual(nn.Module):
    """The block between stages: half the resolution, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(channels, 2 * channels, 3, 2, affine=True)
        self.conv_b = ReLUConvBN(2 * channels, 2 * channels, 3, 1, affine=True)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, stride=2),
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Takes the weights as cells do, and ignores them."""
        del weights
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class NasBench201(nn.Module):
    """Stem, three stages of cells, classifier."""

    def __init__(
        self, channels: int = 16, cells_per_stage: int = 5, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        cells: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            cells += [Cell(width) for _ in range(cells_per_stage)]
            cells += [Residual(width)] if stage < 2 else []
        self.cells = nn.ModuleList(cells)
        self.lastact = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B, classes]`` of images ``[B, 3, H, W]``; masks ``cell [6, 5]``."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x, masks["cell"])
        x = self.pool(self.lastact(x))
        return self.classifier(torch.flatten(x, 1))
