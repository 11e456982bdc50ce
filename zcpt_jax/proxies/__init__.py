"""Zero-cost proxies. Each is a pure function; its conventions are in its record.

To add one: write ``_name.py`` with the function and its :class:`Proxy` record, and add
a line to the table below.
"""

from zcpt_jax.proxies._fisher import FISHER, fisher
from zcpt_jax.proxies._grad_norm import GRAD_NORM, grad_norm
from zcpt_jax.proxies._grasp import GRASP, grasp
from zcpt_jax.proxies._jacob_cov import JACOB_COV, jacob_cov
from zcpt_jax.proxies._l2_norm import L2_NORM, l2_norm
from zcpt_jax.proxies._nwot import NWOT, nwot
from zcpt_jax.proxies._plain import PLAIN, plain
from zcpt_jax.proxies._snip import SNIP, snip
from zcpt_jax.proxies._synflow import LOG_SYNFLOW, SYNFLOW, log_synflow, synflow
from zcpt_jax.types import InputError, Proxy

_ALL = (
    NWOT,
    SYNFLOW,
    LOG_SYNFLOW,
    SNIP,
    GRASP,
    FISHER,
    GRAD_NORM,
    JACOB_COV,
    PLAIN,
    L2_NORM,
)

PROXIES: dict[str, Proxy] = {proxy.name: proxy for proxy in _ALL}
"""Every proxy by its name."""


def get_proxy(name: str) -> Proxy:
    """The proxy of that name.

    Raises:
      InputError: if there is none; the message lists those there are.
    """
    if name not in PROXIES:
        raise InputError(f"unknown proxy {name!r}; known: {', '.join(PROXIES)}")
    return PROXIES[name]


__all__ = [
    "PROXIES",
    "fisher",
    "get_proxy",
    "grad_norm",
    "grasp",
    "jacob_cov",
    "l2_norm",
    "log_synflow",
    "nwot",
    "plain",
    "snip",
    "synflow",
]
