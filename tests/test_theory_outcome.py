"""What the theory programs share: their files, comparisons and words."""

import json
import os
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from matplotlib.figure import Figure
from scipy.stats import sem, ttest_1samp, ttest_rel

from gdacli.theory.comparisons import compared, verdict
from gdacli.theory.monte_carlo import monte_carlo
from gdacli.theory.outcome import Outcome, require_folder, write_outcome
from gdacli.theory.presentation import bullets


def outcome(rows):
    return Outcome("some", {"seed": 3}, {"found": [1.5]}, rows, Figure(figsize=(1, 1)), "words")


def test_a_table_without_rows_is_no_file_and_an_older_one_goes(tmp_path):
    written = write_outcome(outcome({"": [{"a": 1, "b": None}], "more": [{"c": 2}]}), tmp_path)
    assert [file.rsplit("/", 1)[1] for file in written["files"]] == [
        "some.json",
        "some.csv",
        "some-more.csv",
        "some.png",
    ]
    assert (tmp_path / "some.csv").read_text() == "a,b\n1,\n"
    assert json.loads((tmp_path / "some.json").read_text()) == {"settings": {"seed": 3}, "found": [1.5]}
    write_outcome(outcome({"": [{"a": 1}], "more": []}), tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["some.csv", "some.json", "some.png"]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="dict contains fields not in fieldnames: 'b'"):
        write_outcome(outcome({"": [{"a": 1}, {"b": 1}]}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["settings", "files"])
def test_a_figure_takes_no_name_that_the_json_needs(name):
    with pytest.raises(ValueError, match=f"found figures named {name}"):
        Outcome("some", {}, {name: 1}, {}, None, "")


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_an_output_that_is_no_folder_is_refused_before_the_work(tmp_path, place):
    (tmp_path / "file").write_text("")
    found = invoke("theory", "gmm", "--repeats", "1000000", "-o", str(tmp_path / place))
    assert found.code == 1
    assert found.stderr.startswith(f"error: --output: found {tmp_path / place}, which cannot be made (")
    assert found.stderr.count("\n") == 1


def test_a_folder_that_another_command_uses_meanwhile_stays(tmp_path, monkeypatch):
    access = os.access

    def other(*asked: Any) -> bool:
        (tmp_path / "both" / "other").mkdir()
        return access(*asked)

    monkeypatch.setattr(os, "access", other)
    require_folder(tmp_path / "both" / "mine")
    assert [each.name for each in (tmp_path / "both").iterdir()] == ["other"]


def test_pairs_are_compared_on_the_same_repeats_and_corrected_together():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, 8)
    above, same = base + 1 + rng.normal(0, 0.1, 8), base + rng.normal(0, 0.1, 8)
    pairs = [({"name": each}, values, base) for each, values in (("up", above), ("none", same), ("equal", base))]
    rows: dict[Any, Any] = {
        row["name"]: row for row in compared([*pairs, ({"name": "down"}, base, above)], "up", "down")
    }
    assert {name: row["verdict"] for name, row in rows.items()} == {
        **{"up": "up", "down": "down", "none": "no significant difference", "equal": "equal"},
    }
    assert rows["up"]["p_value"] == pytest.approx(ttest_rel(above, base).pvalue)
    assert rows["up"]["p_value_holm"] == pytest.approx(4 * rows["up"]["p_value"])
    assert rows["up"]["difference"] == pytest.approx((above - base).mean())
    assert 0 < rows["up"]["low"] < rows["up"]["difference"] < rows["up"]["high"]
    assert rows["equal"]["p_value_holm"] is rows["equal"]["low"] is None
    assert verdict(2.0, None, "up", "down") == "up"  # the same difference in every repeat
    assert verdict(-2.0, 0.05, "up", "down") == "down"
    assert verdict(-2.0, 0.0501, "up", "down") == "no significant difference"


def test_an_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    found = monte_carlo(values)
    assert (found.mean, found.standard_error) == pytest.approx((3.5, sem(values)))
    assert (found.low, found.high) == pytest.approx(ttest_1samp(values, 0).confidence_interval(0.95))


def test_sentences_are_items_of_lines_that_fit():
    lines = bullets(["word " * 60, "short"]).splitlines()
    assert max(map(len, lines)) <= 116
    assert [line[:2] for line in lines] == ["- ", "  ", "  ", "- "]
