"""Metrics as TensorBoard reads them."""

from collections.abc import Mapping
from pathlib import Path

EVENTS = "tensorboard"

_TAGS = {"test_": "test/", "": "train/"}


class Events:
    """Writes scalars beside a run's other metrics; a context."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens the event files.

        Args:
          folder: of the run.
          step: that training goes on from; what was written of later ones is hidden.
        """
        from tensorboardX import SummaryWriter  # only a run on disk needs it

        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def __enter__(self) -> "Events":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what is left."""
        self._writer.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each curve.

        Args:
          step: after how many steps.
          values: by name; those that begin with ``test_`` are grouped by themselves.
        """
        for name, value in values.items():
            prefix = next(p for p in _TAGS if name.startswith(p))
            self._writer.add_scalar(
                _TAGS[prefix] + name.removeprefix(prefix), value, step
            )
        self._writer.flush()
