"""Examples in docstrings become code blocks: Markdown would take them for quotations and links."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Fenced(Extension):
    """Puts every example, from its first `>>>` to the next empty line, between fences."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute it has read."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = EXAMPLE.sub(lambda block: f"```pycon\n{block[0]}\n```", text)
