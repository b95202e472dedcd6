"""The arrows of the architecture, and that DVC knows what each stage runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gdacli.generators import FILES
from gdacli.live import latent_backends

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gdacli"

TOP = {
    *("advice_command", "cli", "export_commands", "invocation", "options"),
    *("sharing_commands", "sweeping", "theory_commands", "__main__"),
    *("api", *(f"api.{path.stem}" for path in (PACKAGE / "api").glob("[a-z]*.py"))),
}
STAGES = {f"stages.{path.stem}" for path in (PACKAGE / "stages").glob("*.py")} - {"stages.__init__"} | {"stages"}
BASE = {
    "artifacts",
    "console",
    "datasets",
    "errors",
    "images",
    "paths",
    "records",
    "processes",
    "redaction",
    "rng",
    "shards",
    "splits",
    "table_datasets",
    "tables",
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
}
SECTIONS = {
    *("sections", "arm_section", "gan_section", "lora_section", "push_section"),
    *("augment_sections", "objective_sections", "training_sections"),
}
MIDDLE = MODULES - TOP - STAGES - BASE - SECTIONS - {"params", "explain", "__init__"}
WITHOUT_A_SAY = SECTIONS | {"params", "explain", "errors", "console", "paths", "artifacts", "executors"}
"""Modules that check, name and move things but do not decide what is in an artifact: no reason to run a stage again."""


def imports(module: str, top_level_only: bool = False) -> set[str]:
    """Return the modules of ours that a module imports, in functions too."""
    base = PACKAGE / Path(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gdacli":
            parent = (node.module or "").removeprefix("gdacli").removeprefix(".")
            for name in (".".join(filter(None, (parent, alias.name))) for alias in node.names):
                found.add(name if name in MODULES else parent)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def closure(*modules: str) -> set[str]:
    """Follow our imports from some modules, not through those without a say."""
    seen, todo = set[str](), list(modules)
    while todo:
        module = todo.pop()
        if module in seen | WITHOUT_A_SAY | {""}:
            continue
        seen.add(module)
        todo += imports(module) & MODULES
    return seen


@pytest.mark.parametrize("module", sorted(MODULES - {"__init__"}))
def test_imports_point_downwards(module):
    ours = imports(module) & MODULES
    if module in STAGES:
        assert not ours & (TOP | (STAGES - {"stages"})), "a stage imports no stage: files are their only channel"
    if module in MIDDLE:
        assert not ours & (TOP | STAGES | SECTIONS | {"params"})
    if module in BASE:
        assert ours <= BASE
    if module == "params":
        assert ours <= MIDDLE | BASE | SECTIONS | {"explain"}


@pytest.mark.parametrize("command", ["--help", "generate --help"])
def test_help_loads_nothing_heavy(command):
    heavy = "{'torch', 'diffusers', 'datasets', 'sklearn', 'timm', 'scipy', 'pyarrow', 'numpy'}"
    code = (
        "import sys\nfrom gdacli.cli import app\n"
        f"try: app({command.split()!r})\nexcept SystemExit: pass\n"
        f"sys.stderr.write(repr(sorted({heavy} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"


def stages(text: str) -> dict:
    return yaml.safe_load(text)["stages"]


PIPELINE = stages((ROOT / "dvc.yaml").read_text())


@pytest.mark.parametrize("name", PIPELINE)
def test_deps_name_the_code_that_the_stage_runs(name):
    latent = {f"generators.{backend}" for backend in latent_backends()}  # which these load by name
    backends = {module for module in MODULES if module.startswith("generators.")}
    loaded = backends if name in ("fit", "generate") else latent if name in ("train", "evaluate") else set()
    engine = {"engine"} if name == "generate" else set()  # which an executor loads by name
    modules = closure(f"stages.{name}", *loaded, *engine)
    expected = {_file(module) for module in modules - backends} - {"gdacli/stages/__init__.py"}
    if loaded:
        expected.add("gdacli/generators/${generate.backend}")
    sources = "".join((ROOT / _file(module)).read_text() for module in modules)
    expected |= {f"gdacli/{path}" for path in re.findall(r"templates/[\w.]*\w", sources)}
    assert {dep for dep in PIPELINE[name]["deps"] if dep.startswith("gdacli/")} == expected


def _file(module: str) -> str:
    base = f"gdacli/{module.replace('.', '/')}"
    return f"{base}/__init__.py" if (ROOT / base).is_dir() else f"{base}.py"


def test_projects_of_init_have_the_demos_pipeline():
    template = (PACKAGE / "templates/dvc.yaml.in").read_text()
    made = yaml.safe_load(re.sub(r", versions\.\w+\]", "]", template))
    demo = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for stage in demo["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("gdacli/")]
    assert made == demo
    for name, stage in stages(template).items():
        assert f"versions.{name}" in stage["params"]


def test_fit_runs_again_when_what_it_pins_changes():
    """What `recipe.read_recipe` holds against the pins, so that `dvc repro` never ends in "run `gdacli fit`"."""
    pinned = {"backend", *FILES, "revision", "variant", "safety_checker"}
    assert {f"generate.{name}" for name in pinned} <= set(PIPELINE["fit"]["params"])


def test_files_are_named_after_a_noun_and_stay_short():
    for path in PACKAGE.rglob("*.py"):
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}
        assert len(path.read_text().splitlines()) <= 400, path
