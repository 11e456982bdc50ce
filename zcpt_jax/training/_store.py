"""The states of a final training: written by the first process, read for all."""

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
    """What a training leaves on disk, and how often. Decides nothing of the result.

    Attributes:
      folder: folder of the run.
      settings: everything that decides the result, the recipe included; a folder made
        with others is refused.
      environment: versions, command and the like, kept beside the settings.
      overwrite: whether to start anew whatever is in the folder.
      save_every: steps between checkpoints besides the one after each epoch; None for
        those alone.
      log_every: steps between lines of metrics.
      keep: newest checkpoints that are kept, besides that of the best test.
    """

    folder: Path
    settings: Mapping[str, Any]
    environment: Mapping[str, Any] | None = None
    overwrite: bool = False
    save_every: int | None = None
    log_every: int = 50
    keep: int = 2


class Store:
    """A run's folder as every process sees it; a context.

    The first process alone writes and reads, so that machines need share no disk, and
    hands what it read to the others.
    """

    def __init__(self, saving: Saving, mesh: Mesh, steps: int) -> None:
        """Create the folder, or open it to go on.

        Args:
          saving: what is saved, and where.
          mesh: the devices that states lie on.
          steps: number of steps of the whole training.

        Raises:
          InputError: as :class:`zcpt_jax.io.checkpoints.TrainingFolder`.
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
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends once everything is written."""
        self._opened.close()

    def restore(self, like: TrainState) -> tuple[int, TrainState]:
        """The newest good state, on the host, and the steps behind it.

        Args:
          like: the state that training begins with, returned if there is none.
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
        """Begins to write a state.

        Args:
          step: the number of steps behind it.
          state: on the devices; it may be donated afterwards.
          score: higher is better; None for a state that was not tested.
        """
        host = self.fetch(state)
        if self._folder is not None:
            self._folder.save(step, _items(host), score)

    def fetch(self, tree: Any) -> Any:
        """A tree of the devices' arrays on the host, whole, in every process."""
        # A copy: what shares the device's memory changes once it is donated.
        whole = sharding.replicate(self._mesh, tree)
        return jax.tree.map(lambda leaf: np.array(leaf), whole)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line of metrics and a point to each curve."""
        if self._folder is not None and self._events is not None:
            self._folder.log({"step": step, **values})
            self._events.write(step, values)


def _items(state: TrainState) -> dict[str, Any]:
    """What testing needs of a state, and apart from it what only training needs."""
    network = {name: getattr(state, name) for name in ("params", "batch_stats", "ema")}
    training = {"optimiser": state.optimiser, "seen": state.seen}
    return {"network": network, "training": training}
