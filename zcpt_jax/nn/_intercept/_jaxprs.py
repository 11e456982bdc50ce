"""Jaxpr interpreters that intercept selected equations, also inside loops.

Both evaluate a jaxpr equation by equation and enter the bodies of calls, loops and
conditions that contain a selected equation. All other equations run unchanged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from zcpt_jax.types import InputError

Values = Sequence[Any]

Select = Callable[[core.Jaxpr], set[int]]
"""Function that returns the positions of a jaxpr's selected equations, without those in
its bodies."""

_CALLS = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
)
# Entering these loses their custom derivative.
_CUSTOM_DERIVATIVES = frozenset(("custom_jvp_call", "custom_vjp_call"))


class Interpreter:
    """Evaluator of jaxprs; subclasses define the treatment of selected equations.

    Attributes:
      calls: names of the primitives whose body runs once, in place.
    """

    calls = _CALLS

    def __init__(self, select: Select):
        self._select = select
        self._selected: dict[core.Jaxpr, set[int]] = {}

    def run(self, body: core.ClosedJaxpr, args: Values) -> list[Any]:
        """Return the outputs of a jaxpr."""
        jaxpr = body.jaxpr
        env: dict[core.Var, Any] = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        env.update(zip(jaxpr.constvars, body.consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        selected = self.selected(jaxpr)
        for position, eqn in enumerate(jaxpr.eqns):
            values = [read(atom) for atom in eqn.invars]
            if position in selected:
                outs = self.visit(eqn, values)
            elif any(self._holds(inner.jaxpr) for inner in bodies(eqn)):
                outs = self.enter(eqn, values)
            else:
                outs = bind(eqn, values)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def visit(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Return the outputs of a selected equation."""
        raise NotImplementedError

    def scan(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Return the outputs of a scan that contains a selected equation."""
        raise NotImplementedError

    def cond(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Return the outputs of a condition that contains a selected equation."""
        raise self.refusal(eqn)

    def refusal(self, eqn: core.JaxprEqn) -> InputError:
        """Return the error for a selected equation in a body that cannot be entered."""
        raise NotImplementedError

    def selected(self, jaxpr: core.Jaxpr) -> set[int]:
        """Return the positions of the selected equations."""
        if jaxpr not in self._selected:
            self._selected[jaxpr] = self._select(jaxpr)
        return self._selected[jaxpr]

    def _holds(self, jaxpr: core.Jaxpr) -> bool:
        inner = (body.jaxpr for eqn in jaxpr.eqns for body in bodies(eqn))
        return bool(self.selected(jaxpr)) or any(map(self._holds, inner))

    def enter(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Return the outputs of an equation whose bodies contain a selected one."""
        name = eqn.primitive.name
        if name in self.calls:
            return self.run(bodies(eqn)[0], values)
        if name == "scan":
            return self.scan(eqn, values)
        if name == "cond":
            return self.cond(eqn, values)
        raise self.refusal(eqn)


class Unroller(Interpreter):
    """Interpreter that unrolls loops, so that each iteration is visited by itself.

    Attributes:
      iteration: current iteration of each loop around the visited equation.
    """

    def __init__(self, select: Select):
        super().__init__(select)
        self.iteration: tuple[int, ...] = ()

    def scan(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Run the iterations one after the other."""
        consts, carry, xs = _scan_arguments(eqn, values)
        body, around = eqn.params["jaxpr"], self.iteration
        order = list(range(eqn.params["length"]))
        stacks: dict[int, Values] = {}
        for index in reversed(order) if eqn.params["reverse"] else order:
            self.iteration = (*around, index)
            now = [jax.lax.index_in_dim(x, index, keepdims=False) for x in xs]
            outs = self.run(body, [*consts, *carry, *now])
            carry, stacks[index] = outs[: len(carry)], outs[len(carry) :]
        self.iteration = around
        ys = zip(*(stacks[index] for index in order), strict=True)
        return [*carry, *(jnp.stack(y) for y in ys)]


class Collector(Interpreter):
    """Interpreter that collects values at selected equations without unrolling loops.

    Attributes:
      found: collected values, in order of execution.
    """

    calls = _CALLS | _CUSTOM_DERIVATIVES

    def __init__(self, select: Select):
        super().__init__(select)
        self.found: list[Any] = []

    def scan(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Run the scan with a body that also returns the values collected in it."""
        consts, carry, xs = _scan_arguments(eqn, values)

        def body(carry: Values, now: Values) -> Any:
            args = [*consts, *carry, *now]
            outs, found = self._apart(eqn.params["jaxpr"], args)
            return outs[: len(carry)], (outs[len(carry) :], found)

        options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        carry, (ys, stacks) = jax.lax.scan(body, carry, xs, **options)
        for index in range(options["length"]):
            self.found += jax.tree.map(lambda leaf, i=index: leaf[i], stacks)
        return [*carry, *ys]

    def cond(self, eqn: core.JaxprEqn, values: Values) -> Values:
        """Run the branches so that each also returns zeros for the others' values."""
        index, *operands = values
        branches = [
            lambda *args, body=body: self._apart(body, args)
            for body in eqn.params["branches"]
        ]
        shapes = [jax.eval_shape(branch, *operands)[1] for branch in branches]

        def with_zeros(taken: int) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                outs, found = branches[taken](*args)
                read = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
                read[taken] = found
                return outs, read

            return run

        runs = [with_zeros(taken) for taken in range(len(branches))]
        outs, read = jax.lax.switch(index, runs, *operands)
        for found in read:
            self.found += found
        return outs

    def _apart(self, body: core.ClosedJaxpr, args: Values) -> tuple[list[Any], Any]:
        around, self.found = self.found, []
        outs = self.run(body, args)
        found, self.found = self.found, around
        return outs, found


def bodies(eqn: core.JaxprEqn) -> list[core.ClosedJaxpr]:
    """Return the jaxprs that an equation runs."""
    found = []
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.Jaxpr):
                found.append(core.ClosedJaxpr(one, ()))
            elif isinstance(one, core.ClosedJaxpr):
                found.append(one)
    return found


def bind(eqn: core.JaxprEqn, values: Values) -> Values:
    """Return the outputs of an unchanged equation."""
    if bodies(eqn):
        return _bind_call(eqn, values)
    outs = eqn.primitive.bind(*values, **eqn.params)
    return outs if eqn.primitive.multiple_results else [outs]


def _bind_call(eqn: core.JaxprEqn, values: Values) -> Values:
    # Bound as a jaxpr of this equation alone, because JAX versions bind calls in
    # different ways.
    given = {
        atom: value
        for atom, value in zip(eqn.invars, values, strict=True)
        if isinstance(atom, core.Var)
    }
    outer = bodies(eqn)[0].jaxpr
    jaxpr = outer.replace(
        constvars=(),
        invars=list(given),
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*given.values())


def _scan_arguments(eqn: core.JaxprEqn, values: Values) -> tuple[Values, Any, Any]:
    """Return the constants, the initial carry and the scanned values."""
    first = eqn.params["num_consts"]
    second = first + eqn.params["num_carry"]
    return values[:first], list(values[first:second]), list(values[second:])
