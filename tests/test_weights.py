import functools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from gdacli.errors import GdaError
from gdacli.generators import FILES
from gdacli.weights import download, locate_pinned, pin_files

CONTENT = bytes(range(256)) * 12_000
"""Three megabytes, so that the progress has more than one to show."""


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def refused(model: str, match: str) -> str:
    with pytest.raises(GdaError, match=match) as raised:
        download(model, "generate.model")
    assert "\n" not in str(raised.value)
    return str(raised.value)


class Server(BaseHTTPRequestHandler):
    def __init__(self, *arguments, asked: list[str], **keywords):
        self.asked = asked
        super().__init__(*arguments, **keywords)

    def do_HEAD(self):
        self._answer(with_content=False)

    def do_GET(self):
        self.asked.append(self.path)
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        if not self.path.startswith(("/base.pt", "/short.pt")):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if with_content:
            self.wfile.write(CONTENT[: 1 << 20] if self.path.startswith("/short.pt") else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    asked: list[str] = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, asked=asked))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_url_is_downloaded_once(server, work, capsys):
    address, asked = server
    found = download(f"{address}/base.pt", "generate.model")
    assert (found.read_bytes(), found.suffix) == (CONTENT, ".pt")
    assert f"downloading {address}/base.pt: 2/2 MB" in capsys.readouterr().err
    assert download(f"{address}/base.pt", "generate.model") == found
    assert asked == ["/base.pt"]
    assert download(f"{address}/base.pt?other", "generate.model") != found


def test_processes_that_begin_together_download_once_and_sweep_what_a_killed_one_left(server, work):
    address, asked = server
    found = download(f"{address}/base.pt", "generate.model")
    found.unlink()
    left = found.with_name(f".tmp-{found.name}-0123abcd")
    left.write_bytes(CONTENT[:1000])
    threads = [threading.Thread(target=download, args=(f"{address}/base.pt", "generate.model")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["/base.pt"] * 2
    assert found.read_bytes() == CONTENT
    assert not left.exists()


def test_a_url_is_pinned_by_its_bytes(server, work):
    address, _ = server
    pins = pin_files({"model": f"{address}/base.pt"}, None, None, False)
    found = locate_pinned(pins)["model"]
    assert found.read_bytes() == CONTENT
    found.write_bytes(b"changed")
    with pytest.raises(GdaError, match=r"^generate.model: .* has other bytes than `gdacli fit` wrote down"):
        locate_pinned(pins)


def test_every_file_that_may_be_read_is_pinned_and_a_folder_has_no_revision(tmp_path):
    file = tmp_path / "lora.fp16.safetensors"
    digests = set()
    for content in (b"one", b"two"):
        file.write_bytes(content)
        digests.add(pin_files({"lora": str(tmp_path)}, None, None, False)["lora"]["sha256"])
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep/weights.bin").write_bytes(content)
        file.write_bytes(b"the same")
        digests.add(pin_files({"model": str(tmp_path)}, None, None, False)["model"]["sha256"])  # of no layout we know
    assert len(digests) == 4
    with pytest.raises(GdaError, match=r"^generate.revision: found 'main', but .* is no Hub id: leave it out$"):
        pin_files({"model": str(file)}, "main", None, False)


def test_a_file_url_is_copied(tmp_path, work):
    file = tmp_path / "base.safetensors"
    file.write_bytes(CONTENT)
    found = download(f"file://{file}", "generate.model")
    file.unlink()
    assert (download(f"file://{file}", "generate.model"), found.read_bytes()) == (found, CONTENT)


def test_a_download_that_fails_is_one_line_and_leaves_nothing(server, work, tmp_path):
    address, _ = server
    message = refused(
        f"{address.replace('//', '//me:password@')}/missing.pt?token=secret",
        rf"^generate.model: {address}/missing.pt cannot be downloaded \(ClientResponseError: Not Found\)",
    )
    assert "secret" not in message
    assert "password" not in message
    refused(f"{address}/short.pt", f"{address}/short.pt cannot be downloaded|was cut short")
    refused(f"file://{tmp_path}/missing.pt", "missing.pt cannot be downloaded .FileNotFoundError: No such file")
    refused("http://127.0.0.1:1/base.pt", "cannot be downloaded .ClientConnectorError")
    refused("nope://base.pt", "^nope://base.pt: cannot be opened")
    assert {path.suffix for path in work.rglob("*") if path.is_file()} == {".lock"}


def test_dvc_pins_again_when_a_setting_of_the_pins_changes(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/config.json").write_text("{}")
    pin = pin_files({"model": str(tmp_path)}, None, None, True)["model"]
    needed = {f"generate.{name}" for name in {"backend", *FILES, *pin} - {"name", "commit", "sha256"}}
    stages = yaml.safe_load((Path(__file__).parent.parent / "dvc.yaml").read_text())["stages"]
    assert needed <= set(stages["fit"]["params"])
    assert "generate.safety_checker" in needed
