"""What to try next, by rules over figures; the rules of thumb, and what they rest on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gdacli.advice_figures import Figures, ImageGroup
from gdacli.clustered_share import Share, difference_interval
from gdacli.remedies import alternatives, fewer, lower, other_images, strengths_beside, strengths_taken
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
FEW_OF_A_CLASS = 10
"""Of any class: no figure here says anything of a class with fewer, and a few variants of each are a few images."""
MANY_SEEDS = 20
"""More than anybody trains to tell a difference."""
NAMED = 3
"""Classes that are named at most."""
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
    """Return what to try next, the weightiest first.

    The comparison of the trained arms goes first. Where it says that the images helped, it overrules what rules of
    thumb say against them: of those only the ones remain that do not speak of gain. A model that lacks training comes
    next, for longer training brings it more than images (benchmarks/results/cifar10-cpu.md), then a validation split,
    for `gdacli sweep` needs one.
    """
    helped = figures.verdict is not None and figures.verdict.told and figures.verdict.points < 0
    of_groups = [] if helped else [_far_and_wrong(figures), _near_copies(figures), _wrong(figures)]
    of_groups += [] if helped else [_far_but_right(figures)]
    found = [
        _verdict(figures, any(of_groups)),
        None if helped else _unfitted(figures),
        _no_validation(figures),
        _probe(figures),
        _copied(figures),
        *of_groups,
        _share_selected(figures),
        *([] if helped else [_enough(figures), _begin(figures)]),
        _few_images(figures),
        _few_of_a_class(figures),
        _not_compared(figures),
    ]
    return [each for each in found if each is not None]


def labels_found(figures: Figures, group: ImageGroup) -> bool | None:
    """Say whether labels are found as often as those of real images; None where it cannot be told.

    As where the judge is not surely better than naming the largest class: what it finds is no evidence.
    """
    known, lost = _known(figures)
    counts = figures.class_counts.values()
    if known.low <= 100 * max(counts) / sum(counts):
        return None
    low, high = difference_interval(group.found, known)
    return False if high < -lost else True if low >= -lost else None


def is_far(figures: Figures, group: ImageGroup) -> bool:
    """Say if images are told from real ones for sure, and more often than new real images are."""
    if group.apart is None or group.apart.low < FAR:
        return False
    return figures.control is None or difference_interval(group.apart, figures.control)[0] > 0


def _known(figures: Figures) -> tuple[Share, float]:
    """Return the judge's accuracy on real images, and how much less is too little."""
    validation = figures.judge.validation
    return (validation, LOST) if validation is not None else (figures.judge.train, LOST_UNSEEN)


def _verdict(figures: Figures, of_images: bool) -> Advice | None:
    """Say what the comparison says; `of_images`: whether advice on the images follows."""
    verdict = figures.verdict
    if verdict is None:
        return None
    if not verdict.told:
        remedy = f"nothing: {verdict.reference}'s mix costs no image, and is as good as anybody can tell"
        if (seeds := verdict.seeds_needed) is not None and seeds <= MANY_SEEDS:
            remedy += f"; {about(seeds)} compare.seeds, which would tell such a difference"
        elif seeds is not None:
            remedy += f" (to tell such a difference takes {about(seeds)} compare.seeds)"
        remedy += "; or other images, by what follows" if of_images else other_images(figures)
    elif verdict.points < 0:
        remedy = f"keep {verdict.arm}; what rules of thumb say against its images is left out below"
    else:
        remedy = f"train on {verdict.reference}'s mix, without these images"
        remedy += ", or others, by what follows" if of_images else other_images(figures)
    return Advice("verdict", verdict.sentence, "the comparison of the trained arms, which goes first", remedy)


def _probe(figures: Figures) -> Advice | None:
    probe, guess = figures.probe, 100 * (1 - 1 / len(figures.class_counts))
    if probe.train_error < UNTRAINED * guess:
        return None
    return Advice(
        "probe",
        "The probe is hardly better than a guess: what is selected, and every figure by its features, says little.",
        f"{probe.train_error:.0f} % train error at epoch {probe.epoch}, a guess has {guess:.0f} %",
        f"probe.epochs: {2 * probe.epoch} with probe.separation_epoch: null, or a lower probe.batch_size or probe.lr",
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
        alternatives(
            figures.settings.generates and "generate.filter: {min_nearest_distance: 0.01}",
            figures.settings.fitted and "fewer fit.updates",
            figures.settings.generates and not figures.settings.fitted and "another generate.model",
            any(each.imported for each in figures.groups) and "rejects.csv, for those of an imported pool",
        ),
    )


def _far_and_wrong(figures: Figures) -> Advice | None:
    groups = [each for each in figures.groups if is_far(figures, each) and labels_found(figures, each) is False]
    if not groups:
        return None
    return Advice(
        "far_and_wrong",
        f"{_named(groups)}: told from real images, and their labels are not found again. They teach what is not so.",
        _figures(figures, groups),
        lower(figures, groups),
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
    taken = strengths_taken(figures)
    values = strengths_beside(max(taken), (1.3, 1.6), taken) if taken and figures.settings.generates else ""
    return Advice(
        "near_copies",
        f"{_named(groups)}: hardly told from the images that they were made from. This comes near to upsampling.",
        _figures(figures, groups),
        alternatives(
            fewer(figures, groups),
            values and f"higher: `gdacli sweep strengths --values {values}`",
            "an arm `upsample` (add: copies) beside it in compare.arms, which costs no image",
            "nothing",
        ),
    )


def _wrong(figures: Figures) -> Advice | None:
    groups = [each for each in figures.groups if not is_far(figures, each) and labels_found(figures, each) is False]
    if not groups:
        return None
    scale = figures.settings.guidance_scale
    return Advice(
        "wrong",
        f"{_named(groups)}: labels are not found again as often as those of real images.",
        _figures(figures, groups),
        alternatives(
            figures.settings.generates
            and "generate.filter: {min_confidence: 0.1}, which leaves the worst out and makes nothing again",
            scale is not None and f"generate.guidance_scale: {scale + 2:g}, for images more typical of their class",
            lower(figures, groups),
        ),
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
    few, epoch = selection.share < LEAST_SHARE, figures.probe.epoch
    earlier = f"probe.separation_epoch: {max(1, epoch // 2)}"
    later = f"probe.epochs: {2 * epoch} with probe.separation_epoch: null"
    return Advice(
        "share_selected",
        f"Almost {'nothing' if few else 'everything'} is selected: the separation epoch is too {_when(few)}.",
        f"{selection.share:.1f} % by {selection.strategy} at epoch {epoch}",
        f"{earlier if few else later}; or arms.{figures.settings.arm or '<arm>'}.select: high_loss with select.share: "
        "0.3; `gdacli sweep selection` compares strategies",
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
        f"{_gap(gap)}, by {figures.judge.name}, of {figures.median_class:.0f} images a class",
        "compare.arms: [original], and no synthetic image; spend the time on labels or on a larger train.model",
    )


def _begin(figures: Figures) -> Advice | None:
    if figures.groups or _enough(figures) or _unfitted(figures):
        return None
    if not figures.settings.generates:
        return Advice(
            "begin",
            "There are no synthetic images, and no generator.",
            "no image in the pool, generate.backend: none",
            "generate.backend: class_conditional, or images from elsewhere: `gdacli import-pool FOLDER`",
        )
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
        f"{_gap(gap)}, by {figures.judge.name}",
        f"{first}; then `gdacli sweep strengths --values 0.3,0.5,0.7`, and an arm `upsample` beside them",
    )


def _gap(gap: tuple[float, float, float]) -> str:
    return f"accuracy on train minus validation images: {gap[0]:.1f} points ({gap[1]:.1f} to {gap[2]:.1f})"


def _few_images(figures: Figures) -> Advice | None:
    if not figures.settings.fitted or figures.median_class >= FEW_IMAGES:
        return None
    return Advice(
        "few_images",
        "There are few images of a class to fit a generator on, and one that is fitted on them knows nothing else.",
        f"{figures.median_class:.0f} images of the median class, fewest {min(figures.class_counts.values())}",
        "text_to_image as generate.backend with a generate.model, which has seen other images (docs/generators.md); or "
        "more real images",
    )


def _few_of_a_class(figures: Figures) -> Advice | None:
    few = {name: count for name, count in figures.class_counts.items() if count < FEW_OF_A_CLASS}
    if not few:
        return None
    named = sorted(few, key=lambda name: few[name])[:NAMED]
    quotas = ", ".join(f"{json.dumps(name)}: 1" for name in named if few[name])
    selected = f"; or at least select.quotas: {{{quotas}}}, which selects all" if quotas else ""
    return Advice(
        "few_of_a_class",
        f"{len(few)} of {len(figures.class_counts)} classes have fewer than {FEW_OF_A_CLASS} train images: variants of "
        "so few add little, and no figure here speaks for these classes.",
        ", ".join(f"{name}: {few[name]}" for name in named),
        f"more real images of them{selected}",
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


def _not_compared(figures: Figures) -> Advice | None:
    if not figures.groups or figures.verdict is not None:
        return None
    unclear = [each for each in figures.groups if is_far(figures, each) and labels_found(figures, each) is None]
    if unclear:
        room = f" {_named(unclear)}: told from real images, and it cannot be told whether their labels hold."
    elif _far_and_wrong(figures) or _near_copies(figures) or _wrong(figures) or _copied(figures):
        room = ""
    else:
        room = " The figures above do not speak against them either."
    return Advice(
        "not_compared",
        f"Whether these images help has not been measured, and nothing else says it.{room}",
        _figures(figures, figures.groups),
        alternatives(
            unclear and figures.settings.generates and "look at some: `gdacli preview -n 8`",
            "`dvc repro`, which trains and compares compare.arms, with original and an arm `upsample` (add: copies) "
            "among them",
        ).replace("; or ", "; then "),
    )


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
