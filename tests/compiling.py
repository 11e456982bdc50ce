"""How the programs of tests are compiled.

Most run for milliseconds and compile for seconds. So LLVM leaves out its work on speed,
and XLA writes fused loops in its older way, which takes it half the time. Tests marked
``optimised`` compile as users do: those that ask two programs for equal bits.
"""

import contextlib

import jax
from jax._src import compiler

_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
_options = compiler.get_compile_options
_known, _quick = {}, {}


def install():
    """Has all programs of this process compiled by what :func:`quickly` was told."""
    for name, value in _QUICK.items():
        try:
            jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
        except jax.errors.JaxRuntimeError:  # a newer XLA that has no such option
            continue
        _known[name] = value

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        overrides = {**_quick, **(env_options_overrides or {})}
        return _options(*args, env_options_overrides=overrides or None, **kwargs)

    compiler.get_compile_options = get_compile_options


def quickly(quick):
    _quick.clear()
    _quick.update(_known if quick else {})


@contextlib.contextmanager
def quickly_here():
    """For a part of an ``optimised`` test that asks for magnitudes only."""
    quickly(True)
    try:
        yield
    finally:
        quickly(False)


def flags():
    """The same for other processes, as XLA_FLAGS."""
    return [f"--{name}={str(value).lower()}" for name, value in _quick.items()]
