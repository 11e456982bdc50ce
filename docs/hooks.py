"""Turn the roles of docstrings (:func:, :class: and others) into links."""

import re
from typing import Any

_ROLE = re.compile(
    r":(?:attr|class|data|func|meth|mod):<code>(~?)([\w.]+)</code>", re.ASCII
)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Replace roles by code that links to the object, if a page documents it.

    Args:
      html: the page's content.
      page: the page; its objects are looked up in the modules that it documents.
    """
    modules = re.findall(r"^::: ([\w.]+)$", page.markdown or "", re.MULTILINE)

    def link(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rpartition(".")[2] if short else name
        full = name if name.startswith("zcpt_jax") else f"{modules[0]}.{name}"
        return f'<autoref identifier="{full}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(link, html) if modules else html
