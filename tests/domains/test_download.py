import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from molhpft.domains import files
from molhpft.domains.files import fetch_archive


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


def _zip_with(tmp_path, name, mode=stat.S_IFREG | 0o644):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/fine.txt", "fine")
        member = zipfile.ZipInfo(name)
        member.create_system, member.external_attr = 3, mode << 16
        file.writestr(member, "../../secret")
    return path


def test_the_archive_becomes_the_folder_and_nothing_else_is_left(archive, target):
    fetch_archive(archive.as_uri(), target)
    assert (target / "x" / "raw" / "a.txt").read_text() == "a" * 3_000_000
    assert _leftovers(target) == [target]


def test_the_expected_top_folder_is_renamed(archive, target):
    fetch_archive(archive.as_uri(), target, expected_top="x")
    assert sorted(path.name for path in target.iterdir()) == ["b.txt", "raw"]
    assert _leftovers(target) == [target]


@pytest.mark.parametrize("says_its_length", [True, False])
def test_an_archive_comes_over_http(archive, target, serve, says_its_length):
    body = archive.read_bytes()
    url = serve(body, len(body) if says_its_length else None)
    fetch_archive(url, target, expected_top="x")
    assert (target / "b.txt").read_text() == "b"


def test_a_truncated_download_is_an_error_and_leaves_nothing(archive, target, serve):
    body = archive.read_bytes()
    url = serve(body, len(body) + 1000)
    with pytest.raises(ConnectionError, match=url):
        fetch_archive(url, target)
    assert _leftovers(target) == []


@pytest.mark.parametrize("status", [404, 503])
def test_an_http_error_names_address_and_reason(target, serve, status):
    url = serve(b"", 0, status)
    with pytest.raises(ConnectionError, match=f"{url} cannot be reached: "):
        fetch_archive(url, target)
    assert not target.parent.exists()


def test_an_address_where_nothing_listens_is_one_sentence(target, serve):
    url = "http://127.0.0.1:9/x.zip"
    with pytest.raises(ConnectionError, match="cannot be reached") as caught:
        fetch_archive(url, target)
    assert "\n" not in str(caught.value)


def test_an_absent_file_cannot_be_reached(tmp_path, target):
    with pytest.raises(ConnectionError, match="cannot be reached"):
        fetch_archive((tmp_path / "absent.zip").as_uri(), target)


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_what_is_not_a_whole_zip_is_refused(archive, target, keep):
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match="should be a sound zip archive"):
        fetch_archive(archive.as_uri(), target)
    assert _leftovers(target) == []


def test_a_damaged_member_is_refused(archive, target):
    body = bytearray(archive.read_bytes())
    body[60:80] = bytes(byte ^ 0x55 for byte in body[60:80])
    archive.write_bytes(body)
    with pytest.raises(ValueError, match="should be a sound zip archive"):
        fetch_archive(archive.as_uri(), target)
    assert _leftovers(target) == []


@pytest.mark.parametrize(
    "name", ["../out.txt", "x/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt"]
)
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, target, name):
    url = _zip_with(tmp_path, name).as_uri()
    with pytest.raises(ValueError, match="nothing was unpacked"):
        fetch_archive(url, target)
    assert _leftovers(target) == []
    assert not list(tmp_path.rglob("out.txt"))


def test_a_symbolic_link_is_refused(tmp_path, target):
    url = _zip_with(tmp_path, "x/link", stat.S_IFLNK | 0o777).as_uri()
    with pytest.raises(ValueError, match="x/link"):
        fetch_archive(url, target)
    assert _leftovers(target) == []


def test_another_top_folder_is_an_error_naming_what_is_there(archive, target):
    with pytest.raises(ValueError, match=r"'y'; it holds: x"):
        fetch_archive(archive.as_uri(), target, expected_top="y")
    assert _leftovers(target) == []


def test_an_existing_folder_is_never_touched(archive, target):
    target.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists already"):
        fetch_archive(archive.as_uri(), target)
    assert _leftovers(target) == [target]
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

    def unpack_second(archive, folder, url):
        unpack(archive, folder, url)
        target.mkdir()
        (target / "first.txt").write_text("first")

    monkeypatch.setattr(files, "_unpack", unpack_second)
    fetch_archive(archive.as_uri(), target)
    assert [path.name for path in target.iterdir()] == ["first.txt"]
