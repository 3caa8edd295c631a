"""Files are written whole, named by content, cached, and downloaded whole or not at all."""

import hashlib
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from molhpft.domains import files
from molhpft.domains.files import (
    cached_tensors,
    check_output,
    digest,
    fetch_archive,
    listed,
    path_digest,
    read_json,
    replacing,
    save_tensors,
    texts_from_tensors,
    texts_to_tensors,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from molhpft.domains.files import replacing

with replacing(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_takes_its_place_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_place_too(tmp_path):
    with replacing(tmp_path / "run") as aside:
        (aside / "deep").mkdir(parents=True)
    assert (tmp_path / "run" / "deep").is_dir()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "write", [lambda p: p.write_text("half"), lambda p: (p / "b").mkdir(parents=True)]
)
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error, write):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with replacing(path) as aside:
            write(aside)
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills otherwise")
def test_what_a_killed_writer_left_is_swept_a_day_later_by_the_next_and_no_other_file(tmp_path):
    path = tmp_path / "out [1].csv"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    another = tmp_path / ".other.csv.0a.aside"
    another.write_text("of another file")
    yesterday = time() - 90_000
    os.utime(another, (yesterday, yesterday))

    def write():
        with replacing(path) as aside:
            aside.write_text("whole")

    write()
    assert left.exists()  # it may still be written
    os.utime(left, (yesterday, yesterday))
    write()
    assert sorted(tmp_path.iterdir()) == sorted([another, path])


def test_a_digest_is_sha256_of_its_parts_one_after_another(tmp_path):
    (tmp_path / "f").write_bytes(b"\0file")
    numbers = torch.arange(6, dtype=torch.int64).reshape(2, 3)
    content = b"\xc3\xa4" + b"b" + b"\0file" + numbers.T.contiguous().numpy().tobytes()
    expected = hashlib.sha256(content).hexdigest()
    assert digest("ä", b"b", tmp_path / "f", numbers.T) == expected


def test_what_is_read_is_not_written_over_by_whatever_link(tmp_path):
    table, link = tmp_path / "table.csv", tmp_path / "link.csv"
    table.write_text("smiles\n")
    link.symlink_to(table)
    check_output(tmp_path / "other.csv", table, tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"link\.csv would be written over .*table\.csv, which is"):
        check_output(link, table)


def test_the_digest_of_a_path_follows_its_content(tmp_path):
    assert path_digest(tmp_path / "f") == "absent"
    (tmp_path / "f").write_bytes(b"one")
    first, folder = path_digest(tmp_path / "f"), path_digest(tmp_path)
    assert first == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "f").write_bytes(b"three")
    assert path_digest(tmp_path / "f") != first
    assert path_digest(tmp_path) != folder


def test_the_digest_of_a_folder_does_not_depend_on_how_its_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "a.csv").write_text("one")
    whole = path_digest(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert path_digest(Path("data")) == path_digest(Path("data/../data")) == whole
    (tmp_path / "data" / "raw").rename(tmp_path / "data" / "other")
    assert path_digest(Path("data")) != whole


def test_folders_whose_files_differ_in_content_alone_have_digests_of_their_own(tmp_path):
    for place, text in (("a", "cat"), ("b", "dog")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "0.raw").write_text(text)
        os.utime(tmp_path / place / "0.raw", (0, 0))  # as an archive may unpack it
    assert path_digest(tmp_path / "a") != path_digest(tmp_path / "b")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_tensors_may_be_read_by_whom_other_files_may(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"b": "c"})
        (tmp_path / "b.txt").write_text("b")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~umask}
    assert safe_open(tmp_path / "a.safetensors", "pt").metadata() == {"b": "c"}


@given(st.lists(st.text(st.characters(), max_size=8), max_size=9))
def test_texts_come_back_as_they_were(texts):
    assert texts_from_tensors(texts_to_tensors(texts)) == texts


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (2, "0 and 1"), (3, "0, 1 and 2"), (1_003, "0, 1, 2 and 1,000 more")],
)
def test_the_first_of_many_items_are_listed_and_the_others_counted(count, text):
    assert listed(map(str, range(count)), most=3) == text
    if count <= 3:
        assert listed(map(str, range(count))) == text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path))
    return tmp_path


def _build():
    # a view: it is not contiguous
    return {"a": torch.arange(6).view(2, 3).T, "b": torch.tensor([1.5, float("nan")])}


def _refuse():
    raise AssertionError("built although the file is there")


def _same(tensors):
    expected = _build()
    return tensors.keys() == expected.keys() and all(
        torch.equal(tensors[k].nan_to_num(7), expected[k].nan_to_num(7)) for k in expected
    )


def test_the_second_call_reads_what_the_first_wrote(cache):
    assert _same(cached_tensors("x/1", _build))
    assert _same(cached_tensors("x/1", _refuse))
    assert cached_tensors("x/2", lambda: {"a": torch.zeros(1)})["a"].shape == (1,)
    assert sorted(path.name for path in (cache / "x").iterdir()) == [
        "1.safetensors",
        "2.safetensors",
    ]


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_file_is_built_anew_with_a_warning(cache, caplog, damage):
    cached_tensors("x", _build)
    path = cache / "x.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert _same(cached_tensors("x", _build))
    assert f"{path} is damaged" in caplog.text
    assert _same(cached_tensors("x", _refuse))


def test_a_build_or_a_write_that_fails_leaves_nothing(cache, monkeypatch):
    def stop(tensors, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(AssertionError):
        cached_tensors("x", _refuse)
    monkeypatch.setattr(files, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_tensors("x", _build)
    assert os.listdir(cache) == []


def test_where_the_cache_cannot_be_written_tensors_are_still_given_with_a_warning(
    cache, monkeypatch, caplog
):
    (cache / "file").write_text("no folder")
    monkeypatch.setenv("MOLHPFT_CACHE", str(cache / "file"))
    with caplog.at_level(logging.WARNING):
        assert _same(cached_tensors("x", _build))
    assert "cache folder cannot be used" in caplog.text


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "sets" / "ogbg_x"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/raw/a.txt", "a" * 3_000_000)
        file.writestr("x/b.txt", "b")
    return path


@pytest.fixture
def serve():
    """Starts a server that sends `body` under any Content-Length; gives its address."""
    servers = []

    def start(body, announced, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                if announced is not None:
                    self.send_header("Content-Length", str(announced))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/x.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _leftovers(target):
    return list(target.parent.iterdir()) if target.parent.exists() else []


def test_the_archive_becomes_the_folder_and_nothing_else_is_left(archive, target):
    fetch_archive(archive.as_uri(), target)
    assert (target / "x" / "raw" / "a.txt").read_text() == "a" * 3_000_000
    assert _leftovers(target) == [target]


@pytest.mark.parametrize("says_its_length", [True, False])
def test_an_archive_comes_over_http_and_its_expected_top_becomes_the_folder(
    archive, target, serve, says_its_length
):
    body = archive.read_bytes()
    url = serve(body, len(body) if says_its_length else None)
    fetch_archive(url, target, expected_top="x")
    assert sorted(path.name for path in target.iterdir()) == ["b.txt", "raw"]
    assert _leftovers(target) == [target]


def test_a_truncated_download_is_an_error_and_leaves_nothing(archive, target, serve):
    body = archive.read_bytes()
    url = serve(body, len(body) + 1000)
    with pytest.raises(ConnectionError, match=url):
        fetch_archive(url, target)
    assert _leftovers(target) == []


@pytest.mark.parametrize("status", [404, 503, None])
def test_an_address_that_cannot_be_reached_is_one_sentence_with_the_reason(target, serve, status):
    url = serve(b"", 0, status) if status else "http://127.0.0.1:9/x.zip"
    with pytest.raises(ConnectionError, match=f"{url} cannot be reached: ") as caught:
        fetch_archive(url, target)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists()


@pytest.mark.parametrize("kept_bytes", [0, 10, 1000, "damaged"])
def test_what_is_not_a_whole_zip_is_refused(archive, target, kept_bytes):
    body = bytearray(archive.read_bytes())
    if kept_bytes == "damaged":
        body[60:80] = bytes(byte ^ 0x55 for byte in body[60:80])
    else:
        body = body[:kept_bytes]
    archive.write_bytes(body)
    with pytest.raises(ValueError, match="should be a sound zip archive"):
        fetch_archive(archive.as_uri(), target)
    assert _leftovers(target) == []


@pytest.mark.parametrize(
    "name", ["../out.txt", "x/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt", "x/link"]
)
def test_a_member_that_leaves_the_folder_or_links_elsewhere_is_refused(tmp_path, target, name):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/fine.txt", "fine")
        member = zipfile.ZipInfo(name)
        mode = stat.S_IFLNK | 0o777 if name == "x/link" else stat.S_IFREG | 0o644
        member.create_system, member.external_attr = 3, mode << 16
        file.writestr(member, "../../secret")
    with pytest.raises(ValueError, match="nothing was unpacked"):
        fetch_archive(path.as_uri(), target)
    assert _leftovers(target) == []
    assert not list(tmp_path.rglob("out.txt"))


def test_another_top_folder_is_an_error_naming_what_is_there(archive, target):
    with pytest.raises(ValueError, match=r"'y'; it holds: x"):
        fetch_archive(archive.as_uri(), target, expected_top="y")
    assert _leftovers(target) == []


def test_an_existing_folder_is_never_touched(archive, target):
    target.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists already"):
        fetch_archive(archive.as_uri(), target)
    assert list(target.iterdir()) == []


def test_an_interrupted_unpacking_leaves_nothing(archive, target, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.zipfile.ZipFile, "extractall", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_archive(archive.as_uri(), target)
    assert _leftovers(target) == []


def test_a_copy_that_another_process_fetched_meanwhile_is_kept(archive, target, monkeypatch):
    unpack = files._unpack

    def unpack_second(*arguments):
        unpack(*arguments)
        target.mkdir()
        (target / "first.txt").write_text("first")

    monkeypatch.setattr(files, "_unpack", unpack_second)
    fetch_archive(archive.as_uri(), target)
    assert [path.name for path in target.iterdir()] == ["first.txt"]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json is damaged \(.+\); delete it$"):
        read_json(path, remedy="delete it")
