"""Pages say what is so: links lead somewhere, code runs, commands exist, numbers were printed."""

import importlib
import os
import re
import subprocess
import sys
from functools import reduce
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from molhpft.cli.app import app
from molhpft.config.schema import load_config
from molhpft.domains.molecules.checkpoints import fitting_encoder
from molhpft.domains.shipped import shipped_encoders
from molhpft.domains.weights import read_weights
from tests.docs import pages
from tests.docs.pages import DOCS, PAGES, ROOT, name
from tests.domains.molecules.chemprop_layout import model_file, passing_file

OURS = [page for page in PAGES if page.name not in ("README.md", "decisions.md", "report.md")]
README = ROOT / "README.md"
GROUP = get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(target), link


@pytest.mark.parametrize("page", OURS, ids=name)
def test_names_of_the_reference_exist_and_are_on_it(page):
    for reference in pages.references(page):
        module = max((m for m in pages.directives() if reference.startswith(m)), key=len)
        path = reference.removeprefix(module).strip(".").split(".")
        assert reduce(getattr, [p for p in path if p], importlib.import_module(module)) is not None


def test_the_reference_shows_every_module():
    package = ROOT / "molhpft"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if not path.stem.startswith("_")
    }
    assert sorted(pages.directives()) == sorted(modules)


def test_the_public_names_are_those_that_packages_export():
    inits = (path for path in (ROOT / "molhpft").rglob("__init__.py"))
    exporting = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in inits
        if "__all__" in path.read_text("utf-8")
    }
    assert exporting == set(pages.hooks.PUBLIC)
    listed = pages.markdown(DOCS / "api.md")
    for package in pages.hooks.PUBLIC:
        for public in importlib.import_module(package).__all__:
            assert f"`from {package} import {public}`" in listed


@pytest.mark.slow
def test_importing_the_package_alone_imports_no_torch():
    code = "import sys, molhpft; assert 'torch' not in sys.modules; molhpft.Model"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_compile(page):
    for block in pages.blocks(pages.markdown(page)):
        if block.kind.startswith("python"):
            assert compile(block.text, name(page), "exec")


def runnable():
    """Every block marked `<!-- runs -->` with those that go on from it and the files it reads."""
    for page in PAGES:
        files, programs = {}, []
        for block in pages.blocks(pages.markdown(page)):
            if saved := re.fullmatch(r"<!-- file (\S+) -->", block.above):
                files[saved[1]] = block.text
            elif block.above.startswith("<!-- runs"):
                programs.append([block.kind, block.text])
            elif block.above == "<!-- goes on -->":
                programs[-1][1] += block.text
        for k, program in enumerate(programs):
            yield pytest.param(*program, files, id=f"{name(page)}-{k}")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "program", "files"), list(runnable()))
def test_blocks_that_are_marked_run(kind, program, files, tmp_path):
    rows = [row for n in range(3, 23) for row in (f"C1{'C' * n}1O,0", f"C1{'C' * n}1N,1")]
    (tmp_path / "molecules.csv").write_text("\n".join(["smiles,active", *rows]) + "\n")
    passing_file(tmp_path / "chemeleon_mp.pt")
    model_file(tmp_path / "best.pt")
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    python = Path(sys.executable)
    done = subprocess.run(
        [python, "-c", program] if kind == "python" else ["bash", "-ec", program],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_quoted_commands_exist_with_their_options(page):
    assert GROUP.commands
    for words in pages.commands(page):
        if len(words) < 2 or words[1].isupper() or words[1] == "--help":
            continue
        assert words[1] in GROUP.commands, words
        options = {o for p in GROUP.commands[words[1]].params for o in (*p.opts, *p.secondary_opts)}
        for word in words[2:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in {*options, "--help"}, words
            if word.startswith(("configs/", "examples/")) and "*" not in word:
                assert (ROOT / word).exists(), words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_weights_of_quoted_runs_are_of_the_encoder_that_the_config_names(page):
    for words in pages.commands(page):
        if len(words) < 3 or words[1] != "run" or not (ROOT / words[2]).is_file():
            continue
        changes = [word for before, word in pairwise(words) if before == "--set"]
        encoder = load_config(ROOT / words[2], changes).encoder
        if str(weights := encoder.options["weights"]) in shipped_encoders():
            own = fitting_encoder(read_weights(weights))
            assert own.items() <= {"name": encoder.name, **encoder.options}.items(), words


def test_every_command_is_documented():
    text = (DOCS / "commands.md").read_text("utf-8")
    listed = " ".join(re.findall(r"^\{% commands (.*) %\}$", text, re.MULTILINE)).split()
    assert sorted(listed) == sorted(GROUP.commands)


@pytest.mark.parametrize("name", GROUP.commands)
def test_the_page_shows_the_defaults_and_choices_that_help_shows(name):
    section = pages.hooks.commands(name)
    for option in GROUP.commands[name].params:
        if isinstance(option.show_default, str):
            (row,) = [line for line in section.splitlines() if f"| `{option.opts[0]} " in line]
            assert row.endswith(f" Default: {option.show_default}. |")
    assert "\\" not in section


def test_what_is_printed_on_pages_is_what_is_recorded():
    recorded = {name: f"$ {command}" for name, command in pages.script("record").COMMANDS.items()}
    printed = {
        path.stem: path.read_text("utf-8").partition("\n")[0]
        for path in (DOCS / "printed").iterdir()
    }
    assert printed == recorded


@pytest.mark.parametrize("page", [*OURS, README], ids=name)
def test_numbers_of_a_page_were_printed(page):
    measured = ROOT / "benchmarks" / "README.md"
    sources = [*(DOCS / "printed").iterdir(), *(ROOT / "configs").rglob("*.yaml"), measured]
    printed = "\n".join(path.read_text("utf-8") for path in sources)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", pages.prose(page.read_text("utf-8")))
    for number in re.findall(r"(?<![\w.])\d+\.\d{1,}(?![\w.])(?!\))", text):
        assert number in printed or f"section {number}" in text, number


@pytest.mark.parametrize("page", [*OURS, README, ROOT / "mkdocs.yml"], ids=name)
def test_lines_are_short_and_name_no_machine(page):
    for line in page.read_text("utf-8").splitlines():
        assert len(line) <= 120 or line.startswith(("|", "[![")), line
    assert not re.search(r"/(work|tmp|home|root)/", pages.markdown(page))


def test_the_readme_is_short_and_begins_with_a_picture_and_the_commands():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 130
    first = "\n".join(lines[:25])
    assert "](docs/quickstart.png)" in first
    assert "pip install -e . && molhpft quickstart" in first


def test_navigation_lists_every_page():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^ +- .*?: (\S+\.md)$", text, re.MULTILINE)
    assert yaml.safe_load(text)["nav"]
    assert sorted(listed) == [str(p.relative_to(DOCS)) for p in sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; skips where MkDocs is not installed."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason='the site needs pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_nobody(site):
    written = sorted(site.rglob("*.html"))
    assert len(written) > len(OURS)
    for path in written:
        html = path.read_text("utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//', html), path
        assert not re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="(?:https?:)?//', html), path
        assert "{% " not in html, path


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site):
    html = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in html.items()}
    for path, text in html.items():
        if path.name == "404.html":  # its links are of the server's root
            continue
        for link in re.findall(r'\bhref="([^"]+)"', text):
            where, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (path.parent / where).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {link}"
            if anchor and target in ids and anchor != "__skip":
                assert anchor in ids[target], f"{path.name}: {link}"
