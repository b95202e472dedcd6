import subprocess
import sys
from collections import Counter

from conftest import Project
from test_dataset_folder import SHARED, write
from tiny_project import SIZE, write_finished, write_odd_source

from gdacli.tables import read_table

_READ = """
import sys, mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
print("errors", len(issues.errors), sorted(issues.warnings))
for config in ("default", "source"):
    for record in dataset.records(config):
        image = record[f"{config}/image"]
        key, label = record[f"{config}/key"].decode(), record[f"{config}/label"]
        print(config, key, label, *image.size, sum(image.getpixel((3, 4))))
"""


def test_croissant_yields_the_images_with_their_labels(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "cache"))
    write_finished(Project(tmp_path / "project"), write_odd_source(tmp_path / "photos", per_class=6))
    write(include_source=True)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(SHARED / "croissant.json")], capture_output=True, text=True, check=True
    )
    first, *lines = done.stdout.splitlines()
    # The folder holds no dates: the same images have the same bytes whenever they are shared.
    assert first.startswith("errors 0 [")
    assert first.count("is recommended, but does not exist") == first.count("datePublished") == 1
    found = [line.split() for line in lines]
    for config, folder in (("default", SHARED), ("source", SHARED / "source")):
        index = read_table(folder / "index.parquet")
        expected = Counter(zip(index["key"], map(str, index["label"].tolist()), strict=True))
        assert Counter((key, label) for name, key, label, *_ in found if name == config) == expected
    assert {(width, height) for _, _, _, width, height, _ in found} == {(str(SIZE), str(SIZE))}
    assert len({pixel for *_, pixel in found}) > 10
