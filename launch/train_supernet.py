"""Train a supernet: ``python launch/train_supernet.py --flagfile=...``.

Writes config.json, metrics.jsonl and checkpoints/ to a folder that ``--supernet`` of
search.py takes. Run the same command again to resume.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from zcpt_jax.data import load_dataset  # noqa: E402
from zcpt_jax.training import Preempted  # noqa: E402
from zcpt_jax.training.supernet import (  # noqa: E402
    SupernetConfig,
    Trained,
    mixture,
    read_metrics,
    train_supernet,
)
from zcpt_jax.types import Space  # noqa: E402

from . import _command, _flags  # noqa: E402
from ._accelerators import open_devices, runs_on  # noqa: E402

_SPACE, _OPTIONS = _flags.text("space"), _flags.space_options()
_DATASET, _DATA_DIR = _flags.text("dataset"), _flags.text("data_dir")
_IMAGE_SIZE = _flags.integer("image_size")
_BATCH_SIZE, _SEED = _flags.setting("batch_size"), _flags.setting("seed")
_EPOCHS, _MAX_STEPS = _flags.integer("epochs"), _flags.integer("max_steps")
_SAVE_EVERY = _flags.integer("save_every")
_OUTPUT, _OVERWRITE = _flags.text("output_dir"), _flags.overwrite()
flags.adopt_module_key_flags(_flags)
flags.adopt_module_key_flags(_command)


def main(argv: list[str]) -> None:
    """Train the supernet that the flags specify."""
    _command.no_arguments(argv)
    open_devices()
    space, space_file = _command.load_space(_SPACE.value, _OPTIONS.value)
    given = _flags.given(_BATCH_SIZE, _EPOCHS, _SAVE_EVERY)
    config = _flags.checked(
        SupernetConfig(seed=_SEED.value, max_steps=_MAX_STEPS.value, **given)
    )
    dataset = load_dataset(
        _DATASET.value, _DATA_DIR.value, _IMAGE_SIZE.value, whole=True
    )
    output = _OUTPUT.value or _command.default_output(
        "supernet", space.name, dataset.name, config.seed
    )
    _command.print_start(runs_on(None), dataset)  # Training uses one device.
    try:
        with _command.Bar(on_step=lambda: None) as bar:
            trained = train_supernet(
                space,
                dataset,
                config,
                checkpoints=output,
                progress=bar.update,
                environment=_command.environment(),
                overwrite=_OVERWRITE.value,
                space_file=space_file,
            )
    except Preempted as error:
        print(f"{error}; run the same command again to go on", file=sys.stderr)
        sys.exit(128 + 15)
    print(_summary(space, trained, output))


def _summary(space: Space, trained: Trained, output: str) -> str:
    lines = [f"trained     the supernet of {space.name}, in {output}"]
    metrics = read_metrics(output)
    if metrics:
        last = metrics[-1]
        lines.append(
            f"last step   {last['step']}: loss {last['loss']:.3f}, accuracy "
            f"{last['accuracy']:.1%} (weights), {last['alphas_accuracy']:.1%} (alphas)"
        )
    lines += [f"{edge:11} {kept}" for edge, kept in _strongest(space, trained)]
    lines.append(f"search it   with --operation_score=darts-pt --supernet={output}")
    return "\n".join(lines)


def _strongest(space: Space, trained: Trained) -> Iterator[tuple[str, str]]:
    """Yield decisions whose candidates each have an alpha, and the largest alphas."""
    weights = mixture(trained.alphas, space.init_masks())
    for decision in space.all_decisions():
        sizes = sum(
            region.reshape(len(region), -1).sum(axis=1)
            for region in decision.regions.values()
        )
        if np.any(sizes != 1):
            continue
        own = sum(
            (np.asarray(weights[group]) * region).reshape(len(region), -1).sum(axis=1)
            for group, region in decision.regions.items()
        )
        best = np.argsort(-np.asarray(own), kind="stable")[: decision.keep]
        names = [f"{decision.candidates[i]} {np.asarray(own)[i]:.3f}" for i in best]
        yield decision.name, ", ".join(names)


if __name__ == "__main__":
    _command.run(main)
