"""The user's own generator, as a file of torch.export."""

import json
import re
import runpy
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import CLASSES, Project
from test_docs import ROOT, commands
from tiny_exports import Tiny, sha256_of, write_export
from torch import nn
from torch.export import Dim

from gdacli.errors import GdaError
from gdacli.generators import exported
from gdacli.generators.exported.program import read_program
from gdacli.images import decode_array
from gdacli.pixels import from_model
from gdacli.sections import Generate
from gdacli.shards import read_shard
from gdacli.truncation import Truncated


def settings(path: Path, *hashes: str, mapping: Path | None = None, **options: Any) -> dict[str, Any]:
    common = {
        "class_names": CLASSES,
        "image_size": 16,
        "device": torch.device("cpu"),
        "output_range": "minus_one_to_one",
    }
    return {**common, "model": path, "mapping": mapping, "trusted_sha256": list(hashes), **options}


def load(path: Path, *hashes: str, **options: Any) -> exported.Exported:
    return exported.load(path.parent, compile=options.pop("compile", False), **settings(path, *hashes, **options))


def live(path: Path, *hashes: str, **options: Any) -> Any:
    return exported.latent_generator(path.parent, num_inference_steps=4, **settings(path, *hashes, **options))


def refused(match: str, act: Callable[[], object]) -> str:
    with pytest.raises(GdaError, match=match) as raised:
        act()
    assert "\n" not in str(raised.value)
    return str(raised.value)


class Wrapped(nn.Module):
    """Change what the tiny generator makes."""

    def __init__(self, change: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.net, self.change = Tiny(**options), change

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> Any:
        return self.change(self.net(z, labels), z, labels)


class OfNoiseAlone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny(num_classes=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z, torch.zeros_like(z[:, 0], dtype=torch.int64))


def test_a_file_is_loaded_only_if_its_hash_is_trusted(tmp_path, monkeypatch):
    sha256 = write_export(tmp_path / "g.pt2")
    load(tmp_path / "g.pt2", "0" * 64, sha256)
    monkeypatch.setattr(torch.export, "load", lambda file: pytest.fail("was loaded"))
    for hashes in ([], ["0" * 64]):
        error = refused("generate.trusted_sha256: ", partial(load, tmp_path / "g.pt2", *hashes))
        assert f"g.pt2 of generate.model has sha256 {sha256}, which is not listed" in error
        assert "to load it can run code that is in it: if you wrote the file or trust who did, add this sha256" in error
    (tmp_path / "g.pt2").write_bytes((tmp_path / "g.pt2").read_bytes() + b"!")
    refused("generate.trusted_sha256: ", lambda: load(tmp_path / "g.pt2", sha256))


def test_samples_are_the_programs_images_of_each_seed(tmp_path):
    sha256 = write_export(tmp_path / "g.pt2")
    labels, seeds = torch.arange(16) % 3, list(range(16))
    made = load(tmp_path / "g.pt2", sha256).sample(labels, seeds)
    z = torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    assert torch.equal(made, from_model(Tiny()(z, labels), 16))
    smaller = load(tmp_path / "g.pt2", sha256, image_size=8).sample(labels, seeds)
    assert (smaller.shape, smaller.dtype) == ((16, 3, 8, 8), torch.uint8)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    again = load(tmp_path / "g.pt2", sha256).sample(labels[order], order.tolist())
    assert torch.equal(again, made[order])


def test_images_from_zero_to_one_are_the_same_images(tmp_path):
    sha256 = write_export(tmp_path / "g.pt2")
    other = write_export(tmp_path / "h.pt2", Wrapped(lambda images, z, labels: (images + 1) / 2))
    labels, seeds = torch.arange(16) % 3, list(range(16))
    one = load(tmp_path / "g.pt2", sha256).sample(labels, seeds)
    two = load(tmp_path / "h.pt2", other, output_range="zero_to_one").sample(labels, seeds)
    assert (one.int() - two.int()).abs().max() <= 1
    for path, trusted, found in (("g.pt2", sha256, "zero_to_one"), ("h.pt2", other, "minus_one_to_one")):
        refused(
            f"generate.output_range: found {found}, but .*{path} makes values from .* to .*; allowed: minus_one_to_one"
            " or zero_to_one: name the one that fits",
            partial(load, tmp_path / path, trusted, output_range=found),
        )
    bytes_like = write_export(tmp_path / "i.pt2", Wrapped(lambda images, z, labels: 127.5 * (images + 1)))
    refused("generate.output_range: .* makes values from .* to 2", lambda: load(tmp_path / "i.pt2", bytes_like))


def test_the_live_generator_is_the_program_and_its_gradient(tmp_path):
    sha256 = write_export(tmp_path / "g.pt2")
    z, labels = torch.randn(5, 8, requires_grad=True), torch.arange(5) % 3
    for size in (16, 8):
        generator = live(tmp_path / "g.pt2", sha256, image_size=size)
        assert (generator.latent_dim, generator.conditional) == (8, True)
        made = generator(z, labels)
        assert made.shape == (5, 3, size, size)
        weights = torch.randn(made.shape)
        (gradient,) = torch.autograd.grad((weights * made).sum(), z)
        if size == 16:
            expected = (Tiny()(z, labels) + 1) / 2
            assert torch.equal(made, expected)
            assert torch.allclose(gradient, torch.autograd.grad((weights * expected).sum(), z)[0], atol=1e-5)
    assert not any(weight.requires_grad for weight in generator.parameters())
    assert not hasattr(generator, "mapping")


def test_a_program_of_z_alone_serves_objectives_but_no_pool(tmp_path):
    sha256 = write_export(tmp_path / "g.pt2", OfNoiseAlone(), labels=False)
    generator = live(tmp_path / "g.pt2", sha256)
    assert not generator.conditional
    assert generator(torch.randn(5, 8), torch.arange(5) % 3).shape == (5, 3, 16, 16)
    refused("generate.model: .* takes no labels", lambda: load(tmp_path / "g.pt2", sha256))
    load(tmp_path / "g.pt2", sha256, class_names=CLASSES[:1])


class Mapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(5, 8)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(self.net(z)) + labels[:, None]


def test_a_mapping_and_a_synthesis_are_one_generator_of_two_latent_spaces(tmp_path):
    path, mapping = tmp_path / "s.pt2", tmp_path / "m.pt2"
    hashes = [write_export(path), write_export(mapping, Mapping(), width=5)]
    generator = live(path, *hashes, mapping=mapping)
    z, labels = torch.randn(4, 5), torch.arange(4) % 3
    w = generator.mapping(z, labels)
    assert generator.latent_dim == 5
    assert w.shape == (4, 8)
    assert torch.equal(generator.synthesis(w, labels), generator(z, labels))
    assert len(list(generator.parameters())) == 6
    assert torch.equal(Truncated(generator, w[:1], 1.0)(z, labels), generator(z, labels))
    assert torch.equal(Truncated(generator, w[:1], 0.0)(z, labels), generator.synthesis(w[:1].expand(4, -1), labels))
    assert load(path, *hashes, mapping=mapping).sample(labels, [1, 2, 3, 4]).shape == (4, 3, 16, 16)
    refused("m.pt2 of generate.mapping has sha256", lambda: live(path, hashes[0], mapping=mapping))
    wide = write_export(tmp_path / "wide.pt2", Mapping(), width=5)
    thin = write_export(tmp_path / "thin.pt2", Tiny(width=9), width=9)
    refused("fails at a batch of 3", lambda: live(tmp_path / "thin.pt2", wide, thin, mapping=tmp_path / "wide.pt2"))


def without_gradient(images: torch.Tensor, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return images.detach()


ALLOWED = r"; allowed: float32 \[B, Z\], or that and the labels int64 \[B\]"
MALFORMED: dict[str, tuple[nn.Module | None, dict[str, Any], str]] = {
    "static": (None, {"batch": None}, r"takes float32 \[4, 8\], int64 \[4\]" + ALLOWED),
    "bounded": (None, {"batch": Dim("batch", max=32)}, r"takes float32 \[0 to 32, 8\], int64 \[0 to 32\]" + ALLOWED),
    "flat": (Wrapped(lambda images, z, labels: images.flatten(1)), {}, r"makes float32 \[B, 768\] of B latents; allow"),
    "oblong": (Wrapped(lambda images, z, labels: images[:, :, 1:]), {}, r"makes float32 \[B, 3, 15, 16\] of B latents"),
    "half": (Wrapped(lambda images, z, labels: images.half()), {}, r"makes float16 \[B, 3, 16, 16\] of B latents"),
    "two": (Wrapped(lambda images, z, labels: (images, z)), {}, "makes a tuple; allowed: one tensor"),
    "nan": (Wrapped(lambda images, z, labels: (images - 2).log()), {}, "makes images with NaN or infinite values"),
    "random": (Wrapped(lambda images, z, labels: images * torch.rand_like(images)), {}, "another image of the same z"),
    "batch": (None, {"train": True}, "depends on the others of its batch: export it in eval mode"),
    "few classes": (Tiny(num_classes=2), {}, "with label 2 .*: it must know the labels 0 to 2 of the data"),
    "no classes": (Wrapped(lambda images, z, labels: of_z(z)), {}, "same images of label 0 and label 2: the labels "),
    "no gradient": (Wrapped(without_gradient), {}, "its images have no gradient in z: export it without torch.no_grad"),
}


def of_z(z: torch.Tensor) -> torch.Tensor:
    return z.sin()[:, :3, None, None].expand(-1, -1, 16, 16)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm = Tiny(), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.norm(self.net(z, labels)))


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_program_that_does_not_fit_is_one_line(tmp_path, kind):
    module, options, match = MALFORMED[kind]
    module = Normalised() if kind == "batch" else module
    sha256 = write_export(tmp_path / "g.pt2", module, **options)
    refused(match, lambda: live(tmp_path / "g.pt2", sha256))


class WithConstants(Tiny):
    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(z + torch.arange(8.0) + torch.zeros(8, device="cpu"), labels)


def test_a_program_moves_to_a_device_with_its_constants(tmp_path):
    """Here to the one device beside the CPU that every machine has; it computes shapes alone."""
    path, elsewhere = tmp_path / "g.pt2", torch.device("meta")
    moved = read_program(path, "generate.model", [write_export(path, WithConstants())]).to(elsewhere)
    made = moved(torch.zeros(5, 8, device=elsewhere), torch.zeros(5, dtype=torch.int64, device=elsewhere))
    assert (made.device, made.shape) == (elsewhere, (5, 3, 16, 16))
    assert {weight.device for weight in moved.module.parameters()} == {elsewhere}
    assert not any(weight.requires_grad for weight in moved.module.parameters())


def test_a_damaged_file_is_one_line_and_nothing_else(tmp_path, capfd):
    write_export(tmp_path / "g.pt2")
    content = (tmp_path / "g.pt2").read_bytes()
    for damaged in (b"", b"no archive", content[: len(content) // 2]):
        (tmp_path / "g.pt2").write_bytes(damaged)
        trusted = sha256_of(tmp_path / "g.pt2")
        refused(
            "generate.model: .*g.pt2 is no program that torch .* can load .*: export it again, as docs/exported.md",
            partial(load, tmp_path / "g.pt2", trusted),
        )
    assert capfd.readouterr() == ("", "")
    refused("generate.model: .* is no file; allowed: a .pt2 file", lambda: load(tmp_path))


def test_compile_is_refused(tmp_path):
    refused("generate.compile: found true; backend exported", lambda: load(tmp_path / "g.pt2", compile=True))


PAGE = (Path(__file__).parents[1] / "docs/exported.md").read_text()


@pytest.fixture
def page(project: Project, monkeypatch) -> dict[str, Any]:
    """Run the code of the page in the project's folder."""
    monkeypatch.chdir(project.folder)
    script = project.folder / "export.py"
    script.write_text("".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    return runpy.run_path(str(script))


def test_the_page_fills_a_pool(project: Project, shapes, page):
    generate = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])["generate"]
    compared = {"arms": ["original", "flood"]}

    def write(**changed: Any) -> None:
        project.write(data={"source": str(shapes)}, generate={**generate, **changed}, compare=compared)

    write()
    project.ok("prepare", "probe", "select")
    for command in commands(ROOT / "docs/exported.md"):
        if command.startswith("sha256sum"):
            sha256 = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout.split()[0]
            assert sha256 == sha256_of(project.folder / "generator.pt2")
        else:
            write(trusted_sha256=[sha256])
            project.ok(command.removeprefix("gdacli "))
    shards = sorted((project.folder / "data/synthetic").glob("*.tar"))
    samples = [sample for shard in shards for sample in read_shard(shard)]
    assert len(samples) == 5
    program = page["Program"](page["generator"])
    for sample in samples:
        z = torch.randn(1, 16, generator=torch.Generator().manual_seed(sample.meta["seed"]))
        expected = from_model(program(z, torch.tensor([sample.label])), 16)[0]
        assert np.abs(decode_array(sample.image).astype(int) - expected.numpy()).max() <= 1
        assert (sample.meta["backend"], sample.meta["dtype"]) == ("exported", "float32")
    manifest = json.loads((project.folder / "data/synthetic/manifest.json").read_text())
    assert manifest["model"]["files"]["model"]["sha256"] == sha256
    write(trusted_sha256=["0" * 64, sha256])
    assert json.loads(project("generate", "--json").stdout)["run"] == {"made": 0, "reused": 5}
    write(seed=1)
    assert f"has sha256 {sha256}, which is not listed" in project("generate").error
    write(model=str(project.folder / "no.pt2"))
    assert "no.pt2 does not exist here" in project("fit").error


def test_the_pages_two_programs_are_the_one(project: Project, page):
    names = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])["generate"]
    Generate.model_validate(names)
    paths = [project.folder / names[key] for key in ("model", "mapping")]
    two = live(paths[0], *map(sha256_of, paths), mapping=paths[1])
    one = live(project.folder / "generator.pt2", sha256_of(project.folder / "generator.pt2"))
    z, labels = torch.randn(6, 16), torch.arange(6) % 3
    assert torch.allclose(two(z, labels), one(z, labels), atol=1e-6)
