"""Devices of a command, and coordination of several processes.

Every process runs the same command and computes the same decisions; only the scoring of
masks is distributed. Only the first process writes and prints. The others work on
copies of its files, so that all resume from the same progress, whether or not their
machines share a disk.
"""

import atexit
import json
import os
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jax._src import distributed  # No public API exchanges text before devices open.
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zcpt_jax.sharding import make_mesh
from zcpt_jax.types import InputError

from ._accelerators import (
    asked_platforms,
    count_kinds,
    first_line,
    installed_plugins,
    open_devices,
)

_DEVICES = flags.DEFINE_integer(
    "devices", None, "number of devices to use; default: all"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "address of the first of several processes, HOST:PORT, or auto on TPU pods and "
    "with SLURM; default: one process",
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes")
_PROCESS = flags.DEFINE_integer("process_id", None, "number of this process, from 0")

_COPIED = (".json", ".jsonl", ".csv")
_PATIENCE = 300  # Seconds to wait for another process; JAX's limit for their start.


def open_mesh(axis: str = "masks") -> Mesh | None:
    """Join the other processes, if any, and make the device mesh; call this first.

    Args:
      axis: name of the mesh axis, after what is split over the devices.

    Returns:
      One-dimensional mesh of the devices to use, None for a single device.

    Raises:
      InputError: if the flags contradict each other, the other processes cannot be
        reached, there are fewer devices than requested, JAX cannot use the installed
        accelerator, or devices differ.
    """
    _join()
    _open_together()
    if jax.process_index() > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  Open until exit.
    mesh = make_mesh(_DEVICES.value, axis)
    kinds = count_kinds(mesh.devices.flat)
    if len(kinds) > 1:
        raise InputError(
            f"the devices must be of one kind, JAX sees {_listed(kinds)}; use "
            "--devices, or CUDA_VISIBLE_DEVICES, to leave some out"
        )
    return mesh if mesh.size > 1 else None


def share_batches() -> tuple[Mesh, NamedSharding]:
    """Make the device mesh of a training or a test, and the sharding of batches."""
    mesh = open_mesh("batch") or make_mesh(1, "batch")
    return mesh, NamedSharding(mesh, PartitionSpec("batch"))


def _join() -> None:
    where = _COORDINATOR.value
    numbers = (_PROCESSES.value, _PROCESS.value)
    if where is None:
        if numbers != (None, None):
            raise InputError("--num_processes and --process_id need --coordinator")
        return
    if where != "auto" and None in numbers:
        raise InputError(
            f"--coordinator={where} needs --num_processes and --process_id"
        )
    try:
        if where == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(where, *numbers)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot start with --coordinator={where}: {first_line(error)}"
        ) from error


def _open_together() -> None:
    """Open the devices, and fail in every process unless all have the same devices."""
    # Otherwise JAX waits minutes for a process without the platform of the others.
    platforms = ", ".join([*installed_plugins(), "cpu"])
    _require_equal("JAX platforms", asked_platforms() or platforms)
    try:
        open_devices()
    except InputError as error:
        others = _said("devices")  # May explain why this process waited in vain.
        _tell("devices", f"none ({error})")
        raise InputError("; ".join([str(error), *others])) from error
    _require_equal("devices", _listed(count_kinds(jax.local_devices())))


def _listed(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))


def _require_equal(topic: str, text: str) -> None:
    """Raise InputError in all processes unless all have the same text."""
    if distributed.global_state.client is None:
        return
    _tell(topic, text)
    texts = _hear(topic)
    if len(set(texts)) > 1:
        listed = "; ".join(f"process {n}: {text}" for n, text in enumerate(texts))
        raise InputError(
            f"all processes must use the same {topic}, but they differ. {listed}"
        )


def _tell(topic: str, text: str) -> None:
    state = distributed.global_state
    if state.client is not None:
        state.client.key_value_set(f"zcpt_jax/{topic}/{state.process_id}", text)


def _said(topic: str) -> list[str]:
    """Texts that other processes have published so far, as ``process 1: none``."""
    client = distributed.global_state.client
    told = client.key_value_dir_get(f"zcpt_jax/{topic}") if client else []
    return [f"process {key.rpartition('/')[2]}: {text}" for key, text in sorted(told)]


def _hear(topic: str) -> list[str]:
    state = distributed.global_state
    assert state.client is not None
    texts = []
    for number in range(state.num_processes or 1):
        key = f"zcpt_jax/{topic}/{number}"
        try:
            texts.append(state.client.blocking_key_value_get(key, _PATIENCE * 1000))
        except jax.errors.JaxRuntimeError as error:
            raise InputError(
                f"process {number} has not said within {_PATIENCE} s which {topic} it "
                f"uses: {first_line(error)}"
            ) from error
    return texts


def output_folder(path: str) -> str:
    """Return the folder that this process writes to.

    It is ``path`` in the first process, and a temporary copy of it in the others.

    Args:
      path: path of the folder on the first process's machine.
    """
    if jax.process_count() == 1:
        return path
    texts = _from_first(_read(Path(path)) if jax.process_index() == 0 else {})
    if jax.process_index() == 0:
        return path
    copy = tempfile.TemporaryDirectory(prefix="zcpt_jax-")
    atexit.register(copy.cleanup)
    for name, text in texts.items():
        Path(copy.name, name).write_text(text)
    return copy.name


def _read(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    files = (file for file in folder.iterdir() if file.suffix in _COPIED)
    return {file.name: file.read_text(errors="replace") for file in files}


def _from_first(texts: dict[str, str]) -> dict[str, str]:
    """Broadcast texts from the first process to the others."""
    sent = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    # For the other processes only the shape matters.
    sent = sent if jax.process_index() == 0 else np.zeros(length, np.uint8)
    received = multihost_utils.broadcast_one_to_all(sent)
    found: dict[str, str] = json.loads(np.asarray(received, np.uint8).tobytes())
    return found
