"""Wrong labels: flip some of the digits', run prepare, probe with folds and select, and count what was suspected."""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from gdacli.params import load_params
from gdacli.stages import prepare, probe, select
from gdacli.tables import read_table

PARAMS = Path(__file__).parents[1] / "params.yaml"


def write_digits(folder: Path, flipped: float, seed: int) -> None:
    """Write `<label>/<number>-<true label>.png`, a share of them under a label that is not theirs."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    for number, (image, truth) in enumerate(zip(digits.images, digits.target, strict=True)):
        label = (truth + rng.integers(1, 10)) % 10 if rng.random() < flipped else truth
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(image * 255 / 16)).save(folder / str(label) / f"{number:04d}-{truth}.png")


def suspected(folder: Path, flipped: float, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Return recall and precision over the train images, and the share of clean ones that is lost."""
    write_digits(folder / "digits", flipped, seed)
    (folder / "params.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(PARAMS.read_text()) | {"data": {"source": "digits", "test_fraction": 0.2}})
    )
    params = load_params(folder, [f"data.source={folder / 'digits'}", "probe.folds=5", *overrides])
    with contextlib.chdir(folder):
        for stage in (prepare, probe, select):
            stage.run(params)
        columns = read_table(Path("data/selection/selection.parquet"))
    wrong = np.array([int(key.split("-")[-2][0]) for key in columns["key"]]) != columns["label"]
    suspect = columns["suspect"]
    return {
        "num_images": len(wrong),
        "num_flipped": int(wrong.sum()),
        "num_suspects": int(suspect.sum()),
        "recall": float(suspect[wrong].mean()),
        "precision": float(wrong[suspect].mean()),
        "clean_lost": float(suspect[~wrong].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--flipped", type=float, default=0.05, help="share of labels made wrong")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-S", action="append", default=[], dest="overrides", help="section.key=value")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as name:
            runs.append(suspected(Path(name), arguments.flipped, seed, arguments.overrides))
    if arguments.json:
        print(json.dumps(runs, indent=2))
    for seed, run in enumerate([] if arguments.json else runs):
        print(
            f"seed {seed}: {run['num_flipped']} of {run['num_images']} labels flipped, {run['num_suspects']} suspects: "
            f"recall {run['recall']:.3f}, precision {run['precision']:.3f}, clean lost {100 * run['clean_lost']:.2f} %"
        )


if __name__ == "__main__":
    main()
