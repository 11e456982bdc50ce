"""Makes training_golden.json: losses of ten steps of training, by PyTorch alone.

``python tests/make_training_golden.py``, where torch is installed. The network is that
of CELL with 4 channels and one cell a stage, written anew here.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.training_golden import (  # noqa: E402
    GAMMA,
    RECIPES,
    STEPS,
    draw_batches,
    draw_weights,
    shapes,
)


class Network:
    """The network by PyTorch's functions."""

    def __init__(self) -> None:
        """Draws the weights."""
        self.params = {
            name: torch.tensor(
                array.transpose(3, 2, 0, 1) if array.ndim == 4 else array,
                requires_grad=True,
            )
            for name, array in draw_weights(shapes()).items()
        }
        self.stats = {
            name.removesuffix("/scale"): (
                torch.zeros(len(value)),
                torch.ones(len(value)),
            )
            for name, value in self.params.items()
            if name.endswith("scale")
        }

    def conv(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = self.params[f"{name}/kernel"]
        return functional.conv2d(
            x, kernel, stride=stride, padding=kernel.shape[-1] // 2
        )

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale, bias = self.params[f"{name}/scale"], self.params[f"{name}/bias"]
        return functional.batch_norm(x, *self.stats[name], scale, bias, training=True)

    def op(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.norm(self.conv(x.relu(), f"{name}_conv"), f"{name}_norm")

    def cell(self, x: torch.Tensor, name: str) -> torch.Tensor:
        one = self.op(x, f"{name}/1_0_nor_conv_3x3")
        two = x + self.op(one, f"{name}/2_1_nor_conv_1x1")
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return pooled + self.op(two, f"{name}/3_2_nor_conv_3x3")

    def reduction(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = self.norm(self.conv(x.relu(), f"{name}/conv_a", 2), f"{name}/norm_a")
        y = self.norm(self.conv(y.relu(), f"{name}/conv_b"), f"{name}/norm_b")
        return y + self.conv(functional.avg_pool2d(x, 2), f"{name}/shortcut")

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Logits ``[B, classes]`` of images ``[B, H, W, 3]``."""
        x = torch.tensor(images.transpose(0, 3, 1, 2))
        x = self.norm(self.conv(x, "stem_conv"), "stem_norm")
        for stage in range(3):
            x = self.cell(x, f"stage{stage}_cell0")
            x = self.reduction(x, f"reduction{stage}") if stage < 2 else x
        x = self.norm(x, "last_norm").relu().mean((2, 3))
        kernel = self.params["classifier/linear/kernel"]
        return x @ kernel + self.params["classifier/linear/bias"]


def train(recipe: dict) -> dict:
    """Losses before each step, and sums over running statistics after the last."""
    torch.manual_seed(0)
    network = Network()
    optimiser = torch.optim.SGD(
        list(network.params.values()),
        recipe["learning_rate"],
        momentum=0.9,
        nesterov=recipe["nesterov"],
        weight_decay=recipe["weight_decay"],
    )
    if recipe["schedule"] == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    else:
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, GAMMA)
    losses = []
    for images, labels in draw_batches():
        loss = functional.cross_entropy(
            network(images),
            torch.tensor(labels),
            label_smoothing=recipe["label_smoothing"],
        )
        optimiser.zero_grad()
        loss.backward()
        if recipe["clip"] is not None:
            torch.nn.utils.clip_grad_norm_(network.params.values(), recipe["clip"])
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    means, variances = zip(*network.stats.values(), strict=True)
    return {
        "losses": losses,
        "mean": float(sum(mean.abs().sum() for mean in means)),
        "var": float(sum(variance.sum() for variance in variances)),
    }


if __name__ == "__main__":
    made = {name: train(recipe) for name, recipe in RECIPES.items()}
    path = Path(__file__).with_name("training_golden.json")
    path.write_text(json.dumps({"torch": torch.__version__, **made}, indent=2) + "\n")
