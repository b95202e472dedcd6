"""Small real inputs: coloured shapes as an image folder, and projects over them."""

import contextlib
import fcntl
import gc
import io
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import typer.main
import typer.testing
import yaml
from hypothesis import settings
from PIL import Image

from gdacli.invocation import WAIT_BRIEFLY

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell starts background jobs with Ctrl-C ignored, which their children inherit; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No timed assertion: machines are shared. Half of the usual examples: every run draws others.
settings.register_profile("shared", deadline=None, max_examples=50)
settings.load_profile("shared")
os.environ.setdefault(*WAIT_BRIEFLY)  # before torch is imported
for library in ("OMP", "OPENBLAS"):  # files run two at a time: more threads would wait for each other
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
# Compiled once, not by each of the many processes that the tests start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
typer.testing._get_command = cache(typer.main.get_command)  # built once, not for each of a thousand calls


def pytest_collectstart() -> None:
    """Look for no cycles among what is imported now and lives to the end."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the file that takes longest: files run two at a time."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


def pytest_collection_finish() -> None:
    """Spare each collection of garbage the walk over all that was imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let what was imported end as ever."""
    gc.unfreeze()


CLASSES = ("disc", "ring_shape", "square")


def shape(label: int, rng: np.random.Generator, size: int = 16) -> np.ndarray:
    """Draw a disc, a ring or a square of random colour and place, uint8 [size, size, 3]."""
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(0.4, 0.6, 2) * size
    radius = np.maximum(abs(y - cy), abs(x - cx)) if label == 2 else np.hypot(y - cy, x - cx)
    inside = (radius < 0.36 * size) & ((radius > 0.2 * size) | (label != 1))
    image = rng.integers(0, 80, (size, size, 3))
    image[inside] = rng.integers(120, 256, 3)
    return image.astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image in memory."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, per_class: int = 12, size: int = 16, kind: str = "PNG", seed: int = 0) -> Path:
    """Write `<root>/<class>/<number>.<kind>`."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            (root / name / f"{number:03d}.{kind.lower()}").write_bytes(encoded(shape(label, rng, size), kind))
    return root


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of all processes of this run of the tests."""
    folder = tmp_path_factory.getbasetemp()
    fork_server.shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return fork_server.shared


@pytest.fixture
def forked_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `gdacli init` start forks of `dvc`, which have its imports."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(fork_server.commands()), os.environ["PATH"]]))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image folder of 3 classes with 12 PNGs of 16 x 16 pixels each; do not change it."""
    return write_folder(tmp_path_factory.mktemp("source") / "shapes")


TINY: dict = {
    "data": {"source": "", "test_fraction": 0.3},
    "compute": {"device": "cpu", "threads": 1},
    "probe": {"model": "convnet", "model_args": {"width": 4}, "epochs": 2, "batch_size": 8, "lr": 0.05},
    "select": {},
    "fit": {"updates": 6, "batch_size": 16, "block_out_channels": [8, 8]},
    "generate": {"num_inference_steps": 4, "batch_size": 32},
    "train": {
        "model": "convnet",
        "model_args": {"width": 4},
        "budget": {"epochs": 2},
        "batch_size": 8,
        "lr": 0.05,
        "augment": {"crop": {"padding": 1}},
    },
    "compare": {"arms": ["original", "targeted"], "seeds": [0, 1]},
    "arms": {
        "original": {"train": {}},
        "upsample": {"select": "cluster", "add": "copies", "k": 2, "train": {}},
        "targeted": {"select": "cluster", "add": "synthetic", "strengths": [0.5], "train": {}},
        "random": {"select": "random", "like": "targeted", "add": "synthetic", "strengths": [0.5], "train": {}},
        "flood": {"add": "sampled", "num_images": 5, "train": {}},
    },
}


@dataclass
class Project:
    """A project's folder and the command line in it."""

    folder: Path

    def write(self, **sections: dict) -> None:
        """Write params.yaml: TINY with some sections updated."""
        values = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in TINY | sections}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(values))

    def __call__(self, *arguments: str) -> "Outcome":
        """Run gdacli in this process with `-C` set."""
        return invoke(*arguments, "-C", str(self.folder))

    def ok(self, *commands: str) -> None:
        """Run commands that must succeed."""
        for command in commands:
            outcome = self(*command.split())
            assert outcome.code == 0, outcome.stderr


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that an error is."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        return lines[0].removeprefix("error: ")


def invoke(*arguments: str) -> Outcome:
    """Run the command line in this process."""
    from gdacli.cli import app

    here = Path.cwd()
    try:
        result = typer.testing.CliRunner().invoke(app, list(arguments))
    finally:
        os.chdir(here)
    return Outcome(result.exit_code, result.stdout, result.stderr)


OWN_GENERATOR = Path(__file__).parents[1] / "docs/own-generator.md"


def write_grain(project: Project, seconds: float = 0.0) -> str:
    """Write the generator backend of a page into a project; without diffusers its processes start fast.

    Args:
        project: gets `generators/grain.py`.
        seconds: that each batch takes longer, so that it can be killed.

    Returns:
        the page's code.
    """
    (code,) = re.findall(r"```python\n(.*?)```", OWN_GENERATOR.read_text(), re.DOTALL)
    file = project.folder / "generators/grain.py"
    file.parent.mkdir(exist_ok=True)
    slow = code.replace("        rows = ", f"        time.sleep({seconds})\n        rows = ")
    file.write_text(slow.replace("import torch\n", "import time\n\nimport torch\n") if seconds else code)
    return code


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writes beyond so many bytes of a file fail, here and in processes started here, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def project(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give an empty project over the shapes, with a work directory of its own."""
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder)
    made.write(data={"source": str(shapes)})
    return made


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the folder of a project with a pool; do not change it."""
    made = Project(tmp_path_factory.mktemp("generated"))
    made.write(data={"source": str(shapes)}, compare={"arms": ["original", "targeted", "flood"], "seeds": [0]})
    made.ok("prepare", "probe", "select", "fit", "generate")
    return made.folder


@pytest.fixture
def ready(project: Project, generated: Path) -> Project:
    """Give a copy of it."""
    shutil.copytree(generated, project.folder, dirs_exist_ok=True)
    return project


@pytest.fixture(scope="session")
def make_generator(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Callable[[str], Path]:
    """Give a function that makes a tiny model of a backend, once for all, and returns its folder; do not change it.

    The class-conditional one and the gan are fitted on the shapes; text_to_image has Stable Diffusion with random
    weights, and `text_to_image-<family>` another one.
    """
    import torch
    from tiny_exports import write_export
    from tiny_models import glide, instruct_pix2pix, stable_diffusion
    from tiny_pipelines import FAMILIES

    from gdacli.gan_section import Gan
    from gdacli.generators import backend

    def write(name: str, folder: Path) -> Path:
        """Make a model in a folder; returns the part of it that a backend loads."""
        torch.set_num_threads(1)
        backend_name, _, family = name.partition("-")
        if backend_name == "text_to_image":
            return FAMILIES.get(family, partial(stable_diffusion, size=32))(folder / "model")
        if name == "glide":
            return glide(folder).parent
        if name == "exported":
            write_export(folder / "model.pt2")
            return folder
        if name == "diffusemix":
            return instruct_pix2pix(folder)
        rng = np.random.default_rng(0)
        labels = torch.arange(48) % 3
        images = torch.from_numpy(np.stack([shape(int(label), rng) for label in labels])).permute(0, 3, 1, 2)
        settings: dict[str, Any] = {"batch_size": 16, "lr": 2e-3, "ema_decay": 0.9, "flip": False}
        if name == "gan":
            settings = {**Gan().model_dump(), **settings, "updates": 40, "lr": 1e-3, "latent_dim": 8, "width": 8}
        else:
            settings |= {"updates": 150, "class_dropout": 0.1, "block_out_channels": [16, 16], "layers_per_block": 1}
        backend(name, None).fit(
            images,
            labels,
            num_classes=3,
            seed=0,
            folder=folder,
            on_update=lambda updates, loss: None,
            **settings,
        )
        return folder

    def make(name: str) -> Path:
        done = shared / f"{name}.made"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                done.write_text(str(write(name, tmp_path_factory.mktemp(name))))
        return Path(done.read_text())

    return make
