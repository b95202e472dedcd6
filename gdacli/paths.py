"""Where each artifact of a project lies, relative to its folder."""

from pathlib import Path

DATA = Path("data")
SOURCE = DATA / "source"
PROBE = DATA / "probe"
SELECTION = DATA / "selection"
GENERATOR = DATA / "generator"
SYNTHETIC = DATA / "synthetic"
POOLS = DATA / "pools"
MIX = DATA / "mix"
TRAIN = DATA / "train"
EVALUATION = DATA / "evaluation"
METRICS = DATA / "metrics"
LOGS = DATA / "logs"
PLOTS = DATA / "plots"
REJECTS = Path("rejects.csv")
DROPPED = SYNTHETIC / "dropped.csv"
PREVIEW = DATA / "preview"
LATEST = PREVIEW / "latest.png"
FIT_SAMPLES = PREVIEW / "fit.png"
FIT_NEAREST = PREVIEW / "fit_nearest.png"
SWEEPS = Path("sweeps")
SHARE = DATA / "share"

IGNORED_POOLS = "/*/\n"
"""`.gitignore` of POOLS: the images are DVC's (`dvc add`), the folder itself is there for `dvc.yaml` to name."""


def mix_file(arm: str) -> Path:
    """Return the mix of an arm."""
    return MIX / f"{arm}.parquet"


def run_name(arm: str, seed: int) -> str:
    """Return the name of a training: `<arm>-<seed>`."""
    return f"{arm}-{seed}"
