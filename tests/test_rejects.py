import pytest

from gdacli.errors import GdaError
from gdacli.rejects import HEADER, read_left_out


@pytest.mark.parametrize(
    "content",
    [
        b"key\na_s0500_v0\nb_s0500_v0\n",
        b"key\r\na_s0500_v0\r\nb_s0500_v0\r\n",
        b"\xef\xbb\xbfkey\na_s0500_v0\nb_s0500_v0",
        b'\n# looked at by me, "twice\nkey\n\n  a_s0500_v0 \n   \n# doubtful:\n\tb_s0500_v0\na_s0500_v0\n',
        b'reason , key\n"dark, I think",a_s0500_v0\n,b_s0500_v0\n',
    ],
)
def test_a_list_is_read_as_a_person_or_a_program_writes_it(tmp_path, content):
    (tmp_path / "rejects.csv").write_bytes(content)
    assert list(read_left_out(tmp_path / "rejects.csv")) == ["a_s0500_v0", "b_s0500_v0"]


def test_further_columns_are_kept(tmp_path):
    (tmp_path / "rejects.csv").write_text('key,reason,by\na,"dark, I think",me\nb\n')
    assert read_left_out(tmp_path / "rejects.csv") == {
        "a": {"key": "a", "reason": "dark, I think", "by": "me"},
        "b": {"key": "b"},
    }


def test_no_file_and_no_rows_reject_nothing(tmp_path):
    assert read_left_out(tmp_path / "rejects.csv") == {}
    (tmp_path / "rejects.csv").write_text(HEADER)
    assert read_left_out(tmp_path / "rejects.csv") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found the header '', allowed is one with the column key"),
        (b"a_s0500_v0\nb_s0500_v0\n", "found the header 'a_s0500_v0', allowed is"),
        (b"key;reason\na;b\n", "found the header 'key;reason', allowed is"),
        (b"key,reason\n,dark\n", "found the row ',dark' without a key"),
        (b"key\n\xff\xfea\n", "not a CSV in UTF-8"),
        (b'key\n"a\nb\n', "not a CSV in UTF-8"),
    ],
)
def test_another_file_is_named_with_what_was_found(tmp_path, content, message):
    (tmp_path / "rejects.csv").write_bytes(content)
    with pytest.raises(GdaError) as error:
        read_left_out(tmp_path / "rejects.csv")
    assert message in str(error.value)
    assert "rejects.csv" in str(error.value)
