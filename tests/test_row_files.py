import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdacli.errors import GdaError
from gdacli.row_files import RowFile, Subset, blocks, new_rows

VALUES = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "values.npy"
    np.save(path, VALUES)
    return path


@given(rows=st.sets(st.integers(0, 19)).map(sorted), first=st.integers(0, 25), end=st.integers(0, 25))
def test_rows_read_as_those_of_an_array(path, rows, first, end):
    file = RowFile(path)
    wanted = np.array(rows, np.int64)
    assert (file[wanted] == VALUES[wanted]).all()
    assert file[wanted].dtype == np.float32
    assert (file[first:end] == VALUES[first:end]).all()
    subset = Subset(file, wanted)
    assert subset.shape == (len(rows), 3)
    assert (subset[0:2] == VALUES[wanted][0:2]).all()


def test_rows_written_in_any_order_make_numpys_file(tmp_path, path):
    order = np.random.default_rng(0).permutation(20)
    with new_rows(tmp_path / "a.npy", VALUES.shape, np.float32) as writer:
        for part in np.split(order, [7, 8, 15]):
            rows = np.sort(part)
            writer.write(rows, VALUES[rows].astype(np.float64))
    assert (tmp_path / "a.npy").read_bytes() == path.read_bytes()


def test_damaged_files_are_named(tmp_path, path):
    (tmp_path / "short.npy").write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GdaError, match=r"short\.npy: found \d+ bytes, expected \d+"):
        RowFile(tmp_path / "short.npy")
    (tmp_path / "text.npy").write_bytes(b"hello, this is no array")
    with pytest.raises(GdaError, match=r"text\.npy: not an array"):
        RowFile(tmp_path / "text.npy")
    np.save(tmp_path / "flat.npy", np.arange(4))
    with pytest.raises(GdaError, match=r"flat\.npy: found an array"):
        RowFile(tmp_path / "flat.npy")


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_blocks_partition_the_rows(rows, columns):
    if rows * columns > 2**32:
        rows = max(1, 2**32 // columns)
    cut = list(blocks(rows, columns))
    assert [part.start for part in cut] == [0, *[part.stop for part in cut[:-1]]]
    assert cut[-1].stop == rows
    assert all(part.stop - part.start <= max(1, 2**22 // columns) for part in cut)
