"""A training run on disk: settings, newest and best checkpoints, and metrics.

``config.json`` holds the settings that determine the result, ``metrics.jsonl`` a line
every few steps, and ``checkpoints/N`` the state after N steps. Orbax writes it under
another name first, so that a kill leaves the earlier checkpoints intact.
``checksums.json`` detects changed files, which Orbax would read without an error.
"""

import json
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from zcpt_jax.io.files import (
    CONFIG,
    append,
    complete_lines,
    make_folder,
    open_config,
    write_atomically,
)
from zcpt_jax.io.lock import lock_folder
from zcpt_jax.json_text import parse_json
from zcpt_jax.types import InputError

METRICS, STATES, DAMAGED = "metrics.jsonl", "checkpoints", "damaged"
CHECKSUMS = "checksums.json"

_SCORE = "score"

Items = Mapping[str, Any]
"""Parts of a checkpoint by name, each a tree of arrays that can be read separately."""


@dataclass(frozen=True)
class Kind:
    """Description of the trained object, for error messages.

    Attributes:
      what: name of the object, such as ``a trained supernet``.
      command: command that trains it.
    """

    what: str
    command: str

    @property
    def finish(self) -> str:
        """Advice about an unfinished training."""
        return f"run {self.command} again with the same flags to go on with it"


class TrainingFolder:
    """Context manager for a training run on disk; waits for all writing at exit.

    Attributes:
      path: path of the folder.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        kind: Kind,
        steps: int,
        keep: int = 2,
        environment: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Create the folder, or open it to resume.

        Args:
          path: path of the folder.
          config: everything that determines the result. A folder made with another
            configuration is refused.
          kind: description of the trained object.
          steps: number of steps of the whole training.
          keep: number of newest checkpoints to keep besides that of the highest score.
          environment: versions, command and the like, stored beside the configuration.
          overwrite: whether to start again, whatever is in the folder.

        Raises:
          InputError: if the folder cannot be written, was made with another
            configuration, or its ``config.json`` is damaged or missing.
        """
        self.path = Path(path).absolute()  # Orbax accepts no relative paths.
        self._lock = lock_folder(self.path)
        if overwrite:
            self._remove_results()
        if (self.path / CONFIG).exists() or (self.path / STATES).exists():
            read_record(self.path, kind)
        record = {"steps": steps, **(environment or {})}
        open_config(self.path, config, record, STATES)
        make_folder(self.path / STATES)
        self._manager = _open(self.path, keep)
        self._unsealed: int | None = None

    def __enter__(self) -> "TrainingFolder":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until the newest checkpoint is written."""
        try:
            self._writing(self._seal)
        finally:
            self._manager.close()

    def restore(self, like: Items) -> tuple[int, dict[str, Any]] | None:
        """Read the newest intact checkpoint, and drop metrics of later steps.

        Damaged checkpoints are moved aside, with a warning, if an older one is intact.

        Args:
          like: state of the same shapes.

        Returns:
          Number of completed steps and the state; None if there is no checkpoint.

        Raises:
          InputError: if there are checkpoints and all of them are damaged.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = _read(self._manager, self.path, step, like)
            except Exception as error:  # Orbax's errors have no common base class.
                damaged[step] = _short(error)
                continue
            for bad, problem in damaged.items():
                self._put_aside(bad, problem, step)
            self._drop_metrics_after(step)
            return step, found
        if damaged:
            raise InputError(
                f"no state in {self.path / STATES} can be read "
                f"({'; '.join(f'{step}: {what}' for step, what in damaged.items())}); "
                "restore the folder from a copy, or train anew with --overwrite"
            )
        self._drop_metrics_after(0)
        return None

    def save(self, step: int, state: Items, score: float | None = None) -> None:
        """Start to write a checkpoint, and remove those that are no longer kept.

        Args:
          step: number of completed steps.
          state: parts of the state; their arrays must not be donated afterwards, as
            they are written while training continues.
          score: test result, higher is better; None for a state that was not tested.

        Raises:
          InputError: if this or the previous checkpoint cannot be written.
        """
        parts = {name: ocp.args.StandardSave(tree) for name, tree in state.items()}
        composite = ocp.args.Composite(**parts)
        metrics = {} if score is None else {"metrics": {_SCORE: score}}
        self._writing(self._seal)
        self._writing(lambda: self._manager.save(step, args=composite, **metrics))
        self._unsealed = step

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the metrics; it must have an entry ``step``."""
        append(self.path / METRICS, json.dumps(line) + "\n")

    def _seal(self) -> None:
        """Wait until the newest checkpoint is written, and store its checksums."""
        self._manager.wait_until_finished()
        if self._unsealed is None:
            return
        kept = {str(step) for step in self._manager.all_steps()}
        sums = {k: v for k, v in _read_checksums(self.path).items() if k in kept}
        sums[str(self._unsealed)] = _checksums(self.path / STATES / str(self._unsealed))
        self._unsealed = None
        write_atomically(self.path / CHECKSUMS, json.dumps(sums) + "\n")

    def _remove_results(self) -> None:
        for name in (STATES, DAMAGED):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (METRICS, CHECKSUMS, CONFIG):
            (self.path / name).unlink(missing_ok=True)

    def _put_aside(self, step: int, problem: str, good: int) -> None:
        place = self.path / DAMAGED / str(step)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        (self.path / STATES / str(step)).rename(place)
        self._manager.reload()
        warnings.warn(
            f"the state after {step} steps is damaged ({problem}); it was moved to "
            f"{place}, and training goes on from step {good}",
            stacklevel=3,
        )

    def _drop_metrics_after(self, step: int) -> None:
        """Drop metrics of later steps; resumed training writes the same ones again."""
        file = self.path / METRICS
        lines = list(complete_lines(file))
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_atomically(file, "".join(f"{line}\n" for line in kept))

    def _writing(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:  # TensorStore raises no OSError for a full disk.
            raise InputError(
                f"cannot write a state to {self.path / STATES} ({_short(error)}); "
                "the states before it are still there, run again once there is room "
                "or permission"
            ) from error


def read_record(path: str | Path, kind: Kind) -> dict[str, Any]:
    """Read ``config.json`` of a training run.

    Args:
      path: path of the folder.
      kind: description of the trained object.

    Returns:
      The configuration as ``config``, the number of steps as ``steps``, and the
      environment stored beside them.

    Raises:
      InputError: if the file is missing, damaged, or not that of a training run.
    """
    file = Path(path) / CONFIG
    try:
        record = parse_json(file.read_text())
        if isinstance(record["config"], dict) and isinstance(record["steps"], int):
            return record
        raise TypeError("its entries have other types")
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is not the folder of {kind.what}: it has no {CONFIG}; "
            f"train one with {kind.command}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged, or not that of {kind.what} ({_short(error)}); "
            "restore it from a copy, or train anew with --overwrite"
        ) from error


def read_final(
    path: str | Path, like: Items, kind: Kind, *, best: bool = False
) -> dict[str, Any]:
    """Read parts of the last checkpoint of a finished training run, or of the best.

    Args:
      path: path of the folder.
      like: requested parts, with their shapes.
      kind: description of the trained object.
      best: whether to read the checkpoint of the highest score, which an unfinished run
        can have too.

    Returns:
      The requested parts.

    Raises:
      InputError: if the run is missing, unfinished or damaged.
    """
    steps = read_record(path, kind)["steps"]
    folder = Path(path).absolute()
    if not (folder / STATES).is_dir():
        raise InputError(f"{path} holds no {STATES}; {kind.finish}")
    with _open(folder, keep=1) as manager:
        found = manager.best_step() if best else manager.latest_step()
        if found is None or (not best and found < steps):
            raise InputError(
                f"the training in {path} is unfinished: {manager.latest_step() or 0} "
                f"of {steps} steps; {kind.finish}"
            )
        try:
            return _read(manager, folder, found, like)
        except Exception as error:  # Orbax's errors have no common base class.
            raise InputError(
                f"the state after {found} steps in {path} cannot be read "
                f"({_short(error)}); {kind.finish}"
            ) from error


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the complete lines of ``metrics.jsonl``, oldest first."""
    lines = complete_lines(Path(path) / METRICS)
    return [parse_json(line) for line in lines if _step_of(line) < float("inf")]


def _open(folder: Path, keep: int) -> ocp.CheckpointManager:
    best = BestN(get_metric_fn=_score_of, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
        best_fn=_score_of,
        create=False,
        # Only the first of several processes writes, without waiting for the others.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="training"
        )
        if jax.process_count() > 1
        else ocp.options.MultiprocessingOptions(),
    )
    return ocp.CheckpointManager(folder / STATES, options=options)


def _score_of(metrics: Mapping[str, float]) -> float:
    return metrics[_SCORE]


def _read(
    manager: ocp.CheckpointManager, folder: Path, step: int, like: Items
) -> dict[str, Any]:
    written = _read_checksums(folder).get(str(step))
    # A kill can come before checksums are stored; then only Orbax detects damage.
    if written is not None:
        there = _checksums(folder / STATES / str(step))
        changed = [n for n in {*written, *there} if written.get(n) != there.get(n)]
        if changed:
            raise ValueError(f"{min(changed)} is not what was written")
    parts = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
    found = manager.restore(step, args=ocp.args.Composite(**parts))
    return {name: found[name] for name in like}


def _checksums(state: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder."""
    files = sorted(file for file in state.rglob("*") if file.is_file())
    return {
        str(file.relative_to(state)): zlib.crc32(file.read_bytes()) for file in files
    }


def _read_checksums(folder: Path) -> dict[str, dict[str, int]]:
    """Checksums of each checkpoint, empty if the file is missing or damaged."""
    try:
        found = parse_json((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _step_of(line: str) -> float:
    """Step of a line of metrics, infinite if the line is damaged."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _short(error: Exception) -> str:
    """Type and first line of an error, whose message can be very long."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
