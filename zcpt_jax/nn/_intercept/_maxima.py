"""Detection of unmarked ReLUs in a network: every ``max(z, 0)``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from zcpt_jax.nn._intercept._jaxprs import Collector, Values, bind
from zcpt_jax.nn._intercept._loops import cannot_look
from zcpt_jax.types import InputError


def read(fn: Callable[[], Any], reader: Callable[[jax.Array], Any]) -> list[Any]:
    """Apply a function to the ``z`` of every ``max(z, 0)`` of a traced function.

    Maxima of integers and of variances do not count.

    Args:
      fn: any traceable function without arguments.
      reader: called with ``z``; returns a pytree of arrays and must not store ``z``.

    Returns:
      The results of ``reader`` in order of execution, one for each iteration of a
      ``scan``; zeros for the branch of a ``cond`` that is not taken.

    Raises:
      InputError: if a ``max(z, 0)`` is in a ``while`` loop.
    """
    collector = _MaximaCollector(reader)
    collector.run(jax.make_jaxpr(fn)(), ())
    return collector.found


class _MaximaCollector(Collector):
    def __init__(self, reader: Callable[[jax.Array], Any]):
        super().__init__(_maxima)
        self._reader = reader

    def visit(self, eqn: core.JaxprEqn, values: Values) -> Values:
        self.found.append(self._reader(values[1 - _zero(eqn)]))
        return bind(eqn, values)

    def refusal(self, eqn: core.JaxprEqn) -> InputError:
        return cannot_look("a max(z, 0)", eqn.primitive.name)


def _maxima(jaxpr: core.Jaxpr) -> set[int]:
    producers = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    return {
        position
        for position, eqn in enumerate(jaxpr.eqns)
        if _is_maximum(eqn) and not _is_variance(eqn.invars[1 - _zero(eqn)], producers)
    }


def _is_maximum(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name != "max" or not any(map(_is_zero, eqn.invars)):
        return False
    dtype: Any = getattr(eqn.outvars[0].aval, "dtype", None)
    return jnp.issubdtype(dtype, jnp.floating)


def _zero(eqn: core.JaxprEqn) -> int:
    """Return the position of the zero among a maximum's arguments."""
    return [_is_zero(atom) for atom in eqn.invars].index(True)


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, core.Literal) and jnp.ndim(atom.val) == 0 and atom.val == 0


def _is_variance(atom: Any, producers: dict[core.Var, core.JaxprEqn]) -> bool:
    """Return whether this is the ``mean(x^2) - mean(x)^2`` of a normalisation layer."""

    def made_by(atom: Any, *names: str) -> core.JaxprEqn | None:
        eqn = None if isinstance(atom, core.Literal) else producers.get(atom)
        return eqn if eqn is not None and eqn.primitive.name in names else None

    def is_mean(atom: Any) -> bool:
        divided = made_by(atom, "div", "mul")
        return bool(divided and made_by(divided.invars[0], "reduce_sum"))

    difference = made_by(atom, "sub")
    if difference is None:
        return False
    mean, square = difference.invars
    squared = made_by(square, "square", "integer_pow", "mul")
    return is_mean(mean) and squared is not None and is_mean(squared.invars[0])
