"""Helpers of the commands: error messages, versions, progress bar, small parsers."""

import importlib.metadata
import platform
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from tqdm import tqdm

from zcpt_jax.data import Dataset
from zcpt_jax.io.files import CONFIG, open_config
from zcpt_jax.io.lock import FolderLock, lock_folder
from zcpt_jax.scoring import memory
from zcpt_jax.search.operation_scores import Trained
from zcpt_jax.spaces import get_space, space_options
from zcpt_jax.types import InputError, ScoreError, Space

from . import _compilation_cache
from ._accelerators import first_line
from ._own_space import load_own_space

flags.adopt_module_key_flags(_compilation_cache)

_LOCKS: list[FolderLock | None] = []
"""Locks that a command holds until it ends."""

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tensorflow-datasets", "pillow")


def run(main: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of the process."""
    app.run(without_traceback(main), [_find_flagfile(arg) for arg in sys.argv])


def _find_flagfile(argument: str) -> str:
    """Replace NAME in ``--flagfile=NAME`` by the package's file, unless NAME exists."""
    flag, _, name = argument.partition("=")
    ours = Path(__file__).parent / "flagfiles" / f"{name}.flags"
    if flag.lstrip("-") == "flagfile" and not Path(name).exists() and ours.exists():
        return f"{flag}={ours}"
    return argument


def without_traceback(
    main: Callable[[list[str]], None],
) -> Callable[[list[str]], None]:
    """Convert errors that the user can fix to a message and exit code 1."""

    def run(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            warnings.formatwarning = _one_line
            with _compilation_cache.compilation_cache():
                main(argv)
        except (InputError, ScoreError, OSError, MemoryError) as error:
            sys.exit(f"error: {error}")
        except jax.errors.JaxRuntimeError as error:
            logging.info("The device failed here:", exc_info=error)
            sys.exit(f"error: {_device_failure(error)}")
        except KeyboardInterrupt:
            sys.exit("interrupted; run the same command again to go on")
        finally:
            _LOCKS.clear()

    return run


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning without its location in the code."""
    return f"warning: {message}\n"


def _device_failure(error: jax.errors.JaxRuntimeError) -> str:
    """Return advice about an error of JAX's runtime."""
    said = first_line(error)
    if memory.is_exhausted(error):
        return (
            f"the memory of the device is full: {said}. Use a smaller --batch_size or "
            "a smaller network"
        )
    return (
        f"the device failed, or another process that takes part: {said}. What was "
        "decided or saved before is kept; run the same command again to go on "
        "(--verbosity=0 prints where it failed)"
    )


def no_arguments(argv: Sequence[str]) -> None:
    """Raise UsageError if there are arguments that are not flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")


def load_space(name: str, options: Sequence[str]) -> tuple[Space, str | None]:
    """Load a space by name, or from a class in the user's file.

    Args:
      name: name of a space, or ``FILE.py:CLASS``; the file is executed.
      options: options of the space, such as ``channels=8``.

    Returns:
      The space, and the digest of the user's file, None for a space of this package.

    Raises:
      InputError: if there is no such space or option.
    """
    parsed = parse_options(options)
    path, _, attribute = name.rpartition(":")
    if not path:
        return get_space(name, **parsed), None
    return load_own_space(Path(path), attribute, parsed)


def settings_of_space(space: Space, space_file: str | None) -> dict[str, Any]:
    """Return the settings of a space that determine a result."""
    return {
        "space": space.name,
        "options": space_options(space),
        "space_file": space_file,
    }


def print_start(devices: str, dataset: Dataset) -> None:
    """Print the devices, and the names of the classes if the dataset has names."""
    print(f"runs on     {devices}", flush=True)
    if names := dataset.classes:
        more = ", ..." * (len(names) > 20)
        print(f"classes     {len(names)}: {', '.join(names[:20])}{more}", flush=True)


def default_output(*parts: object) -> str:
    """Name a folder in ``runs/`` after settings, with path separators replaced."""
    name = "-".join(map(str, parts))
    return str(Path("runs", name.replace(":", "-").replace("/", "-")))


def open_folder(
    folder: Path,
    settings: Mapping[str, Any],
    progress: str,
    results: Sequence[str],
    overwrite: bool,
) -> None:
    """Create an output folder, or open it to resume.

    Args:
      folder: path of the folder.
      settings: everything that determines the result.
      progress: name of the file whose presence means that work has begun.
      results: names of the other files that are written.
      overwrite: whether to start again, whatever is in the folder.

    Raises:
      InputError: if the folder cannot be created, or was made with other settings.
    """
    _LOCKS.append(lock_folder(folder))
    if overwrite:
        for name in (CONFIG, progress, *results):
            (folder / name).unlink(missing_ok=True)
    open_config(folder, settings, environment(), progress)


def load_trained(
    path: str, space: Space, dataset: Dataset, space_file: str | None
) -> Trained:
    """Load the trained supernet in a folder.

    Raises:
      InputError: if it is missing, unfinished, damaged or of another space.
    """
    from zcpt_jax.training.supernet import load_supernet  # Orbax's import takes seconds

    return load_supernet(
        path, space, dataset.num_classes, dataset.image_shape, space_file
    )


def parse_options(items: Sequence[str]) -> dict[str, Any]:
    """Parse ``['channels=8', 'stem=cifar']`` to ``{'channels': 8, 'stem': 'cifar'}``.

    Raises:
      InputError: if an item is not of the form ``name=value``.
    """
    options = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not value:
            raise InputError(f"--space_options takes name=value, got {item!r}")
        options[name] = _number_or_text(value)
    return options


def _number_or_text(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def environment() -> dict[str, Any]:
    """Return versions, devices and the exact command."""
    versions = {name: version(name) for name in _PACKAGES}
    devices = jax.devices()
    return {
        "command": shlex.join([*_command_line(), *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **versions},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def _command_line() -> tuple[str, ...]:
    """Command line of this process: a file, or a console command of the package."""
    if __package__ == "launch":
        return (sys.executable, sys.argv[0])
    return (f"zcpt-{Path(sys.argv[0]).stem.replace('_', '-')}",)


def version(package: str) -> str:
    """Return the installed version of a package, or ``not installed``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Bar:
    """Progress bar per stage, shown on a terminal by the first process."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        """Set ``on_step``, which is called after every completed step."""
        self.on_step = on_step
        self.stage = ""
        self.bar: Any = None

    def __enter__(self) -> "Bar":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar at its current position."""
        if self.bar is not None:
            self.bar.close()

    def update(self, stage: str, done: float, total: int, note: str) -> None:
        """Show the progress of a stage and a note on the last event."""
        if stage != self.stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = stage
            self.bar = tqdm(
                total=total,
                disable=jax.process_index() > 0 or None,  # None: only on terminals.
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar:16}| {elapsed}<{remaining} {desc}",
            )
        self.bar.set_description_str(f"{stage}: {note}", refresh=False)
        self.bar.update(done - self.bar.n)
        self.bar.refresh()
        if done == int(done):
            self.on_step()
