import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from gdacli.artifacts import sha256_file
from gdacli.errors import GdaError
from gdacli.shards import Sample
from gdacli.store import ImageStore, open_location

HERE = {"device": "cpu", "torch": "1"}
SCORED = "scored"


@pytest.fixture(params=["folder", "fsspec"])
def place(request, tmp_path) -> str:
    """Give a folder as such, and as a URL, which goes through fsspec as an object store does."""
    return str(tmp_path / "work") if request.param == "folder" else f"local://{tmp_path / 'work'}"


def samples(names: str) -> list[Sample]:
    return [Sample(name, 0, name.encode() * 50, "png", {"n": name}) for name in names]


def put(store: ImageStore, names: str, scoring: str = SCORED, environment: dict[str, str] = HERE) -> None:
    store.put([f"i{name}" for name in names], scoring, samples(names), [environment])


def tars(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "work").rglob("*.tar"))


def test_what_was_put_is_found_also_by_the_next_process(place, tmp_path):
    put(ImageStore(place, "s" * 64), "ab")
    assert not ImageStore(place, "t" * 64).holds(["ia", "ib"], SCORED)
    again = ImageStore(place, "s" * 64)
    assert again.holds(["ia", "ib"], SCORED)
    assert not again.holds(["ib", "ia"], SCORED)
    assert not again.holds(["ia", "ib"], "otherwise")
    assert again.known() == {"ia", "ib"}
    fetched = again.fetch(["ia", "ib"], SCORED, tmp_path / "out" / "train-0.tar")
    assert fetched is not None
    shard, environments = fetched
    published = tmp_path / "out" / "train-0.tar"
    assert (shard.name, shard.sha256, shard.count) == ("train-0.tar", sha256_file(published), 2)
    assert environments == [HERE]
    assert published.stat().st_ino != tars(tmp_path)[0].stat().st_ino


def test_images_are_taken_out_of_any_shard(place):
    store = ImageStore(place, "s")
    put(store, "ab")
    put(store, "c", "otherwise", {"device": "cuda"})
    taken, environments = ImageStore(place, "s").take(["ib", "ic", "missing"])
    found = {identity: (each.sample.key, each.scoring) for identity, each in taken.items()}
    assert found == {"ib": ("b", SCORED), "ic": ("c", "otherwise")}
    assert environments == [HERE, {"device": "cuda"}]


def test_a_shard_whose_images_are_all_in_a_new_one_is_dropped(place, tmp_path):
    store = ImageStore(place, "s")
    put(store, "a")
    put(store, "ab")
    put(store, "bc")
    assert len(tars(tmp_path)) == 2
    put(store, "bc", "otherwise")
    assert len(tars(tmp_path)) == 2
    assert set(ImageStore(place, "s").take(["ia", "ib", "ic"])[0]) == {"ia", "ib", "ic"}


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
@pytest.mark.parametrize("which", ["tar", "listing"])
def test_damage_is_said_and_the_shard_dropped(place, tmp_path, damage, which, capsys):
    put(ImageStore(place, "s"), "ab")
    path = tars(tmp_path)[0].with_suffix(f".{which}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 3] if damage == "cut" else content)
    store = ImageStore(place, "s")
    if which == "listing":  # a half-written one of another worker would look alike: who expects it says so
        assert not store.holds(["ia", "ib"], SCORED)
    assert store.take(["ia"]) == ({}, [])
    said = capsys.readouterr().err
    assert ("is damaged; its images are made again" in said) != (which == "listing" and damage == "remove")
    assert not store.holds(["ia", "ib"], SCORED)
    assert store.fetch(["ia", "ib"], SCORED, tmp_path / "out.tar") is None
    assert not (tmp_path / "out.tar").exists()
    put(store, "ab")
    assert store.fetch(["ia", "ib"], SCORED, tmp_path / "out.tar") is not None


def test_a_damaged_shard_is_never_published(place, tmp_path, capsys):
    store = ImageStore(place, "s")
    put(store, "ab")
    path = tars(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    assert store.holds(["ia", "ib"], SCORED)  # which does not read the bytes
    assert store.fetch(["ia", "ib"], SCORED, tmp_path / "out.tar") is None
    assert not (tmp_path / "out.tar").exists()
    assert "is damaged" in capsys.readouterr().err


def test_an_unfinished_shard_is_never_read(place, tmp_path):
    put(ImageStore(place, "s"), "a")
    tars(tmp_path)[0].with_suffix(".listing").unlink()  # killed between the two writes
    store = ImageStore(place, "s")
    assert not store.holds(["ia"], SCORED)
    assert store.take(["ia"]) == ({}, [])


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    store = ImageStore(str(tmp_path / "work"), "s")
    put(store, "a")
    left = store.folder / ".tmp-abc.tar-0123abcd"
    left.write_bytes(b"half")
    with store.locked(shared=True):
        assert left.exists()  # another part may be writing it
    with store.locked():
        assert not left.exists()
    assert len(tars(tmp_path)) == 1


def test_a_second_process_waits_and_then_sees_what_the_first_has_put(tmp_path):
    work = str(tmp_path / "work")
    code = (
        "from gdacli.store import ImageStore\n"
        f"store = ImageStore({work!r}, 's')\n"
        "with store.locked():\n"
        "    print(sorted(store.take(['ia', 'ib'])[0]))"
    )
    store = ImageStore(work, "s")
    with store.locked():
        put(store, "a")
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "waiting for it" in waiting.stderr.readline()
        put(store, "ab")
    assert waiting.communicate(timeout=60)[0] == "['ia', 'ib']\n"


def test_parts_of_a_run_do_not_wait_for_each_other(tmp_path):
    one, two = (ImageStore(str(tmp_path / "work"), "s") for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(one.locked(shared=True))
        stack.enter_context(two.locked(shared=True))  # would block this very test


def test_a_place_that_cannot_be_opened_is_one_line():
    with pytest.raises(GdaError, match=r"nosuch://bucket: cannot be opened \(.*\): install what it names"):
        open_location("nosuch://bucket")
