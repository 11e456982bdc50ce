"""The network that DARTS trains on CIFAR, with the second-order cell DARTS_V2.

Liu et al., DARTS, ICLR 2019, as its published code builds it: affine BatchNorm, none
after pools, drop path on all operations but identities, and an auxiliary head at two
thirds of the depth.
"""

import torch
from torch import Tensor, nn

from benchmarks.torch_reference.darts import (
    DilConv,
    FactorizedReduce,
    ReLUConvBN,
    SepConv,
)

# Two operations for each of the four nodes, each with the node that it reads.
DARTS_V2 = {
    "normal": "sep3~0 sep3~1 sep3~0 sep3~1 skip~0 sep3~1 skip~0 dil3~2",
    "reduce": "max~0 max~1 max~1 skip~2 max~0 skip~2 max~1 skip~2",
}


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One operation of a cell by its short name, such as ``sep3``."""
    if name == "skip":
        if stride == 1:
            return nn.Identity()
        return FactorizedReduce(channels, channels, affine=True)
    if name == "max":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    kind = {"sep": SepConv, "dil": DilConv}[name[:3]]
    return kind(channels, int(name[3:]), stride, affine=True)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Drop a path of some images and scale up what stays."""
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


class Cell(nn.Module):
    """Two inputs and four nodes, each the sum of two operations."""

    def __init__(
        self, c_before: int, c_last: int, channels: int, reduction: bool, halve: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduce if halve else ReLUConvBN
        self.preprocess0 = first(c_before, channels, affine=True)
        self.preprocess1 = ReLUConvBN(c_last, channels, affine=True)
        pairs = DARTS_V2["reduce" if reduction else "normal"].split()
        names, sources = zip(*(pair.split("~") for pair in pairs), strict=True)
        self.sources = [int(source) for source in sources]
        self.ops = nn.ModuleList(
            operation(name, channels, 2 if reduction and source < 2 else 1)
            for name, source in zip(names, self.sources, strict=True)
        )

    def forward(self, s0: Tensor, s1: Tensor, dropped: float) -> Tensor:
        """Maps the outputs of the two cells before to this one's."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        terms = []
        for number, (op, source) in enumerate(
            zip(self.ops, self.sources, strict=True), 1
        ):
            term = op(states[source])
            if dropped and self.training and not isinstance(op, nn.Identity):
                term = drop_path(term, dropped)
            terms.append(term)
            if number % 2 == 0:
                states.append(terms[-2] + terms[-1])
        return torch.cat(states[2:], dim=1)


class AuxiliaryHead(nn.Sequential):
    """A second classifier of an 8x8 feature map."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class DartsV2(nn.Module):
    """Stem, cells with reductions at one and two thirds, classifier, second head."""

    def __init__(self, channels: int = 36, cells: int = 20, classes: int = 10) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        built, halve, c_before, c_last = [], False, width, width
        self.auxiliary_cell = 2 * cells // 3
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            built.append(Cell(c_before, c_last, channels, reduction, halve))
            c_before, c_last, halve = c_last, 4 * channels, reduction
            if index == self.auxiliary_cell:
                self.auxiliary_head = AuxiliaryHead(c_last, classes)
        self.cells = nn.ModuleList(built)
        self.classifier = nn.Linear(c_last, classes)

    def forward(self, images: Tensor, dropped: float) -> tuple[Tensor, Tensor]:
        """Map images ``[B, 3, 32, 32]`` to the logits of both heads.

        Args:
          images: normalised.
          dropped: probability that a path is dropped.
        """
        s0 = s1 = self.stem(images)
        second = s1
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, dropped)
            if index == self.auxiliary_cell:
                second = self.auxiliary_head(s1)
        return self.classifier(s1.mean((2, 3))), second
