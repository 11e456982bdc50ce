"""Ending early, and cleanly, when the machine is to be taken away."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether this run is asked to end (SIGTERM); a context.

    Several processes agree on the step after which they end: JAX's coordination service
    takes the signal there.
    """

    def __init__(self) -> None:
        """Nothing is caught yet."""
        self._asked = False
        self._before: Any = None
        # Python takes signals in its main thread only.
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Preemption":
        """Catches the signal."""
        if jax.process_count() == 1 and self._main:
            self._before = signal.signal(signal.SIGTERM, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        """What was done about the signal before is done again."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def reached(self, step: int) -> bool:
        """Whether to end after this step; every process asks after every step."""
        if jax.process_count() == 1:
            return self._asked
        return bool(multihost_utils.reached_preemption_sync_point(step))
