"""Settings of a search."""

from dataclasses import dataclass

from zcpt_jax.scoring.config import ScoringConfig
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.operation_scores import get_operation_score
from zcpt_jax.types import InputError


@dataclass(frozen=True)
class SearchConfig(ScoringConfig):
    """Settings that determine a search's result, besides space, proxy and dataset.

    Attributes:
      edge_order: a name in :data:`zcpt_jax.search.ORDERS`.
      num_proposals: number of proposals, N in the paper.
      num_validation_batches: number of validation minibatches, V in the paper.
      operation_score: a name in :data:`zcpt_jax.search.OPERATION_SCORES`. ``zc-pt`` is
        the paper's method; ``random`` is its random search baseline, including
        validation.
      max_params: maximum number of parameters of the network found, None for no limit.
      max_flops: maximum number of multiply-adds for one image, None for no limit.
    """

    edge_order: str = "random"
    num_proposals: int = 10
    num_validation_batches: int = 100
    operation_score: str = "zc-pt"
    max_params: float | None = None
    max_flops: float | None = None

    def check(self) -> None:
        """Raise InputError if a value is out of range or a name unknown."""
        super().check()
        self._check_counts("num_proposals", "num_validation_batches")
        get_order(self.edge_order)
        get_operation_score(self.operation_score)
        for name in ("max_params", "max_flops"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"{name} must be positive, got {limit}")
