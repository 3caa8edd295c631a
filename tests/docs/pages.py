"""Pages as readers see them: their links, headings, code blocks and the commands they quote."""

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]

_FENCE = re.compile(r"^( *)```+ *(\S[^\n]*)?\n(.*?)^\1```+ *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")
_REFERENCE = re.compile(r"\]\[((?:molhpft\.)[\w.]+)\]")
_COMMAND = re.compile(r"(?:^|[;&|] *|\$ )(molhpft\s[^;&|\n]*)", re.MULTILINE)


def script(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = script("hooks")


@dataclass(frozen=True)
class Block:
    """A fenced block: what its fence says, its text, and the line of prose above it."""

    kind: str
    text: str
    above: str


def name(page):
    return str(page.relative_to(ROOT))


def markdown(page):
    """A page with scripts, printed output and commands in their places."""
    return hooks.on_page_markdown(page.read_text("utf-8"))


def blocks(text):
    found = []
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        found.append(Block((match[2] or "").strip(), match[3], above))
    return found


def prose(text):
    """What is left without fenced blocks."""
    return _FENCE.sub("", text)


def links(page):
    """Targets of a page's links and pictures that lie in this repository."""
    found = _LINK.findall(re.sub(r"`[^`\n]*`", "code", prose(markdown(page))))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def references(page):
    """Names of the reference that a page links to."""
    return _REFERENCE.findall(prose(markdown(page)))


def anchors(page):
    """Ids of a page's headings, as Python-Markdown and GitHub make them."""
    headings = re.findall(r"^#+ +(.*)$", prose(markdown(page)), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def commands(page):
    """Every `molhpft ...` that a page quotes, in blocks and in running text, as words."""
    text = markdown(page)
    shells = [b.text for b in blocks(text) if b.kind.split()[:1] in (["bash"], ["yaml"])]
    whole = [re.sub(r"^# ?", "", shell, flags=re.MULTILINE) for shell in shells]
    quoted = [code for code in re.findall(r"`([^`]+)`", prose(text)) if code.startswith("molhpft ")]
    lines = [
        line.strip() for shell in whole for line in _COMMAND.findall(re.sub(r"\\\n\s*", " ", shell))
    ]
    return [_words(line) for line in [*lines, *(" ".join(code.split()) for code in quoted)]]


def _words(line):
    line = re.sub(r"\$\([^)]*\)", "FILE", line)  # what the shell would put there
    return shlex.split(line, comments=True)


def directives():
    """Modules that the reference shows."""
    texts = (markdown(page) for page in (DOCS / "reference").glob("*.md"))
    return [module for text in texts for module in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
