"""The folder that stores compiled functions for later runs."""

import contextlib
import glob
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax._src.compilation_cache import decompress_executable
from tqdm import tqdm

_CACHE = flags.DEFINE_string(
    "compilation_cache",
    "~/.cache/zcpt_jax",
    "folder that keeps compiled functions for later runs; empty for none",
)
_TROUBLE = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.+?)': (.*)"
)
_MEANING = {
    "reading": "an entry is damaged and ignored, its function is compiled again",
    "writing": "an entry cannot be written, later runs will compile it again",
}


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Store functions compiled within this context for later runs.

    JAX's own setting takes precedence. On GPUs, JAX also stores the results of XLA's
    autotuning in the folder. A folder that cannot be used, and entries that cannot be
    read or written, are reported once, in one line, and affect only the run time.
    """
    _choose_folder(_CACHE.value)
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_TROUBLE.pattern)
        warnings.showwarning = _Reporter(warnings.showwarning)
        yield


def _choose_folder(name: str) -> None:
    if not name or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = Path(name).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory.
        _note(f"nothing is kept, since --compilation_cache={name} fails: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


class _Reporter:
    """Replacement of ``warnings.showwarning`` that reports cache errors only once."""

    def __init__(self, show: Any) -> None:
        self._show = show
        self._told: set[str] = set()

    def __call__(self, message: Warning | str, *args: Any, **options: Any) -> None:
        trouble = _TROUBLE.match(str(message))
        if trouble is None:
            self._show(message, *args, **options)
            return
        kind, function, reason = trouble.groups()
        if kind == "reading":
            _remove_damaged(function)
        if kind not in self._told:
            self._told.add(kind)
            _note(f"{_MEANING[kind]}: {reason}")


def _remove_damaged(function: str) -> None:
    """Remove a function's damaged entries, which JAX neither reads nor replaces."""
    folder = Path(jax.config.values["jax_compilation_cache_dir"])
    for path in folder.glob(f"{glob.escape(function)}-*-cache"):
        try:
            decompress_executable(path.read_bytes())
        except Exception:  # The type depends on the compression library.
            with contextlib.suppress(OSError):
                path.unlink()


def _note(text: str) -> None:
    tqdm.write(f"compilation cache: {text}", file=sys.stderr)
