"""The supernet of the full DARTS space as Zero-Cost-PT's published code runs it.

Liu et al., DARTS, ICLR 2019; Xiang et al., AAAI 2023. Names of parameters are those of
the published state dicts.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

STEPS = 4
EDGES = tuple((node, source) for node in range(STEPS) for source in range(node + 2))


class ReLUConvBN(nn.Module):
    """ReLU, 1x1 convolution, BatchNorm: brings a cell's input to its channels.

    Hooks on names with "ReLU" in them fire for this module and for the one inside.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = False) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, c_in, H, W]`` to ``[B, c_out, H, W]``."""
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Halves the resolution by two strided 1x1 convolutions, one pixel apart."""

    def __init__(self, c_in: int, c_out: int, affine: bool = False) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, c_in, H, W]`` to ``[B, c_out, H/2, W/2]``."""
        x = self.relu(x)
        halves = [self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])]
        return self.bn(torch.cat(halves, dim=1))


def _depthwise_block(
    channels: int, size: int, stride: int, dilation: int, affine: bool
) -> list[nn.Module]:
    padding = dilation * (size // 2)
    depthwise = nn.Conv2d(
        channels, channels, size, stride, padding, dilation, channels, bias=False
    )
    return [
        nn.ReLU(inplace=False),
        depthwise,
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class SepConv(nn.Module):
    """Twice: ReLU, depthwise convolution, 1x1 convolution, BatchNorm."""

    def __init__(
        self, channels: int, size: int, stride: int, affine: bool = False
    ) -> None:
        super().__init__()
        first = _depthwise_block(channels, size, stride, 1, affine)
        second = _depthwise_block(channels, size, 1, 1, affine)
        self.op = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, C, H, W]`` to ``[B, C, H/stride, W/stride]``."""
        return self.op(x)


class DilConv(nn.Module):
    """ReLU, depthwise convolution of dilation 2, 1x1 convolution, BatchNorm."""

    def __init__(
        self, channels: int, size: int, stride: int, affine: bool = False
    ) -> None:
        super().__init__()
        self.op = nn.Sequential(*_depthwise_block(channels, size, stride, 2, affine))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, C, H, W]`` to ``[B, C, H/stride, W/stride]``."""
        return self.op(x)


def candidates(channels: int, stride: int) -> nn.ModuleList:
    """The seven operations of an edge, in the order of the masks' columns."""
    skip = nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    max_pool = nn.MaxPool2d(3, stride, padding=1)
    avg_pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return nn.ModuleList(
        [
            nn.Sequential(max_pool, nn.BatchNorm2d(channels, affine=False)),
            nn.Sequential(avg_pool, nn.BatchNorm2d(channels, affine=False)),
            skip,
            SepConv(channels, 3, stride),
            SepConv(channels, 5, stride),
            DilConv(channels, 3, stride),
            DilConv(channels, 5, stride),
        ]
    )


class MixedOp(nn.Module):
    """The weighted sum of an edge's candidates."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = candidates(channels, stride)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor | int:
        """Operations of weight zero are left out; 0 where all of them are."""
        pairs = zip(self._ops, weights, strict=True)
        return sum(weight * op(x) for op, weight in pairs if weight != 0)


class Cell(nn.Module):
    """Two inputs and four nodes, joined by 14 mixed edges."""

    def __init__(
        self, c_before: int, c_last: int, channels: int, reduction: bool, halve: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduce if halve else ReLUConvBN
        self.preprocess0 = first(c_before, channels)
        self.preprocess1 = ReLUConvBN(c_last, channels)
        self.reduction = reduction
        strides = [2 if reduction and source < 2 else 1 for _, source in EDGES]
        self._ops = nn.ModuleList([MixedOp(channels, stride) for stride in strides])

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Maps the outputs of the two cells before to this one's; ``[14, 7]``."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for node in range(STEPS):
            rows = [row for row, edge in enumerate(EDGES) if edge[0] == node]
            terms = [
                self._ops[row](states[EDGES[row][1]], weights[row]) for row in rows
            ]
            states.append(sum(terms))
        return torch.cat(states[2:], dim=1)


class Darts(nn.Module):
    """CIFAR stem, cells with reductions at one and two thirds, classifier."""

    def __init__(self, channels: int = 16, cells: int = 8, classes: int = 10) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        built, halve, c_before, c_last = [], False, width, width
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            built.append(Cell(c_before, c_last, channels, reduction, halve))
            c_before, c_last, halve = c_last, STEPS * channels, reduction
        self.cells = nn.ModuleList(built)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_last, classes)

    def forward(self, images: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Logits of images ``[B, 3, H, W]``; masks ``normal``, ``reduce [14, 7]``."""
        s0 = s1 = self.stem(images)
        for cell in self.cells:
            weights = masks["reduce" if cell.reduction else "normal"]
            s0, s1 = s1, cell(s0, s1, weights)
        return self.classifier(torch.flatten(self.global_pooling(s1), 1))
