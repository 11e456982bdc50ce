"""Ensembles: several proxies, put together by how they rank what is compared."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.types import ApplyFn, Batch, Combine, InputError, Proxy, Variables


def ranks(column: np.ndarray) -> np.ndarray:
    """1 for the lowest value; equal values share their mean rank, NaN stays NaN."""
    below = (column[:, None] > column[None]).sum(axis=1)
    equal = (column[:, None] == column[None]).sum(axis=1)
    return np.where(np.isnan(column), np.nan, below + (equal + 1) / 2)


def rank_sum(scores: np.ndarray) -> np.ndarray:
    """The sum over proxies of the ranks of what is compared.

    As TE-NAS adds the ranks of its two (Chen et al., ICLR 2021).

    Args:
      scores: ``[n, M]``, higher is better.

    Returns:
      ``[n]``, from M to n * M.
    """
    return np.stack([ranks(column) for column in scores.T]).sum(axis=0)


def log_rank_sum(scores: np.ndarray) -> np.ndarray:
    """The sum over proxies of log(rank / n): a low rank by one proxy weighs heavily.

    As AZ-NAS puts its four together (Lee and Ham, CVPR 2024).

    Args:
      scores: ``[n, M]``, higher is better.

    Returns:
      ``[n]``, at most 0.
    """
    columns = [ranks(column) for column in scores.T]
    return np.log(np.stack(columns) / len(scores)).sum(axis=0)


def ensemble(
    name: str,
    members: Sequence[Proxy],
    combine: Combine = rank_sum,
    reference: str = "",
) -> Proxy:
    """A proxy of several, computed together so that they share what they can.

    Its scores compare networks with each other: candidates of one decision, or the
    proposals of a search.

    Args:
      name: what flags and reports call it.
      members: at least two proxies, none of them an ensemble.
      combine: how their scores become one.
      reference: paper.

    Raises:
      InputError: if there are too few members, one twice, or an ensemble among them.
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
    """Several proxies in one function, nothing combined.

    Its score is ``[M]``, as they give them; work that they share is done once.

    Args:
      members: proxies, none of them an ensemble.
    """
    name = "+".join(member.name for member in members)
    return _together(name, members, None, "")


def _together(
    name: str, members: Sequence[Proxy], combine: Combine | None, reference: str
) -> Proxy:
    def score(
        apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
    ) -> jax.Array:
        """The scores of all members.

        Returns:
          ``[M]``.
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
