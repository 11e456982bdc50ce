"""Interception of values inside ``jit``, ``checkpoint``, ``scan`` and ``cond``.

JAX runs the body of such a call once, on tracers that must not leave it, so a Python
callback cannot store values there. A function is therefore run in two ways. First, its
*sites* (the places to intercept) call back directly. If a site is inside a body, the
function is traced instead with an identity operation, the *mark*, at every site, and
its jaxpr is interpreted: :func:`see` unrolls loops, so that every callback works as in
a function without loops; :func:`collect` keeps loops and returns from them the result
for each value.

The function takes the ``tap`` that its sites call: ``tap(site, *values)`` returns the
values to continue with. Where JAX caches traces between calls (``jax.jit``), the
function must ensure that a trace is not reused for another tap; :data:`mark` is a tap.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters import ad, batching

from zcpt_jax.nn._intercept._jaxprs import Collector, Unroller, bodies
from zcpt_jax.types import InputError

Values = Sequence[Any]


class Site(NamedTuple):
    """A place in a function whose values are intercepted.

    Attributes:
      kind: kind of place, as named in messages, such as ``layer``.
      path: path of the Flax module.
      info: further hashable information that is not an array.
      distinct: whether ``handle`` depends on the path, so that two modules must not
        share a trace.
    """

    kind: str
    path: tuple[str, ...]
    info: Any = None
    distinct: bool = False


Tap = Callable[..., Values]
"""Callback ``tap(site, *values)`` that returns values of the same shapes."""

Handle = Callable[[Site, Values, tuple[int, ...]], Values]
"""Callback ``handle(site, values, iteration)`` that returns values of the same shapes;
``iteration`` has the iteration of each loop around the site."""


def see(run: Callable[[Tap], Any], handle: Handle) -> Any:
    """Run a function with a callback at every site, in order of execution.

    Loops that contain a site are unrolled: they take as long to trace and compile as
    their iterations written one after the other.

    Args:
      run: the function; it is called a second time if a site is inside a body.
      handle: the callback; it may store its arguments.

    Returns:
      The result of ``run``, a pytree of arrays.

    Raises:
      InputError: if a site is in a ``while`` loop, a ``cond``, a ``vmap``, or in a
        function with a custom derivative.
    """
    done: list[Values] = []

    def direct(site: Site, *values: Any) -> Values:
        done.append(handle(site, values, ()))
        return done[-1]

    try:
        return run(_at_this_level(direct))
    except _InnerSite:
        pass

    def handle_once(site: Site, values: Values, iteration: tuple[int, ...]) -> Values:
        # Sites before the first inner one have already called back.
        return done.pop(0) if done else handle(site, values, iteration)

    closed, shapes = jax.make_jaxpr(lambda: run(mark), return_shape=True)()
    outs = _MarkUnroller(handle_once).run(closed, ())
    return jax.tree.unflatten(jax.tree.structure(shapes), outs)


def collect(run: Callable[[Tap], Any], read: Callable[..., Any]) -> list[Any]:
    """Read the values at every site of a function, in order of execution.

    Loops are not unrolled: ``read`` is applied inside, and only its result leaves.

    Args:
      run: the function; it is called a second time if a site is inside a body.
      read: called with the values of a site; returns a pytree of arrays and must not
        store its arguments.

    Returns:
      The results of ``read``, one for each iteration of a loop; zeros for sites in a
      branch of a ``cond`` that is not taken.

    Raises:
      InputError: if a site is in a ``while`` loop or a ``vmap``.
    """
    found: list[Any] = []

    def direct(site: Site, *values: Any) -> Values:
        del site
        found.append(read(*values))
        return values

    try:
        run(_at_this_level(direct))
    except _InnerSite:
        found.clear()
    else:
        return found
    reader = _MarkCollector(read)
    reader.run(jax.make_jaxpr(lambda: run(mark))(), ())
    return reader.found


def no_tap(site: Site, *values: Any) -> Values:
    """Return the values unchanged: the tap that does nothing."""
    del site
    return values


class _InnerSite(Exception):
    """Signal that a site is inside a body, where callbacks cannot store values."""


def _at_this_level(tap: Tap) -> Tap:
    """Wrap a tap so that it raises if it is called from inside a body."""
    level = core.get_opaque_trace_state()

    def checked(site: Site, *values: Any) -> Values:
        if core.get_opaque_trace_state() != level:
            raise _InnerSite
        return tap(site, *values)

    return checked


_mark_p = core.Primitive("zcpt_mark")
_mark_p.multiple_results = True
_mark_p.def_impl(lambda *values, site: list(values))
_mark_p.def_abstract_eval(lambda *avals, site: list(avals))


def mark(site: Site, *values: Any) -> Values:
    """Leave a mark in the jaxpr; a tap."""
    return _mark_p.bind(*values, site=site)


def _refuse(transform: str) -> Callable[..., Any]:
    def rule(*args: Any, site: Site) -> Any:
        raise cannot_look(_describe(site), transform)

    return rule


batching.primitive_batchers[_mark_p] = _refuse("vmap")
ad.primitive_jvps[_mark_p] = _refuse("grad")


def cannot_look(what: str, where: str) -> InputError:
    """Return the error for something inside a transform that cannot be intercepted."""
    return InputError(
        f"this proxy looks at {what}, which the network runs inside '{where}'. It can "
        "look into jit, checkpoint (nn.remat) and scan: write the network without "
        f"'{where}' there, or use another proxy"
    )


def _shared(site: Site) -> InputError:
    return InputError(
        f"this proxy looks at {_describe(site)}, which runs inside a jit that the "
        "network calls more than once: the calls share a trace and cannot be told "
        "apart. Write the network without it there, or use another proxy"
    )


class _MarkUnroller(Unroller):
    def __init__(self, handle: Handle):
        super().__init__(_marks)
        self._handle = handle
        self._entered: dict[core.Jaxpr, core.JaxprEqn] = {}

    def visit(self, eqn: core.JaxprEqn, values: Values) -> Values:
        return self._handle(eqn.params["site"], values, self.iteration)

    def enter(self, eqn: core.JaxprEqn, values: Values) -> Values:
        for body in bodies(eqn):
            first = self._entered.setdefault(body.jaxpr, eqn)
            if first is not eqn and any(site.distinct for site in _sites(eqn)):
                raise _shared(next(_sites(eqn)))
        return super().enter(eqn, values)

    def refusal(self, eqn: core.JaxprEqn) -> InputError:
        return _refusal(eqn)


class _MarkCollector(Collector):
    def __init__(self, read: Callable[..., Any]):
        super().__init__(_marks)
        self._read = read

    def visit(self, eqn: core.JaxprEqn, values: Values) -> Values:
        self.found.append(self._read(*values))
        return values

    def refusal(self, eqn: core.JaxprEqn) -> InputError:
        return _refusal(eqn)


def _marks(jaxpr: core.Jaxpr) -> set[int]:
    return {i for i, eqn in enumerate(jaxpr.eqns) if eqn.primitive is _mark_p}


def _refusal(eqn: core.JaxprEqn) -> InputError:
    return cannot_look(_describe(next(_sites(eqn))), eqn.primitive.name)


def _describe(site: Site) -> str:
    return f"the {site.kind} {'/'.join(site.path)}"


def _sites(eqn: core.JaxprEqn) -> Iterator[Site]:
    """Yield the sites of an equation, including those in its bodies."""
    if eqn.primitive is _mark_p:
        yield eqn.params["site"]
    for body in bodies(eqn):
        for inner in body.jaxpr.eqns:
            yield from _sites(inner)
