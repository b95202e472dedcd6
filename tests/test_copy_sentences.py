from dataclasses import replace

import pytest

from gdacli.cleanliness import Cleanliness, Copies, Copy
from gdacli.copy_sentences import about_copies

EXACT = Copy("t", "k", 0, 1, 1.0, False, True)
NEAR = Copy("u", "k", 1, 1, 0.98, True, False)
NONE = Copies(10, 10, 10, 10, [])
CLEAN = Cleanliness(
    threshold=0.97,
    side=32,
    split_train=replace(NONE, num_images=20, num_drawn=20),
    within_train=NONE,
    near_within_train=True,
    synthetic_split=NONE,
    memorised=NONE,
    unchanged=NONE,
)


def test_each_comparison_has_a_sentence_and_names_the_split():
    said = about_copies(CLEAN, "validation")
    assert said.keys() == CLEAN.compared().keys()
    assert said["split_train"] == "None of 20 validation images look like a train image (0 equal it in every pixel)."
    assert said["synthetic_split"].startswith("None of 10 synthetic images look like a validation image (")
    found = replace(CLEAN, synthetic_split=replace(NONE, pairs=[EXACT, NEAR]))
    assert about_copies(found, "test")["synthetic_split"] == (
        "2 of 10 synthetic images look like a test image (1 equal it in every pixel): the error may flatter who trains "
        "on them."
    )


def test_nothing_is_said_of_no_images():
    found = replace(CLEAN, unchanged=replace(NONE, num_images=0, num_drawn=0))
    assert about_copies(found, "test").keys() == CLEAN.compared().keys() - {"unchanged"}


def test_what_was_not_looked_for_is_said():
    found = replace(CLEAN, near_within_train=False, within_train=Copies(10, 0, 0, 10, [EXACT]))
    assert about_copies(found, "test")["within_train"] == (
        "1 of 10 train images look like another one (1 equal it in every pixel); near ones were not looked for among "
        "so many images."
    )


@pytest.mark.parametrize(
    ("copies", "sentence"),
    [
        (
            Copies(100, 20, 70, 70, [EXACT, NEAR]),
            "1 of 100 test images equal a train image in every pixel, and of 20 drawn ones 1 more look like one: a "
            "model may know them by heart.",
        ),
        (
            Copies(100, 20, 50, 70, []),
            "None of 100 test images equal a train image in every pixel, and of 20 drawn ones no more look like one of "
            "50 drawn of 70.",
        ),
        (
            Copies(20, 20, 50, 70, [NEAR]),
            "None of 20 test images equal a train image in every pixel, and 1 more look like one of 50 drawn of 70: a "
            "model may know them by heart.",
        ),
    ],
)
def test_a_draw_is_said(copies, sentence):
    assert about_copies(replace(CLEAN, split_train=copies), "test")["split_train"] == sentence


def test_near_copies_of_tiny_images_are_doubted():
    tiny = replace(CLEAN, side=8, split_train=replace(NONE, pairs=[NEAR]), unchanged=replace(NONE, pairs=[NEAR]))
    said = about_copies(tiny, "test")
    assert said["split_train"] == (
        "1 of 10 test images look like a train image (0 equal it in every pixel; at 8 x 8 pixels unrelated images look "
        "alike too)."
    )
    assert "unrelated" not in said["unchanged"] + said["memorised"]
    assert said["unchanged"].endswith(": they teach what a copy teaches.")
    exact = replace(tiny, split_train=replace(NONE, pairs=[EXACT, NEAR]))
    assert about_copies(exact, "test")["split_train"].endswith("look alike too): a model may know them by heart.")
    drawn = replace(tiny, split_train=Copies(100, 20, 50, 50, [NEAR]))
    assert about_copies(drawn, "test")["split_train"].endswith(
        "of 20 drawn ones 1 more look like one (at 8 x 8 pixels unrelated images look alike too)."
    )
