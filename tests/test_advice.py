import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdacli.advice import Advice, advise
from gdacli.advice_figures import CopiesOfTrain, Figures, ImageGroup, Judge, Probe, Selection, Settings, Verdict
from gdacli.advice_page import caveats, group_rows, render_markdown, render_text, sentences, to_json
from gdacli.clustered_share import Share
from gdacli.memorisation import Memorisation
from gdacli.sections import Filter, Generate


def share(value: float, spread: float = 2.0) -> Share:
    return Share(value, max(0.0, value - spread), min(100.0, value + spread), 500, 500)


def group(**changes: Any) -> ImageGroup:
    usual: dict[str, Any] = {"name": "0.5", "strength": 0.5, "imported": False, "has_source": True, "num_images": 500}
    return ImageGroup(**{**usual, "apart": share(68), "found": share(88), "unchanged": 1.0, **changes})


NEUTRAL = Figures(
    settings=Settings("targeted", "cross_entropy", 3.0, True),
    class_counts={"cat": 200, "dog": 300, "owl": 250},
    num_features=64,
    features="probe",
    control=share(55),
    judge=Judge("original-0", True, share(95), share(91)),
    probe=Probe(6, 25.0),
    selection=Selection("cluster", 40.0, 30.0, 50.0),
    groups=[group()],
    copies=CopiesOfTrain(500, 500, 0, 1, True),
    memorised=None,
    verdict=None,
    no_verdict=None,
)
FAR, CLOSE, WRONG = share(95), share(51), share(60)
SAMPLED = {"name": "sampled", "strength": None, "has_source": False, "unchanged": None}
PROBED = Judge("probe", False, share(80), share(70))


def with_groups(*groups: ImageGroup) -> Figures:
    return replace(NEUTRAL, groups=list(groups))


CASES = {
    "probe": replace(NEUTRAL, probe=Probe(3, 60.0)),
    "copied": replace(NEUTRAL, copies=CopiesOfTrain(500, 500, 1, 0, True)),
    "far_and_wrong": with_groups(group(apart=FAR, found=WRONG)),
    "near_copies": with_groups(group(apart=CLOSE)),
    "wrong": with_groups(group(found=WRONG)),
    "far_but_right": with_groups(group(apart=FAR)),
    "share_selected": replace(NEUTRAL, selection=Selection("cluster", 2.0, 0.0, 4.0)),
    "unfitted": replace(NEUTRAL, judge=Judge("original-0", True, share(60), share(58)), groups=[]),
    "enough": replace(NEUTRAL, judge=Judge("original-0", True, share(95, 0.5), share(94.5, 0.5))),
    "begin": replace(NEUTRAL, groups=[], judge=PROBED),
    "few_images": replace(NEUTRAL, class_counts={"cat": 20, "dog": 30, "owl": 25}),
    "no_validation": replace(NEUTRAL, judge=Judge("original-0", True, share(95), None)),
    "verdict": replace(NEUTRAL, verdict=Verdict("targeted", "original", -0.1, False, 15, "It cannot be told.")),
}


def rules(figures: Figures) -> list[str]:
    return [each.rule for each in advise(figures)]


def the(rule: str, figures: Figures) -> Advice:
    return next(each for each in advise(figures) if each.rule == rule)


def test_nothing_stands_out_of_neutral_figures():
    assert advise(NEUTRAL) == []
    assert "Nothing stands out." in render_text(NEUTRAL)


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_speaks_of_figures_made_for_it_and_names_a_key_or_a_command(rule):
    found = the(rule, CASES[rule])
    assert any(mark in found.remedy for mark in ("gdacli ", ": ", "train.", "compare."))
    assert any(digit in found.rests_on for digit in "0123456789") or rule in ("verdict", "begin")
    assert rules(CASES[rule]) == [rule], "no other rule speaks of them"


@pytest.mark.parametrize(
    ("figures", "silent"),
    [
        (with_groups(group(apart=share(76), found=WRONG)), "far_and_wrong"),  # its interval begins at 74
        (with_groups(group(apart=share(85))), "near_copies"),
        (with_groups(group(apart=share(59))), "near_copies"),  # its interval ends at 61
        (with_groups(group(apart=CLOSE, found=WRONG)), "near_copies"),
        (with_groups(group(apart=CLOSE, **SAMPLED)), "near_copies"),
        (with_groups(group(apart=FAR, found=share(80))), "far_but_right"),  # 78 to 82 of 91: neither right nor wrong
        (with_groups(group(apart=FAR, found=share(80))), "far_and_wrong"),
        (replace(with_groups(group(apart=FAR)), control=share(97)), "far_but_right"),  # new real ones are told as well
        (replace(with_groups(group(apart=FAR)), settings=Settings("pcr", "pcr", 3.0, True)), "far_but_right"),
        (replace(CASES["enough"], judge=Judge("probe", False, share(95, 0.5), share(94.5, 0.5))), "enough"),
        (replace(CASES["enough"], judge=Judge("original-0", True, share(95, 3), share(94, 3))), "enough"),
        (replace(CASES["few_images"], settings=Settings("targeted", "cross_entropy", 3.0, False)), "few_images"),
        (replace(NEUTRAL, selection=Selection("all", 100.0, 100.0, 100.0)), "share_selected"),
        (replace(NEUTRAL, copies=CopiesOfTrain(500, 500, 0, 50, False)), "copied"),  # too small to tell
    ],
)
def test_a_rule_is_silent_where_figures_do_not_bear_it(figures, silent):
    assert silent not in rules(figures)


def test_copies_of_the_sources_are_upsampling():
    copied = with_groups(group(apart=CLOSE, unchanged=80.0, found=share(99, 1)))
    assert rules(copied) == ["near_copies"]
    found = the("near_copies", copied)
    assert "--values 0.65,0.8" in found.remedy
    assert "0.5: told apart 51.0 % (49.0 to 53.0)" in found.rests_on
    assert "80 % copies of their source" in found.rests_on
    assert rules(with_groups(group(apart=None, unchanged=80.0))) == ["near_copies"], "even of few images"


def test_lower_strengths_are_named_and_differ_from_those_at_hand():
    wrong = with_groups(group(name="0.7", strength=0.7, apart=FAR, found=WRONG), group(apart=FAR, found=WRONG))
    found = the("far_and_wrong", wrong)
    assert found.finding.startswith("Strength 0.7, strength 0.5: ")
    assert "`gdacli sweep strengths --values 0.25,0.4`" in found.remedy
    tiny = the("far_and_wrong", with_groups(group(name="0.02", strength=0.02, apart=FAR, found=WRONG)))
    assert "--values 0.01,0.015" in tiny.remedy
    sampled = the("far_and_wrong", with_groups(group(apart=FAR, found=WRONG, **SAMPLED)))
    assert "gdacli sweep sampled" in sampled.remedy
    assert "strengths" not in sampled.remedy
    imported = the("far_and_wrong", with_groups(group(name="rival", imported=True, apart=FAR, found=WRONG)))
    assert "fewer of the imported images" in imported.remedy


def test_the_values_that_advice_names_are_allowed():
    Filter(min_confidence=0.1)
    Filter(min_nearest_distance=0.01)
    assert "generate.filter: {min_confidence: 0.1}" in the("wrong", CASES["wrong"]).remedy
    assert "generate.filter: {min_nearest_distance: 0.01}" in the("copied", CASES["copied"]).remedy
    assert "generate.guidance_scale: 5" in the("wrong", CASES["wrong"]).remedy
    Generate(guidance_scale=5)


def test_copies_of_other_images_are_named_by_kind():
    exact = the("copied", replace(NEUTRAL, copies=CopiesOfTrain(500, 400, 2, 30, True))).rests_on
    assert exact == "2 of 500 equal one in every pixel; 30 of 400 look like one"
    repeated = replace(NEUTRAL, memorised=Memorisation(0.3, 0.2, 1e-6))
    assert "20.0 % of those without a source" in the("copied", repeated).rests_on
    assert "copied" not in rules(replace(NEUTRAL, memorised=Memorisation(0.3, 0.01, 0.4)))


def test_without_a_validation_split_labels_are_held_against_train_images():
    known = Judge("original-0", True, share(99, 1), None)
    assert rules(replace(with_groups(group(found=share(78))), judge=known)) == ["no_validation"]
    assert "wrong" in rules(replace(with_groups(group(found=share(60))), judge=known))
    assert "of real train images 99.0 % are found" in the("wrong", replace(CASES["wrong"], judge=known)).rests_on


def test_the_comparison_goes_first_and_overrules():
    bad = replace(CASES["far_and_wrong"], copies=CopiesOfTrain(500, 500, 3, 0, True))
    helped = replace(bad, verdict=Verdict("targeted", "original", -1.2, True, None, "Yes, targeted helped."))
    assert rules(bad) == ["copied", "far_and_wrong"]
    assert rules(helped) == ["verdict", "copied"], "what does not speak of gain remains"
    assert the("verdict", helped).remedy.startswith("keep targeted")
    harmed = replace(bad, verdict=Verdict("targeted", "original", 1.2, True, None, "No, targeted did harm."))
    assert rules(harmed) == ["verdict", "copied", "far_and_wrong"]
    assert "train on original's mix" in the("verdict", harmed).remedy
    assert "compare.seeds: about 15 of them" in the("verdict", CASES["verdict"]).remedy


def test_selecting_too_little_or_too_much_moves_the_epoch():
    few = the("share_selected", CASES["share_selected"])
    assert few.remedy.startswith("probe.separation_epoch: 3;")
    many = the("share_selected", replace(NEUTRAL, selection=Selection("cluster", 95.0, 90.0, 100.0)))
    assert many.remedy.startswith("probe.epochs: 12;")
    assert many.finding.startswith("Almost everything is selected: the separation epoch is too early")


def test_the_page_says_what_was_measured_and_what_it_does_not_say():
    text = render_text(with_groups(group(), group(apart=None, found=share(70), **SAMPLED)))
    assert "strength 0.5     500  68.0 (66.0 to 70.0)  88.0 (86.0 to 90.0)" in text
    assert "sampled          500                    -  70.0 (68.0 to 72.0)" in text
    said = " ".join(sentences(NEUTRAL))
    assert "55.0 % (53.0 to 57.0) of validation images, which are real" in said
    assert "a gap of 4.0 points (1.2 to 6.8)" in said
    assert "two classes of median size would have a generalisation gap of 0.13" in said, "64 / (2 x 250)"
    assert max(map(len, text.splitlines())) <= 110
    limits = " ".join(caveats(NEUTRAL))
    assert "rules of thumb, ours" in limits
    assert "even new real images can be told" in limits
    assert "even new real images" not in " ".join(caveats(replace(NEUTRAL, features="inception_v3.tv_in1k")))
    assert "fitted on these train images alone" in limits
    free = replace(NEUTRAL, settings=Settings("targeted", "cross_entropy", 3.0, False))
    assert "was not fitted here" in " ".join(caveats(free))
    assert all(f"gdacli theory {name}" in limits for name in ("gmm", "two-layer", "selection"))


def test_a_page_without_synthetic_images_speaks_of_the_real_ones_alone():
    before = CASES["begin"]
    assert len(group_rows(before)) == 1
    assert sentences(before)[0].startswith("There are no synthetic images yet")
    assert "The probe is right on 80.0 %" in " ".join(sentences(before))
    assert "has seen the sources" not in " ".join(caveats(before))
    assert "gdacli sweep strengths --values 0.3,0.5,0.7" in the("begin", before).remedy
    assert "New images are much harder" in the("begin", before).finding
    close = replace(before, judge=Judge("probe", False, share(80), share(79)))
    assert "cannot be told" in the("begin", close).finding
    assert "a little harder" in the("begin", replace(close, judge=Judge("probe", False, share(80), share(75)))).finding
    assert "was stopped early" in " ".join(caveats(before))
    assert "was stopped early" not in " ".join(caveats(NEUTRAL))


def test_markdown_and_json_hold_the_same_advice():
    wrong = CASES["far_and_wrong"]
    lines = render_markdown(wrong)
    assert lines[2].startswith("1. Strength 0.5: told from real images")
    assert any(line.startswith("| strength 0.5 | 500 ") or line.startswith("| strength 0.5 |") for line in lines)
    written = to_json(wrong)
    assert [each["rule"] for each in written["advice"]] == ["far_and_wrong"]
    assert written["figures"]["gap"][0] == pytest.approx(4)
    assert written["figures"]["gap_unit"] == pytest.approx(64 / 500)
    assert written["caveats"] == caveats(wrong)


def test_the_page_of_the_documents_names_every_rule():
    text = (Path(__file__).parents[1] / "docs/advise.md").read_text()
    assert [rule for rule in CASES if f"| `{rule}`" not in text] == []
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == set(CASES)
