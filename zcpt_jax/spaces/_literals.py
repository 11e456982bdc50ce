"""Python literals that people paste from papers, read without executing anything."""

import ast
import warnings
from typing import Any

_LONGEST = 20_000  # characters; Python's parser is not made for hostile input


def parse_expression(text: str) -> ast.expr:
    """The syntax tree of one expression, or of the value of one assignment.

    Args:
      text: such as ``Genotype(...)`` or ``NAME = Genotype(...)``.

    Raises:
      ValueError: if it is too long, too deep, or anything else.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text)} characters, more than {_LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            body = ast.parse(text.strip()).body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
    if len(body) != 1 or not isinstance(body[0], ast.Expr | ast.Assign):
        raise ValueError("it is not one expression")
    return body[0].value


def literal(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
      ValueError: if it is none.
    """
    try:
        return ast.literal_eval(node)
    except (TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
