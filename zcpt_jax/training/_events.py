"""Metrics in TensorBoard's format."""

from collections.abc import Mapping
from pathlib import Path

EVENTS = "tensorboard"

_TAGS = {"test_": "test/", "": "train/"}


class Events:
    """Context manager that writes a run's scalars to TensorBoard event files."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the event files.

        Args:
          folder: folder of the run.
          step: step from which training resumes; points of later steps are hidden.
        """
        from tensorboardX import SummaryWriter  # Needed only for runs with a folder.

        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def __enter__(self) -> "Events":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write pending points and close the files."""
        self._writer.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve.

        Args:
          step: number of completed steps.
          values: scalars by name; names that begin with ``test_`` form a separate
            group.
        """
        for name, value in values.items():
            prefix = next(p for p in _TAGS if name.startswith(p))
            self._writer.add_scalar(
                _TAGS[prefix] + name.removeprefix(prefix), value, step
            )
        self._writer.flush()
