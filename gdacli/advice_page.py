"""Advice as a page: what was measured, what to try next, and what none of it says."""

import textwrap
from dataclasses import asdict
from typing import Any

from gdacli.advice import NAMED, Advice, advise
from gdacli.advice_figures import Figures
from gdacli.clustered_share import Share
from gdacli.console import table
from gdacli.features import PROBE_FEATURES
from gdacli.wording import capitalised
from gdacli.wording import table as markdown_table

_WIDTH = 110


def group_rows(figures: Figures) -> list[list[str]]:
    """Return a header and a row per group of synthetic images; the header alone without any."""
    rows = [["images", "number", "told apart %", "label found %", "copies of their source %"]]
    for each in figures.groups:
        unchanged = "-" if each.unchanged is None else f"{each.unchanged:.1f}"
        name = f"strength {each.name}" if each.strength is not None and not each.imported else each.name
        rows.append([name, str(each.num_images), _cell(each.apart), _cell(each.found), unchanged])
    return rows


def sentences(figures: Figures) -> list[str]:
    """Say in words what was measured besides the table."""
    return [*_about_groups(figures), *_about_copies(figures), _about_judge(figures), *_about_size(figures)]


def _about_groups(figures: Figures) -> list[str]:
    if not figures.groups:
        said = ["There are no synthetic images yet: what follows is of the real ones."]
    else:
        judge, features = (_with_article(name) for name in (figures.judge.name, figures.features))
        said = [
            "Told apart: of equally many synthetic images and real ones that they were made from, by features of "
            f"{features}; at 50 % they cannot be told, at 100 % each one is. Label found: by {judge}, which was "
            "trained on real images alone. In brackets 95 % intervals over sources."
        ]
    if figures.control is not None:
        said.append(
            f"For comparison: {_span(figures.control)} of validation images, which are real, and of train images are "
            "told apart."
        )
    return said


def _about_copies(figures: Figures) -> list[str]:
    copies, memorised, said = figures.copies, figures.memorised, list[str]()
    if copies is not None:
        doubt = "" if copies.telling else ", which at this size says nothing"
        said.append(
            f"Copies of a train image other than the source: {copies.num_exact} of {copies.num_images} in every pixel, "
            f"{copies.num_near} more of {copies.num_drawn} look like one{doubt}."
        )
    if memorised is not None:
        chance = "more than chance" if memorised.suspect else "no more than chance"
        said.append(
            f"Of the images without a source {100 * memorised.share:.1f} % are nearer to a train image than 99 % of "
            f"the train images are to each other: {chance} (p = {memorised.p_value:.2g})."
        )
    return said


def _about_judge(figures: Figures) -> str:
    judge = figures.judge
    said = f"{_beginning(judge.name)} is right on {_span(judge.train)} of the train images"
    if judge.validation is None or judge.gap is None:
        return f"{said}; there is no validation split to ask it about new ones."
    return (
        f"{said} and on {_span(judge.validation)} of the validation images: a gap of {judge.gap[0]:.1f} points "
        f"({judge.gap[1]:.1f} to {judge.gap[2]:.1f})."
    )


def _with_article(name: str) -> str:
    return f"the {name}" if name == PROBE_FEATURES else name


def _beginning(name: str) -> str:
    """Return a model's name as a sentence begins with it; arms keep theirs."""
    return capitalised(_with_article(name)) if name == PROBE_FEATURES else name


def _about_size(figures: Figures) -> list[str]:
    smallest = sorted(figures.class_counts.items(), key=lambda each: each[1])[:NAMED]
    total, named = sum(figures.class_counts.values()), ", ".join(f"{name} ({count})" for name, count in smallest)
    said = [
        f"{total} train images of {len(figures.class_counts)} classes, {figures.median_class:.0f} of the median class; "
        f"fewest: {named}. Features: {figures.num_features}. In the Gaussian mixture model (`gdacli theory gmm`) two "
        f"classes of median size would have a generalisation gap of {figures.gap_unit:.2g}, features over images.",
        f"The probe's train error is {figures.probe.train_error:.1f} % at epoch {figures.probe.epoch}.",
    ]
    if (chosen := figures.selection) is not None:
        said[-1] += (
            f" {chosen.strategy} selects {chosen.share:.1f} % of the train images "
            f"({chosen.lowest:.0f} to {chosen.highest:.0f} % of a class)."
        )
    return said


def caveats(figures: Figures) -> list[str]:
    """Say what the figures and the papers' theory do not say."""
    outside = (
        "The generator was fitted on these train images alone: its images bring in nothing that they do not hold."
        if figures.settings.fitted
        else "The generator was not fitted here: what else it has seen comes in with its images, for better or worse."
    )
    early = "The probe was stopped early: a model that is trained to the end fits train images better, new ones or not."
    seen = f"{_beginning(figures.judge.name)} has seen the sources: small changes leave labels easy."
    apart = (
        "50 % told apart means that this classifier, linear in these features, cannot tell them, not that they are "
        "equal. 100 % does not mean that they do harm."
    )
    if figures.features == PROBE_FEATURES:
        apart += " The probe was trained on the train images, so that even new real images can be told from them."
    return [
        "The rules are rules of thumb, ours; their thresholds stand in docs/advise.md with a reason each. Only a "
        "comparison of trained arms (`gdacli evaluate`) says whether images help.",
        *([figures.no_verdict] if figures.no_verdict else []),
        *figures.doubts,
        *([apart] if figures.groups or figures.control else []),
        *([seen] if figures.groups else []),
        "The papers' bounds are orders with all constants set to 1: at your number of images they predict no error. In "
        "the model that can be solved, generated images shrink the gap between the error on train and on new images, "
        "while that on new images does not fall (`gdacli theory gmm`). Deep features are not that model.",
        *([outside] if figures.groups else []),
        *([] if figures.judge.trained else [early]),
        "That faithful variants overfit less noise than copies, and may be up to k + 1 times as noisy by that paper's "
        "measure, is proved for orthogonal noises and one early update of a two-layer network (`gdacli theory "
        "two-layer`). How well late-learned images are found there: `gdacli theory selection`.",
    ]


def to_json(figures: Figures) -> dict[str, Any]:
    """Return figures, advice and caveats."""
    return {
        "figures": figures.to_json(),
        "advice": [asdict(each) for each in advise(figures)],
        "caveats": caveats(figures),
    }


def render_markdown(figures: Figures) -> list[str]:
    """Return the lines of what to try next, for a pull request."""
    rows = group_rows(figures)
    return [
        "### What to try next",
        "",
        *(
            f"{number}. {each.finding} *Rests on:* {each.rests_on}. **Try:** {each.remedy}."
            for number, each in enumerate(advise(figures), 1)
        ),
        "",
        *([*markdown_table(rows), ""] if len(rows) > 1 else []),
        "Rules of thumb: `gdacli advise` says what these figures are, and what they do not say.",
    ]


def render_text(figures: Figures) -> str:
    """Return the page for a terminal."""
    rows = group_rows(figures)
    measured = [table(rows[0], rows[1:]), ""] if len(rows) > 1 else []
    tried = [_item(number, each) for number, each in enumerate(advise(figures), 1)]
    return "\n".join(
        [
            "What was measured",
            "",
            *measured,
            *(_bullet(each) for each in sentences(figures)),
            "",
            "What to try next",
            "",
            *tried,
            "",
            "What this does not say",
            "",
            *(_bullet(each) for each in caveats(figures)),
        ]
    )


def _item(number: int, each: Advice) -> str:
    lines = [(f"{number}. ", each.finding), ("   Rests on: ", f"{each.rests_on}."), ("   Try: ", f"{each.remedy}.")]
    return "\n".join(_wrapped(text, first, "   ") for first, text in lines)


def _bullet(text: str) -> str:
    return _wrapped(text, "- ", "  ")


def _wrapped(text: str, first: str, then: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


def _cell(share: Share | None) -> str:
    return "-" if share is None else f"{share.value:.1f} ({share.low:.1f} to {share.high:.1f})"


def _span(share: Share) -> str:
    return f"{share.value:.1f} % ({share.low:.1f} to {share.high:.1f})"
