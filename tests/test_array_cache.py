import numpy as np
import pytest

from gdacli.array_cache import cached_arrays
from gdacli.frechet import GaussianStatistics

NAMES = {"mean", "root"}


def test_statistics_are_computed_once(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return vars(GaussianStatistics.of(np.random.default_rng(len(computed)).standard_normal((20, 3))))

    first = cached_arrays(tmp_path / "new", "abc", NAMES, compute)
    again = GaussianStatistics(**cached_arrays(tmp_path / "new", "abc", NAMES, compute))
    assert len(computed) == 1
    np.testing.assert_array_equal(again.root, first["root"])
    np.testing.assert_array_equal(again.mean, first["mean"])
    other = cached_arrays(tmp_path / "new", "abd", NAMES, compute)
    assert len(computed) == 2
    assert not np.array_equal(other["mean"], first["mean"])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["abc.npz", "abd.npz"]


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[200] ^= 1
    path.write_bytes({"flipped": content, "cut": content[:-30], "empty": b"", "text": b"nothing"}[kind])


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "text"])
def test_a_damaged_file_is_named_and_made_again(tmp_path, capsys, kind):
    arrays = {"radii": np.arange(50.0)}
    cached_arrays(tmp_path, "abc", {"radii"}, lambda: arrays)
    whole = (tmp_path / "abc.npz").read_bytes()
    damage(tmp_path / "abc.npz", kind)
    found = cached_arrays(tmp_path, "abc", {"radii"}, lambda: arrays)
    np.testing.assert_array_equal(found["radii"], arrays["radii"])
    assert "abc.npz: damaged" in capsys.readouterr().err
    assert (tmp_path / "abc.npz").read_bytes() == whole


def test_no_flipped_bit_of_any_byte_gives_other_arrays_or_an_error(tmp_path):
    arrays = {"radii": np.arange(3.0)}
    cached_arrays(tmp_path, "abc", {"radii"}, lambda: arrays)
    whole = (tmp_path / "abc.npz").read_bytes()
    for place in range(0, 8 * len(whole), 3):  # in every byte, and every bit of a byte
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        (tmp_path / "abc.npz").write_bytes(content)
        found = cached_arrays(tmp_path, "abc", {"radii"}, lambda: arrays)
        np.testing.assert_array_equal(found["radii"], arrays["radii"])


def test_a_file_of_other_arrays_is_made_again(tmp_path, capsys):
    cached_arrays(tmp_path, "abc", {"radii"}, lambda: {"radii": np.ones(2)})
    assert cached_arrays(tmp_path, "abc", {"mean"}, lambda: {"mean": np.zeros(2)}).keys() == {"mean"}
    assert "found radii, expected mean" in capsys.readouterr().err


def test_a_failure_keeps_nothing(tmp_path):
    def fail():
        raise ValueError("no features")

    with pytest.raises(ValueError, match="no features"):
        cached_arrays(tmp_path / "new", "abc", NAMES, fail)
    assert not (tmp_path / "new").exists()
