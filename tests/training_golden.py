"""What the trainings of training_golden.json begin with, drawn by NumPy."""

import numpy as np

CELL = (
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|"
    "+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
)
CLASSES, BATCH, SIZE, STEPS = 5, 8, 16, 10
RECIPES = {
    "cosine_nesterov": {
        "learning_rate": 0.1,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "clip": None,
        "label_smoothing": 0.0,
    },
    "exponential_clipped_smoothed": {
        "learning_rate": 0.2,
        "nesterov": False,
        "weight_decay": 3e-2,
        "schedule": "exponential",
        "clip": 0.5,
        "label_smoothing": 0.1,
    },
}
GAMMA = 0.9  # of the exponential schedule, a step


def draw_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images ``[B, H, W, 3]`` and labels ``[B]`` of each step."""
    rng = np.random.default_rng(1)
    shape = (BATCH, SIZE, SIZE, 3)
    return [
        (rng.normal(size=shape).astype(np.float32), rng.integers(CLASSES, size=BATCH))
        for _ in range(STEPS)
    ]


def draw_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Parameters by name, drawn in the order of names, kernels ``[k, k, in, out]``."""
    rng, found = np.random.default_rng(0), {}
    for name in sorted(shapes):
        shape = shapes[name]
        bound = 1.0 if len(shape) == 1 else float(np.prod(shape[:-1])) ** -0.5
        found[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        if name.endswith("scale"):
            found[name] = np.abs(found[name]) + np.float32(0.5)
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Of all parameters, by their Flax names."""
    found = {
        "stem_conv/kernel": (3, 3, 3, 4),
        "classifier/linear/kernel": (16, CLASSES),
    }
    norms = {"stem_norm": 4, "last_norm": 16}
    for stage, width in enumerate((4, 8, 16)):
        for edge, size in (("1_0", 3), ("2_1", 1), ("3_2", 3)):
            name = f"stage{stage}_cell0/{edge}_nor_conv_{size}x{size}"
            found[f"{name}_conv/kernel"] = (size, size, width, width)
            norms[f"{name}_norm"] = width
    for block, width in ((0, 4), (1, 8)):
        name = f"reduction{block}"
        found[f"{name}/conv_a/kernel"] = (3, 3, width, 2 * width)
        found[f"{name}/conv_b/kernel"] = (3, 3, 2 * width, 2 * width)
        found[f"{name}/shortcut/kernel"] = (1, 1, width, 2 * width)
        norms |= {f"{name}/norm_a": 2 * width, f"{name}/norm_b": 2 * width}
    for name, width in norms.items():
        found |= {f"{name}/scale": (width,), f"{name}/bias": (width,)}
    return found | {"classifier/linear/bias": (CLASSES,)}
