"""Capture of a Flax network's intermediates without changing the network.

Zero-cost proxies need more than logits: the inputs of ReLUs, the outputs of
convolutions, BatchNorm in a mode chosen by the proxy. :func:`forward` provides them for
any Flax (linen) network through ``nn.intercept_methods``, so that a proxy works on a
user's own module as well as on the supernets of :mod:`zcpt_jax.spaces`.

Modules may be inside ``nn.scan``, ``nn.remat`` and ``nn.jit`` or their JAX
counterparts. Inside ``nn.vmap``, ``while`` or ``cond`` they cannot be intercepted,
which raises an :class:`zcpt_jax.types.InputError`, except for :func:`read_relus` inside
a ``cond``. See :mod:`zcpt_jax.nn._intercept`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from zcpt_jax.nn._intercept import _loops as loops
from zcpt_jax.nn._intercept import _maxima as maxima
from zcpt_jax.nn._intercept import _sites as sites
from zcpt_jax.nn._intercept._loops import Site, Tap, Values
from zcpt_jax.nn._intercept._markers import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn._intercept._markers import DropPath as DropPath
from zcpt_jax.nn._intercept._sites import Path
from zcpt_jax.nn.zero_weights import on_images
from zcpt_jax.types import ApplyFn, Array, InputError, Norm, Variables

ReluTap = Callable[[jax.Array, Any, Any], None]
CutTap = Callable[[tuple[jax.Array, ...]], tuple[jax.Array, ...]]
LayerTap = Callable[[Path, jax.Array], jax.Array]
KernelTap = Callable[[Path, jax.Array], None]
NormTap = Callable[[jax.Array, jax.Array, tuple[int, ...]], jax.Array]
StateTap = Callable[[jax.Array], jax.Array]

# Makes jax.jit retrace a network for each combination of BatchNorm mode and callbacks.
_context = jax.make_user_context()


def forward(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    *,
    norm: Norm,
    on_relu: ReluTap | None = None,
    on_layer: LayerTap | None = None,
    on_kernel: KernelTap | None = None,
    on_norm: NormTap | None = None,
    on_cut: CutTap | None = None,
    on_block: StateTap | None = None,
    on_features: StateTap | None = None,
) -> jax.Array:
    """Run a network with a given BatchNorm mode and callbacks on its intermediates.

    Loops that contain an intercepted module are unrolled, so that callbacks see each
    iteration by itself; other loops are left as they are.

    Args:
      apply_fn: the network.
      variables: variables of the network.
      images: images ``[B, H, W, C]``.
      masks: masks, passed through to the network.
      norm: mode of every ``nn.BatchNorm``; takes precedence over the network's own.
        ``'batch'`` uses the two-pass variance, as PyTorch does.
      on_relu: called with ``(z, count, zero_count)`` of every :class:`ReLU`.
      on_layer: called with the path and the output of every layer (a module that owns
        a parameter named ``kernel``, or each slice of one that owns ``kernels``); its
        result replaces the output. The path is that of :func:`kernels`; inside a loop
        whose iterations have separate kernels, the iteration's number follows the
        module's path.
      on_kernel: called before ``on_layer`` with the same path and the layer's kernel.
      on_norm: called with the input and the output of every ``nn.BatchNorm`` and the
        axes along which it has separate statistics; its result replaces the output.
      on_cut: called with the states of every homogeneous :class:`CutPoint`; its result
        replaces them.
      on_block: called with the newest state of every :class:`CutPoint`; its result
        replaces that state.
      on_features: called with the input of :class:`GlobalAverage`, the last feature
        map; its result replaces it.

    Returns:
      The logits ``[B, classes]``.

    Raises:
      InputError: if a module to intercept is where it cannot be intercepted, see the
        module docstring; if BatchNorm or layers are NNX modules inside a ``ToLinen``.
    """

    def layer(site: Site, values: Values, iteration: tuple[int, ...]) -> Values:
        out, kernel = values
        path = sites.layer_path(site, kernel, iteration, variables)
        if on_kernel is not None:
            on_kernel(path, kernel[int(site.info[0])] if site.info else kernel)
        return (out if on_layer is None else on_layer(path, out)), kernel

    handles: dict[str, loops.Handle] = {}
    if on_relu is not None:
        handles["ReLU"] = lambda site, values, _: (on_relu(*values), values)[1]
    if on_layer is not None:
        handles["layer"] = layer
    elif on_kernel is not None:
        handles["kernel"] = layer
    if on_norm is not None:
        handles["BatchNorm"] = lambda site, v, _: (v[0], on_norm(v[0], v[1], site.info))
    if on_cut is not None:
        handles["CutPoint"] = lambda site, values, _: on_cut(tuple(values))
    if on_block is not None:
        handles["block"] = lambda site, values, _: (on_block(values[0]),)
    if on_features is not None:
        handles["feature map"] = lambda site, values, _: (on_features(values[0]),)

    def run(tap: Tap) -> jax.Array:
        return _run(apply_fn, variables, images, masks, norm, frozenset(handles), tap)

    return loops.see(run, lambda site, *rest: handles[site.kind](site, *rest))


def read_relus(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    *,
    norm: Norm,
    read: Callable[[jax.Array, Any, Any], Any],
) -> list[Any]:
    """Apply a function to the input of every ReLU of a network.

    If the network has :class:`ReLU` modules, these count; otherwise every ``max(z, 0)``
    of floating-point numbers counts, as computed by ``nn.relu``, ``nn.relu6`` and
    ``jnp.maximum(z, 0)``. The maximum that keeps a variance from being negative
    (``E[x^2] - E[x]^2``, as in Flax's normalisation layers) does not count, nor do
    activations without such a maximum (GELU, SiLU, leaky ReLU).

    Loops are not unrolled: ``read`` is applied in each iteration and its results are
    stacked.

    Args:
      apply_fn: the network.
      variables: variables of the network.
      images: images ``[B, H, W, C]``.
      masks: masks, passed through to the network.
      norm: mode of BatchNorm.
      read: called with ``(z, count, zero_count)``, see :class:`ReLU`; it returns a
        pytree of arrays and must not store its arguments.

    Returns:
      The results of ``read`` in order of execution, one for each iteration of a loop,
      and zeros for ReLUs in a branch of a ``cond`` that is not taken. Empty if there is
      no ReLU.

    Raises:
      InputError: if a ReLU is in a ``while`` loop or in ``nn.vmap``, or the first axis
        of its input is not that of the images.
    """

    def run(tap: Tap, kinds: frozenset[str] = frozenset(("ReLU",))) -> jax.Array:
        return _run(apply_fn, variables, images, masks, norm, kinds, tap)

    def read_maximum(z: jax.Array) -> Any:
        if jnp.ndim(z) == 0 or z.shape[0] != images.shape[0]:
            raise InputError(
                f"the network takes max(z, 0) of an array {list(jnp.shape(z))}, whose "
                f"first axis is not that of the {images.shape[0]} images, so that it "
                "cannot be counted; mark the ReLUs that count with zcpt_jax.nn.ReLU"
            )
        return read(z, 1.0, 0.0)

    found = loops.collect(run, read)
    if found:
        return found
    return maxima.read(lambda: run(loops.no_tap, frozenset()), read_maximum)


def relu_inputs(fn: Callable[..., Any], *args: Any) -> list[jax.Array]:
    """Return the inputs of every ``max(z, 0)`` in a traced function.

    Args:
      fn: any traceable function.
      *args: arguments of ``fn``.

    Returns:
      The tensors ``z`` that :func:`read_relus` counts, in order of execution.
    """
    return maxima.read(lambda: fn(*args), lambda z: z)


def _run(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
    norm: Norm,
    kinds: frozenset[str],
    tap: Tap,
) -> jax.Array:
    """Run a network with ``tap`` at every site whose kind is among ``kinds``."""

    def intercept(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        sites.refuse_nnx(module, kinds)
        if context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        if isinstance(module, nn.BatchNorm):
            x = args[0] if args else kwargs["x"]
            out = _batch_norm(module, x, norm)
            if "BatchNorm" in kinds:
                axes = tuple(sorted(feature_axes(module, x.ndim)))
                _, out = tap(Site("BatchNorm", module.path, axes), x, out)
            return out
        if "feature map" in kinds and isinstance(module, GlobalAverage):
            return next_fun(*tap(Site("feature map", module.path), *args))
        if "ReLU" in kinds and isinstance(module, ReLU):
            return next_fun(*sites.tap_relu(tap, module.path, *args, **kwargs))
        out = next_fun(*args, **kwargs)
        if isinstance(module, CutPoint):
            return sites.tap_cut(tap, kinds, module, out)
        kind = next((k for k in ("layer", "kernel") if k in kinds), None)
        return out if kind is None else sites.tap_layer(tap, kind, module, out)

    # A trace with marks must not be reused for taps that call back.
    key = norm, kinds, tap is loops.mark
    with _context(key), nn.intercept_methods(intercept):
        return apply_fn(variables, images, masks)


def feature_axes(module: nn.BatchNorm, ndim: int) -> set[int]:
    """Return the axes along which a BatchNorm has separate statistics.

    Args:
      module: the BatchNorm.
      ndim: number of dimensions of its input.
    """
    axis = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
    return {a % ndim for a in axis}


def _batch_norm(module: nn.BatchNorm, x: jax.Array, norm: Norm) -> jax.Array:
    # Not computed by Flax, whose module fixes the mode when it is built and writes
    # new running statistics, which scores do not need.
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
        if 0 in features:  # a stack, whose first axis is not that of images
            return x * gain + shift
        return on_images(_affine, x, gain, shift)
    axes = tuple(a for a in range(x.ndim) if a not in features)
    centred = x - x.mean(axes, keepdims=True)
    var = jnp.square(centred).mean(axes, keepdims=True)
    return centred * (scale / jnp.sqrt(var + module.epsilon)) + bias


def _affine(x: jax.Array, gain: jax.Array, shift: jax.Array) -> jax.Array:
    return x * gain + shift


def kernels(variables: Variables) -> dict[Path, jax.Array]:
    """Return the kernels of convolutions and linear layers, for proxies over weights.

    Args:
      variables: Flax variables with a collection ``params``.

    Returns:
      Map from a layer's path to its kernel, for every parameter named ``kernel``; a
      parameter named ``kernels`` is a stack of kernels, each under its number. Biases
      and BatchNorm are not included.

    Raises:
      InputError: if there is no kernel.
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
    """Return variables with kernels replaced; the inverse of :func:`kernels`."""
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    for path, leaf in flat.items():
        if path[-1] == "kernel":
            flat[path] = new.get(path[:-1], leaf)
        if path[-1] == "kernels":
            slices = [(*path[:-1], str(i)) for i in range(leaf.shape[0])]
            flat[path] = jnp.stack([new.get(p, leaf[int(p[-1])]) for p in slices])
    return {**variables, "params": traverse_util.unflatten_dict(flat)}


def by_layer(
    values: Mapping[Path, jax.Array],
    layers: Collection[Path],
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any,
) -> Mapping[Path, jax.Array]:
    """Split kernels of layers that run in a loop into one for each iteration.

    Args:
      values: kernels by path as in :func:`kernels`, or other values of the same shapes,
        such as gradients.
      layers: paths that ``on_layer`` or ``on_kernel`` was called with.
      apply_fn: the network; it is run only if some of the layers are in a loop.
      variables: variables of the network.
      images: images ``[B, H, W, C]``; their values do not matter.
      masks: masks, passed through to the network.

    Returns:
      ``values`` by the paths of the layers, linear in ``values``; ``values`` itself if
      there are no loops.
    """
    if set(layers) <= set(values):
        return values
    found: dict[Path, jax.Array] = {}
    forward(
        apply_fn,
        with_kernels(variables, values),
        images,
        masks,
        norm="identity",
        on_kernel=lambda path, kernel: found.update({path: kernel}),
    )
    return found
