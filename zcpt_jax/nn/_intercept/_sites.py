"""Sites of a network's Flax modules at which values are intercepted."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from zcpt_jax.nn._intercept._loops import Site, Tap, Values
from zcpt_jax.nn._intercept._markers import CutPoint
from zcpt_jax.types import InputError, Variables

Path = tuple[str, ...]


def tap_relu(
    tap: Tap, path: Path, z: jax.Array, count: Any = 1.0, zero_count: Any = 0.0
) -> Values:
    """Pass the arguments of a :class:`ReLU` through the tap."""
    return tap(Site("ReLU", path), z, count, zero_count)


def tap_cut(
    tap: Tap, kinds: frozenset[str], point: CutPoint, states: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Pass the states at a cut point through the tap.

    Args:
      tap: the tap.
      kinds: kinds to intercept: ``CutPoint`` (all states) and ``block`` (the newest).
      point: the cut point.
      states: states of the cut point.
    """
    if "CutPoint" in kinds and point.homogeneous:
        states = tuple(tap(Site("CutPoint", point.path), *states))
    if "block" in kinds:
        kept = list(states)
        kept[point.newest] = tap(Site("block", point.path), kept[point.newest])[0]
        states = tuple(kept)
    return states


def tap_layer(tap: Tap, kind: str, module: nn.Module, out: Any) -> Any:
    """Pass a layer's output and kernel through the tap; other modules are unaffected.

    Args:
      tap: the tap.
      kind: kind of the site.
      module: any module.
      out: output of the module; a stack if it has a stack of kernels.

    Returns:
      The output, as the tap returned it.
    """

    def of_slice(*number: str) -> Site:
        return Site(kind, module.path, number, distinct=True)

    if module.has_variable("params", "kernel"):
        kernel: Any = module.get_variable("params", "kernel")
        out = tap(of_slice(), out, kernel)[0]
    if module.has_variable("params", "kernels"):
        stack: Any = module.get_variable("params", "kernels")
        slices = [tap(of_slice(str(i)), o, stack)[0] for i, o in enumerate(out)]
        out = jnp.stack(slices)
    return out


def refuse_nnx(module: nn.Module, kinds: frozenset[str]) -> None:
    """Reject an NNX module inside a linen network if interception would miss it.

    Raises:
      InputError: if layers are intercepted, or if the module has BatchNorm.
    """
    if not type(module).__module__.startswith("flax.nnx"):
        return
    name = "/".join(module.path) or "the network"
    if "layer" in kinds:
        raise InputError(
            f"{name} is an NNX module, whose layers cannot be looked at; use a proxy "
            "that needs the weights alone, such as snip, or Flax linen modules"
        )
    if "batch_stats" in module.variables:
        raise InputError(
            f"{name} is an NNX module with BatchNorm, which only the module itself can "
            "switch between stored and batch statistics; use a Flax linen module"
        )


def layer_path(
    site: Site, kernel: jax.Array, iteration: tuple[int, ...], variables: Variables
) -> Path:
    """Return the path of a layer, with the iteration that its kernel belongs to.

    Args:
      site: site of the layer.
      kernel: kernel of the layer in this iteration, or the stack that contains it.
      iteration: iteration of each loop around the layer.
      variables: variables of the network.

    Raises:
      InputError: if some of the loops around it share the kernel and others do not.
    """
    if not iteration:
        return (*site.path, *site.info)
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    whole = flat[(*site.path, "kernels" if site.info else "kernel")]
    axes = whole.ndim - kernel.ndim
    if axes in (0, len(iteration)):
        own = iteration if axes else ()
        return (*site.path, *map(str, own), *site.info)
    raise InputError(
        f"the layer {'/'.join(site.path)} runs in nested loops of which some share its "
        "kernel and others do not; this proxy cannot tell its kernels apart"
    )
