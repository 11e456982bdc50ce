"""Ensembles: several proxies, combined by their ranks of the compared networks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.types import ApplyFn, Batch, Combine, InputError, Proxy, Variables


def ranks(column: np.ndarray) -> np.ndarray:
    """Rank values from 1 for the lowest; ties get their mean rank, NaN stays NaN."""
    from scipy import stats  # takes long to import

    ranked: np.ndarray = stats.rankdata(column, nan_policy="omit")
    return ranked


def rank_sum(scores: np.ndarray) -> np.ndarray:
    """Sum the ranks of n networks over M proxies.

    TE-NAS combines its two proxies this way (Chen et al., ICLR 2021).

    Args:
      scores: scores ``[n, M]``, higher is better.

    Returns:
      Rank sums ``[n]``, from M to n * M.
    """
    return np.stack([ranks(column) for column in scores.T]).sum(axis=0)


def log_rank_sum(scores: np.ndarray) -> np.ndarray:
    """Sum log(rank / n) over M proxies, so that one low rank weighs heavily.

    AZ-NAS combines its four proxies this way (Lee and Ham, CVPR 2024).

    Args:
      scores: scores ``[n, M]``, higher is better.

    Returns:
      Sums ``[n]``, at most 0.
    """
    columns = [ranks(column) for column in scores.T]
    return np.log(np.stack(columns) / len(scores)).sum(axis=0)


def ensemble(
    name: str,
    members: Sequence[Proxy],
    combine: Combine = rank_sum,
    reference: str = "",
) -> Proxy:
    """Build one proxy of several, computed together to share common work.

    Its scores are relative to the compared networks: candidates of one decision, or
    the proposals of a search.

    Args:
      name: name in flags and reports.
      members: at least two different proxies, none of them an ensemble.
      combine: function that combines the members' scores ``[n, M]`` to ``[n]``.
      reference: paper of the ensemble.

    Raises:
      InputError: if there are fewer than two members, a duplicate, or an ensemble among
        them.
    """
    names = [member.name for member in members]
    nested = [member.name for member in members if member.members]
    if nested:
        raise InputError(
            f"{name}: {nested[0]} is an ensemble itself; name its members instead: "
            + "+".join(m.name for one in members for m in one.members)
        )
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(f"{name}: an ensemble needs two or more different proxies")

    return _together(name, members, combine, reference)


def jointly(members: Sequence[Proxy]) -> Proxy:
    """Compute several proxies in one function without combining them.

    The score is the array ``[M]`` of the members' scores; common work is done once.

    Args:
      members: M proxies, none of them an ensemble.
    """
    name = "+".join(member.name for member in members)
    return _together(name, members, None, "")


def _together(
    name: str, members: Sequence[Proxy], combine: Combine | None, reference: str
) -> Proxy:
    def score(
        apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
    ) -> jax.Array:
        """Score a network by all members.

        Returns:
          float32 ``[M]``, the scores as the members give them.
        """
        return jnp.stack(
            [jnp.float32(m.score(apply_fn, variables, batch, masks)) for m in members]
        )

    norms = {member.norm for member in members}
    return Proxy(
        name=name,
        score=score,
        norm=norms.pop() if len(norms) == 1 else "mixed",
        needs_labels=any(member.needs_labels for member in members),
        data_free=all(member.data_free for member in members),
        draws=any(member.draws for member in members),
        forward_only=all(member.forward_only for member in members),
        over_scales=any(member.over_scales for member in members),
        range="ranks, among what is compared",
        reference=reference or "; ".join(member.reference for member in members),
        members=tuple(members),
        combine=combine,
    )
