"""Docstrings as Markdown, for the pages of the API."""

import textwrap

from wakd_kit.docstrings import described as described
from wakd_kit.docstrings import parts


def markdown(docstring: str) -> str:
    """The docstring as Markdown: tables as lists, examples and drawings in fences, nothing else changed."""
    written = []
    for kind, part in parts(docstring):
        if kind == "table":
            written.append("\n".join(f"- **`{name}`**: {said}" for name, said in part.items()))
        elif kind == "code":
            shown = textwrap.dedent("\n".join(part))
            language = "pycon" if part[0].startswith(">>>") else ""
            written.append(f"```{language}\n{shown}\n```")
        else:
            written.append("\n".join(part))
    return "\n\n".join(written)
