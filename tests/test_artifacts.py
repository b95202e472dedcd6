import pytest

from gdacli.artifacts import new_directory, new_file, read_json, require, write_json
from gdacli.errors import GdaError


def test_a_failed_folder_leaves_the_old_one_and_no_trace(tmp_path):
    with new_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("old")

    def fail():
        with new_directory(tmp_path / "out") as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    for name in ("first", "second"):
        with new_directory(tmp_path / "out") as folder:
            (folder / name).write_text(name)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["SHA256SUMS", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_file_leaves_the_old_one_and_no_trace(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail():
        with new_file(tmp_path / "a.json") as temporary:
            temporary.write_text("{half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_is_missing_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(GdaError, match=r"run `gdacli probe` first \(or `dvc repro`, or `dvc pull .*\)"):
        require(tmp_path / "data/probe", "gdacli probe")


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{half")
    with pytest.raises(GdaError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_what_a_killed_process_left_of_a_folder_is_swept_away(tmp_path):
    (tmp_path / ".tmp-pool-0123abcd").mkdir()
    (tmp_path / ".tmp-pool-0123abcd" / "half").touch()
    others = [tmp_path / name for name in (".tmp-pool-2-0123abcd", ".tmp-mypool-0123abcd", "pool-0123abcd")]
    for other in others:
        other.mkdir()
    with new_directory(tmp_path / "pool") as folder:
        (folder / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["pool", *(other.name for other in others)])
