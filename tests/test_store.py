import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gdacli.shards import Sample
from gdacli.store import ImageStore, publish


@pytest.fixture(autouse=True)
def _own_work(tmp_path, monkeypatch):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))


@contextlib.contextmanager
def opened(settings: str = "s") -> Iterator[ImageStore]:
    with ImageStore(settings * 64).locked() as store:
        yield store


HERE = {"device": "cpu", "torch": "1"}


def samples(names: str) -> list[Sample]:
    return [Sample(name, 0, name.encode() * 50, "png", {"n": name}) for name in names]


def test_what_was_put_is_found_also_by_the_next_process(tmp_path):
    with opened() as store:
        put = store.put(["ia", "ib"], samples("ab"), [HERE, HERE])
    with opened("t") as other:
        assert other.find(["ia", "ib"]) is None
    with opened() as again:
        found = again.find(["ia", "ib"])
        assert again.find(["ib", "ia"]) is None
    assert found == put
    assert found.environments == [HERE]
    shard = publish(found, tmp_path / "out" / "train-0.tar")
    assert (shard.name, shard.sha256, shard.count) == ("train-0.tar", put.shard.sha256, 2)
    assert (tmp_path / "out" / "train-0.tar").stat().st_ino != found.path.stat().st_ino


def test_images_are_taken_out_of_any_shard():
    with opened() as store:
        store.put(["ia", "ib"], samples("ab"), [HERE])
        store.put(["ic"], samples("c"), [{"device": "cuda"}])
        taken, environments = store.take(["ib", "ic", "missing"])
    assert {identity: sample.key for identity, sample in taken.items()} == {"ib": "b", "ic": "c"}
    assert environments == [HERE, {"device": "cuda"}]


def test_a_shard_whose_images_are_all_in_a_new_one_is_dropped(tmp_path):
    with opened() as store:
        store.put(["ia"], samples("a"), [HERE])
        store.put(["ia", "ib"], samples("ab"), [HERE])
        store.put(["ib", "ic"], samples("bc"), [HERE])
    assert len(list((tmp_path / "work").rglob("*.tar"))) == 2
    with opened() as store:
        assert set(store.take(["ia", "ib", "ic"])[0]) == {"ia", "ib", "ic"}


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_shard_is_said_and_dropped(damage, capsys):
    with opened() as store:
        path = store.put(["ia", "ib"], samples("ab"), [HERE]).path
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-2000] if damage == "cut" else content)
    with opened() as store:
        assert store.take(["ia"]) == ({}, [])
        assert "is damaged; its images are made again" in capsys.readouterr().err
        assert store.find(["ia", "ib"]) is None


def test_an_unfinished_shard_is_never_read():
    with opened() as store:
        path = store.put(["ia"], samples("a"), [HERE]).path
    path.with_suffix(".json").unlink()  # killed between the two writes
    with opened() as store:
        assert store.find(["ia"]) is None
        assert store.take(["ia"]) == ({}, [])


def test_a_second_process_waits_and_then_sees_what_the_first_has_put(tmp_path):
    code = (
        "import sys\nfrom gdacli.store import ImageStore\n"
        "with ImageStore('s' * 64).locked() as store:\n"
        "    print(sorted(store.take(['ia', 'ib'])[0]))"
    )
    with opened() as store:
        store.put(["ia"], samples("a"), [HERE])
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "waiting for it" in waiting.stderr.readline()
        store.put(["ia", "ib"], samples("ab"), [HERE])
    assert waiting.communicate(timeout=60)[0] == "['ia', 'ib']\n"
