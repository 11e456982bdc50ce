"""Looking inside a Flax network without changing it.

Zero-cost proxies need more than logits: the inputs of ReLUs, the outputs of
convolutions, BatchNorm in a mode of the proxy's choosing. :func:`forward` gives them
for any Flax (linen) network through ``nn.intercept_methods``, so that a proxy works on
a user's own module as well as on the supernets of :mod:`zcpt_jax.spaces`.

Modules inside lifted transforms (``nn.scan``, ``nn.remat``) cannot be tapped: JAX
reports a leaked tracer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend import core

from zcpt_jax.skipping import on_images
from zcpt_jax.types import ApplyFn, Array, InputError, Norm, Variables

Path = tuple[str, ...]
ReluTap = Callable[[jax.Array, Any, Any], None]
CutTap = Callable[[tuple[jax.Array, ...]], tuple[jax.Array, ...]]
LayerTap = Callable[[Path, jax.Array], jax.Array]
StateTap = Callable[[jax.Array], jax.Array]


class ReLU(nn.Module):
    """A ReLU that tells activation-pattern proxies how often it counts.

    Supernets share one ReLU among many operations and block operations of weight
    zero, so that one tensor stands for several ReLUs of the published code.

    Attributes:
      cap: where the output is cut off: 6 for a ReLU6, None for a ReLU.
    """

    cap: float | None = None

    @nn.compact
    def __call__(self, z: jax.Array, live: Any = 1.0, dead: Any = 0.0) -> jax.Array:
        """Applies the ReLU.

        Args:
          z: ``[B, ...]``, or a stack ``[E, B, ...]`` of E of them.
          live: how many ReLUs see ``z``; a number or a scalar array, ``[E]`` for a
            stack.
          dead: how many ReLUs see a tensor of this shape that is all zeros.

        Returns:
          ``max(z, 0)``, at most ``cap``. ``live`` and ``dead`` do not enter it.
        """
        del live, dead
        return nn.relu(z) if self.cap is None else jnp.minimum(nn.relu(z), self.cap)


class CutPoint(nn.Module):
    """Marks states through which the whole network passes, such as a cell's inputs.

    The newest of them is the output of a block: of the stem, or of a cell. Proxies
    whose values grow beyond float32 rescale the states; what follows has to be
    homogeneous for that once BatchNorm is skipped: no bias before the last linear
    layer, no ReLU6.

    Attributes:
      newest: which of the states was computed last.
      homogeneous: whether states may be rescaled here.
    """

    newest: int = 0
    homogeneous: bool = True

    @nn.compact
    def __call__(self, *states: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the states unchanged, as a tuple."""
        return states


class DropPath(nn.Module):
    """Marks the output of an operation, whose path training may drop.

    Here it does nothing and costs nothing: regularisation is the training's, which
    intercepts the call, drops whole images of the path and scales the others up.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns ``x``, ``[B, H, W, C]``, unchanged."""
        return x


class GlobalAverage(nn.Module):
    """The average over positions before the classifier; marks the last feature map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, C]``."""
        return x.mean(axis=(1, 2))


def forward(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    *,
    norm: Norm,
    on_relu: ReluTap | None = None,
    on_layer: LayerTap | None = None,
    on_cut: CutTap | None = None,
    on_block: StateTap | None = None,
    on_features: StateTap | None = None,
) -> jax.Array:
    """Runs a network with BatchNorm in a given mode and taps in place.

    Args:
      apply_fn: the network.
      variables: its variables.
      images: ``[B, H, W, C]``.
      masks: operation weights, passed through.
      norm: how every ``nn.BatchNorm`` acts, whatever the network asks for.
        ``'batch'`` uses the two-pass variance, as PyTorch does.
      on_relu: called with ``(z, live, dead)`` of every :class:`ReLU`.
      on_layer: called with the path and the output of every layer (a module that owns
        a parameter named ``kernel``, or each slice of one that owns ``kernels``); what
        it returns replaces the output.
      on_cut: called with the states of every homogeneous :class:`CutPoint`; what it
        returns replaces them.
      on_block: called with the newest state of every :class:`CutPoint`; what it returns
        replaces that state.
      on_features: called with the input of :class:`GlobalAverage`, the last feature
        map; what it returns replaces it.

    Returns:
      The logits ``[B, classes]``.
    """

    def intercept(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        if isinstance(module, nn.BatchNorm):
            return _batch_norm(module, args[0] if args else kwargs["x"], norm)
        if on_features is not None and isinstance(module, GlobalAverage):
            return next_fun(on_features(args[0]))
        if on_relu is not None and isinstance(module, ReLU):
            _read_relu(on_relu, *args, **kwargs)
        out = next_fun(*args, **kwargs)
        if isinstance(module, CutPoint):
            return _cut(module, out, on_cut, on_block)
        if on_layer is not None and module.has_variable("params", "kernel"):
            out = on_layer(module.path, out)
        if on_layer is not None and module.has_variable("params", "kernels"):
            slices = [on_layer((*module.path, str(i)), o) for i, o in enumerate(out)]
            out = jnp.stack(slices)
        return out

    with nn.intercept_methods(intercept):
        return apply_fn(variables, images, masks)


def _cut(
    point: CutPoint,
    states: tuple[jax.Array, ...],
    on_cut: CutTap | None,
    on_block: StateTap | None,
) -> tuple[jax.Array, ...]:
    if on_cut is not None and point.homogeneous:
        states = on_cut(states)
    if on_block is not None:
        kept = list(states)
        kept[point.newest] = on_block(kept[point.newest])
        states = tuple(kept)
    return states


def _read_relu(tap: ReluTap, z: jax.Array, live: Any = 1.0, dead: Any = 0.0) -> None:
    tap(z, live, dead)


def feature_axes(module: nn.BatchNorm, ndim: int) -> set[int]:
    """The axes along which a BatchNorm has statistics of their own.

    Args:
      module: the BatchNorm.
      ndim: of its input.
    """
    axis = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
    return {a % ndim for a in axis}


def _batch_norm(module: nn.BatchNorm, x: jax.Array, norm: Norm) -> jax.Array:
    # Computed here rather than by Flax, whose module settles the mode when it is
    # built and writes new running statistics, which scores have no use for.
    if norm == "identity":
        return x
    features = feature_axes(module, x.ndim)
    shape = [x.shape[a] if a in features else 1 for a in range(x.ndim)]
    scale, bias = jnp.float32(1), jnp.float32(0)
    if module.use_scale:
        scale = module.get_variable("params", "scale").reshape(shape)
    if module.use_bias:
        bias = module.get_variable("params", "bias").reshape(shape)
    if norm == "running":
        mean = jnp.reshape(module.get_variable("batch_stats", "mean"), shape)
        var = jnp.reshape(module.get_variable("batch_stats", "var"), shape)
        gain = scale / jnp.sqrt(var + module.epsilon)
        shift = bias - mean * gain
        if 0 in features:  # a stack, whose first axis are not images
            return x * gain + shift
        return on_images(_affine, x, gain, shift)
    axes = tuple(a for a in range(x.ndim) if a not in features)
    centred = x - x.mean(axes, keepdims=True)
    var = jnp.square(centred).mean(axes, keepdims=True)
    return centred * (scale / jnp.sqrt(var + module.epsilon)) + bias


def _affine(x: jax.Array, gain: jax.Array, shift: jax.Array) -> jax.Array:
    return x * gain + shift


def kernels(variables: Variables) -> dict[Path, jax.Array]:
    """The weights that weight proxies sum over: convolutions and linear layers.

    Args:
      variables: Flax variables with a collection ``params``.

    Returns:
      path of the layer to its kernel, for every parameter named ``kernel``; a parameter
      named ``kernels`` is a stack of them, each under its number. No biases, no
      BatchNorm.

    Raises:
      InputError: if there is none.
    """
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    found = {path[:-1]: leaf for path, leaf in flat.items() if path[-1] == "kernel"}
    for path, leaf in flat.items():
        if path[-1] == "kernels":
            found |= {(*path[:-1], str(i)): leaf[i] for i in range(leaf.shape[0])}
    if not found:
        names = sorted({path[-1] for path in flat})
        raise InputError(
            "the network has no parameter named 'kernel', which proxies over weights "
            f"sum over; its parameters are named {names}"
        )
    return found


def with_kernels(variables: Variables, new: Mapping[Path, jax.Array]) -> dict[str, Any]:
    """Variables with kernels replaced; the inverse of :func:`kernels`."""
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    for path, leaf in flat.items():
        if path[-1] == "kernel":
            flat[path] = new.get(path[:-1], leaf)
        if path[-1] == "kernels":
            slices = [(*path[:-1], str(i)) for i in range(leaf.shape[0])]
            flat[path] = jnp.stack([new.get(p, leaf[int(p[-1])]) for p in slices])
    return {**variables, "params": traverse_util.unflatten_dict(flat)}


def relu_inputs(fn: Callable[..., Any], *args: Any) -> list[jax.Array]:
    """The inputs of every ``max(z, 0)`` in a traced function.

    For networks written with ``nn.relu``, ``nn.relu6`` or ``jnp.maximum(z, 0)``
    instead of :class:`ReLU`.

    Args:
      fn: any traceable function.
      *args: its arguments.

    Returns:
      The tensors ``z`` in order of execution.
    """
    closed = jax.make_jaxpr(fn)(*args)
    found: list[jax.Array] = []
    _interpret(closed.jaxpr, closed.consts, jax.tree.leaves(args), found)
    return found


def _interpret(
    jaxpr: core.Jaxpr, consts: Any, args: Any, found: list[jax.Array]
) -> list[Any]:
    env: dict[core.Var, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        inner = _inner_jaxpr(eqn)
        if inner is not None:
            outs = _interpret(inner[0], inner[1], values, found)
        else:
            found.extend(_relu_input(eqn, values))
            outs = eqn.primitive.bind(*values, **eqn.params)
            outs = outs if eqn.primitive.multiple_results else [outs]
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inner_jaxpr(eqn: core.JaxprEqn) -> tuple[core.Jaxpr, Any] | None:
    """The body of a call that runs once: jit, custom derivatives, checkpoint."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        body = eqn.params.get(key)
        if isinstance(body, core.ClosedJaxpr):
            return body.jaxpr, body.consts
        if isinstance(body, core.Jaxpr):
            return body, ()
    return None


def _relu_input(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    if eqn.primitive.name != "max":
        return []
    zero = [
        isinstance(atom, core.Literal) and jnp.ndim(atom.val) == 0 and atom.val == 0
        for atom in eqn.invars
    ]
    return [values[1 - zero.index(True)]] if any(zero) else []
