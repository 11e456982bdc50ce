"""Input for large datasets: workers decode and augment images on the host.

This avoids the requirement grain: here, too, the seed determines the order of images
for any number of workers, and iteration can start at any step.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import NamedTuple

import jax
import numpy as np

from zcpt_jax.data import Splits
from zcpt_jax.training._augment import augment, augmentation_of, normalise
from zcpt_jax.training._input import Feed, Inputs, Placement, SplitsInput, one_ahead
from zcpt_jax.training._order import (
    Rows,
    ordered_rows,
    share_of,
    shuffled_rows,
)
from zcpt_jax.types import InputError

# Stream of random numbers of the augmentation, distinct from that of the order.
_AUGMENT_STREAM = 14
_LARGEST_JOB = 16

THREADS = "zcpt_jax_images"
"""Prefix of the names of worker threads."""


class Job(NamedTuple):
    """Images for a worker to read.

    Attributes:
      rows: row indices in the dataset.
      seed: seed of the augmentation, None to read test images.
      epoch: index of the epoch, which changes the augmentation of an image.
    """

    rows: np.ndarray
    seed: int | None
    epoch: int


class HostData(SplitsInput):
    """Training input with images decoded when needed; see :class:`Input`.

    The seed, the epoch and the row determine an image's augmentation, independent of
    workers, batches and processes. Every process reads its part of a batch.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        cutout: int = 0,
        placement: Placement | None = None,
        workers: int | None = None,
        processes: bool = False,
        ahead: int = 3,
    ) -> None:
        """Store the settings; workers start with the first batch.

        Args:
          splits: training and test images.
          cutout: side in pixels of the square cut out on the device, 0 for none.
          placement: placement of batches; one device by default.
          workers: number of workers that decode; by default one per core.
          processes: whether workers are processes rather than threads. Threads start at
            once and share memory, but the parts of Pillow that hold Python's lock run
            one at a time. Processes need a main module that does not run on import.
          ahead: number of batches that workers may prefetch, which bounds the memory.
        """
        super().__init__(splits, placement)
        self._augmentation = augmentation_of(splits.train, cutout, cropped=True)
        self._workers = workers or os.cpu_count() or 1
        self._processes, self._ahead = processes, ahead
        self._pool: Executor | None = None

    @property
    def resident(self) -> dict[str, jax.Array]:
        """Return an empty tree, since no images stay on the devices."""
        return {}

    def train_batches(
        self, seed: int, batch_size: int, start: int = 0
    ) -> Iterator[Feed]:
        """Iterate over shuffled batches without end; ``data`` is augmented, uint8."""
        rows = shuffled_rows(seed, start, self.num_images, batch_size)
        return self._feeds(rows, seed, batch_size)

    def test_batches(self, batch_size: int) -> Iterator[Feed]:
        """Iterate over all test images in order; ``data`` is uint8 images."""
        return self._feeds(
            ordered_rows(self.num_test_images, batch_size), None, batch_size
        )

    def train_inputs(
        self, resident: dict[str, jax.Array], feed: Feed, key: jax.Array
    ) -> Inputs:
        """Normalise and cut out images; a pure function."""
        del resident
        images = augment(key, feed.data, self._augmentation)
        return Inputs(self._placement.keep(images), feed.labels, feed.weights)

    def test_inputs(self, resident: dict[str, jax.Array], feed: Feed) -> Inputs:
        """Normalise images; a pure function."""
        del resident
        images = normalise(feed.data, self._augmentation)
        return Inputs(self._placement.keep(images), feed.labels, feed.weights)

    def close(self) -> None:
        """Stop the workers after their current item."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __exit__(self, *_: object) -> None:
        """Stop the workers."""
        self.close()

    def host_batches(
        self, batches: Iterator[Rows], seed: int | None, process: int, processes: int
    ) -> Generator[Feed]:
        """Read one process's part of each batch to NumPy arrays.

        Args:
          batches: global batches.
          seed: seed of the augmentation, None to read test images.
          process: index of the process, from 0.
          processes: number of processes that share a batch.

        Raises:
          InputError: if an image is damaged, or a worker process was killed.
        """
        waiting: deque[tuple[Rows, list[Future[Feed]]]] = deque()
        try:
            for batch in batches:
                share = share_of(batch, process, processes)
                waiting.append((share, self._begin(share, seed)))
                if len(waiting) > self._ahead:
                    yield _collect(*waiting[0])
                    waiting.popleft()
            while waiting:
                yield _collect(*waiting[0])
                waiting.popleft()
        except BrokenExecutor as error:
            raise InputError(
                "a process that decodes images was killed, perhaps for lack of memory; "
                f"take fewer than {self._workers} workers, or threads"
            ) from error
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()

    def _feeds(
        self, batches: Iterator[Rows], seed: int | None, batch_size: int
    ) -> Iterator[Feed]:
        process, processes = jax.process_index(), jax.process_count()
        self._placement.check(batch_size, processes)
        shares = self.host_batches(batches, seed, process, processes)

        def feeds() -> Generator[Feed]:
            for share in shares:
                yield self._placement.deal(share, batch_size)

        return one_ahead(feeds())

    def _begin(self, share: Rows, seed: int | None) -> list["Future[Feed]"]:
        """Distribute the images of a batch over several workers."""
        count = len(share.rows)
        largest = max(1, min(_LARGEST_JOB, count // (2 * self._workers)))
        parts = np.array_split(share.rows, -(-count // largest))
        return [self._submit(Job(part, seed, share.epoch)) for part in parts]

    def _submit(self, job: Job) -> "Future[Feed]":
        if self._processes:
            return self._executor().submit(_read_adopted, job)
        return self._executor().submit(read, self._splits, job)

    def _executor(self) -> Executor:
        if self._pool is None and self._processes:
            # JAX has threads, so a forked process could inherit locks that are held.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._workers, context, initializer=_adopt, initargs=(self._splits,)
            )
        elif self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, THREADS)
        return self._pool


def read(splits: Splits, job: Job) -> Feed:
    """Read the images of a job, and augment training images.

    Returns:
      Images uint8 ``[n, H, W, C]``, labels, and weights of 1.

    Raises:
      InputError: if an image is damaged.
    """
    dataset = splits.test if job.seed is None else splits.train
    images = np.empty((len(job.rows), *dataset.image_shape), np.uint8)
    labels = np.empty(len(job.rows), np.int32)
    for place, row in enumerate(job.rows.tolist()):
        image, labels[place] = dataset.source.read(row)
        if job.seed is None:
            images[place] = dataset.augment.plain(image)
        else:
            rng = np.random.default_rng([job.seed, _AUGMENT_STREAM, job.epoch, row])
            images[place] = dataset.augment(rng, image)
    return Feed(images, labels, np.ones(len(job.rows), np.float32))


def _collect(share: Rows, futures: list["Future[Feed]"]) -> Feed:
    parts = [future.result() for future in futures]
    images, labels = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return Feed(images, labels, share.weights)


# Splits of a worker process, stored once rather than sent with each job.
_adopted: Splits | None = None


def _adopt(splits: Splits) -> None:
    global _adopted
    _adopted = splits


def _read_adopted(job: Job) -> Feed:
    assert _adopted is not None
    return read(_adopted, job)
