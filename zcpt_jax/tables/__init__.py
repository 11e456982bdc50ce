"""Tabular benchmarks: accuracies of genotypes after training."""

from zcpt_jax.tables._csv import save_table
from zcpt_jax.tables._load import load_table
from zcpt_jax.tables._table import Table, TableRank

__all__ = ["TableRank", "Table", "load_table", "save_table"]
