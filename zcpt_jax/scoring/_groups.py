"""Groups of masks that are scored together.

Members of a group share their initial weights and, as far as possible, their decisions:
they are the candidates of one decision, or the minibatches of one network. They go
through the network as one batch, and operations that none of them uses are not
computed. Groups run one after the other.
"""

from collections.abc import Sequence

import numpy as np


def group_rows(weights: np.ndarray, owners: np.ndarray, width: int) -> np.ndarray:
    """Assign rows to groups.

    Rows of one owner that do not fit into a group are divided evenly over several.
    Owners share a group if all of their rows fit.

    Args:
      weights: int ``[R]``, initial weights of each row; a group has the same ones.
      owners: int ``[R]``, owner of each row; rows of one owner share their decisions.
      width: number of members of a group.

    Returns:
      int ``[G, width]``, the row of each member; a smaller group repeats its last row.
      Without repetitions, every row occurs exactly once.
    """
    groups: list[list[int]] = []
    keys = np.stack([weights, owners], axis=1)
    starts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
    for run in np.split(np.arange(len(keys)), starts):
        for part in np.array_split(run, -(-len(run) // width)):
            fits = groups and len(groups[-1]) + len(part) <= width
            if fits and weights[groups[-1][0]] == weights[part[0]]:
                groups[-1] += part.tolist()
            else:
                groups.append(part.tolist())
    return np.array([one + [one[-1]] * (width - len(one)) for one in groups])


def choose_width(sizes: Sequence[int], devices: int, most: int) -> int:
    """Choose the number of members of a group.

    Fewer members spread the work more evenly over devices and need less padding; more
    members use a device better. A group is assumed to cost half a mask in addition to
    its members.

    Args:
      sizes: number of rows of each owner in a typical call.
      devices: number of devices that share the groups.
      most: maximum number of members.
    """

    def cost(width: int) -> float:
        groups = sum(-(-size // width) for size in sizes)
        return -(-groups // devices) * (width + 0.5)

    return min(range(min(most, max(sizes)), 0, -1), key=cost)


def split_groups(groups: int, devices: int) -> list[np.ndarray]:
    """Divide groups over devices as evenly as possible.

    Args:
      groups: number of groups.
      devices: number of devices that share them.

    Returns:
      For each device, the indices of its groups.
    """
    return np.array_split(np.arange(groups), devices)
