"""What NVIDIA's driver says: the card, and the share of time that it was busy."""

import contextlib
import os
import pty
import shutil
import subprocess
import threading
from types import TracebackType
from typing import Self

_QUERY = "--query-gpu=name,driver_version,memory.total,power.limit"
_BUSY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


def describe() -> str:
    """Name, driver, memory and power limit of each card; empty without ``nvidia-smi``.

    On the first line is the driver's CUDA version, where ``nvidia-smi`` prints it.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    texts = [_ask(program), _ask(program, _QUERY, "--format=csv,noheader")]
    heads = [line for line in texts[0].splitlines() if "CUDA Version" in line]
    return "\n".join([*(head.strip("| ") for head in heads), texts[1].strip()])


def _ask(program: str, *args: str) -> str:
    try:
        done = subprocess.run(
            [program, *args], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout


class Usage:
    """Sample how busy the first card is while a context lasts; a context.

    The driver's figure is the share of time in which at least one kernel ran.

    Attributes:
      share: the mean over the samples, in [0, 1]; None where nothing was measured.
      samples: how many there were.
    """

    def __init__(self) -> None:
        """Starts nothing yet."""
        self.share: float | None = None
        self.samples = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._text = ""

    def __enter__(self) -> Self:
        """Starts sampling, five times a second."""
        program = shutil.which("nvidia-smi")
        if program is not None:
            # On a terminal it writes each sample at once, rather than by the page.
            here, there = pty.openpty()
            self._process = subprocess.Popen(
                [program, *_BUSY, "-i", "0"], stdout=there, stderr=subprocess.DEVNULL
            )
            os.close(there)
            self._reader = threading.Thread(
                target=self._read, args=(here,), daemon=True
            )
            self._reader.start()
        return self

    def _read(self, terminal: int) -> None:
        """Collects what is written, until the other end is closed."""
        with open(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
            while part := file.read(4096):
                self._text += part.decode(errors="replace")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends sampling and takes the mean."""
        if self._process is None:
            return
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._reader.join(timeout=5)
        values = [int(word) for word in self._text.split() if word.isdigit()]
        self.samples = len(values)
        self.share = sum(values) / (100 * len(values)) if values else None
