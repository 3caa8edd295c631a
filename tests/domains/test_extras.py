import sys

import pytest

from molhpft.domains.extras import MissingExtraError, require


def test_an_installed_package_is_imported_whole():
    assert require("xml.dom.minidom", extra="report") is sys.modules["xml.dom.minidom"]


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)

    with pytest.raises(
        MissingExtraError, match=r'^this needs captum.*: pip install "molhpft\[explain\]"$'
    ):
        require("captum.attr", extra="explain")


def test_a_package_that_is_there_but_broken_fails_as_it_does(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import absent_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="absent_dependency") as failure:
        require("broken_package", extra="report")
    assert not isinstance(failure.value, MissingExtraError)
