"""Emulation of the precision of GPUs and TPUs on devices that compute float32.

With ``--precision=high`` or ``default`` GPUs and TPUs round the operands of matrix
products and convolutions, multiply them exactly and sum in float32.
:func:`emulated` rounds the same operands on a CPU. It reproduces the rounding of the
operands, but not the order of the sums.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from zcpt_jax.nn._intercept._jaxprs import Interpreter, Values, bind, bodies
from zcpt_jax.types import ApplyFn, Batch, InputError, ScoreFn, Variables

Rounding = Callable[[jax.Array], jax.Array]
"""Rounds an operand, float32 to float32 of the same shape."""

_PRODUCTS = frozenset(("dot_general", "conv_general_dilated"))
_CONTROL_FLOW = frozenset(("cond", "scan", "while"))
# The function that scores is already differentiated and batched.
_INLINED = frozenset(("custom_jvp_call", "custom_vjp_call", "custom_vmap_call"))


def tensorfloat32(x: jax.Array) -> jax.Array:
    """Round to TensorFloat32: 8 bits of exponent and 10 of mantissa."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)


def bfloat16(x: jax.Array) -> jax.Array:
    """Round to bfloat16: 8 bits of exponent and 7 of mantissa."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def two_bfloat16(x: jax.Array) -> jax.Array:
    """Round to the sum of two bfloat16 numbers, about 16 bits of mantissa.

    Three passes multiply such sums, except for the product of the two low parts. That
    product, which is smaller than the result by a factor of about 2**18, is kept here.
    """
    high = bfloat16(x)
    return high + bfloat16(x - high)


ROUNDINGS: dict[str, Rounding | None] = {
    "float32": None,
    "3 x bfloat16": two_bfloat16,
    "TF32": tensorfloat32,
    "bfloat16": bfloat16,
}
"""The roundings by name, from the most precise to the least."""


def emulated(score_fn: ScoreFn, rounding: Rounding | None) -> ScoreFn:
    """Round the operands of all matrix products and convolutions of a score.

    The jaxpr of the whole score is interpreted, so that its derivatives are rounded
    too, as are the bodies of calls, conditions and loops. Decompositions of matrices
    and all elementwise operations stay float32.

    Args:
      score_fn: a proxy, or any function with its signature.
      rounding: applied to float32 operands; None returns ``score_fn`` itself.

    Returns:
      A function with the same signature, which cannot be differentiated.
    """
    if rounding is None:
        return score_fn

    def score(
        apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
    ) -> jax.Array:
        def run(*args: Any) -> jax.Array:
            return score_fn(apply_fn, *args)

        args = (variables, batch, masks)
        closed = jax.make_jaxpr(run)(*args)
        return _Rounder(rounding).run(closed, jax.tree.leaves(args))[0]

    return score


class _Rounder(Interpreter):
    """Evaluates a jaxpr with the operands of its products rounded."""

    calls = Interpreter.calls | _INLINED

    def __init__(self, rounding: Rounding):
        super().__init__(_products)
        self._rounding = rounding
        self._rounded: dict[core.Jaxpr, core.ClosedJaxpr] = {}

    def visit(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Returns a product of rounded operands."""
        return bind(eqn, [self._operand(value) for value in values])

    def enter(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Inlines calls, and runs conditions and loops with other bodies."""
        name = eqn.primitive.name
        if name in self.calls:
            return self.run(bodies(eqn)[0], values)
        if name not in _CONTROL_FLOW:
            raise InputError(f"products inside a {name} cannot be emulated")
        params = {name: self._rebuild(value) for name, value in eqn.params.items()}
        return bind(eqn.replace(params=params), values)

    def _operand(self, value: Any) -> Any:
        return self._rounding(value) if value.dtype == jnp.float32 else value

    def _rebuild(self, value: Any) -> Any:
        """Returns a parameter of an equation, its jaxprs with rounded products."""
        if isinstance(value, tuple):
            return tuple(map(self._rebuild, value))
        if not isinstance(value, core.ClosedJaxpr):
            return value
        if value.consts:  # they may differ between uses of a jaxpr
            return self._make(value)
        if value.jaxpr not in self._rounded:
            self._rounded[value.jaxpr] = self._make(value)
        return self._rounded[value.jaxpr]

    def _make(self, body: core.ClosedJaxpr) -> core.ClosedJaxpr:
        shapes = [
            jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
            for aval in body.in_avals
        ]
        return jax.make_jaxpr(lambda *args: self.run(body, args))(*shapes)


def _products(jaxpr: core.Jaxpr) -> set[int]:
    return {i for i, e in enumerate(jaxpr.eqns) if e.primitive.name in _PRODUCTS}
