"""Looking at values inside ``jit``, ``checkpoint``, ``scan`` and ``cond``.

JAX runs the body of such a call once, on tracers that must not leave it: a Python
callback cannot keep what it sees there. A function is therefore run in two ways. First,
its *sites* (the places that are looked at) call back directly. If one of them lies in a
body, the function is traced instead with an identity operation, the *mark*, at every
site, and its jaxpr is interpreted: :func:`see` unrolls loops, so that every callback
works as in a function without loops; :func:`collect` keeps loops, and returns from them
what was made of each value.

The function takes the ``tap`` that its sites call: ``tap(site, *values)`` returns the
values to go on with. Where JAX keeps traces between calls (``jax.jit``), the function
has to see to it that none is used again for another tap; :data:`mark` is one.
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
    """A place in a function that is looked at.

    Attributes:
      kind: what it is, as messages say it, such as ``layer``.
      path: where it lies: the path of a Flax module.
      info: more of it that is not an array; hashable.
      distinct: whether ``handle`` depends on the path, so that two modules must not
        share a trace.
    """

    kind: str
    path: tuple[str, ...]
    info: Any = None
    distinct: bool = False


Tap = Callable[..., Values]
"""``tap(site, *values)``, which returns values of the same shapes."""

Handle = Callable[[Site, Values, tuple[int, ...]], Values]
"""``handle(site, values, iteration)``, which returns values of the same shapes;
``iteration`` is that of each loop around the site."""


def see(run: Callable[[Tap], Any], handle: Handle) -> Any:
    """Runs a function with a callback at every site, in order of execution.

    Loops that contain a site are unrolled: they take as long to trace and to compile as
    their iterations written one after the other.

    Args:
      run: the function; it is called a second time if a site lies in a body.
      handle: the callback. It may keep what it sees.

    Returns:
      What ``run`` returns, a pytree of arrays.

    Raises:
      InputError: if a site lies in a ``while`` loop, a ``cond``, a ``vmap``, or in a
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
        # The sites before the first inner one have called back already.
        return done.pop(0) if done else handle(site, values, iteration)

    closed, shapes = jax.make_jaxpr(lambda: run(mark), return_shape=True)()
    outs = _MarkUnroller(handle_once).run(closed, ())
    return jax.tree.unflatten(jax.tree.structure(shapes), outs)


def collect(run: Callable[[Tap], Any], read: Callable[..., Any]) -> list[Any]:
    """Reads every site of a function, in order of execution.

    Loops stay loops: ``read`` is applied inside, and only its result leaves.

    Args:
      run: the function; it is called a second time if a site lies in a body.
      read: called with the values of a site; returns a pytree of arrays and keeps
        nothing.

    Returns:
      What ``read`` returned, for each iteration of a loop by itself; zeros for the
      sites in a branch of a ``cond`` that is not taken.

    Raises:
      InputError: if a site lies in a ``while`` loop or a ``vmap``.
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
    """The tap that does nothing."""
    del site
    return values


class _InnerSite(Exception):
    """A site lies in a body, where callbacks cannot keep what they see."""


def _at_this_level(tap: Tap) -> Tap:
    """The tap, which raises if it is called from inside a body."""
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
    """The tap that leaves a mark in the jaxpr."""
    return _mark_p.bind(*values, site=site)


def _refuse(transform: str) -> Callable[..., Any]:
    def rule(*args: Any, site: Site) -> Any:
        raise cannot_look(_describe(site), transform)

    return rule


batching.primitive_batchers[_mark_p] = _refuse("vmap")
ad.primitive_jvps[_mark_p] = _refuse("grad")


def cannot_look(what: str, where: str) -> InputError:
    """Returns the error that something inside a transform cannot be looked at."""
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
    """The sites of an equation, those of its bodies included."""
    if eqn.primitive is _mark_p:
        yield eqn.params["site"]
    for body in bodies(eqn):
        for inner in body.jaxpr.eqns:
            yield from _sites(inner)
