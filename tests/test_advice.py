import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gdacli.advice import Advice, advise
from gdacli.advice_figures import CopiesOfTrain, Figures, ImageGroup, Judge, Probe, Selection, Settings, Verdict
from gdacli.advice_page import caveats, group_rows, render_markdown, render_text, sentences, to_json
from gdacli.clustered_share import Share
from gdacli.errors import GdaError
from gdacli.memorisation import Memorisation
from gdacli.params import load_params
from gdacli.remedies import strengths_beside
from gdacli.sections import Filter, Generate


def share(value: float, spread: float = 2.0) -> Share:
    return Share(value, max(0.0, value - spread), min(100.0, value + spread), 500, 500)


def group(**changes: Any) -> ImageGroup:
    usual: dict[str, Any] = {"name": "0.5", "strength": 0.5, "imported": False, "has_source": True, "num_images": 500}
    return ImageGroup(**{**usual, "apart": share(68), "found": share(88), "unchanged": 1.0, **changes})


SETTINGS = Settings("targeted", "cross_entropy", "cluster", (0.5,), 3.0, True, True)
NEUTRAL = Figures(
    settings=SETTINGS,
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
UNSURE = Verdict("targeted", "original", -0.1, False, 15, "It cannot be told.")
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
    "few_of_a_class": replace(NEUTRAL, class_counts={"cat": 200, "dog": 1, "an owl": 250}),
    "not_compared": NEUTRAL,
    "no_validation": replace(NEUTRAL, judge=Judge("original-0", True, share(95), None)),
    "verdict": replace(NEUTRAL, verdict=UNSURE),
}


def rules(figures: Figures) -> list[str]:
    """Return the rules that speak, without the last one, which speaks of all images that were not compared."""
    return [each.rule for each in advise(figures) if each.rule != "not_compared"]


def test_a_model_that_lacks_training_comes_before_all_that_is_said_of_images():
    figures = replace(
        NEUTRAL, judge=Judge("original-0", True, share(60), share(58)), groups=[group(apart=FAR)], verdict=UNSURE
    )
    assert rules(figures)[:2] == ["verdict", "unfitted"]
    assert len(rules(figures)) > 2


def the(rule: str, figures: Figures) -> Advice:
    return next(each for each in advise(figures) if each.rule == rule)


def test_of_neutral_figures_a_comparison_is_all_that_helps():
    (only,) = advise(NEUTRAL)
    assert only.rule == "not_compared"
    assert only.finding.endswith("The figures above do not speak against them either.")
    assert only.rests_on.startswith("0.5: told apart 68.0 %")
    assert only.remedy.startswith("`dvc repro`")
    compared = replace(NEUTRAL, verdict=UNSURE)
    assert [each.rule for each in advise(compared)] == ["verdict"]
    assert "against" not in the("not_compared", CASES["far_and_wrong"]).finding
    unclear = the("not_compared", with_groups(group(apart=FAR, found=share(80))))
    assert "Strength 0.5: told from real images, and it cannot be told whether their labels hold" in unclear.finding
    assert unclear.remedy.startswith("look at some: `gdacli preview -n 8`; then `dvc repro`")


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_speaks_of_figures_made_for_it_and_names_a_key_or_a_command(rule):
    found = the(rule, CASES[rule])
    assert any(mark in found.remedy for mark in ("gdacli ", ": ", "train.", "generate.", "compare."))
    assert any(digit in found.rests_on for digit in "0123456789") or rule in ("verdict", "begin")
    assert rules(CASES[rule]) == [rule] * (rule != "not_compared"), "no other rule speaks of them"


IMPORTED = {**SAMPLED, "name": "rival", "imported": True}
SAID = [
    *CASES.values(),
    with_groups(group(apart=FAR, found=WRONG, **SAMPLED), group(apart=FAR, found=WRONG, **IMPORTED)),
    with_groups(group(apart=CLOSE), group(name="0.9", strength=0.9)),
    replace(NEUTRAL, selection=Selection("cluster", 95.0, 90.0, 100.0)),
    *(
        replace(figures, settings=replace(SETTINGS, strengths=(0.3, 0.5), generates=generates, fitted=False))
        for figures in CASES.values()
        for generates in (True, False)
    ),
]
KEY = re.compile(
    r"(?<![\w/])((?:data|probe|select|fit|generate|train|compare|arms)\.[a-z_.]+)(?:: ([{\[].*?[}\]]|[\w.]+))?"
)


COMMANDS = {found for each in SAID for said in advise(each) for found in re.findall(r"`gdacli ([^`]*)`", said.remedy)}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_that_is_advised_is_one(command):
    from gdacli.cli import app

    found, name = get_command(app), ""
    for name in (words := command.split())[:2]:
        found = getattr(found, "commands", {}).get(name, found)
    found.make_context(name, words[1:])


def test_every_key_that_is_advised_is_one_and_takes_the_value(project):
    def refused(key: str, value: str) -> str:
        try:
            load_params(project.folder, [f"{key}={value or 'null'}"])
        except GdaError as error:
            return str(error) if value or "unknown key" in str(error) else ""
        return ""

    project.write(data={"source": "digits"}, probe={"epochs": 6})
    said = {match for figures in SAID for each in advise(figures) for match in KEY.findall(each.remedy)}
    assert len(said) > 15
    assert [each for key, value in said if (each := refused(key, value))] == []


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
        (replace(with_groups(group(apart=FAR)), settings=replace(SETTINGS, objective="pcr")), "far_but_right"),
        (replace(CASES["enough"], judge=Judge("probe", False, share(95, 0.5), share(94.5, 0.5))), "enough"),
        (replace(CASES["enough"], judge=Judge("original-0", True, share(95, 3), share(94, 3))), "enough"),
        (replace(CASES["few_images"], settings=replace(SETTINGS, fitted=False)), "few_images"),
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


def test_few_validation_images_do_not_make_a_label_wrong():
    """The interval of a difference counts, not one share alone: 70 % of 500 against 100 % of 10 (72 to 100)."""
    known = Judge("original-0", True, share(95), Share(100, 72, 100, 10, 10))
    assert rules(replace(with_groups(group(found=share(70))), judge=known)) == []
    assert "wrong" in rules(replace(with_groups(group(found=share(55))), judge=known))
    apart = replace(with_groups(group(apart=Share(88, 79, 92, 90, 90))), control=Share(84, 76, 91, 50, 50))
    assert "far_but_right" not in rules(apart)


def test_a_judge_that_guesses_says_nothing_of_labels():
    far = replace(NEUTRAL, groups=[group(apart=FAR, found=share(41))])
    for validation, told in ((share(41), False), (share(43), True)):  # naming the largest class: 40 %
        judged = replace(far, judge=Judge("original-0", True, share(95), validation))
        assert ("far_but_right" in rules(judged)) == told
        assert not {"far_and_wrong", "wrong"} & set(rules(judged))


def test_strengths_that_are_there_are_not_advised_and_some_are_left_out():
    low, high = group(name="0.3", strength=0.3, apart=CLOSE), group()
    both = replace(with_groups(low, high), settings=replace(SETTINGS, strengths=(0.3, 0.5)))
    assert the("near_copies", both).remedy.startswith(
        "fewer strengths: arms.targeted.strengths: [0.5]; higher: `gdacli sweep strengths --values 0.65,0.8`"
    )
    top = with_groups(group(name="0.95", strength=0.95, apart=CLOSE))
    assert "sweep" not in the("near_copies", top).remedy, "none is higher"
    wrong = replace(both, groups=[group(name="0.3", strength=0.3), group(apart=FAR, found=WRONG)])
    found = the("far_and_wrong", wrong).remedy
    assert "strengths: [0.3]; or lower: `gdacli sweep strengths --values 0.25,0.4`" in found


def test_nothing_is_advised_of_a_generator_that_is_not_there():
    imported = replace(
        with_groups(group(apart=FAR, found=WRONG, **IMPORTED), group(found=WRONG, **IMPORTED)),
        settings=Settings("rival", "cross_entropy", None, (), None, False, False),
        copies=CopiesOfTrain(500, 500, 1, 0, True),
    )
    said = " ".join(each.remedy for each in advise(imported))
    assert "generate." not in said
    assert "sweep" not in said
    assert "rejects.csv" in said
    unguided = replace(CASES["wrong"], settings=replace(SETTINGS, guidance_scale=None))
    assert "guidance" not in the("wrong", unguided).remedy


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
    unsure = the("verdict", CASES["verdict"]).remedy
    assert unsure.startswith("nothing: original's mix costs no image")
    assert "about 15 compare.seeds, which would tell" in unsure
    assert "or other images: `gdacli sweep strengths --values 0.25,0.4,0.65`, `gdacli sweep selection`" in unsure
    bad_too = replace(bad, verdict=replace(UNSURE, seeds_needed=500))
    unsure = the("verdict", bad_too).remedy
    assert unsure.endswith("about 500 compare.seeds); or other images, by what follows")


def test_selecting_too_little_or_too_much_moves_the_epoch():
    few = the("share_selected", CASES["share_selected"])
    assert few.remedy.startswith("probe.separation_epoch: 3;")
    many = the("share_selected", replace(NEUTRAL, selection=Selection("cluster", 95.0, 90.0, 100.0)))
    assert many.remedy.startswith("probe.epochs: 12 with probe.separation_epoch: null;")
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
    free = replace(NEUTRAL, settings=replace(SETTINGS, fitted=False))
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
    assert [each["rule"] for each in written["advice"]] == ["far_and_wrong", "not_compared"]
    assert written["figures"]["gap"][0] == pytest.approx(4)
    assert written["figures"]["gap_unit"] == pytest.approx(64 / 500)
    assert written["caveats"] == caveats(wrong)


def test_the_page_of_the_documents_names_every_rule():
    text = (Path(__file__).parents[1] / "docs/advise.md").read_text()
    assert [rule for rule in CASES if f"| `{rule}`" not in text] == []
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == set(CASES)


def test_strengths_are_named_on_one_side_and_not_twice():
    assert strengths_beside(0.3, (1.3, 1.6), {0.3, 0.5}) == "0.4"
    assert strengths_beside(0.5, (0.5, 0.75), {0.25, 0.5}) == "0.4"
    assert strengths_beside(0.96, (1.3,), {0.96}) == "", "0.95 is none above"
    assert strengths_beside(0.02, (0.5, 0.75), {0.02}) == "0.01,0.015"
