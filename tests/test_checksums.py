import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, every_file

from gdacli.artifacts import CHECKSUMS, new_directory, write_json
from gdacli.checksums import verify_folder
from gdacli.images import encode_png
from gdacli.shards import Sample, write_shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a published folder: two shards, a manifest, and a file in a folder of its own."""
    rng = np.random.default_rng(0)
    with new_directory(tmp_path / "out") as made:
        for number in range(2):
            images = [encode_png(rng.integers(0, 256, (3, 8, 8), np.uint8)) for _ in range(3)]
            samples = [Sample(f"k{number}{row}", row, image, "png", {"row": row}) for row, image in enumerate(images)]
            shard = write_shard(made / f"train-{number:06d}.tar", samples)
            write_json(made / f"manifest-{number}.json", vars(shard))
        write_json(made / "unet" / "config.json", {"sample_size": 8})
    return tmp_path / "out"


def problems(folder: Path) -> dict[str, str]:
    found = verify_folder(folder)
    assert len({damage.file for damage in found}) == len(found)
    return {damage.file.relative_to(folder).as_posix(): damage.problem for damage in found}


def test_a_published_folder_is_whole_and_sha256sum_agrees(folder):
    assert verify_folder(folder) == []
    done = subprocess.run(["sha256sum", "--strict", "-c", CHECKSUMS], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{name}: OK"
        for name in ("manifest-0.json", "manifest-1.json", "train-000000.tar", "train-000001.tar", "unet/config.json")
    ]


def test_the_sums_of_equal_folders_are_equal_bytes(folder, tmp_path):
    with new_directory(tmp_path / "again") as made:
        for file in reversed(every_file(folder)):
            name = file.relative_to(folder)
            if name.name != CHECKSUMS:
                (made / name).parent.mkdir(exist_ok=True)
                (made / name).write_bytes(file.read_bytes())
    assert (tmp_path / "again" / CHECKSUMS).read_bytes() == (folder / CHECKSUMS).read_bytes()


def test_random_cuts_and_flipped_bits_are_found_and_named(folder):
    generator = random.Random(0)
    for _ in range(150):
        with damaged(folder, generator) as (file, what):
            found = verify_folder(folder)
            assert found, (file, what)
            assert all(file == damage.file or file.name in damage.problem for damage in found), (file, what, found)
    assert verify_folder(folder) == []


def test_a_flipped_bit_in_every_byte_and_every_cut_of_the_sums_are_found_and_named(folder):
    listing = folder / CHECKSUMS
    whole = listing.read_bytes()
    changed = [whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
               for bit in range(0, 8 * len(whole), 3)]  # fmt: skip
    for content in [*changed, *(whole[:size] for size in range(len(whole)))]:
        listing.write_bytes(content)
        found = verify_folder(folder)
        assert found, content
        assert all(damage.file == listing or CHECKSUMS in damage.problem for damage in found), content


def test_damage_is_told_apart(folder):
    (folder / "train-000000.tar").write_bytes(b"")
    (folder / "train-000001.tar").unlink()
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "unet" / "extra.bin").write_text("who put this here")
    (folder / ".tmp-train-000000.tar-1234").write_text("a killed run left this")
    found = problems(folder)
    assert list(found) == ["train-000000.tar", "train-000001.tar", "unet/config.json", "unet/extra.bin"]
    assert found["train-000000.tar"].startswith("empty: found sha256 e3b0c442")
    assert found["train-000001.tar"] == "missing, but SHA256SUMS lists it"
    assert found["unet/config.json"].startswith("changed or cut short: found sha256 44136fa3")
    assert found["unet/extra.bin"] == "not in SHA256SUMS: it was added, or SHA256SUMS is damaged"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: "", "empty; nothing can be checked"),
        (lambda text: text[:-1], "cut short: it ends in"),
        (lambda text: text.upper(), "line 1: found"),
        (lambda text: text.replace("  ", " *"), "line 1: found"),
        (lambda text: text + text.splitlines()[0] + "\n", "line 6: manifest-0.json is listed twice"),
        (lambda text: text[:5] + ("0" if text[5] != "0" else "1") + text[6:], "its sum of manifest-0.json is damaged"),
    ],
)
def test_damage_of_the_sums_themselves_is_said(folder, change, problem):
    listing = folder / CHECKSUMS
    listing.write_text(change(listing.read_text()))
    found = verify_folder(folder)
    assert {damage.file for damage in found} == {listing}
    assert found[0].problem.startswith(problem)


def test_a_folder_without_sums_is_not_called_whole(tmp_path):
    (tmp_path / "a").write_text("a")
    assert problems(tmp_path)[CHECKSUMS].startswith("missing: an older gdacli made the folder")


def test_what_cannot_be_read_is_named_and_the_rest_is_checked(folder):
    (folder / "manifest-0.json").unlink()
    (folder / "manifest-0.json").symlink_to(folder / "nowhere")
    (folder / "train-000001.tar").write_bytes(b"x")
    found = problems(folder)
    assert list(found) == ["manifest-0.json", "train-000001.tar"]
    assert found["manifest-0.json"] == "cannot be read (No such file or directory)"


def test_paths_that_lead_out_of_the_folder_are_not_followed(folder, tmp_path):
    (tmp_path / "secret").write_text("s")
    listing = folder / CHECKSUMS
    listing.write_text(listing.read_text() + f"{'0' * 64}  ../secret\n")
    assert problems(folder) == {"../secret": "missing, but SHA256SUMS lists it"}
