"""Clean early end of a run whose machine is about to be taken away."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to end early and has saved a checkpoint."""


class Preemption:
    """Context manager that detects a request to end this run (SIGTERM).

    With several processes, JAX's coordination service receives the signal, so that all
    end after the same step.
    """

    def __init__(self) -> None:
        """Prepare without installing the handler."""
        self._asked = False
        self._before: Any = None
        # Python handles signals in its main thread only.
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Preemption":
        """Install the SIGTERM handler."""
        if jax.process_count() == 1 and self._main:
            self._before = signal.signal(signal.SIGTERM, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous SIGTERM handler."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def reached(self, step: int) -> bool:
        """Return whether to end after this step; call it in every process and step."""
        if jax.process_count() == 1:
            return self._asked
        return bool(multihost_utils.reached_preemption_sync_point(step))
