"""JSON from files that may be damaged or hostile."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; every fault has one type.

    Args:
      text: a JSON document.

    Raises:
      json.JSONDecodeError: if the text is no JSON, is nested too deeply to be read, or
        has a number of too many digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise json.JSONDecodeError("it is nested too deeply", "", 0) from error
    except (ValueError, UnicodeDecodeError) as error:  # such as 5,000 digits
        said = str(error).partition(";")[0]
        raise json.JSONDecodeError(said, "", 0) from error
