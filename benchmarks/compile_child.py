"""The process of one compile check: ``python -m benchmarks.compile_child CHECK.json``.

The compiler may abort the process that it runs in, and one process at a time may load
libtpu, so every check has a process of its own.
"""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import topologies
from benchmarks.compile_list import CLASSES, Check
from zcpt_jax import get_proxy, get_space, lowering
from zcpt_jax.data import CropAndFlip, Dataset
from zcpt_jax.nn import layers
from zcpt_jax.scoring import Evaluator, Execution, ScoringConfig, memory
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.training import (
    Inputs,
    Recipe,
    initial_state,
    make_optimiser,
    make_train_step,
)
from zcpt_jax.training.supernet import SupernetConfig
from zcpt_jax.training.supernet._step import make_optimisers, make_state, make_step
from zcpt_jax.types import AUXILIARY, Batch

_IMAGES = 50_000
_STEPS = 500
"""Steps of an epoch; only the schedule sees it."""

_TRANSFERS = re.compile(
    r"[\])}] (?:infeed|outfeed|send|recv)\(|"  # after the shape of the result
    r'custom_call_target="[^"]*(?:[Cc]allback|[Pp]ython|[Hh]ost)[^"]*"'
)
_CYCLES = re.compile(r'"?estimated_cycles"?:"?(\d+)')


class _Images:
    """As many images as CIFAR-10 has, none of which is ever read."""

    def __len__(self) -> int:
        return _IMAGES

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Refuses: compiling needs shapes only."""
        raise NotImplementedError(f"image {index} is described by its shape only")


def _dataset(size: int) -> Dataset:
    middle = (0.5, 0.5, 0.5)
    augment = CropAndFlip(size)
    return Dataset("described", _Images(), CLASSES, size, middle, middle, augment)


def answer(file: Path) -> None:
    """Read the check, compile, and write the answer beside the file."""
    check = Check(**json.loads(file.read_text()))
    chip = topologies.CHIPS[check.chip]
    if check.bytes_limit is not None:
        chip = dataclasses.replace(chip, memory=check.bytes_limit)
    if chip.kind == "tpu":
        topologies.compile_fast()
    found = _KINDS[check.kind](check, chip)
    file.with_suffix(".answer").write_text(json.dumps(found))


def _compile_scores(check: Check, chip: topologies.Chip) -> dict[str, Any]:
    """Compile a search's program as :meth:`Evaluator.prepare` does."""
    mesh = chip.mesh()
    evaluator = Evaluator(
        get_space(check.space, **check.options),
        get_proxy(check.proxy),
        _dataset(check.image_size),
        ScoringConfig(batch_size=check.batch_size),
        together=check.proposals,
        execution=Execution(mesh=mesh),
    )
    networks = {"supernet": evaluator._supernet()}
    if evaluator._masked is not None:
        networks["networks"] = evaluator._masked_network()
    with _described(mesh, chip.memory):
        evaluator._compile_ahead(networks[check.module])
    scorer = networks[check.module].scorer
    (compiled,) = scorer._compiled.values()
    return {
        **_examine(compiled, chip, masks=scorer.chunk_size or 1),
        "trace_seconds": sum(p.trace_seconds for p in scorer.programs),
        "compile_seconds": sum(p.compile_seconds for p in scorer.programs),
        "chunk": scorer.chunk_size,
        "tried": [program.chunk for program in scorer.programs],
        "programs": len({id(network.scorer) for network in networks.values()}),
    }


@contextmanager
def _described(mesh: Mesh, bytes_limit: int) -> Iterator[None]:
    """Within, scorers compile from shapes, for devices with so much memory.

    Args:
      mesh: the described devices, which hold no arrays.
      bytes_limit: bytes that JAX could allocate on one of them.
    """
    share = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    on_devices = Scorer._slots

    def slots(scorer: Scorer, *arguments: Any) -> Any:
        mesh, scorer._mesh = scorer._mesh, None  # so that they stay on the host
        try:
            return _shapes(on_devices(scorer, *arguments), share)
        finally:
            scorer._mesh = mesh

    with (
        mock.patch.object(Scorer, "_slots", slots),
        mock.patch.object(memory, "limit", lambda device: _usable(bytes_limit)),
    ):
        yield


def _usable(bytes_limit: int) -> int:
    """Bytes that one program may need where JAX can allocate ``bytes_limit``."""
    return int(memory._FRACTION * bytes_limit)


def _compile_training(check: Check, chip: topologies.Chip) -> dict[str, Any]:
    """Compile one step of the final trainer."""
    space = get_space(check.space, **check.options)
    genotype = space.published().get(check.genotype, check.genotype)
    auxiliary = check.space.startswith("darts")
    module = space.evaluation_network(genotype, CLASSES, auxiliary=auxiliary)
    recipe = Recipe(
        batch_size=check.batch_size,
        auxiliary=0.4 if auxiliary else 0.0,
        drop_path=0.2 if auxiliary else 0.0,
    )
    optimiser = make_optimiser(recipe, _STEPS)
    size = check.image_size

    def initial() -> Any:
        images = jnp.zeros((2, size, size, 3))
        variables = dict(module.init(jax.random.key(0), images))
        variables.pop(AUXILIARY, None)
        return initial_state(variables, optimiser, recipe)

    count = check.batch_size
    batch = Inputs(
        jnp.zeros((count, size, size, 3)),
        jnp.zeros(count, jnp.int32),
        jnp.zeros(count),
    )
    step = make_train_step(module, recipe, optimiser, _STEPS)
    arguments = (initial, np.int32(0), batch, jax.random.key(0))
    return _compile_step(jax.jit(step, donate_argnums=0), arguments, chip)


def _compile_supernet_training(check: Check, chip: topologies.Chip) -> dict[str, Any]:
    """Compile one step that trains a supernet's alphas and weights."""
    space = get_space(check.space, **check.options)
    module = space.supernet(CLASSES)
    config = SupernetConfig(batch_size=check.batch_size)
    optimisers = make_optimisers(config, _STEPS)
    shape = (check.image_size, check.image_size, 3)

    def initial() -> Any:
        return make_state(space, module, shape, optimisers, config)

    count = check.batch_size
    batch = Batch(jnp.zeros((count, *shape)), jnp.zeros(count, jnp.int32))
    step = make_step(module.apply, space.init_masks(), optimisers, config.seed)
    return _compile_step(step, (initial, np.int32(0), batch, batch), chip)


def _compile_step(step: Any, arguments: Any, chip: topologies.Chip) -> dict[str, Any]:
    """Compile a training step as it is written for the chip.

    Args:
      step: the function, within ``jax.jit``.
      arguments: its arguments; the first is a function that makes the state.
      chip: the chip.
    """
    initial, *others = arguments
    mesh = chip.mesh("batch")
    everywhere = NamedSharding(mesh, PartitionSpec())
    start = time.perf_counter()
    form = lowering.of_mesh(mesh).replace(precision="default")  # the trainers' own
    with lowering.using(form):
        shapes = _shapes((jax.eval_shape(initial), *others), everywhere)
        lowered = step.lower(*shapes)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    found = _examine(compiled, chip, masks=None)
    return {
        **found,
        "trace_seconds": traced - start,
        "compile_seconds": done - traced,
        "programs": 1,
    }


def _compile_strided_product(check: Check, chip: topologies.Chip) -> dict[str, Any]:
    """Compile a 1x1 convolution of stride 2 of an activation that is used elsewhere.

    ``options['product']`` writes it as a matrix product, which aborts XLA's Triton
    tiling on GPUs with jax 0.10 and 0.11; without, it is written as for the chip.
    """
    form = lowering.of_devices(chip.device())
    if check.options.get("product"):
        form = form.replace(pointwise="product")

    def run(x: jax.Array, kernel: jax.Array) -> Any:
        activated = jax.nn.relu(x)
        return layers._convolution(2)(activated, kernel), activated

    shape = (check.batch_size, 16, 16, 16)
    arrays = np.zeros(shape, np.float32), np.zeros((1, 1, 16, 16), np.float32)
    shapes = _shapes(arrays, NamedSharding(chip.mesh(), PartitionSpec()))
    with lowering.using(form):
        compiled = jax.jit(run).lower(*shapes).compile()
    return {**_examine(compiled, chip, masks=None), "programs": 1}


_KINDS = {
    "scores": _compile_scores,
    "training": _compile_training,
    "supernet training": _compile_supernet_training,
    "strided product": _compile_strided_product,
}


def _shapes(tree: Any, sharding: NamedSharding) -> Any:
    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


def _examine(compiled: Any, chip: topologies.Chip, masks: int | None) -> dict[str, Any]:
    """What the compiler says about a program.

    Args:
      compiled: the program.
      chip: the chip it is compiled for.
      masks: masks of a group, None if it scores none.
    """
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    found = {
        "needed_bytes": memory.needed(compiled),
        "usable_bytes": _usable(chip.memory),
        "temporaries_gb": sizes.temp_size_in_bytes / 1e9,
        "transfers": count_transfers(text),
    }
    if chip.kind == "tpu":  # XLA:GPU says neither
        found["code_mb"] = sizes.generated_code_size_in_bytes / 1e6
        seconds = sum(map(int, _CYCLES.findall(text))) / topologies.TPU_CLOCK_HZ
        found["call_ms"] = 1e3 * seconds
        if masks is not None:
            found["mask_ms"] = 1e3 * seconds / masks
    return found


def count_transfers(text: str) -> int:
    """How many instructions of an HLO text exchange data with the host.

    Args:
      text: the optimised program; infeed, outfeed, send, receive and calls of the host
        count.
    """
    return len(_TRANSFERS.findall(text))


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
