"""Secrets stay out of what is printed, written and shared."""

import io
import json
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import Project, invoke
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import SHARE, write_finished

from gdacli.console import say
from gdacli.invocation import show
from gdacli.redaction import find_secret, redact

HUB = "hf_" + "PlantedInTheEnvironment" + "0123456789A"
PATH = "hf_" + "PlantedInThePathOfTheProject" + "ABCDEF"
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYPLANTEDKEY"
PASSWORD = "pa55-planted"  # noqa: S105
PLANTED = (HUB, PATH, AWS, PASSWORD)

ENVIRONMENT = {"AWS_SECRET_ACCESS_KEY": AWS, "MY_TOKEN": "s3cret-of-me", "DB_PASSWORD": "Tr0ub4dor&3"}

SECRETS = {
    "hub": (HUB, HUB),
    "hub oauth": ("hf_oauth_" + "a1" * 20, "hf_oauth_" + "a1" * 20),
    "github": ("ghp_" + "b2" * 18, "ghp_" + "b2" * 18),
    "aws id": ("AKIA" + "ABCDEFGH23456789", "AKIA" + "ABCDEFGH23456789"),
    "address": (f"https://me:{PASSWORD}@host/x.git", PASSWORD),
    "s3 with key": (f"s3://AK:{PASSWORD}@bucket/pool", PASSWORD),
    "signature": ("https://b.s3.amazonaws.com/x?X-Amz-Signature=0a1b2c&a=1", "0a1b2c"),
    "sas": ("https://x.blob.core.windows.net/y?sv=2022&sig=Zm9v%3D", "Zm9v%3D"),
    "query": ("http://host/x?access_token=q1w2", "q1w2"),
    "bearer": ("Authorization: Bearer abcdefgh.ijklmnop-123", "abcdefgh.ijklmnop-123"),
    "environment": ("the key is s3cret-of-me.", "s3cret-of-me"),
    "quoted": ("http://host/Tr0ub4dor%263/x", "Tr0ub4dor%263"),
    "aws": (f"'{AWS}'", AWS),
    "private key": ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
}


@pytest.mark.parametrize("case", SECRETS)
def test_a_secret_is_found_and_blanked_and_nothing_else(case):
    text, secret = SECRETS[case]
    assert find_secret(f"before {text} after", ENVIRONMENT)
    blanked = redact(f"before {text} after", ENVIRONMENT)
    assert blanked == f"before {text.replace(secret, '***') if case != 'private key' else '***'} after"
    assert redact(blanked, ENVIRONMENT) == blanked
    assert find_secret(blanked, ENVIRONMENT) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FOO_KEY", "1"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("MAX_TOKENS", "100000000"),
        ("SORT_KEY", "original"),
        ("SORT_KEY", "synthetic-only"),
        ("HF_TOKEN_PATH", "/usr/share/token"),
        ("SECRET_FILE", "./secrets/one.txt"),
        ("KEYBOARD", "Qwertz-DE-105"),
        ("HOME", "/home/me/Somewhere1"),
    ],
)
def test_switches_words_numbers_and_paths_are_no_secrets(name, value):
    assert redact(f"found {value} in it", {name: value}) == f"found {value} in it"


@pytest.mark.parametrize(
    "text",
    [
        "digits-s0500_v0: 0.93 of 1797",
        "hf_hub_download failed",
        "user/name at git-0123456789ab: sha256 " + "0f" * 32,
        "params.yaml: data.source: found ~/photos/shoes",
        "s3://bucket/pool?versionId=3 and http://127.0.0.1:8080/x",
        "token: expected one of a, b; password: none",
    ],
)
def test_common_texts_stay_as_they_are(text):
    assert redact(text, ENVIRONMENT) == text
    assert find_secret(text, ENVIRONMENT) is None


@given(st.text(max_size=60), st.sampled_from([text for text, _ in SECRETS.values()]), st.text(max_size=20))
def test_no_secret_is_left(before, text, after):
    assert find_secret(redact(f"{before} {text} {after}", ENVIRONMENT), ENVIRONMENT) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s3://me:p@ss/w0rd+x@bucket/pool?a=b", "s3://me:***@bucket/pool?a=b"),
        ("http://localhost:8000/a@b", "http://localhost:8000/a@b"),
        ("http://localhost:8000 and me@example.org", "http://localhost:8000 and me@example.org"),
        ("git@host:team/shoes and ssh://git@host/team", "git@host:team/shoes and ssh://git@host/team"),
    ],
)
def test_a_password_ends_at_the_last_at_sign_of_its_address(text, left):
    assert redact(text, {}) == left


def in_json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def in_address(value: str) -> str:
    return quote(value, safe="")


@pytest.mark.parametrize("written", [str, repr, in_json, in_address])
def test_a_secret_of_the_environment_is_blanked_however_it_is_written(written):
    value = 'a"b\\c/d é\t9'
    text = f"found {written(value)} here"
    assert redact(text, {"STORE_PASSWORD": f"{value}\n"}) in ("found *** here", "found '***' here", 'found "***" here')


@pytest.fixture
def planted(project: Project, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a finished project in a folder that is named like a token, with secrets in the environment."""
    folder = tmp_path / PATH / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS)
    made = Project(folder)
    write_finished(made, shapes)
    push = {name: value and {k: v for k, v in value.items() if v} for name, value in SHARE.items()}
    made.write(data={"source": str(shapes), "validation_fraction": 0.2}, push=push)
    return made


def test_no_planted_secret_is_printed_or_written(planted, shapes):
    commands = [
        "probe --debug",
        "push --repo-id user/digits --what both --include-source --dry-run --json",
        "push --repo-id user/digits --debug",  # the Hub is offline
        f"verify {planted.folder}/nothing --debug",
        f"prepare --debug -S data.source={planted.folder}/missing",
        f"prepare --debug -S data.source=s3://me:{PASSWORD}@bucket/x",
        f"generate --debug -S generate.model=https://me:{PASSWORD}@host/model",
        f"generate --debug -S generate.prompts=[{HUB}]",
        f"train --debug -S train.lr={AWS}",
        f"mix --debug -S arms.{HUB}.train={{}}",
        f"import-pool {planted.folder.parent} --debug",
    ]
    failed = 0
    for command in commands:
        outcome = planted(*command.split())
        failed += outcome.code != 0
        assert not any(secret in outcome.stdout + outcome.stderr for secret in PLANTED), command
    assert failed == 9
    written = [path for path in planted.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".tar", ".json", ".md", ".csv", ".parquet", ".safetensors", ".yaml"}
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".tar":
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                content += b"".join(tar.extractfile(member).read() for member in tar)  # type: ignore[union-attr]
        assert not any(secret.encode() in content for secret in PLANTED), path


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"data": {"source": f"s3://AK:{PASSWORD}@bucket/x"}}, "data.source"),
        ({"generate": {"model": f"https://me:{PASSWORD}@host/x"}}, "generate.model"),
        ({"generate": {"reuse": ["pools/a", f"pools/{HUB}"]}}, "generate.reuse.1"),
        ({"push": {"limits": f"ask with {AWS}"}}, "push.limits"),
        ({"arms": {HUB: {"train": {}}}}, "arms.***"),
    ],
    ids=["source", "model", "list", "environment", "key"],
)
def test_params_hold_no_secret(project, monkeypatch, sections, field):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS)
    project.write(**sections)
    outcome = project("prepare", "--debug")
    assert outcome.error.startswith(f"params.yaml: {field}: holds ")
    assert not any(secret in outcome.stderr for secret in PLANTED)


def test_results_and_lines_hold_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", HUB)
    for as_json in (False, True):
        show({"found": HUB}, lambda result: f"found {result['found']}", as_json)
    say(f"note: {HUB}")
    shown = capsys.readouterr()
    assert HUB not in shown.out + shown.err
    assert (shown.out.count("***"), shown.err) == (2, "note: ***\n")


def test_a_traceback_holds_no_secret(project, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setattr("gdacli.params.load_params", lambda *given: ENVIRONMENT[HUB])
    outcome = invoke("prepare", "--debug", "-C", str(project.folder))
    assert "KeyError: '***'" in outcome.stderr
    assert "Traceback" in outcome.stderr
    assert HUB not in outcome.stderr
