"""What to try next, by rules over figures; the rules of thumb, and what they rest on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gdacli.advice_figures import Figures, ImageGroup
from gdacli.clustered_share import Share
from gdacli.wording import about, capitalised

FAR = 75.0
"""% told apart, the interval's low end, from which images are far from real: nearer to always told than to never."""
CLOSE = 60.0
"""% told apart, the interval's high end, up to which images are hardly told: four of five answers are guesses."""
MANY_COPIES = 25.0
"""% of the variants of a strength that are copies of their own source, from which it is upsampling in the main."""
LOST = 10.0
"""Points by which labels are found less often than those of real images that the judge has not seen either, from which
they are called wrong: the variants are of hard images, so that a few points are to be expected."""
LOST_UNSEEN = 25.0
"""The same against train images, which the judge has seen: without a validation split there are no others."""
LEAST_SHARE, MOST_SHARE = 5.0, 90.0
"""% selected: the paper expects 30 to 60 %; of less than 5 % little can come, above 90 % nothing was selected."""
UNTRAINED = 0.75
"""Of a guess's error: a probe above has learned hardly anything, see `Report.about_probe`."""
SMALL_GAP = 2.0
"""Points between accuracy on seen and on new images, the interval's high end, that more images can hardly lower."""
LARGE_GAP = 5.0
"""The same, the low end, from which more images have something to gain."""
UNFITTED = 20.0
"""% error of a trained model on its own train images: it lacks training, not images."""
FEW_IMAGES = 50
"""Of the median class: a generator that is fitted on so few has seen no class well."""
SUSPECT_COPIES = 1.0
"""% of the images that are near copies of train images other than their source, from which the generator repeats."""


@dataclass(frozen=True)
class Advice:
    """One finding and what to try."""

    rule: str
    finding: str
    rests_on: str
    """The figure."""
    remedy: str
    """What to try: a key of params.yaml with a value, or a command."""


def advise(figures: Figures) -> list[Advice]:
    """Return what to try next, the weightiest first; empty where nothing stands out.

    The comparison of the trained arms goes first. Where it says that the images helped, it overrules what rules of
    thumb say against them: of those only the ones remain that do not speak of gain.
    """
    verdict = _verdict(figures)
    helped = figures.verdict is not None and figures.verdict.told and figures.verdict.points < 0
    rules: Sequence[Callable[[Figures], Advice | None]] = (
        _probe,
        _copied,
        *(() if helped else (_far_and_wrong, _near_copies, _wrong, _far_but_right)),
        _share_selected,
        *(() if helped else (_unfitted, _enough, _begin)),
        _few_images,
        _no_validation,
    )
    found = [rule(figures) for rule in rules]
    return [*([verdict] if verdict else []), *(each for each in found if each is not None)]


def labels_found(figures: Figures, group: ImageGroup) -> bool | None:
    """Say whether labels are found as often as those of real images; None where it cannot be told."""
    known, lost = _known(figures)
    if group.found.high < known.value - lost:
        return False
    return True if group.found.low >= known.value - lost else None


def is_far(figures: Figures, group: ImageGroup) -> bool:
    """Say if images are told from real ones for sure, and more often than new real images are."""
    if group.apart is None or group.apart.low < FAR:
        return False
    return figures.control is None or group.apart.low > figures.control.high


def _known(figures: Figures) -> tuple[Share, float]:
    """Return the judge's accuracy on real images, and how much less is too little."""
    validation = figures.judge.validation
    return (validation, LOST) if validation is not None else (figures.judge.train, LOST_UNSEEN)


def _verdict(figures: Figures) -> Advice | None:
    verdict = figures.verdict
    if verdict is None:
        return None
    if not verdict.told:
        seeds = verdict.seeds_needed
        more = f"compare.seeds: {about(seeds)} of them would tell such a difference" if seeds else "more compare.seeds"
        remedy = f"{more}; or change the images by what follows"
    elif verdict.points < 0:
        remedy = f"keep {verdict.arm}; what rules of thumb say against its images is left out below"
    else:
        remedy = f"train on {verdict.reference}'s mix, without these images, or change them by what follows"
    return Advice("verdict", verdict.sentence, "the comparison of the trained arms, which goes first", remedy)


def _probe(figures: Figures) -> Advice | None:
    probe, guess = figures.probe, 100 * (1 - 1 / len(figures.class_counts))
    if probe.train_error < UNTRAINED * guess:
        return None
    return Advice(
        "probe",
        "The probe is hardly better than a guess: what is selected, and every figure by its features, says little.",
        f"{probe.train_error:.0f} % train error at epoch {probe.epoch}, a guess has {guess:.0f} %",
        f"probe.epochs: {2 * probe.epoch}, or a lower probe.batch_size or probe.lr",
    )


def _copied(figures: Figures) -> Advice | None:
    copies, memorised = figures.copies, figures.memorised
    said = []
    if copies and copies.num_exact:
        said.append(f"{copies.num_exact} of {copies.num_images} equal one in every pixel")
    if copies and copies.telling and 100 * copies.num_near >= SUSPECT_COPIES * copies.num_drawn > 0:
        said.append(f"{copies.num_near} of {copies.num_drawn} look like one")
    if memorised and memorised.suspect:
        said.append(f"{100 * memorised.share:.1f} % of those without a source are nearer to one than real images are")
    if not said:
        return None
    return Advice(
        "copied",
        "The generator seems to repeat train images other than the source: that adds nothing new, and shares what the "
        "train images show.",
        "; ".join(said),
        "generate.filter: {min_nearest_distance: 0.01}"
        + (", or fewer fit.updates" if figures.settings.fitted else ", or another generate.model"),
    )


def _far_and_wrong(figures: Figures) -> Advice | None:
    groups = [each for each in figures.groups if is_far(figures, each) and labels_found(figures, each) is False]
    if not groups:
        return None
    return Advice(
        "far_and_wrong",
        f"{_named(groups)}: told from real images, and their labels are not found again. They teach what is not so.",
        _figures(figures, groups),
        _lower(groups),
    )


def _near_copies(figures: Figures) -> Advice | None:
    groups = [
        each
        for each in figures.groups
        if each.has_source
        and labels_found(figures, each) is not False
        and ((each.unchanged or 0) >= MANY_COPIES or (each.apart is not None and each.apart.high <= CLOSE))
    ]
    if not groups:
        return None
    strengths = [each.strength for each in groups if each.strength is not None]
    highest = max(strengths, default=None)
    sweep = "" if highest is None else f"higher: `gdacli sweep strengths --values {_values(highest, (1.3, 1.6))}`; or "
    return Advice(
        "near_copies",
        f"{_named(groups)}: hardly told from the images that they were made from. This comes near to upsampling.",
        _figures(figures, groups),
        f"{sweep}an arm `upsample` (add: copies) beside it in compare.arms, which costs no image; or nothing",
    )


def _wrong(figures: Figures) -> Advice | None:
    groups = [each for each in figures.groups if not is_far(figures, each) and labels_found(figures, each) is False]
    if not groups:
        return None
    more = figures.settings.guidance_scale + 2
    return Advice(
        "wrong",
        f"{_named(groups)}: labels are not found again as often as those of real images.",
        _figures(figures, groups),
        "generate.filter: {min_confidence: 0.1}, which leaves the worst out and makes nothing again; "
        f"generate.guidance_scale: {more:g}, for images more typical of their class; or " + _lower(groups),
    )


def _far_but_right(figures: Figures) -> Advice | None:
    groups = [each for each in figures.groups if is_far(figures, each) and labels_found(figures, each)]
    if not groups or figures.settings.objective not in (None, "cross_entropy"):
        return None
    return Advice(
        "far_but_right",
        f"{_named(groups)}: told from real images, but their labels are found again. They may do better as a "
        "regulariser than as images to classify.",
        _figures(figures, groups),
        f"an arm with the same images and `train: {{objective: pcr}}` beside {figures.settings.arm or 'it'}, which "
        "believes no label (docs/objectives.md); `gdacli sweep lambda` finds its weight",
    )


def _share_selected(figures: Figures) -> Advice | None:
    selection = figures.selection
    if selection is None or selection.strategy in ("all", "random") or LEAST_SHARE <= selection.share <= MOST_SHARE:
        return None
    few = selection.share < LEAST_SHARE
    other = max(1, figures.probe.epoch // 2) if few else figures.probe.epoch * 2
    key = "probe.separation_epoch" if few else "probe.epochs"
    return Advice(
        "share_selected",
        f"Almost {'nothing' if few else 'everything'} is selected: the separation epoch is too {_when(few)}.",
        f"{selection.share:.1f} % by {selection.strategy} at epoch {figures.probe.epoch}",
        f"{key}: {other}; or arms.{figures.settings.arm or '<arm>'}.select: high_loss with select.share: 0.3; "
        "`gdacli sweep selection` compares strategies",
    )


def _when(few: bool) -> str:
    return "late" if few else "early"


def _unfitted(figures: Figures) -> Advice | None:
    judge = figures.judge
    if not judge.trained or 100 - judge.train.high < UNFITTED:
        return None
    return Advice(
        "unfitted",
        "The model does not fit its own train images: it lacks training, or size, before it lacks images.",
        f"{_span(judge.train)} of the train images right, by {judge.name}",
        "twice the train.budget, or a larger train.model, before more images",
    )


def _enough(figures: Figures) -> Advice | None:
    gap = figures.judge.gap
    if gap is None or gap[2] > SMALL_GAP or _unfitted(figures) or not figures.judge.trained:
        return None
    return Advice(
        "enough",
        "New images are as easy as those that the model was trained on: more images can gain little. Nothing at all "
        "may be the best.",
        f"{gap[0]:.1f} points lower accuracy on validation images ({gap[1]:.1f} to {gap[2]:.1f}), by "
        f"{figures.judge.name}, of {figures.median_class:.0f} images a class",
        "compare.arms: [original], and no synthetic image; spend the time on labels or on a larger train.model",
    )


def _begin(figures: Figures) -> Advice | None:
    if figures.groups or _enough(figures) or _unfitted(figures):
        return None
    gap, first = figures.judge.gap, "`gdacli preview -n 8` shows variants of a few images, `gdacli plan` what all cost"
    if gap is None:
        return Advice("begin", "There are no synthetic images yet, and a few show much.", "no image in the pool", first)
    if gap[1] >= LARGE_GAP:
        room = "New images are much harder than those that the model was trained on: more of them have much to gain."
    elif gap[1] > 0:
        room = "New images are a little harder than those that the model was trained on."
    else:
        room = "Whether new images are harder than those that the model was trained on cannot be told."
    return Advice(
        "begin",
        f"There are no synthetic images yet. {room}",
        f"{gap[0]:.1f} points lower accuracy on validation images ({gap[1]:.1f} to {gap[2]:.1f}), by "
        f"{figures.judge.name}",
        f"{first}; then `gdacli sweep strengths --values 0.3,0.5,0.7`, and an arm `upsample` beside them",
    )


def _few_images(figures: Figures) -> Advice | None:
    if not figures.settings.fitted or figures.median_class >= FEW_IMAGES:
        return None
    return Advice(
        "few_images",
        "There are few images of a class to fit a generator on, and one that is fitted on them knows nothing else.",
        f"{figures.median_class:.0f} images of the median class, fewest {min(figures.class_counts.values())}",
        "generate.backend: text_to_image, which has seen other images (docs/generators.md); or more real images",
    )


def _no_validation(figures: Figures) -> Advice | None:
    if figures.judge.validation is not None:
        return None
    return Advice(
        "no_validation",
        "Without a validation split nothing here says how the model does on new images, and `gdacli sweep` has nothing "
        "to choose by.",
        "0 validation images",
        "data.validation_fraction: 0.1, then `dvc repro`",
    )


def _lower(groups: Sequence[ImageGroup]) -> str:
    strengths = [each.strength for each in groups if each.strength is not None and not each.imported]
    said = []
    if strengths:
        said.append(
            f"lower or fewer strengths: `gdacli sweep strengths --values {_values(min(strengths), (0.5, 0.75))}`"
        )
    if any(not each.has_source for each in groups):
        said.append("fewer sampled images (num_images; `gdacli sweep sampled`), or more fit.updates")
    if any(each.imported for each in groups):
        said.append("fewer of the imported images (num_images of their arm), or none")
    return "; ".join(said) or "fewer of these images"


def _values(strength: float, times: tuple[float, float]) -> str:
    """Return strengths beside one, in twentieths where these differ from it."""
    values = {min(0.95, round(20 * strength * each) / 20) for each in times} - {0.0, strength}
    return ",".join(f"{each:g}" for each in sorted(values or {round(strength * each, 3) for each in times}))


def _named(groups: Sequence[ImageGroup]) -> str:
    of_generated = [each.strength is not None and not each.imported for each in groups]
    names = [f"strength {each.name}" if of else each.name for each, of in zip(groups, of_generated, strict=True)]
    return capitalised(", ".join(names))


def _figures(figures: Figures, groups: Sequence[ImageGroup]) -> str:
    known, _ = _known(figures)
    of = "validation" if figures.judge.validation is not None else "train"
    said = []
    for each in groups:
        apart = f"told apart {_span(each.apart)}, " if each.apart else ""
        same = f", {each.unchanged:.0f} % copies of their source" if each.unchanged else ""
        said.append(f"{each.name}: {apart}label found {_span(each.found)}{same}")
    return f"{'; '.join(said)}; of real {of} images {known.value:.1f} % are found"


def _span(share: Share) -> str:
    return f"{share.value:.1f} % ({share.low:.1f} to {share.high:.1f})"
