"""Which devices a command uses, and how several processes run it together.

Every process runs the same command and computes the same decisions; only the scoring of
masks is shared out. The first process alone writes and prints. The others work on
copies of its files, so that they go on from the same progress, whether or not their
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
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zcpt_jax.sharding import make_mesh
from zcpt_jax.types import InputError

_DEVICES = flags.DEFINE_integer("devices", None, "how many to use; default: all")
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "for several processes: HOST:PORT of the first of them, or auto (TPU pods, SLURM)",
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many of them there are")
_PROCESS = flags.DEFINE_integer("process_id", None, "which of them this is, from 0")

_COPIED = (".json", ".jsonl", ".csv")


def open_mesh(axis: str = "masks") -> Mesh | None:
    """Joins the other processes, if there are any. To be called before all else.

    Args:
      axis: what is split over the devices.

    Returns:
      The devices to use, None for a single one.

    Raises:
      InputError: if the flags do not fit together, the others cannot be reached, or
        there are fewer devices.
    """
    _join()
    if jax.process_index() > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  to the end
    mesh = make_mesh(_DEVICES.value, axis)
    return mesh if mesh.size > 1 else None


def share_batches() -> tuple[Mesh, NamedSharding]:
    """The same for a training or a test, and how batches are split over the devices."""
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
            f"cannot start with --coordinator={where}: {str(error).splitlines()[0]}"
        ) from error


def output_folder(path: str) -> str:
    """Where this process writes: ``path``, or a copy of it that goes at the end.

    Args:
      path: of the folder on the first process's machine.
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
    """What the first process hands to the others."""
    sent = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    # Of the others only the shape counts.
    sent = sent if jax.process_index() == 0 else np.zeros(length, np.uint8)
    received = multihost_utils.broadcast_one_to_all(sent)
    found: dict[str, str] = json.loads(np.asarray(received, np.uint8).tobytes())
    return found
