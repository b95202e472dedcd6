import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from gdacli.advice_figures import Figures, Judge, Probe, Settings
from gdacli.arm_results import ArmResult, Comparison, Effort
from gdacli.cleanliness import Cleanliness, Copies, Copy
from gdacli.clustered_share import Share
from gdacli.comparison import hedges_g, holm, seeds_needed
from gdacli.course import Course, DistanceRow
from gdacli.distribution_metrics import Diversity, KernelDistance, NeighbourScores
from gdacli.evidence import PoolEvidence
from gdacli.feature_map import feature_map
from gdacli.galleries import Gallery, GalleryRow, Picture, Suspect, Variant, rows_per_class
from gdacli.metrics import Difference, estimate, paired_difference
from gdacli.provenance import Provenance
from gdacli.quality import PoolQuality
from gdacli.report import Report
from gdacli.report_pages import render_html, render_markdown
from gdacli.report_tables import write_plots, write_tables
from gdacli.robustness import Robustness
from gdacli.wording import between, change, in_words, spread


def arm(name: str, errors: list[float], updates: int = 600) -> ArmResult:
    value = estimate(errors)
    return ArmResult(
        name=name,
        description=f"about <{name}>",
        errors=errors,
        error=value,
        error_interval=None if value.low is None else (value.mean - 0.5, value.mean + 0.5),
        balanced_error=value,
        macro_f1=value,
        late_error=value,
        early_error=value,
        calibration_error=value,
        class_errors=[1.0, 2.0],
        reliability=[(0.4, 0.5, 3), (0.9, 0.8, 30)],
        confusion=np.array([[30, 3], [0, 27]]),
        effort=Effort(updates, 100, 10),
    )


def comparison(values: list[float], reference: list[float], arms: int = 1) -> Comparison:
    difference = paired_difference(values, reference)
    p_value = holm([difference.p_value, *[1.0] * (arms - 1)])[0]
    told = p_value is not None and p_value <= 0.05
    interval = None if difference.low is None else (difference.mean - 0.9, difference.mean + 0.9)
    return Comparison(difference, interval, hedges_g(difference), p_value, None if told else seeds_needed(difference))


def report(errors: dict[str, list[float]], **changes: Any) -> Report:
    arms = [
        arm(name, values, 600 + 10 * row * bool(changes.get("unequal")))
        for row, (name, values) in enumerate(errors.items())
    ]
    original = arms[0].errors
    image = np.zeros((3, 8, 8), np.uint8)
    rows = [
        GalleryRow("k", "a<b", image, [Variant("k_s0500_v0", image), Variant("k_s0800_v0", None)]),
        GalleryRow("l", "a<b", image, [Variant("l_s0500_v0", None, "low <confidence>"), Variant("l_s0800_v0", image)]),
    ]
    curve = {"updates": [1.0, 2.0], "error": [50.0, 20.0], "loss": [1.0, 0.5]}
    return Report(
        class_names=["a<b", "c"],
        seeds=list(range(len(original))),
        num_train=10,
        split=changes.get("split", "test"),
        num_images=20,
        num_late=5,
        arms=arms,
        main_arm=arms[-1].name,
        comparisons={"original": {each.name: comparison(each.errors, original) for each in arms[1:]}},
        selection={
            "separation_epoch": 1,
            "num_suspects": 2,
            "suspects_excluded": changes.get("excluded", False),
            "arms": {"targeted": {"count": 3, "share": 0.3, "per_class": {"a<b": 0.2, "c": 0.4}}},
        },
        curves={each.name: curve for each in arms},
        probe_curve={"epoch": [1.0, 2.0], "error": [changes.get("probe", 20.0), 40.0], "batch_error": [60.0, 45.0]},
        gallery=Gallery(
            ["0.5", "0.8"], rows if changes.get("gallery", True) else [], [GalleryRow("e", "c", image, [])]
        ),
        dropped_images=[Picture("d", "min_confidence", image)],
        neighbours=[(Picture("k_s0500_v0", "synthetic", image), Picture("n", "0.013", image))],
        pool=None,
        cleanliness=CLEANLINESS,
        copies={"split_train": [(Picture("t", "exact", image), Picture("k", "exact", image))], "within_train": []},
        without_copies={},
        robustness=[],
        gradient_variance={},
        courses={},
        suspects=[Suspect("s", "a<b", "c", 0.0123, image)],
        pool_size=40,
        dropped={"low <confidence>": 3, "blank": 2},
        rejects={"l_s0800_v0": {"key": "l_s0800_v0"}},
        num_rejected=1,
        provenance=Provenance({"gdacli": "1.2"}, "d" * 64, "p" * 64, None, {}, {}, {"targeted-0": "w" * 64}, ["cpu"]),
        train={"lr": 0.1},
        settings={"generate": {"solver": "ddpm"}},
        figures=FIGURES,
    )


FIGURES = Figures(
    settings=Settings("targeted", "cross_entropy", "cluster", (0.5,), 3.0, True, True),
    class_counts={"a<b": 6, "c": 4},
    num_features=8,
    features="probe",
    control=None,
    judge=Judge("original-0", True, Share(90.0, 80.0, 95.0, 10, 10), None),
    probe=Probe(1, 20.0),
    selection=None,
    groups=[],
    copies=None,
    memorised=None,
    verdict=None,
    no_verdict=None,
)
CLEANLINESS = Cleanliness(
    threshold=0.97,
    side=32,
    split_train=Copies(
        20, 20, 10, 10, [Copy("t", "k", 0, 1, 1.0, False, True), Copy("u", "k", 1, 1, 0.98, True, False)]
    ),
    within_train=Copies(10, 0, 0, 10, []),
    near_within_train=False,
    synthetic_split=None,
    memorised=None,
    unchanged=None,
)
CLEAR = {"original": [5.0, 5.1, 5.2], "targeted": [4.0, 4.11, 4.19]}
CHANCE = {"original": [5.0, 5.1, 5.2], "targeted": [4.5, 5.6, 5.0]}


def test_the_words_follow_the_numbers():
    assert report(CLEAR).headlines() == [
        "targeted against original: 1.00 points lower error "
        "(95 % interval over seeds -1.02 to -0.98, corrected p = 3.3e-05, 3 seeds)"
    ]
    assert "no significant difference (-0.07 points, 95 % interval over seeds" in report(CHANCE).headlines()[0]
    assert re.search("; about [0-9]+ seeds would tell such a difference", report(CHANCE).headlines()[0])
    same = in_words(comparison([2.2, 2.3, 2.4], [2.3, 2.4, 2.5]))
    assert same == "0.10 points lower error in each of 3 seeds, which do not vary: whether it is chance cannot be told"
    assert "with one seed: whether it is chance cannot be told" in in_words(comparison([4.3], [4.0]))
    narrow = comparison(CLEAR["targeted"], CLEAR["original"])
    assert "on other images" not in in_words(narrow)
    assert in_words(replace(narrow, interval=(-2.1, 0.2))).endswith("; on other images it may be none (-2.10 to 0.20)")


def test_the_headline_answers_the_question():
    assert report(CLEAR).headline() == (
        "Yes, targeted helped: 4.10 % test error against 5.10 % of original. 1.00 points lower error (95 % interval "
        "over seeds -1.02 to -0.98, corrected p = 3.3e-05, 3 seeds)."
    )
    assert report(CHANCE).headline().startswith("It cannot be told whether targeted helped: 5.03 % test error against")
    harm = report({"original": CLEAR["targeted"], "targeted": CLEAR["original"]}, split="validation").headline()
    assert harm.startswith(
        "No, targeted did harm: 5.10 % validation error against 4.10 % of original. 1.00 points high"
    )
    narrow = report(CLEAR)
    here = replace(narrow.comparisons["original"]["targeted"], interval=(-2.1, 0.2))
    elsewhere = replace(narrow, comparisons={"original": {"targeted": here}}).headline()
    assert elsewhere.startswith("Yes, targeted helped on these test images: 4.10 % test error")
    assert "of original, with 610 updates against 600. " in report(CLEAR, unequal=True).headline()
    nothing = "Nothing can be said: it takes an arm with synthetic images, and one without, or upsample or random."
    assert replace(report(CLEAR), main_arm=None).headline() == nothing
    assert replace(report(CLEAR), comparisons={}).headline() == nothing


def test_a_comparison_on_validation_images_says_what_it_is_for():
    page = Page(render_html(report(CLEAR, split="validation"))).text
    assert "choose by them, and test the choice on the test images" in page
    assert "validation error %" in page
    assert "test error" not in page
    assert "train.checkpoint: best" not in page
    best = replace(report(CLEAR, split="validation"), best_epochs=True)
    assert "have chosen the epochs (train.checkpoint: best)" in Page(render_html(best)).text
    assert "validation_error" in report(CLEAR, split="validation").to_metrics()["arms"]["targeted"]


def test_numbers_are_written_with_their_spread():
    assert spread(estimate([4.0, 4.2])) == "4.10 ± 0.14"
    assert spread(estimate([4.0])) == "4.00"
    assert spread(estimate([float("nan")])) == "none"
    assert between(estimate([4.0])) == "-"
    assert change(Difference(-1e-9, 1.0, -2.0, 2.0, 3, 1.0)) == "+0.00 (-2.00 to 2.00)"
    assert change(Difference(0.0, 0.0, None, None, 3, None)) == "+0.00 (the same in every seed)"


def test_different_numbers_of_updates_are_said():
    assert "Every arm made the same number of updates" in render_markdown(report(CLEAR))
    assert "a gain may come from longer training" in render_markdown(report(CLEAR, unequal=True))


def test_settings_of_an_arms_own_are_said_where_they_could_be_the_reason():
    known = report(CLEAR)
    original, targeted = known.arms
    sam = replace(targeted, effort=replace(targeted.effort, settings={"optimizer": "sam"}))
    mixed = replace(known, arms=[original, sam])
    assert "of original, trained with other settings too (optimizer). " in mixed.headline()
    assert "(targeted: optimizer), which a difference may come from." in render_markdown(mixed)
    both = replace(known, arms=[replace(original, effort=sam.effort), sam])
    assert "other settings" not in both.headline()
    assert "settings of their own" not in render_markdown(known)


def test_objectives_are_what_is_compared_and_not_settings_of_an_arms_own():
    known = report(CLEAR)
    original, targeted = known.arms
    settings = {"objective": "pcr", "synthetic": {"weight": 0.03}, "lr": 0.01}
    pcr = replace(targeted, effort=replace(targeted.effort, settings=settings))
    mixed = replace(known, arms=[original, pcr])
    assert "of original, minimising pcr in place of cross_entropy, trained with other settings too (lr). " in (
        mixed.headline()
    )
    text = render_markdown(mixed)
    assert "compared in that too (cross_entropy: original; pcr: targeted)." in text
    assert "Some arms train with settings of their own (targeted: lr), which" in text
    assert "minimise" not in render_markdown(known)
    by_section = replace(mixed, train={"objective": "pcr"}, arms=[original, replace(pcr, effort=original.effort)])
    assert "minimise" not in render_markdown(by_section)


def test_collapsed_features_are_said():
    known = report(CLEAR)
    fine = {"updates": [1.0, 2.0], "error": [50.0, 40.0], "loss": [1.0, 0.5], "synthetic_loss": [1.0, 0.04]}
    said = "WARNING: the features of {} collapsed: they are the same for all images"
    both = replace(known, curves={"original": fine, "targeted": fine})
    assert said.format("original, targeted") in render_markdown(both)
    assert "collapsed" not in render_markdown(replace(both, train={"objective": "gda"}))  # no consistency
    one = replace(known, curves={"original": {**fine, "error": [50.0, 20.0]}, "targeted": fine})
    assert said.format("targeted") in render_markdown(one)
    assert "collapsed" not in render_markdown(replace(known, curves={"targeted": {**fine, "error": [50.0, 20.0]}}))


def test_the_course_of_training_is_shown_where_it_was_measured(tmp_path):
    known = report(CLEAR)
    assert "Validation loss" not in render_html(known)
    points = feature_map(np.random.default_rng(0).normal(size=(9, 3)), np.random.default_rng(1).normal(size=(9, 3)))
    course = Course([(5, points), (15, points)], "found", [DistanceRow(0, 0, 2.0, 2.0), DistanceRow(1, 5, 2.0, 1.5)])
    curves = {name: {**curve, "validation_loss": [0.7, 0.4]} for name, curve in known.curves.items()}
    settings = {"evaluate": {"features": "probe", "feature_map": "pca", "course": {"num_images": 64}}}
    seen = replace(known, courses={"targeted": course}, curves=curves, settings=settings)
    page = render_html(seen)
    assert 'aria-label="Validation loss of each arm over updates"' in page
    assert "targeted: features of real and of synthetic images after epochs 5, 15" in page
    assert "of 64 latent vectors as they are drawn" in page
    assert json.loads(json.dumps(seen.to_json()))["courses"]["targeted"] == {
        "map_epochs": [5, 15], "origin": "found", "frechet_distances": [[0, 0, 2.0, 2.0], [1, 5, 2.0, 1.5]],
    }  # fmt: skip
    write_tables(tmp_path, seen)
    assert (tmp_path / "frechet_distances.csv").read_text().splitlines() == [
        "arm,epoch,updates,uniform,found", "targeted,0,0,2,2", "targeted,1,5,2,1.5",
    ]  # fmt: skip
    write_plots(tmp_path, seen)
    header, first, *_ = (tmp_path / "training.csv").read_text().splitlines()
    assert (header, first) == ("arm,updates,loss,error,validation_loss", "original,1,1,50,0.7")


def test_the_markdown_table_is_aligned():
    text = render_markdown(report(CLEAR))
    for name, rows in {"| arm      | test error %": 4, "| arm      | against": 3}.items():
        lines = text[text.index(name) :].split("\n\n")[0].splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len(lines) == rows


class Page(HTMLParser):
    """Collects what a page shows and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.buttons: list[dict] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "button" and "value" in values:
            self.buttons.append(values)
        if tag == "img":
            self.images.append(values)
        self.links += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("errors", [CLEAR, CHANCE, {"original": [5.0], "targeted": [4.0]}])
def test_the_page_is_whole_and_loads_nothing_from_elsewhere(errors):
    text = render_html(report(errors))
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("data:image/", "#")) for link in page.links), page.links
    assert not re.search(r"https?://(?!www\.w3\.org/)", re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", text))
    assert len(page.images) == 11
    assert all(image["alt"] for image in page.images)
    assert text.count("<svg") == 5
    regions = re.findall(r'<div class="wide"([^>]*)>', text)
    assert regions
    assert all('role="region" aria-label=' in each for each in regions), "what the keyboard reaches has a name"
    assert "a<b" in page.text
    assert "about <targeted>" in page.text
    for line in report(errors).headlines():
        assert line in page.text


def test_each_variant_can_be_rejected_and_what_is_left_out_is_said():
    page = Page(render_html(report(CLEAR)))
    assert [(button["value"], button["aria-pressed"]) for button in page.buttons] == [
        ("k_s0500_v0", "false"),
        ("l_s0800_v0", "true"),
    ]
    assert all("disabled" in button for button in page.buttons)  # until the script runs
    assert "dropped: low <confidence>" in page.text
    said = (
        "The pool holds 40 synthetic images; generate.filter dropped 5 more (2 blank, 3 low <confidence>), and a "
        "person rejected 1 of the pool (rejects.csv), which no arm trains on."
    )
    assert said in page.text
    assert said in render_markdown(report(CLEAR))
    without = Page(render_html(report(CLEAR, gallery=False)))
    assert said in without.text
    assert (without.buttons, "Save rejects.csv" in without.text) == ([], False)


def test_without_variants_there_is_nothing_to_reject():
    rows = [GalleryRow("k", "c", np.zeros((3, 8, 8), np.uint8), [])]
    page = render_html(replace(report(CLEAR), gallery=Gallery([], rows, []), pool_size=0, dropped={}, rejects={}))
    assert ">Late-learned images</h2>" in page
    assert not re.search("Save rejects|Columns are strengths|<script|a person rejected", page)


def test_labels_to_check_are_shown_with_what_was_done():
    text = render_html(report(CLEAR))
    said = "2 of 10 training images are probably mislabelled, which arms augment like any other."
    assert said in Page(text).text
    assert said in render_markdown(report(CLEAR))
    assert "perhaps c" in Page(text).text
    assert "labelled a<b, perhaps c, image s" in [image["alt"] for image in Page(text).images]
    assert "select.exclude_suspects: true" in text
    assert "mislabelled, which no arm augments." in render_markdown(report(CLEAR, excluded=True))
    nobody_looked = report(CLEAR)
    nobody_looked.selection["num_suspects"] = None
    assert "mislabelled" not in render_html(nobody_looked) + render_markdown(nobody_looked)


@pytest.mark.parametrize(("side", "num_strengths"), [(64, 2), (96, 6), (96, 10), (300, 10)])
def test_what_does_not_compress_stays_below_five_megabytes(side, num_strengths):
    noise = np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)
    strengths = [f"{0.1 * step:g}" for step in range(1, num_strengths + 1)]
    count = rows_per_class(10, len(strengths), side)
    variants = [Variant("v", noise)] * len(strengths)
    rows = [GalleryRow("k", str(n), noise, variants) for n in range(10) for _ in range(count)]
    pictures = [Picture("k", "c", noise)] * 16
    pairs = list(zip(pictures, pictures, strict=True))[:8]
    copies = Copies(9, 9, 10, 10, [])
    everything = replace(CLEANLINESS, synthetic_split=copies, memorised=copies, unchanged=copies)
    real, made = np.random.default_rng(0).normal(size=(2, 3000, 4)).astype(np.float32)
    many = [
        replace(each, class_errors=[1.0] * 1000, confusion=np.zeros((1000, 1000), int)) for each in report(CLEAR).arms
    ]
    page = render_html(
        replace(
            report(CLEAR),
            gallery=Gallery(strengths, rows, [GalleryRow("k", "c", noise, [])] * 10),
            dropped_images=pictures,
            neighbours=pairs,
            cleanliness=everything,
            copies=dict.fromkeys(everything.compared(), pairs),
            pool=PoolEvidence("probe", "original-0", [], feature_map(real, made), ["0.5"] * 3000),
            arms=many,
            class_names=[f"class {number}" for number in range(1000)],
            suspects=[Suspect("s", "c", "d", 0.1, noise)] * 24,
        )
    )
    assert 1_000_000 < len(page) < 5_000_000


def test_what_was_found_of_copies_is_said_and_shown():
    found = report(CLEAR)
    said = found.about_copies()
    assert list(said) == ["split_train", "within_train"]
    assert said == {
        "split_train": "2 of 20 test images look like a train image (1 equal it in every pixel): a model may know them "
        "by heart.",
        "within_train": "None of 10 train images look like another one (0 equal it in every pixel); near ones were not "
        "looked for among so many images.",
    }
    for sentence in said.values():
        assert sentence in Page(render_html(found)).text
        assert sentence in render_markdown(found)
    assert "which is like k" in [image["alt"] for image in Page(render_html(found)).images]


def test_errors_without_copied_images_are_said():
    found = replace(report(CLEAR), without_copies={"original": 5.0, "targeted": 4.05})
    assert found.about_copies()["split_train"].endswith(" The errors without them: original 5.00 %, targeted 4.05 %.")
    assert "The errors without them" not in report(CLEAR).about_copies()["split_train"]


def test_the_headline_goes_on_with_the_controls():
    three = report({"original": CLEAR["original"], "random": [5.0, 5.3, 5.1], "targeted": CLEAR["targeted"]})
    random = {"random": {"targeted": comparison(CLEAR["targeted"], [5.0, 5.3, 5.1])}}
    told = replace(three, comparisons=three.comparisons | random).headline()
    assert told.endswith(", 3 seeds). Against random: 1.03 points lower.")
    same = {"random": {"targeted": comparison(CLEAR["targeted"], [4.2, 4.0, 4.1])}}
    open_ = replace(three, comparisons=three.comparisons | same).headline()
    assert open_.endswith(" Against random: it cannot be told (+0.00 points).")


def test_a_probe_that_has_learned_nothing_is_warned_of():
    assert "WARNING" not in render_markdown(report(CLEAR, probe=20.0))
    assert "WARNING: the probe is hardly better than a guess (45 % train error" in render_markdown(
        report(CLEAR, probe=45.0)
    )
    assert "WARNING: the probe" in render_html(report(CLEAR, probe=45.0))


def test_classes_without_images_are_named():
    known = report(CLEAR)
    arms = [replace(each, class_errors=[1.0, float("nan")]) for each in known.arms]
    assert "No test image is of class c: figures over classes leave it out." in render_markdown(
        replace(known, arms=arms)
    )
    assert "figures over classes" not in render_markdown(known)


def test_errors_on_corrupted_images_are_means_over_corruptions_and_seeds():
    errors = np.arange(75.0).reshape(15, 5)
    runs = [
        Robustness(arm, seed, 12, 5.0 + seed, errors + shift)
        for arm, shift in (("original", 0), ("targeted", -1))
        for seed in range(3)
    ]
    found = replace(report(CLEAR), robustness=runs)
    by_arm = {name: (clean.mean, bad.mean) for name, clean, bad in found.corrupted()}
    assert by_arm == {"original": (6.0, 37.0), "targeted": (6.0, 36.0)}
    assert found.by_corruption()[0] == ("gaussian_noise", [2.0, 1.0])
    assert len(found.by_corruption()) == 15
    page = Page(render_html(found)).text
    assert "error % on 12 clean images" in page
    assert "gaussian noise" in page
    assert "| targeted | 6.00 ± 1.00" in render_markdown(found)
    assert "Corrupted images" not in render_html(report(CLEAR))
    json.dumps(found.to_json(), allow_nan=False)


def test_the_quality_of_the_pool_has_a_row_per_strength():
    real, made = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    near = NeighbourScores(0.9, 0.8, 1.1, 0.7)
    quality = [
        PoolQuality(
            "",
            0.5,
            30,
            30,
            0.1234,
            0.2,
            0.0,
            KernelDistance(0.01, 0.0),
            None,
            near,
            30,
            Diversity(None, 1.5, 30, 0),
            96.7,
        ),
        PoolQuality("", None, 3, 30, None, None, None, None, "fewer than 100 images", None, 3, None, 100.0),
    ]
    pool = PoolEvidence("probe", "original-0", quality, feature_map(real, made), ["0.5"] * 27 + ["sampled"] * 3)
    found = replace(report(CLEAR), pool=pool)
    text = render_markdown(found)
    assert re.search(
        r"\| 0.5 +\| 30 +\| 0.123 +\| 0.0100 +\| 0.90 +\| 0.80 +\| 1.10 +\| 0.70 +\| - +\| 1.500 +\| 96.7 ", text
    )
    assert re.search(r"\| sampled +\| 3 +\|( - +\|){8} 100.0", text)
    page = Page(render_html(found))
    assert "original-0, which was trained on real images alone" in page.text
    assert "sampled" in page.text
    json.dumps(found.to_json(), allow_nan=False)


def test_a_sweeps_report_names_no_pipeline():
    assert "<code>dvc repro</code></th>" in render_html(report(CLEAR))
    assert "<code>dvc repro</code></th>" not in render_html(replace(report(CLEAR), has_pipeline=False))


def test_class_names_are_no_formulas():
    page = render_html(replace(report(CLEAR), class_names=["$100 to $200", r"$\frac$"]))
    assert page.count("$100 to $200") >= 2, "in the table and in the plot"


def test_the_page_is_the_same_every_time():
    assert render_html(report(CLEAR)) == render_html(report(CLEAR))


def test_figures_without_a_number_become_null():
    known = report({"original": [5.0, 5.0], "targeted": [4.0, 4.0]})
    unknown = replace(known.arms[0], late_error=estimate([float("nan")] * 2), class_errors=[1.0, float("nan")])
    result = replace(known, arms=[unknown, known.arms[1]]).to_json()
    assert result["arms"]["original"]["late_error"]["mean"] is None
    assert result["arms"]["original"]["class_errors"] == [1.0, None]
    assert result["comparisons"]["original"]["targeted"]["told"] is False
    json.dumps(result, allow_nan=False)
    assert report(CLEAR).to_metrics()["arms"]["targeted"]["test_error"] == 4.1


def test_the_advice_begins_with_the_comparison():
    helped = report(CLEAR)
    verdict = helped.advised().verdict
    assert verdict is not None
    assert (verdict.arm, verdict.reference, verdict.told, round(verdict.points, 2)) == (
        "targeted",
        "original",
        True,
        -1,
    )
    assert verdict.sentence.startswith("Yes, targeted helped: -1.00 points of test error against original (corrected p")
    assert helped.to_json()["advice"]["advice"][0]["rule"] == "verdict"
    html = render_html(helped)
    assert "keep targeted" in Page(html).text
    assert "<code>gdacli theory gmm</code>" in html
    assert "### What to try next\n\n1. Yes, targeted helped" in render_markdown(helped)
    nothing = replace(helped, main_arm=None).advised()
    assert nothing.verdict is None
    assert str(nothing.no_verdict).startswith("Nothing can be said")
