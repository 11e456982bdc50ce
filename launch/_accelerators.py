"""The devices that JAX runs on, and why it does not run on an installed accelerator.

If JAX cannot use the GPU or TPU whose plugin is installed, it falls back to the CPU
with at most a warning. The commands then refuse to run, since they would take days.
"""

import importlib.metadata
import importlib.util
import logging
import pkgutil
from collections import Counter
from collections.abc import Iterable

import jax
from jax.sharding import Mesh

from zcpt_jax.types import InputError

_GPU_PLATFORMS = ("cuda", "rocm", "oneapi")


def runs_on(mesh: Mesh | None) -> str:
    """Describe the devices that do the work.

    Args:
      mesh: mesh of the devices that share the work; None for JAX's default device.

    Returns:
      Description such as ``8 tpu devices (TPU v4), of 2 processes``.
    """
    devices = jax.devices()[:1] if mesh is None else list(mesh.devices.flat)
    first, count = devices[0], len(devices)
    kind = "" if first.device_kind == first.platform else f" ({first.device_kind})"
    processes = len({device.process_index for device in devices})
    return f"{count} {first.platform} device{'s' if count > 1 else ''}{kind}" + (
        f", of {processes} processes" if processes > 1 else ""
    )


def count_kinds(devices: Iterable[jax.Device]) -> dict[str, int]:
    """Count devices by platform and kind.

    Args:
      devices: devices to count.

    Returns:
      The number of devices of each kind, such as ``{"gpu NVIDIA H200": 8}``.
    """
    return Counter(f"{device.platform} {device.device_kind}" for device in devices)


def open_devices() -> list[jax.Device]:
    """Open JAX's devices, and refuse the CPU if an accelerator is expected.

    Call this before anything else asks JAX for its devices, because plugins report only
    once why they fail.

    Returns:
      The devices of all processes.

    Raises:
      InputError: if JAX cannot open its devices, or falls back to the CPU although the
        plugin of an accelerator is installed and JAX_PLATFORMS is not set.
    """
    errors = _PluginErrors()
    logger = logging.getLogger("jax._src.xla_bridge")
    logger.addFilter(errors)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise InputError(_cannot_open(error, errors)) from error
    finally:
        logger.removeFilter(errors)
    if devices[0].platform == "cpu" and not asked_platforms():
        _refuse_fallback(errors)
    return devices


def asked_platforms() -> str:
    """Return JAX's setting of the platforms to use; empty if JAX chooses."""
    return jax.config.values["jax_platforms"] or ""


def installed_plugins() -> list[str]:
    """List the accelerator platforms that JAX has plugins for, such as cuda and tpu."""
    names = [entry.name for entry in importlib.metadata.entry_points(group=_GROUP)]
    package = importlib.util.find_spec(_GROUP)
    folders = package.submodule_search_locations if package else None
    names += [module.name for module in pkgutil.iter_modules(folders or [])]
    platforms = {_platform(name) for name in names}
    if importlib.util.find_spec("libtpu"):
        platforms.add("tpu")
    return sorted(platforms)


_GROUP = "jax_plugins"  # Group of entry points, and name of a namespace package.


def _platform(plugin: str) -> str:
    return next((name for name in _GPU_PLATFORMS if name in plugin), plugin)


class _PluginErrors(logging.Filter):
    """Filter that stores errors of JAX's plugins, which JAX prints with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record that reports no exception."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        self._texts[record.getMessage()] = first_line(error)
        return False

    def of(self, platform: str) -> str:
        """Return the error of the plugin of a platform, or an empty text."""
        found = [text for name, text in self._texts.items() if platform in name]
        return "; ".join(found)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a full stop."""
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def _cannot_open(error: Exception, errors: _PluginErrors) -> str:
    asked = asked_platforms()
    # JAX asserts without a message that there is a device.
    reason = first_line(error) or errors.of(asked) or _NO_DEVICE
    chosen = f" with JAX_PLATFORMS={asked}" if asked else ""
    return (
        f"JAX cannot open its devices{chosen}: {reason}. Set JAX_PLATFORMS=cpu to run "
        "on the CPU"
    )


_NO_DEVICE = "it finds no such device"


def _refuse_fallback(errors: _PluginErrors) -> None:
    reasons = {name: _failure(name, errors) for name in installed_plugins()}
    failed = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if failed:
        raise InputError(
            "JAX fell back to the CPU, although an accelerator's plugin is installed. "
            f"JAX says of {'; of '.join(failed)}. Set JAX_PLATFORMS=cpu to run on the "
            "CPU on purpose"
        )


def _failure(platform: str, errors: _PluginErrors) -> str:
    """Reason why JAX has no device of a platform; empty if it has one."""
    try:
        jax.devices(platform)
    except RuntimeError as error:
        reason = first_line(error).partition(". Available backends")[0]
        unknown = reason.startswith("Unknown backend")
        return errors.of(platform) or (_NO_DEVICE if unknown else reason)
    return ""
