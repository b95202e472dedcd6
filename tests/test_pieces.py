"""`studies/cifar10/pieces.py`: a project's stages in pieces, here small commands in their place."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gdacli.errors import GdaError

_FILE = Path(__file__).parents[1] / "studies" / "cifar10" / "pieces.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("pieces", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pieces"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


pieces = _load()

# quick.sh OUT: writes it whole. slow.sh OUT NUMBER: counts to the number, keeping the count so far, as a training does;
# while there is a file `hold`, it does not come further than 3.
_QUICK = 'echo "$1" >>calls; mkdir -p "$(dirname "$1")"; echo "$@" >"$1.tmp"; mv "$1.tmp" "$1"\n'
_SLOW = """echo "$1" >>calls; mkdir -p "$(dirname "$1")" state; name=state/$(basename "$1"); touch "$name"; count=0
while read -r line; do count=$((count + 1)); done <"$name"
while [ $count -lt "$2" ]; do
  echo $count >>"$name"; count=$((count + 1)); sleep 0.03
  while [ -e hold ] && [ $count -ge 3 ]; do sleep 0.01; done
done
cp "$name" "$1.tmp"; mv "$1.tmp" "$1"
"""
_STAGES: dict[str, Any] = {
    "prepare": {"cmd": "sh quick.sh data/source", "params": ["data"], "outs": ["data/source"]},
    "fit": {
        "cmd": "sh slow.sh data/generator/${generate.backend} 12",
        "deps": ["data/source"],
        "params": ["fit"],
        "outs": ["data/generator/${generate.backend}"],
    },
    "train": {
        "matrix": {"arm": "${compare.arms}", "seed": "${compare.seeds}"},
        "cmd": "sh quick.sh data/train/${item.arm}-${item.seed}",
        "deps": ["data/generator/class_conditional"],
        "params": ["train", "arms.${item.arm}.train"],
        "outs": ["data/train/${item.arm}-${item.seed}"],
    },
    "evaluate": {
        "cmd": "sh quick.sh data/metrics/evaluate.json",
        "deps": ["data/train"],
        "params": ["compare"],
        "metrics": [{"data/metrics/evaluate.json": {"cache": False}}],
    },
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a project whose stages are shell scripts."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**TINY, "data": {"source": "digits"}}))
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": _STAGES}, sort_keys=False))
    (tmp_path / "quick.sh").write_text(_QUICK)
    (tmp_path / "slow.sh").write_text(_SLOW)
    return tmp_path


def _change(project: Path, stage: str, **values: Any) -> None:
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    stages[stage] |= values
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def _run(project: Path, *overrides: str, minutes: float = 1, **options: Any) -> bool:
    return pieces.run(project, pieces.plan(project, overrides), minutes, **options)


def _calls(project: Path) -> list[str]:
    """Return what ran since the last call, by its output's name."""
    calls = project / "calls"
    names = [Path(line).name for line in calls.read_text().split()] if calls.exists() else []
    calls.unlink(missing_ok=True)
    return names


def _timings(project: Path) -> dict[str, Any]:
    return json.loads((project / "data/logs/timings.json").read_text())


def test_the_stages_of_a_real_project_run_seed_by_seed(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**TINY, "data": {"source": "digits"}, "versions": None}))
    template = (files("gdacli") / "templates" / "dvc.yaml.in").read_text().replace(", versions.", ", compare.arms] # [")
    (tmp_path / "dvc.yaml").write_text(template)
    steps = pieces.plan(tmp_path, ["train.lr=0.5"])
    assert [step.name for step in steps] == [
        "prepare", "probe", "select", "fit", "generate", "mix@original", "mix@targeted",
        "train@original-0", "train@targeted-0", "evaluate@0", "train@original-1", "train@targeted-1", "evaluate@0,1",
    ]  # fmt: skip
    of = {step.name: step for step in steps}
    command = shlex.join([sys.executable, "-m", "gdacli"]) + " train --arm targeted --seed 1 -S train.lr=0.5"
    assert shlex.join(of["train@targeted-1"].arguments()) == command
    assert of["train@targeted-1"].outs == ("data/train/targeted-1", "data/metrics/train/targeted-1.json")
    assert of["train@targeted-1"].params["train"]["lr"] == 0.5
    assert of["evaluate@0"].arguments()[-2:] == ["-S", "compare.seeds=[0]"]
    assert of["evaluate@0,1"].overrides == ("train.lr=0.5",)
    assert "data/metrics/evaluate.json" in of["evaluate@0,1"].outs
    assert of["fit"].outs[0] == "data/generator/class_conditional"


def test_what_is_done_does_not_run_again_and_what_changed_does(project: Path) -> None:
    everything = [
        "source", "class_conditional", "original-0", "targeted-0", "evaluate.json", "original-1", "targeted-1",
        "evaluate.json",
    ]  # fmt: skip
    assert _run(project)
    assert _calls(project) == everything
    assert _run(project)
    assert _calls(project) == []
    assert _run(project, "arms.targeted.train={lr: 0.2}")
    assert _calls(project) == ["targeted-0", "evaluate.json", "targeted-1", "evaluate.json"]
    (project / "data/source").write_text("of another time\n")  # by hand: it is made again
    assert _run(project, "arms.targeted.train={lr: 0.2}")
    assert _calls(project) == ["source", "class_conditional"]  # with -S it is another, of which comes the same
    (project / "data/train/original-1").unlink()
    assert _run(project, "arms.targeted.train={lr: 0.2}")
    assert _calls(project) == ["original-1", "evaluate.json"]  # made with -S, it has other bytes
    assert _run(project, "arms.targeted.train={lr: 0.2}", "compare.seeds=[0]")
    assert _calls(project) == ["evaluate.json"]  # that of both seeds has taken the place of this one
    said = (project / "data/metrics/evaluate.json").read_text()
    assert said == "data/metrics/evaluate.json -S arms.targeted.train={lr: 0.2} -S compare.seeds=[0]\n"
    assert _run(project, "arms.targeted.train={lr: 0.2}")
    assert _calls(project) == ["evaluate.json"]


def test_what_was_brought_is_taken_as_it_is(project: Path) -> None:
    with pytest.raises(GdaError, match="--brought prepare: data/source is not there"):
        _run(project, brought=["prepare"])
    (project / "data").mkdir(exist_ok=True)
    (project / "data/source").write_text("made elsewhere\n")
    assert _run(project, "compare.seeds=[0]", brought=["prepare"])
    assert _calls(project) == ["class_conditional", "original-0", "targeted-0", "evaluate.json"]
    assert (project / "data/source").read_text() == "made elsewhere\n"


def test_a_stage_that_is_stopped_goes_on_in_the_next_piece(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pieces.run(project, pieces.plan(project, [])[:1], 1)
    (project / "hold").touch()
    state = project / "state/class_conditional"
    while not (state.exists() and len(state.read_text().split()) == 3):
        assert not _run(project, minutes=0.005)
    (project / "hold").unlink()
    assert _run(project)
    said = capfd.readouterr().err
    assert "fit: stopped; the next piece lets it go on from what it saved" in said
    assert "pieces: fit: goes on" in said
    counted = (project / "data/generator/class_conditional").read_text().split()
    assert counted == [str(number) for number in range(12)]
    timing = _timings(project)["fit"]
    assert timing["pieces"] == _calls(project).count("class_conditional") > 1
    assert timing["finished"]
    assert timing["seconds"] > 12 * 0.03
    assert timing["watt_hours"] is None or timing["watt_hours"] > 0


def test_a_killed_piece_loses_nothing_that_was_done(project: Path) -> None:
    (project / "hold").touch()
    process = subprocess.Popen([sys.executable, _FILE, "-C", project], start_new_session=True, stdout=subprocess.PIPE)
    state = project / "state/class_conditional"
    while not (state.exists() and state.read_text().count("\n") > 2):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (project / "hold").unlink()
    assert not _timings(project)["fit"]["finished"]
    assert _run(project)
    assert _calls(project)[:3] == ["source", "class_conditional", "class_conditional"]
    counted = (project / "data/generator/class_conditional").read_text().split()
    assert counted == [str(number) for number in range(12)]


def test_what_does_not_end_when_asked_is_killed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_GRACE", 0.05)
    deaf = "trap : TERM; touch deaf; count=0; while [ $count -lt 999 ]; do count=$((count + 1)); sleep 0.02; done"
    _change(project, "fit", cmd=f"sh -c '{deaf}'")
    while not (project / "deaf").exists():
        assert not _run(project, minutes=0.005)
    assert not _timings(project)["fit"]["finished"]


def test_trainings_run_at_the_same_time(project: Path) -> None:
    # Each waits for the other, so one after the other they never end.
    wait = "touch state-${item.arm}; while [ ! -e state-original ] || [ ! -e state-targeted ]; do sleep 0.01; done; "
    _change(project, "train", cmd=f"sh -c '{wait} sh quick.sh data/train/${{item.arm}}-${{item.seed}}'")
    assert _run(project, "compare.seeds=[0]", jobs=2)
    assert sorted(_calls(project)[2:4]) == ["original-0", "targeted-0"]


def test_energy_is_that_of_all_gpus(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pieces.watt_hours([(10, 100), (28, 100), (46, 300)]) == pytest.approx(0.5 + 1.0)
    assert pieces.watt_hours([(10, 100)]) is None
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1 $2" = "--query-gpu=power.draw --format=csv,noheader,nounits" ] && '
                       'printf "100.5\\n49.5\\n"\n')  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert _run(project)
    timing = _timings(project)["fit"]
    assert 0.5 < timing["watt_hours"] / (150 * timing["seconds"] / 3600) <= 1
    # One that once does not answer is asked again.
    program.write_text('#!/bin/sh\necho >>"$0.calls"\n[ $(wc -l <"$0.calls") -eq 2 ] || echo 150\n')
    assert pieces.run(project, pieces.plan(project, ["data.seed=1"])[:2], 1)  # it answers not when `prepare` ends
    assert _timings(project)["fit"]["watt_hours"] > 0
    program.write_text("#!/bin/sh\necho '[N/A]'\n")
    assert pieces.read_power() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert pieces.read_power() is None


def test_small_results_are_copied(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "data/preview").mkdir(parents=True)
    (project / "data/preview/fit.png").write_bytes(b"a picture")
    with (project / "data/preview/large.png").open("wb") as file:
        file.truncate(9_000_000)
    (tmp_path / "kept/data/preview").mkdir(parents=True)
    (tmp_path / "kept/data/preview/large.png").write_bytes(b"small once")
    os.utime(tmp_path / "kept/data/preview/large.png", (0, 0))
    assert _run(project, "compare.seeds=[0]", keep=tmp_path / "kept")
    kept = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert kept == {"data/preview/fit.png", "data/metrics/evaluate.json", "data/logs/timings.json"}
    assert capfd.readouterr().err.count("large.png is larger than 8000000 bytes and not kept") == 1


def test_what_cannot_be_done_is_said(project: Path) -> None:
    assert _run(project, "compare.seeds=[0]")
    _change(project, "evaluate", cmd="sh slow.sh data/metrics/evaluate.json 9999")
    with pytest.raises(GdaError, match=r"--minutes 0\.01: evaluate@0 takes longer .* give more"):
        _run(project, "compare.seeds=[0]", minutes=0.01)
    _change(project, "evaluate", cmd="sh -c 'exit 3'")
    with pytest.raises(GdaError, match="evaluate@0 failed with exit code 3"):
        _run(project, "compare.seeds=[0]")
    _change(project, "evaluate", foreach=["a"])
    with pytest.raises(GdaError, match=r"dvc\.yaml: evaluate: foreach"):
        _run(project)
    _change(project, "train", params=["train.unknown"])
    with pytest.raises(GdaError, match=r"params\.yaml has no train\.unknown"):
        _run(project)
    (project / "dvc.yaml").unlink()
    with pytest.raises(GdaError, match=r"dvc\.yaml does not exist: give a project's folder with -C"):
        _run(project)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--minutes", "0"], 2, "--minutes: found 0, allowed: more than 0"),
        (["--minutes", "nan"], 2, "--minutes: found nan, allowed: more than 0"),
        (["--jobs", "0"], 2, "--jobs: found 0, allowed: 1 or more"),
        (
            ["--brought", "prepar"],
            1,
            "there is no such stage; allowed: prepare, fit, train, evaluate",
        ),
        (["--keep", "{}/quick.sh"], 1, "quick.sh"),
    ],
)
def test_a_wrong_option_is_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(pieces.signal, "signal", lambda *_: None)
    filled = [option.format(project) for option in options]
    monkeypatch.setattr(sys, "argv", ["pieces.py", "-C", str(project), "--minutes", "0.01", *filled])
    try:
        ended = pieces.main()
    except SystemExit as end:  # of argparse
        ended = end.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert (ended, "error: " in lines[-1], said in lines[-1]) == (code, True, True)


def test_what_a_bare_machine_is_to_have_and_what_to_bring_are_all_that_is_needed() -> None:
    """Of what the project depends on, all but what the study's stages never import; and what that needs in turn."""
    told = re.search(r"On a machine with (.*?), but no network", pieces.__doc__, re.DOTALL)
    assert told is not None
    there = _with_all_it_needs(re.split(r",\s+|\s+and\s+", told[1]))
    lines = [line.partition("#")[0].strip() for line in (_FILE.parent / "wheels.txt").read_text().splitlines()]
    brought = [canonicalize_name(Requirement(line).name) for line in lines if line]
    never = {"accelerate", "cleanlab", "dvc", "peft", "protobuf", "ruamel-yaml", "sentencepiece", "universal-pathlib"}
    project = tomllib.loads((_FILE.parents[2] / "pyproject.toml").read_text())["project"]
    own = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    needed = (own - never).union(*map(_needs, brought))
    assert needed - {"zipp", "lazy-importer"} <= there | {*brought}  # importlib-metadata < 9 works without
    assert never <= own


def _needs(name: str) -> set[str]:
    found = [Requirement(line) for line in distribution(name).requires or []]
    return {canonicalize_name(each.name) for each in found if each.marker is None or each.marker.evaluate()}


def _with_all_it_needs(names: list[str]) -> set[str]:
    known, new = set[str](), {str(canonicalize_name(name)) for name in names}
    while new:
        known |= new
        new = {needed for name in new for needed in _needs(name)} - known
    return known


def test_the_exit_code_says_whether_to_run_it_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pieces.signal, "signal", lambda *_: None)  # that of this process stays as it is
    assert _run(project)
    for updates, options, code, said in (
        (9999, ["--minutes", "0.005"], 75, "run me again"),
        (1, [], 0, "all done"),
        (1, ["-S", "train.lr=-1"], 1, "train.lr"),
    ):
        _change(project, "fit", cmd=f"sh slow.sh data/generator/class_conditional {updates}")
        monkeypatch.setattr(sys, "argv", ["pieces.py", "-C", str(project), *options])
        assert pieces.main() == code
        output = capsys.readouterr()
        assert said in output.out + output.err
