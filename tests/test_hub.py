"""Uploads and downloads with the real client of the Hub, against a server on the loopback that fails on demand."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hub_server import READER, STRANGER, TOKEN, Hub, commit_of, connect, serve

from gdacli.artifacts import new_directory
from gdacli.checksums import verify_folder
from gdacli.errors import GdaError
from gdacli.sharing import hub as client
from gdacli.sharing.uploads import Uploaded, upload

REPO = "user/digits"
CARD = b"---\nlicense: mit\n---\n# Digits\n"
SHARDS = {f"shard-{number}.tar": os.urandom(15_000 + number) for number in range(3)}
FILES = {"README.md": CARD, "inner/index.parquet": os.urandom(5000), "empty.txt": b"", **SHARDS}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve() as server:
        server.waits = connect(monkeypatch, server, tmp_path / "hf")
        yield server


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    with new_directory(folder) as temporary:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
    return folder


def publish(folder: Path, tags: tuple[str, ...] = ("git-0123",), **options: Any) -> tuple[Uploaded, str]:
    login = client.check_login()
    client.create_repository(login, REPO, "dataset", options.pop("private", False))
    done = upload(login, REPO, "dataset", folder, tags[0])
    return done, client.tag_commit(login, REPO, "dataset", done.commit, tags)


def is_published(hub: Hub, folder: Path) -> bool:
    """Say if the repository holds exactly the folder's files, in one commit, with the tag on it."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repo = hub.repo(REPO)
    return (hub.files(REPO), len(repo.commits), repo.tags) == (files, 2, {"git-0123": repo.commits[-1].oid})


def is_untouched(hub: Hub) -> bool:
    """Say if nobody sees anything of an upload: no repository, or one without a file and a tag."""
    repo = hub.repos.get(("dataset", REPO))
    return repo is None or (len(repo.commits) == 1 and not repo.tags)


def test_a_second_upload_of_the_same_bytes_sends_nothing(hub, tmp_path, capfd):
    folder = write(tmp_path / "share")
    first, tag = publish(folder)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert (first.changed, first.files, first.files_sent, first.bytes_sent) == (True, 7, 7, total)
    assert is_published(hub, folder)
    before = len(hub.requests)
    second, again = publish(folder)
    assert (second.changed, second.files_sent, second.bytes_sent) == (False, 0, 0)
    assert (second.commit, again) == (first.commit, tag)
    assert sum(request.received for request in hub.requests[before:] if "create" not in request.path) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "upload: 1/1 MB" in shown.err
    assert "%|" not in shown.err, "a bar of huggingface_hub"


def test_only_what_changed_is_sent_and_what_was_ours_is_deleted(hub, tmp_path):
    folder = write(tmp_path / "share")
    publish(folder)
    hub.repo(REPO).commits[-1].files["notes.md"] = b"somebody wrote this on the Hub's page"
    changed = {name: content for name, content in FILES.items() if name != "shard-1.tar"} | {"shard-2.tar": b"new"}
    changed["shard-0.tar"] = FILES["shard-0.tar"][::-1]  # of the same size
    done, tag = publish(write(folder, changed), ("git-0123", "git-0123-content"))
    assert (done.deleted, done.kept, done.files_sent) == (["shard-1.tar"], ["notes.md"], 3)  # two shards and SHA256SUMS
    assert set(hub.files(REPO)) == {*changed, "SHA256SUMS", "notes.md"}
    assert (hub.files(REPO)["shard-2.tar"], hub.files(REPO)["shard-0.tar"]) == (b"new", changed["shard-0.tar"])
    assert tag == "git-0123-content"
    assert set(hub.repo(REPO).tags) == {"git-0123", "git-0123-content"}
    assert hub.files(REPO, revision="git-0123").keys() >= {"shard-1.tar"}, "the older version is still there"
    older, named = publish(write(folder, FILES), ("git-0123", "git-0123-content"))
    assert older.commit not in hub.repo(REPO).tags.values()
    assert named == "git-0123-content"


def test_large_files_go_in_parts_where_the_server_says_so(hub, tmp_path):
    hub.part_size = 4_000
    folder = write(tmp_path / "share")
    hub.fail(r"PUT /lfs/\w+/part/2", 500)
    publish(folder)
    assert is_published(hub, folder)
    assert len(hub.asked(r"PUT /lfs/\w+/part/")) == 3 * 4 + 2 + 1  # the parquet file has two


def test_xet_is_used_where_the_server_offers_it(hub, tmp_path):
    (tmp_path / "storage").mkdir()
    hub.xet = f"local://{tmp_path / 'storage'}"
    done, _ = publish(write(tmp_path / "share"))
    assert done.files_sent == 7
    assert not hub.asked("PUT /lfs")
    stored = sum(path.stat().st_size for path in (tmp_path / "storage").rglob("*") if path.is_file())
    assert stored > sum(map(len, SHARDS.values()))
    assert set(hub.files(REPO)) == {*FILES, "SHA256SUMS"}


STEPS = {
    "login": r"GET /api/whoami",
    "create": r"POST /api/repos/create",
    "state": r"GET /api/datasets/user/digits$",
    "list": r"GET /api/datasets/user/digits/tree",
    "preupload": r"POST .*/preupload/",
    "batch": r"POST .*/objects/batch",
    "send": r"PUT /lfs/",
    "verify": r"POST /lfs/.*/verify",
    "card": r"POST /api/validate-yaml",
    "commit": r"POST .*/commit/",
    "refs": r"GET .*/refs",
    "tag": r"POST .*/tag/",
}
PASSING: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"Retry-After": "7"}},
    "cut": {"cut": 5},
    "lost answer": {"cut": 0, "done": True},
}
REFUSED = {
    401: "the token is not valid here",
    403: "take a token that may do this",
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_passes_is_waited_for(hub, tmp_path, step, fault):
    folder = write(tmp_path / "share")
    failed = hub.fail(STEPS[step], **PASSING[fault])
    publish(folder)
    assert failed.times == 0, "the fault did not happen"
    assert is_published(hub, folder)
    assert hub.waits
    assert fault != "429" or max(hub.waits) >= 7
    twice = hub.asked(STEPS["send"])
    assert len(twice) <= 4 + (step == "send"), "a file that arrived was sent again"


@pytest.mark.parametrize("fault", ["500", "cut"])
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_lasts_is_one_line_and_the_next_push_completes(hub, tmp_path, step, fault):
    folder = write(tmp_path / "share")
    after = {"send": 2}.get(step, 0)  # two files arrive
    failed = hub.fail(STEPS[step], **PASSING[fault], times=math.inf, after=after)
    with pytest.raises(GdaError) as error:
        publish(folder)
    tries = len(hub.asked(STEPS[step]))
    assert "\n" not in str(error.value)
    assert "run the same command again" in str(error.value)
    assert tries <= 6 * 4, "tried again by us and by huggingface_hub"
    assert is_untouched(hub) or step in ("refs", "tag")
    failed.times = 0
    arrived = len(hub.objects)
    before = len(hub.asked(STEPS["send"]))
    publish(folder)
    assert is_published(hub, folder)
    assert len(hub.asked(STEPS["send"])) - before == 4 - arrived, "only what is missing is sent"


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("step", STEPS)
def test_a_refusal_is_one_line_and_not_tried_again(hub, tmp_path, step, status):
    folder = write(tmp_path / "share")
    failed = hub.fail(STEPS[step], status, times=math.inf)
    with pytest.raises(GdaError) as error:
        publish(folder)
    assert REFUSED[status] in str(error.value)
    assert "\n" not in str(error.value)
    assert TOKEN not in str(error.value)
    assert not hub.waits
    assert is_untouched(hub) or step in ("refs", "tag")
    failed.times = 0
    publish(folder)
    assert is_published(hub, folder)


def test_a_gateways_page_is_no_answer(hub, tmp_path):
    hub.fail(STEPS["card"], 502, page=True)
    publish(write(tmp_path / "share"))
    assert is_published(hub, tmp_path / "share")


def test_who_may_not(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(GdaError, match=r"login: no token for http://127.*: set HF_TOKEN .* or run `hf auth login`"):
        client.check_login()
    assert not hub.asked("whoami")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(GdaError, match="login: the token of user may only read"):
        client.check_login()
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with pytest.raises(GdaError, match=r"login: refused \(401.*set HF_TOKEN to one from"):
        client.check_login()
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(GdaError, match=r"creating user/digits: refused \(403, .*another --repo-id"):
        publish(write(tmp_path / "share"))
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(TOKEN)
    monkeypatch.delenv("HF_TOKEN")
    assert client.check_login().user == "user", "the Hub's own login"


def test_private_stays_private(hub, tmp_path, monkeypatch):
    folder = write(tmp_path / "share")
    publish(folder, private=True)
    assert hub.repo(REPO).private
    publish(folder)
    assert hub.repo(REPO).private
    hub.repo(REPO).private = False
    with pytest.raises(GdaError, match="--private: user/digits exists already and is public"):
        publish(folder, private=True)


def test_nothing_is_asked_offline(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for call in (client.check_login, lambda: client.download(REPO)):
        with pytest.raises(GdaError, match="HF_HUB_OFFLINE is set, so nothing may ask the Hub: unset it"):
            call()
    assert not hub.requests


@pytest.mark.parametrize("repo_id", ["digits", "a/b/c", "user/", "../x", "user/a b", "user/--x"])
def test_names_of_repositories(repo_id):
    with pytest.raises(GdaError, match="expected user/name"):
        client.check_repo_id(repo_id)


def test_somebody_else_pushed_at_the_same_time(hub, tmp_path):
    folder = write(tmp_path / "share")
    client.create_repository(client.check_login(), REPO, "dataset", False)
    commits = hub.repo(REPO).commits
    hub.before[STEPS["commit"]] = lambda: commits.append(
        commit_of(commits[-1], "theirs", {"notes.md": b"theirs"}, set())
    )
    with pytest.raises(GdaError, match="somebody else changed the repository at the same time .* run the same command"):
        publish(folder)
    assert set(hub.files(REPO)) == {"notes.md"}
    hub.before.clear()
    assert publish(folder)[0].kept == ["notes.md"]


def test_a_long_wait_is_left_to_the_user(hub):
    hub.fail(STEPS["login"], 429, headers={"Retry-After": "3600"})
    with pytest.raises(GdaError, match="too many requests .*wait 3600 s, then run"):
        client.check_login()
    assert not hub.waits


def test_a_download_holds_what_was_uploaded_and_is_made_once(hub, tmp_path, monkeypatch, capfd):
    folder = write(tmp_path / "share")
    done, _ = publish(folder)
    publish(write(folder, {"README.md": CARD}))
    monkeypatch.delenv("HF_TOKEN")
    before = len(hub.requests)
    pulled, commit = client.download(REPO, "git-0123")
    assert commit == done.commit
    assert not verify_folder(pulled)
    assert {name: (pulled / name).read_bytes() for name in FILES} == FILES
    assert not any("authorization" in request.headers for request in hub.requests[before:])
    assert "%|" not in capfd.readouterr().err
    sent = sum(request.sent for request in hub.asked("GET .*/resolve/"))
    assert client.download(REPO, "git-0123") == (pulled, commit)
    assert sum(request.sent for request in hub.asked("GET .*/resolve/")) == sent
    with pytest.raises(GdaError, match=r"downloading user/digits at v9: not found \(404, Invalid rev id: v9\)"):
        client.download(REPO, "v9")
    with pytest.raises(GdaError, match="downloading user/nothing: refused .401"):
        client.download("user/nothing")


@pytest.mark.parametrize("step", ["HEAD", "GET"])
@pytest.mark.parametrize("fault", ["500", "429", "cut"])
def test_a_download_goes_on_after_a_fault(hub, tmp_path, monkeypatch, step, fault):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    folder = write(tmp_path / "share")
    publish(folder)
    how = PASSING[fault] | ({"cut": 10_000} if fault == "cut" else {})
    if (step, fault) == ("HEAD", "cut"):
        how = PASSING["lost answer"]
    failed = hub.fail(rf"{step} .*/resolve/.*/shard-1", **how)
    pulled, _ = client.download(REPO)
    assert failed.times == 0
    assert not verify_folder(pulled)
    tries = hub.asked("GET .*/resolve/.*/shard-1")
    assert len(tries) == 1 + (step == "GET")
    if (step, fault) == ("GET", "cut"):
        assert tries[1].headers["range"] == "bytes=10000-"
        assert sum(request.sent for request in tries) == len(FILES["shard-1.tar"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 500}, "the Hub has a problem"),
        ({"status": 401}, "the token is not valid here"),
        ({"status": 403}, "take a token that may do this"),
        ({"status": 404}, "not found"),
        ({"cut": 0}, "the connection to http.* failed"),
    ],
    ids=["500", "401", "403", "404", "cut"],
)
@pytest.mark.parametrize("step", ["HEAD", "GET"])
def test_a_download_that_fails_is_one_line_and_the_next_one_completes(hub, tmp_path, step, fault, message):
    publish(write(tmp_path / "share"))
    how = {"done": True} if step == "HEAD" and "cut" in fault else {}
    failed = hub.fail(rf"{step} .*/resolve/.*/shard-1", **fault, **how, times=math.inf)
    with pytest.raises(GdaError, match=f"downloading user/digits: .*{message}") as error:
        client.download(REPO)
    assert "\n" not in str(error.value)
    assert len(hub.asked(failed.matches)) <= 7
    failed.times = 0
    sent = len(hub.asked("GET .*/resolve/.*/shard-[02]"))
    pulled, _ = client.download(REPO)
    assert not verify_folder(pulled)
    assert len(hub.asked("GET .*/resolve/.*/shard-[02]")) <= max(2, sent), "a file that was there was fetched again"


def test_our_lines_of_new_tries_hold_no_signed_address(hub, tmp_path, capfd):
    hub.fail(STEPS["send"], 500)
    hub.fail(STEPS["batch"], 429, headers={"Retry-After": "7"})
    hub.fail(STEPS["login"], 503)
    publish(write(tmp_path / "share"))
    lines = capfd.readouterr().err.splitlines()
    assert "the Hub answered 503: trying again in 1 s" in lines
    assert "the Hub asks to wait: trying again in 8.0 s" in lines
    assert "trying again in 1 s" in lines
    assert not any("Signature" in line or "http" in line for line in lines)
