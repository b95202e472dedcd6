"""The objectives on 10, 25, 50 and 100 % of the digits' train images: Table 1b of the MGR paper on small real data.

Each share is a project of its own, run by the commands that a user runs: a gan is fitted on what is left, `sweep
lambda` chooses the weight of pcr on the validation split, which mgr and real_consistency share, and all arms are
trained with the same updates. The validation split stays whole, so at small shares the search reads more labels than
the classifier. One thread; about an hour. `--updates 10 --gan-updates 30 --seeds 0,1 --fractions 1` takes a minute.
"""

import argparse
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import yaml

from gdacli.cli import app

ROOT = Path(__file__).parents[1]
CONSISTENT = ("pcr", "mgr", "real_consistency")
SUPERVISED = ("gda", "gda_multi_head", "gda_ssl", "gda_mps")


def command(*arguments: str) -> Any:
    """Run a command in this process; returns its JSON."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        app([*arguments, "--json"], standalone_mode=False)
    return json.loads(output.getvalue())


def write(values: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def study(fraction: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return what `evaluate` says of a share, and the weight that was chosen."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["data"] |= {"validation_fraction": 0.1, "train_fraction": fraction}
    values["compute"]["threads"] = 1
    values["fit"] = {"check_images": 90, "gan": {"updates": options.gan_updates}}
    values["generate"]["backend"] = "gan"
    values["train"] |= {"budget": {"updates": options.updates}, "checkpoint": "best"}
    values["evaluate"] = {}
    names = ("original", *SUPERVISED, *CONSISTENT)
    values["arms"] = {name: {"train": {"objective": name} if name != "original" else {}} for name in names}
    values["compare"] = {"arms": list(names), "seeds": [int(seed) for seed in options.seeds.split(",")]}
    write(values)
    Path("rejects.csv").write_text("key\n")
    for stage in ("prepare", "probe", "select", "fit", "generate", "mix"):
        command(stage)
    swept = command("sweep", "lambda", "--values", "0.03,0.1,0.3", "--seeds", "0,1,2")["arms"]
    best = min((name for name in swept if name != "original"), key=lambda name: swept[name]["error"]["mean"])
    weight = int(best.removeprefix("pcr_w")) / 1000
    for name in names[1:]:
        values["arms"][name]["train"]["synthetic"] = {"weight": weight if name in CONSISTENT else 0.5}
    write(values)
    command("mix")
    command("train")
    return {"weight": weight, **command("evaluate")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data-fractions"), help="for the projects")
    parser.add_argument("--fractions", default="0.1,0.25,0.5,1")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--gan-updates", type=int, default=2000)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for fraction in map(float, options.fractions.split(",")):
        project = (options.folder / f"{fraction:g}").absolute()
        project.mkdir(parents=True, exist_ok=True)
        os.chdir(project)
        results[fraction] = study(fraction, options)
        if not options.json:
            print(f"{100 * fraction:g} % of the train images, weight of pcr and mgr {results[fraction]['weight']:g}")
            print((project / "data/evaluation/report.md").read_text().split("\n\n")[2])
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
