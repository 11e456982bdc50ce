"""Zero-cost proxies: pure functions, each with a record of its conventions.

To add one: write ``_name.py`` with the function and its :class:`Proxy` record, and add
a line to the table below.
"""

from zcpt_jax.proxies._az_nas import (
    AZ_EXPRESSIVITY,
    AZ_PROGRESSIVITY,
    AZ_TRAINABILITY,
    az_expressivity,
    az_progressivity,
    az_trainability,
)
from zcpt_jax.proxies._ensembles import ensemble, jointly, log_rank_sum, rank_sum
from zcpt_jax.proxies._epe_nas import EPE_NAS, epe_nas
from zcpt_jax.proxies._fisher import FISHER, fisher
from zcpt_jax.proxies._grad_norm import GRAD_NORM, grad_norm
from zcpt_jax.proxies._grasp import GRASP, grasp
from zcpt_jax.proxies._jacob_cov import JACOB_COV, jacob_cov
from zcpt_jax.proxies._l2_norm import L2_NORM, l2_norm
from zcpt_jax.proxies._meco import MECO, meco
from zcpt_jax.proxies._ntk import NTK_COND, NTK_TRACE, ntk_cond, ntk_trace
from zcpt_jax.proxies._nwot import NWOT, nwot
from zcpt_jax.proxies._patterns import LINEAR_REGIONS, SWAP, linear_regions, swap
from zcpt_jax.proxies._plain import PLAIN, plain
from zcpt_jax.proxies._size import FLOPS, PARAMS, flops, params
from zcpt_jax.proxies._snip import SNIP, snip
from zcpt_jax.proxies._synflow import LOG_SYNFLOW, SYNFLOW, log_synflow, synflow
from zcpt_jax.proxies._zen import ZEN, zen
from zcpt_jax.proxies._zico import ZICO, zico
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
    ZICO,
    ZEN,
    MECO,
    SWAP,
    EPE_NAS,
    NTK_COND,
    NTK_TRACE,
    LINEAR_REGIONS,
    AZ_EXPRESSIVITY,
    AZ_PROGRESSIVITY,
    AZ_TRAINABILITY,
    PARAMS,
    FLOPS,
    ensemble("tenas", (NTK_COND, LINEAR_REGIONS), reference="Chen et al., ICLR 2021"),
    ensemble(
        "az_nas",
        (AZ_EXPRESSIVITY, AZ_PROGRESSIVITY, AZ_TRAINABILITY, FLOPS),
        log_rank_sum,
        "Lee and Ham, AZ-NAS, CVPR 2024",
    ),
)

PROXIES: dict[str, Proxy] = {proxy.name: proxy for proxy in _ALL}
"""Every proxy by its name."""


def get_proxy(name: str) -> Proxy:
    """Look up a proxy by its name.

    Args:
      name: a key of :data:`PROXIES`, or several joined by ``+`` for an ensemble that
        adds their ranks.

    Raises:
      InputError: if the name is unknown; the message lists the known names.
    """
    parts = name.split("+")
    for part in parts:
        if part not in PROXIES:
            raise InputError(f"unknown proxy {part!r}; known: {', '.join(PROXIES)}")
    if len(parts) == 1:
        return PROXIES[name]
    return ensemble(name, [PROXIES[part] for part in parts])


__all__ = [
    "PROXIES",
    "az_expressivity",
    "az_progressivity",
    "az_trainability",
    "ensemble",
    "epe_nas",
    "fisher",
    "flops",
    "get_proxy",
    "grad_norm",
    "grasp",
    "jacob_cov",
    "jointly",
    "l2_norm",
    "linear_regions",
    "log_rank_sum",
    "log_synflow",
    "meco",
    "ntk_cond",
    "ntk_trace",
    "nwot",
    "params",
    "plain",
    "rank_sum",
    "snip",
    "swap",
    "synflow",
    "zen",
    "zico",
]
