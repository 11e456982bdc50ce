"""Pending scores on devices, retried with fewer masks together if memory runs out."""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from zcpt_jax.scoring import memory
from zcpt_jax.scoring._calls import Rows


class Dispatcher(Protocol):
    """The part of a scorer that pending scores need."""

    processes: int
    busy_seconds: float
    on_chunk: Callable[[float], None]

    def fit(self, resident: Any, rows: Rows) -> None:
        """Compile for these shapes."""
        ...

    def shrink(self, error: BaseException | None, fraction: float) -> None:
        """Score fewer masks together."""
        ...

    def dispatch(self, resident: Any, rows: Rows) -> list[tuple[Any, np.ndarray]]:
        """Start the calls for all rows."""
        ...


class Pending:
    """Scores that devices are computing."""

    def __init__(self, scorer: Dispatcher, resident: Any, rows: Rows) -> None:
        """Start the computation."""
        self._scorer, self._resident, self._rows = scorer, resident, rows
        self._error: BaseException | None = None
        self._calls: list[tuple[Any, np.ndarray]] = []
        self._begin()

    def _begin(self) -> None:
        self._started = time.perf_counter()
        self._error = None
        try:
            self._calls = self._scorer.dispatch(self._resident, self._rows)
        except jax.errors.JaxRuntimeError as error:
            self._error = error
        self._ended = self._started
        self._watch = threading.Thread(target=self._note_the_end, daemon=True)
        self._watch.start()

    def _note_the_end(self) -> None:
        """Note the end in a thread, as the host's work may outlast the devices'."""
        try:
            for out, _ in self._calls:
                out.block_until_ready()
        except jax.errors.JaxRuntimeError:
            pass  # result() raises this error
        self._ended = time.perf_counter()

    def result(self) -> np.ndarray:
        """Return the scores on the host: float32 ``[R]``, or ``[R, M]``.

        Raises:
          MemoryError: if a single mask does not fit.
        """
        while True:
            scores, there = self._read()
            error = _agreed(self._error, self._scorer.processes)
            if error is None:
                break
            self._scorer.shrink(error, 0.5)
            self._scorer.fit(self._resident, self._rows)
            self._begin()
        self._watch.join()
        self._scorer.busy_seconds += self._ended - self._started
        if self._scorer.processes > 1:
            found, known = multihost_utils.process_allgather((scores, there))
            scores = np.asarray(found)[known.argmax(axis=0), np.arange(len(there))]
        return scores

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scores ``[R]`` or ``[R, M]``, and which of them this process has."""
        there = np.zeros(len(self._rows.owners), bool)
        scores = np.zeros(len(there), np.float32)
        try:
            for number, (out, rows) in enumerate(self._calls, 1):
                part = jax.device_get(out).reshape(*rows.shape, *out.shape[2:])
                if number == 1:
                    scores = np.zeros((len(there), *out.shape[2:]), np.float32)
                scores[rows[rows >= 0]] = part[rows >= 0]
                there[rows[rows >= 0]] = True
                self._scorer.on_chunk(number / len(self._calls))
        except jax.errors.JaxRuntimeError as error:
            self._error = error
        return scores, there


_FINE, _TOO_LARGE, _FAILED = range(3)


def _agreed(error: BaseException | None, processes: int) -> BaseException | None:
    """Return the error after which all processes retry, or None.

    A fatal error in one process raises in all. All processes call this at the same
    points, so that none waits for another forever.
    """
    status = _FINE
    if error is not None:
        status = _TOO_LARGE if memory.is_exhausted(error) else _FAILED
    worst = status
    if processes > 1:
        worst = int(multihost_utils.process_allgather(np.int32(status)).max())
    if status == _FAILED and error is not None:
        raise error
    if worst == _FAILED:
        raise jax.errors.JaxRuntimeError("INTERNAL: another process failed")
    if worst == _TOO_LARGE and error is None:
        return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: in another process")
    return error
