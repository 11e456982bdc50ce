"""Parsing of Python literals, as papers print them, without executing anything."""

import ast
import re
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


def find_call(text: str, name: str) -> str | None:
    """Find the only call of a name at the end of a text, such as a line of a log.

    Returns:
      The call's text from its name to its closing parenthesis, or None if the name is
      not called exactly once, or if anything follows the call.
    """
    if len(text) > _LONGEST:
        return None
    starts = [found.start() for found in re.finditer(rf"\b{name}\s*\(", text)]
    if len(starts) != 1:
        return None
    depth = 0
    for place in range(starts[0], len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0 and text[place] == ")":
            last = not text[place + 1 :].strip()
            return text[starts[0] : place + 1] if last else None
    return None
