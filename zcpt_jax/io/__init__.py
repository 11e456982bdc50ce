"""Files: run directories, genotypes, checkpoints, reports.

:mod:`~zcpt_jax.io.checkpoints` needs Orbax.
"""

from zcpt_jax.io.genotype_file import GenotypeFile, dump_genotype, load_genotype
from zcpt_jax.io.run_directory import RunDirectory

__all__ = ["GenotypeFile", "RunDirectory", "dump_genotype", "load_genotype"]
