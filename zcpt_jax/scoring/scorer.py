"""Scoring of many masks by one compiled function (:mod:`zcpt_jax.scoring._calls`).

The function takes groups of masks (:mod:`zcpt_jax.scoring._groups`), which the devices
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
from zcpt_jax.scoring._groups import choose_width, group_rows, split_groups
from zcpt_jax.scoring._pending import Pending
from zcpt_jax.types import ApplyFn, Batch, InputError, Masks, ScoreFn, Variables


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      name: name of what it scores.
      chunk: number of masks that it scores together.
      trace_seconds: seconds of tracing.
      compile_seconds: seconds of compiling, or of loading from the compilation cache.
      bytes: bytes of memory that it needs, 0 if the compiler does not report it.
    """

    name: str
    chunk: int
    trace_seconds: float
    compile_seconds: float
    bytes: int


class Scorer:
    """Scorer of stacks of masks that compiles once and reuses the program.

    The score of a mask does not depend on the masks scored together with it or on the
    number of devices: bit for bit on CPU, to float32 rounding elsewhere.

    Attributes:
      form: lowering of operations.
      chunk_size: number of masks that a device scores together, None until the first
        call determines it.
      programs: compiled programs.
      processes: number of processes that share the masks.
      busy_seconds: seconds during which devices had work.
      on_chunk: called with the fraction of masks scored so far, in (0, 1].
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
        """Prepare scoring; nothing is compiled yet.

        Args:
          score_fn: a proxy, or any function with its signature.
          apply_fn: the network.
          form: lowering of operations; by default as suits the devices. Its chunk is
            the number of masks scored together; None chooses it. It is reduced if
            memory runs out.
          forward_only: whether ``score_fn`` takes no derivative.
          mesh: 1-D mesh of devices that share the masks evenly; None uses JAX's default
            device.
          inputs: functions that make variables and minibatches.
          sizes: number of masks of each owner in a typical call; by default as in the
            first call.
          name: name of what is scored, for reports.
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
        """Number of compiled functions."""
        return len(self.programs)

    @property
    def compile_seconds(self) -> float:
        """Seconds of tracing and compiling."""
        return sum(p.trace_seconds + p.compile_seconds for p in self.programs)

    def __call__(
        self,
        variables: Variables,
        batches: Batch,
        masks: Masks,
        which: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score K masks.

        Args:
          variables: variables of the network.
          batches: one batch (``images [B, H, W, C]``) that all masks share, or, with
            ``which``, several (``images [M, B, H, W, C]``). If it has a key, the
            network receives it as the random stream ``'noise'``.
          masks: stack of masks, every leaf ``[K, ...]``.
          which: int ``[K]``, index of each mask's batch; ``masks`` may then be empty,
            to score one network on K batches.

        Returns:
          float32 ``[K]``, on the host; ``[K, M]`` if ``score_fn`` returns M numbers.

        Raises:
          InputError: if the leaves of ``masks`` differ in K, K is zero, or ``which``
            names a batch that does not exist.
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
        """Copy arrays to each device of this process."""
        if self._mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def start(self, resident: Any, rows: Rows) -> Pending:
        """Start scoring; the host is free until it asks for the result.

        Args:
          resident: data that the :class:`Inputs` read, on the devices (:meth:`put`).
          rows: at least one mask to score.

        Raises:
          MemoryError: if a single mask does not fit.
        """
        self.fit(resident, rows)
        return Pending(self, resident, rows)

    def prepare(self, resident: Any, rows: Rows) -> None:
        """Compile what :meth:`start` would run; can be called from any thread.

        Args:
          resident: arrays, or their shapes.
          rows: as many masks as a group has, of any value.
        """
        self.fit(resident, rows)

    def fit(self, resident: Any, rows: Rows) -> None:
        """Compile for these shapes, scoring fewer masks together until it fits."""
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
        """Return the number of masks to score together: those that share decisions."""
        if not (self.form.loops and self.form.groups and self._scored.forward_only):
            return 1
        sizes = self._sizes or np.unique(rows.owners, return_counts=True)[1].tolist()
        return choose_width(sizes, self._place.total, most=32)

    def _agree(self) -> None:
        """Set the chunk size of all processes to the smallest among them."""
        if self._place.processes > 1:
            found = multihost_utils.process_allgather(np.array(self.chunk_size))
            self.chunk_size = int(found.min())

    def shrink(self, error: BaseException | None, fraction: float) -> None:
        """Score fewer masks together, because of an error or a known size.

        Raises:
          MemoryError: if a single mask does not fit.
          BaseException: the error, if it is not an out-of-memory error.
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
        self.chunk_size = -(-before // parts)  # equal parts

    @property
    def _device(self) -> Any:
        if self._mesh is None:
            return lowering.default_device()
        return self._mesh.devices.flat[0]

    @property
    def _groups(self) -> int:
        """Number of groups per call and device."""
        assert self.chunk_size is not None
        return groups_of_call(self.form, self.chunk_size)

    def _example(self, resident: Any, rows: Rows) -> tuple[Any, ...]:
        """Return arguments of a call with the right shapes."""
        assert self.chunk_size is not None
        slots = np.zeros((self._place.here * self._groups, self.chunk_size), int)
        return (resident, *self._slots(rows, slots, np.ones(self._place.here, int)))

    def _slots(self, rows: Rows, slots: np.ndarray, counts: np.ndarray) -> Any:
        """Put what a call scores on the devices, each with its part."""
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
        """Start the calls for all rows; return them with the row of each score."""
        assert self.chunk_size is not None
        groups = group_rows(rows.weights, rows.owners, self.chunk_size)
        parts = split_groups(len(groups), self._place.total)
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
    """Score K masks on one batch with a :class:`Scorer` for a single use.

    Keep a :class:`Scorer` to score again without recompiling.

    Args:
      score_fn: a proxy, or any function with its signature.
      apply_fn: the network.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: stack of masks, every leaf ``[K, ...]``.
      chunk_size: number of masks scored together; by default as suits the device.

    Returns:
      float32 ``[K]``, or ``[K, M]`` if ``score_fn`` returns M numbers.
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
