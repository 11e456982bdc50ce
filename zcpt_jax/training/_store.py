"""Checkpoints of a final training, written and read by the first process."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from zcpt_jax import sharding
from zcpt_jax.io.checkpoints import Kind, TrainingFolder
from zcpt_jax.training._events import Events
from zcpt_jax.training._step import TrainState

KIND = Kind("a retrained network", "launch/retrain.py")


@dataclass(frozen=True)
class Saving:
    """Settings of what a training writes to disk; they do not affect the result.

    Attributes:
      folder: folder of the run.
      settings: everything that determines the result, including the recipe; a folder
        made with other settings is refused.
      environment: versions, command and the like, stored beside the settings.
      overwrite: whether to start again, whatever is in the folder.
      save_every: number of steps between additional checkpoints; None for only the one
        after each epoch.
      log_every: number of steps between lines of metrics.
      keep: number of newest checkpoints to keep besides that of the best test.
    """

    folder: Path
    settings: Mapping[str, Any]
    environment: Mapping[str, Any] | None = None
    overwrite: bool = False
    save_every: int | None = None
    log_every: int = 50
    keep: int = 2


class Store:
    """Context manager for a run's folder, used by every process.

    Only the first process writes and reads, and it sends what it read to the others, so
    machines need no shared disk.
    """

    def __init__(self, saving: Saving, mesh: Mesh, steps: int) -> None:
        """Create the folder, or open it to resume.

        Args:
          saving: settings of what is written and where.
          mesh: device mesh of the states.
          steps: number of steps of the whole training.

        Raises:
          InputError: as for :class:`zcpt_jax.io.checkpoints.TrainingFolder`.
        """
        self._mesh, self._path = mesh, saving.folder
        self._events: Events | None = None
        self._folder: TrainingFolder | None = None
        self._opened = contextlib.ExitStack()
        if jax.process_index() == 0:
            self._folder = self._opened.enter_context(
                TrainingFolder(
                    saving.folder,
                    saving.settings,
                    kind=KIND,
                    steps=steps,
                    keep=saving.keep,
                    environment=saving.environment,
                    overwrite=saving.overwrite,
                )
            )

    def __enter__(self) -> "Store":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until everything is written."""
        self._opened.close()

    def restore(self, like: TrainState) -> tuple[int, TrainState]:
        """Read the newest intact checkpoint.

        Args:
          like: initial state, returned if there is no checkpoint.

        Returns:
          Number of completed steps, and the state on the host.
        """
        host = jax.tree.map(np.asarray, like)
        done = 0
        if self._folder is not None:
            found = self._folder.restore(_items(host))
            if found is not None:
                done, items = found
                host = TrainState(**items["network"], **items["training"])
            self._events = self._opened.enter_context(Events(self._path, done))
        if jax.process_count() > 1:
            done = int(multihost_utils.broadcast_one_to_all(np.int32(done)))
            host = multihost_utils.broadcast_one_to_all(host)
        return done, jax.tree.map(np.asarray, host)

    def save(self, step: int, state: TrainState, score: float | None) -> None:
        """Start to write a checkpoint.

        Args:
          step: number of completed steps.
          state: state on the devices; it may be donated afterwards.
          score: test result, higher is better; None for a state that was not tested.
        """
        host = self.fetch(state)
        if self._folder is not None:
            self._folder.save(step, _items(host), score)

    def fetch(self, tree: Any) -> Any:
        """Copy a tree of device arrays to the host, whole, in every process."""
        # A view of the device's memory would change after donation, so copy.
        whole = sharding.replicate(self._mesh, tree)
        return jax.tree.map(lambda leaf: np.array(leaf), whole)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line of metrics and a point to each curve."""
        if self._folder is not None and self._events is not None:
            self._folder.log({"step": step, **values})
            self._events.write(step, values)


def _items(state: TrainState) -> dict[str, Any]:
    """Split a state into items needed for testing and items only for training."""
    network = {name: getattr(state, name) for name in ("params", "batch_stats", "ema")}
    training = {"optimiser": state.optimiser, "seen": state.seen}
    return {"network": network, "training": training}
