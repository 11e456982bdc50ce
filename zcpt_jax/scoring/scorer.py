"""Many masks scored by one compiled function (:mod:`zcpt_jax.scoring._calls`).

What goes in are groups of masks (:mod:`zcpt_jax.scoring._groups`), which the devices
share.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zcpt_jax import lowering, sharding
from zcpt_jax.lowering import Lowering
from zcpt_jax.scoring import memory
from zcpt_jax.scoring._calls import (
    GIVEN,
    Inputs,
    Rows,
    Scored,
    groups_of_call,
    make_call,
)
from zcpt_jax.scoring._groups import choose_width, group_rows, shares
from zcpt_jax.scoring._pending import Pending
from zcpt_jax.types import ApplyFn, Batch, InputError, Masks, ScoreFn, Variables


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      name: what it scores.
      chunk: masks that it puts together.
      trace_seconds: what tracing took.
      compile_seconds: what the compiler took, or loading from its cache.
      bytes: of memory that it needs, 0 where the compiler does not say.
    """

    name: str
    chunk: int
    trace_seconds: float
    compile_seconds: float
    bytes: int


class Scorer:
    """Scores stacks of masks; compiles once and serves every later call.

    The score of a mask does not depend on what it is scored together with, nor on how
    many devices share the work: on CPU bit for bit, elsewhere to float32 rounding.

    Attributes:
      form: how operations are written.
      chunk_size: masks that a device puts together, None until the first call settles
        it.
      programs: what was compiled.
      processes: processes that share the masks.
      busy_seconds: for how long devices had something to do.
      on_chunk: called with the share of masks scored so far, in (0, 1].
    """

    def __init__(
        self,
        score_fn: ScoreFn,
        apply_fn: ApplyFn,
        *,
        form: Lowering | None = None,
        forward_only: bool = False,
        mesh: Mesh | None = None,
        inputs: Inputs = GIVEN,
        sizes: Sequence[int] = (),
        name: str = "scores",
    ) -> None:
        """Prepares scoring; nothing is compiled yet.

        Args:
          score_fn: a proxy, or any function with its signature.
          apply_fn: the network.
          form: how operations are written; by default as suits the devices. Its chunk
            is the number of masks put together; without one it is chosen, and made
            smaller where memory does not suffice.
          forward_only: whether ``score_fn`` takes no derivative.
          mesh: a row of devices that share the masks evenly; by default JAX's default
            device scores them all.
          inputs: how a call makes variables and minibatches.
          sizes: masks of each owner in a typical call; by default those of the first.
          name: what is scored, for reports.
        """
        self._mesh = None if mesh is None else sharding.local(mesh)
        self._place = sharding.places(mesh)
        self.processes = self._place.processes
        self.form = lowering.of_mesh(mesh) if form is None else form
        self._scored = Scored(score_fn, apply_fn, inputs, forward_only)
        self._sizes, self._name = sizes, name
        self.chunk_size = self.form.chunk
        self.programs: list[Program] = []
        self.busy_seconds = 0.0
        self.on_chunk: Callable[[float], None] = lambda share: None
        self._compiled: dict[Any, Callable[..., jax.Array]] = {}
        self._settled: set[Any] = set()
        self._lock = threading.Lock()
        self._held: tuple[Any, Any] = (None, None)

    @property
    def compilations(self) -> int:
        """How many functions were compiled."""
        return len(self.programs)

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling took."""
        return sum(p.trace_seconds + p.compile_seconds for p in self.programs)

    def __call__(
        self,
        variables: Variables,
        batches: Batch,
        masks: Masks,
        which: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores K masks.

        Args:
          variables: the network's variables.
          batches: one batch (``images [B, H, W, C]``) that all masks share, or, with
            ``which``, several (``images [M, B, H, W, C]``). Its key, if it has one,
            goes to the network as the random stream ``'noise'``.
          masks: stack of masks, every leaf ``[K, ...]``.
          which: int ``[K]``, the batch of each mask; ``masks`` may then be empty, to
            score one network on K batches.

        Returns:
          float32 ``[K]``, on the host; ``[K, M]`` if ``score_fn`` gives M numbers.

        Raises:
          InputError: if the leaves of ``masks`` differ in K, K is zero, or ``which``
            names a batch that is not there.
          MemoryError: if a single mask does not fit.
        """
        count = _stack_size(masks) if which is None else len(which)
        if which is None:
            batches = jax.tree.map(lambda leaf: leaf[None], batches)
            which = np.zeros(count, int)
        there = len(jax.tree.leaves(batches)[0])
        if count and not (which.min() >= 0 and which.max() < there):
            raise InputError(
                f"which must name batches from 0 to {there - 1}, got {which.min()} to "
                f"{which.max()}"
            )
        if self._held[0] is not variables:
            self._held = (variables, self.put(variables))
        resident = {"variables": self._held[1], "batches": self.put(batches)}
        one = np.zeros(count, int)
        return self.start(resident, Rows(masks, which, one, which)).result()

    def put(self, tree: Any) -> Any:
        """Arrays of this process, on each of its devices."""
        if self._mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def start(self, resident: Any, rows: Rows) -> Pending:
        """Begins to score; the host is free until the result is asked for.

        Args:
          resident: what :attr:`Inputs` read, on the devices (:meth:`put`).
          rows: at least one.

        Raises:
          MemoryError: if a single mask does not fit.
        """
        self.settle(resident, rows)
        return Pending(self, resident, rows)

    def prepare(self, resident: Any, rows: Rows) -> None:
        """Compiles what :meth:`start` would run, in whatever thread this is called.

        Args:
          resident: arrays, or their shapes.
          rows: as many as a group has, of any value.
        """
        self.settle(resident, rows)

    def settle(self, resident: Any, rows: Rows) -> None:
        """Compiles for these shapes, with fewer masks put together until it fits."""
        with self._lock:
            if self.chunk_size is None:
                self.chunk_size = self._widest(rows)
            shapes = _shapes((resident, jax.tree.map(lambda x: x[:1], rows.masks)))
            if (self.chunk_size, shapes) in self._settled:
                return
            while True:
                try:
                    args = self._example(resident, rows)
                    _, bytes_needed = self._compile(args)
                except jax.errors.JaxRuntimeError as error:
                    self.shrink(error, 0.5)
                    continue
                most = memory.limit(self._device)
                if most is None or bytes_needed <= most or self.chunk_size == 1:
                    break
                self._compiled.clear()
                self.shrink(None, most / bytes_needed)
            self._agree()
            self._settled.add((self.chunk_size, shapes))

    def _widest(self, rows: Rows) -> int:
        """Masks to put together: those that share what is decided."""
        if not (self.form.loops and self.form.groups and self._scored.forward_only):
            return 1
        sizes = self._sizes or np.unique(rows.owners, return_counts=True)[1].tolist()
        return choose_width(sizes, self._place.total, most=32)

    def _agree(self) -> None:
        """All processes put as many masks together as the one that takes fewest."""
        if self._place.processes > 1:
            found = multihost_utils.process_allgather(np.array(self.chunk_size))
            self.chunk_size = int(found.min())

    def shrink(self, error: BaseException | None, fraction: float) -> None:
        """Put fewer masks together, because of an error or a known size.

        Raises:
          MemoryError: if a single mask does not fit.
          BaseException: the error, if it does not come from a full memory.
        """
        if error is not None and not memory.is_exhausted(error):
            raise error
        if self.chunk_size == 1:
            raise MemoryError(
                "one mask and one batch do not fit into the device's memory; use a "
                "smaller batch or a smaller supernet"
            ) from error
        assert self.chunk_size is not None
        before = self.chunk_size
        fits = max(1, min(int(before * fraction), before - 1))
        parts = -(-before // fits)
        self.chunk_size = -(-before // parts)  # as many in each part

    @property
    def _device(self) -> Any:
        if self._mesh is None:
            return lowering.default_device()
        return self._mesh.devices.flat[0]

    @property
    def _groups(self) -> int:
        """Groups of a call and device."""
        assert self.chunk_size is not None
        return groups_of_call(self.form, self.chunk_size)

    def _example(self, resident: Any, rows: Rows) -> tuple[Any, ...]:
        """Arguments of a call, as far as their shapes."""
        assert self.chunk_size is not None
        slots = np.zeros((self._place.here * self._groups, self.chunk_size), int)
        return (resident, *self._slots(rows, slots, np.ones(self._place.here, int)))

    def _slots(self, rows: Rows, slots: np.ndarray, counts: np.ndarray) -> Any:
        """What a call scores, on the devices: each has its share."""
        host = (
            jax.tree.map(lambda leaf: np.asarray(leaf)[slots], rows.masks),
            rows.batches[slots].astype(np.int32),
            rows.weights[slots[:, 0]].astype(np.int32),
            counts.astype(np.int32),
        )
        if self._mesh is None:
            return jax.device_put(host)
        share = PartitionSpec(*self._mesh.axis_names)
        return jax.device_put(host, NamedSharding(self._mesh, share))

    def _compile(self, args: Any) -> tuple[Callable[..., jax.Array], int]:
        key = (self.chunk_size, _shapes(args))
        if key not in self._compiled:
            assert self.chunk_size is not None
            start = time.perf_counter()
            call = make_call(self._scored, self.form, self.chunk_size, self._mesh)
            lowered = call.lower(*args)
            traced = time.perf_counter()
            compiled = lowered.compile()
            done = time.perf_counter()
            self._compiled[key] = compiled
            program = Program(
                self._name,
                self.chunk_size,
                traced - start,
                done - traced,
                memory.needed(compiled),
            )
            self.programs.append(program)
            return compiled, program.bytes
        return self._compiled[key], 0

    def dispatch(self, resident: Any, rows: Rows) -> list[tuple[Any, np.ndarray]]:
        """Calls for all rows, and which row each of their scores is of."""
        assert self.chunk_size is not None
        groups = group_rows(rows.weights, rows.owners, self.chunk_size)
        parts = shares(len(groups), self._place.total)
        calls = []
        for start in range(0, len(parts[0]), self._groups):
            slots = np.zeros((self._place.total, self._groups, self.chunk_size), int)
            counts = np.zeros(self._place.total, int)
            for device, part in enumerate(parts):
                mine = part[start : start + self._groups]
                slots[device, : len(mine)] = groups[mine]
                counts[device] = len(mine)
            here, own = slots[self._place.devices], counts[self._place.devices]
            args = self._slots(rows, here.reshape(-1, self.chunk_size), own)
            compiled, _ = self._compile((resident, *args))
            unused = np.arange(self._groups)[None, :, None] >= own[:, None, None]
            calls.append((compiled(resident, *args), np.where(unused, -1, here)))
        return calls


def score_masks(
    score_fn: ScoreFn,
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    masks: Masks,
    *,
    chunk_size: int | None = None,
) -> np.ndarray:
    """Scores K masks on one batch: :class:`Scorer` for a single use.

    Keep a :class:`Scorer` to score again without compiling again.

    Args:
      score_fn: a proxy, or any function with its signature.
      apply_fn: the network.
      variables: its variables.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: stack of masks, every leaf ``[K, ...]``.
      chunk_size: masks put together; by default what suits the device.

    Returns:
      float32 ``[K]``, or ``[K, M]`` if ``score_fn`` gives M numbers.
    """
    form = lowering.default().replace(chunk=chunk_size)
    return Scorer(score_fn, apply_fn, form=form)(variables, batch, masks)


def _shapes(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _stack_size(masks: Masks) -> int:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(masks)}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(
            "masks must be a stack: every leaf [K, ...] with the same K of at least 1, "
            f"got leading sizes {sorted(sizes)}"
        )
    return sizes.pop()
