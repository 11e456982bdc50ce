"""Packages that only some commands need."""

import importlib.util

from zcpt_jax.types import InputError


def require(*packages: str, extra: str) -> None:
    """Check, before the work, that packages needed at its end are installed.

    Raises:
      InputError: if one is missing; the message names it and the extra with it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"this needs {package}, which is not installed; "
                f'run pip install "zcpt_jax[{extra}]"'
            )
