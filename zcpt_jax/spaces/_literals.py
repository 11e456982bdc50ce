"""Parsing of Python literals, as papers print them, without executing anything."""

import ast
import warnings
from typing import Any

_LONGEST = 20_000  # Characters; Python's parser is not safe against hostile input.


def parse_expression(text: str) -> ast.expr:
    """Parse one expression, or the value of one assignment, to a syntax tree.

    Args:
      text: source text such as ``Genotype(...)`` or ``NAME = Genotype(...)``.

    Raises:
      ValueError: if the text is too long, nested too deeply, or anything else.
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
    """Evaluate a literal.

    Raises:
      ValueError: if the node is not a literal.
    """
    try:
        return ast.literal_eval(node)
    except (TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
