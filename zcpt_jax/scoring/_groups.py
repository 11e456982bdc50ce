"""Which masks are scored together: groups, and the members of a group.

Members share their initial weights and, as far as possible, what is decided: the
candidates of one decision, or the minibatches of one network. They go through the
network side by side, and what none of them uses is not computed. Groups follow one
another.
"""

from collections.abc import Sequence

import numpy as np


def group_rows(weights: np.ndarray, owners: np.ndarray, width: int) -> np.ndarray:
    """Puts rows into groups.

    Rows of one owner that do not fit into a group are divided evenly over several.
    Those of several owners share a group where all of them fit.

    Args:
      weights: int ``[R]``, the initial weights of each row; one draw a group.
      owners: int ``[R]``, rows of one owner share what is decided.
      width: members of a group.

    Returns:
      int ``[G, width]``, the row of each member; where a group has fewer, its last row
      is repeated. The first occurrences are all rows, each once.
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
    """How many members a group should have.

    The fewer, the more evenly devices share the work and the less is padding; the more,
    the fuller a device is. A group is taken to cost half a mask besides its members.

    Args:
      sizes: rows of each owner in a typical call.
      devices: that share the groups.
      most: members that a group may have.
    """

    def cost(width: int) -> float:
        groups = sum(-(-size // width) for size in sizes)
        return -(-groups // devices) * (width + 0.5)

    return min(range(min(most, max(sizes)), 0, -1), key=cost)


def shares(groups: int, devices: int) -> list[np.ndarray]:
    """The groups of each device, as even as can be.

    Args:
      groups: how many there are.
      devices: that share them.

    Returns:
      for each device the numbers of its groups.
    """
    return np.array_split(np.arange(groups), devices)
