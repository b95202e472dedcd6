"""The report: what was compared, whether it helped, what it cost, and what the images look like."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gdacli import advice_page
from gdacli.advice_figures import Figures, Verdict
from gdacli.arm_results import ArmResult, Comparison, beside_objective, differing
from gdacli.cleanliness import Cleanliness
from gdacli.copy_sentences import about_copies
from gdacli.corruptions import CORRUPTIONS
from gdacli.course import Course
from gdacli.evidence import PoolEvidence
from gdacli.galleries import Gallery, Picture, Suspect
from gdacli.histories import collapsed
from gdacli.metrics import Estimate, estimate
from gdacli.objectives import OBJECTIVES
from gdacli.provenance import Provenance
from gdacli.replays import GradientRow
from gdacli.robustness import Robustness
from gdacli.wording import capitalised, helped, in_words, p_value, points, signed

_CONFUSIONS = 10
_UNTRAINED = 0.75  # of a guess's error


@dataclass(frozen=True)
class Report:
    """All that the report says."""

    class_names: list[str]
    seeds: list[int]
    split: str
    """On which the arms are compared: test or validation."""
    num_train: int
    num_images: int
    """Of the split."""
    num_late: int
    """How many of them are late-learned."""
    arms: list[ArmResult]
    main_arm: str | None
    """The arm that the headline is about."""
    comparisons: dict[str, dict[str, Comparison]]
    """Reference -> arm -> how they compare."""
    selection: dict[str, Any]
    curves: dict[str, dict[str, list[float]]]
    probe_curve: dict[str, list[float]]
    gallery: Gallery
    dropped_images: list[Picture]
    neighbours: list[tuple[Picture, Picture]]
    """Synthetic images beside the train image, not their source, that they are nearest to."""
    pool: PoolEvidence | None
    """None without a pool."""
    cleanliness: Cleanliness
    copies: dict[str, list[tuple[Picture, Picture]]]
    """The first pairs of what `cleanliness` has found, by what was compared."""
    without_copies: dict[str, float]
    """Each arm's error without the images of the split that are copies of a train image; empty if none is."""
    robustness: list[Robustness]
    """One per model; empty if it was not measured."""
    gradient_variance: dict[str, list[GradientRow]]
    """Of each arm's first training; empty if it was not measured."""
    courses: dict[str, Course]
    """Of each arm's first training; empty if it was not measured."""
    suspects: list[Suspect]
    """The most certain ones; `selection` says how many there are."""
    pool_size: int
    dropped: dict[str, int]
    """Reason -> number of images that `generate.filter` dropped from the pool."""
    rejects: dict[str, dict[str, str]]
    """The rows of `rejects.csv` by key."""
    num_rejected: int
    """How many of them are in the pool, and so in no mix."""
    provenance: Provenance
    train: dict[str, Any]
    """The section `train`, as far as it decides weights; arms may have settings of their own."""
    settings: dict[str, Any]
    figures: Figures
    """That advice rests on; its verdict is that of `comparisons`."""
    best_epochs: bool = False
    """Whether an arm kept the weights of its best epoch on the validation images."""
    has_pipeline: bool = True
    """Whether there is a `dvc.yaml`; a sweep's project has none."""

    @property
    def equal_updates(self) -> bool:
        """True if every arm made the same number of updates."""
        return len({arm.effort.updates for arm in self.arms}) == 1

    @property
    def num_seeds(self) -> str:
        """Number of seeds, with the noun."""
        return f"{len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'}"

    @property
    def example_key(self) -> str | None:
        """Key of a generated image that the gallery shows; None without one."""
        shown = (variant for row in self.gallery.late for variant in row.variants if variant.image is not None)
        keys = (variant.key for variant in shown if ":" not in variant.key)  # that of an imported one is <pool>:<key>
        return next(keys, None)

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands that make the figures again, and what each does."""
        first = f"--arm {self.arms[0].name} --seed {self.seeds[0]}"
        found = [
            *([("dvc repro", "all of it; what has not changed comes from the cache")] if self.has_pipeline else []),
            (f"gdacli train {first}", "one training: the same bytes on the same kind of machine"),
        ]
        if self.example_key:
            found.append(
                (f"gdacli regenerate --key {self.example_key}", "one synthetic image, compared with the pool's")
            )
        if self.main_arm and self.comparisons:
            pair = f"{self.main_arm} {next(iter(self.comparisons))}"
            found.append((f"gdacli compare {pair}", "a comparison, from the predictions; also between revisions"))
        return [*found, ("gdacli verify", "every byte of every artifact against its checksum")]

    def advised(self) -> Figures:
        """Return the figures that advice rests on, with the verdict of the comparison."""
        arm = self.main_arm
        found = [(name, by_arm[arm]) for name, by_arm in self.comparisons.items() if arm in by_arm]
        if arm is None or not found:
            return replace(self.figures, no_verdict=self.headline())
        (reference, first), *_ = found
        sentence = (
            f"{helped(arm, first, self.split)}: {signed(first.difference.mean)} points of {self.split} error against "
            f"{reference} (corrected p: {p_value(first.corrected_p)}, {self.num_seeds})."
        )
        compared = first.difference.mean, first.told, first.seeds_needed
        return replace(self.figures, verdict=Verdict(arm, reference, *compared, sentence))

    def arm(self, name: str) -> ArmResult:
        """Return an arm by name."""
        return next(arm for arm in self.arms if arm.name == name)

    def objective(self, arm: ArmResult) -> str:
        """Return `train.objective` of an arm."""
        return str(arm.effort.settings.get("objective", self.train.get("objective", "cross_entropy")))

    def about_objectives(self) -> str | None:
        """Say what the arms minimise; None if it is the same."""
        names: dict[str, list[str]] = {}
        for arm in self.arms:
            names.setdefault(self.objective(arm), []).append(arm.name)
        if len(names) == 1:
            return None
        listed = "; ".join(f"{objective}: {', '.join(arms)}" for objective, arms in names.items())
        return (
            f"The arms minimise different objectives, and are compared in that too ({listed}). One with synthetic "
            "images sees a batch of them in every update, which is not counted among the images seen."
        )

    def about_collapse(self) -> str | None:
        """Warn of arms whose features are the same for all images; None if there are none."""
        labelled = {name for name, kind in OBJECTIVES.items() if kind.labelled}
        arms = [
            name
            for name, curve in self.curves.items()
            if "synthetic_loss" in curve
            and self.objective(self.arm(name)) not in labelled
            and collapsed(curve["error"], curve["synthetic_loss"], len(self.class_names))
        ]
        if not arms:
            return None
        return (
            f"WARNING: the features of {', '.join(arms)} collapsed: they are the same for all images, so that views "
            "agree and nothing is learned. That says nothing of the objective: lower train.synthetic.weight."
        )

    def headline(self) -> str:
        """Answer in plain words whether the main arm helped against the first reference."""
        found = [(name, by_arm[self.main_arm]) for name, by_arm in self.comparisons.items() if self.main_arm in by_arm]
        if self.main_arm is None or not found:
            return "Nothing can be said: it takes an arm with synthetic images, and one without, or upsample or random."
        (reference, comparison), *controls = found
        ours, theirs = self.arm(self.main_arm), self.arm(reference)
        errors = f"{points(ours.error.mean)} % {self.split} error against {points(theirs.error.mean)} % of {reference}"
        if ours.effort.updates != theirs.effort.updates:
            errors += f", with {ours.effort.updates} updates against {theirs.effort.updates}"
        others = differing(beside_objective(ours.effort.settings), beside_objective(theirs.effort.settings))
        if self.objective(ours) != self.objective(theirs):
            errors += f", minimising {self.objective(ours)} in place of {self.objective(theirs)}"
        if others:
            errors += f", trained with other settings too ({', '.join(others)})"
        answer = helped(self.main_arm, comparison, self.split)
        others = [f"against {name}: {_verdict(each)}" for name, each in controls]
        beside = f" {capitalised('; '.join(others))}." if others else ""
        return f"{answer}: {errors}. {capitalised(in_words(comparison))}.{beside}"

    def headlines(self) -> list[str]:
        """Say in plain words how each arm compares with each reference."""
        return [
            f"{arm} against {reference}: {in_words(comparison)}"
            for reference, by_arm in self.comparisons.items()
            for arm, comparison in by_arm.items()
        ]

    def caveats(self) -> list[str]:
        """Say what the figures cover and what they do not."""
        updates = (
            "Every arm made the same number of updates."
            if self.equal_updates
            else "The arms made different numbers of updates, so a gain may come from longer training."
        )
        apart = {arm.name: sorted(beside_objective(arm.effort.settings)) for arm in self.arms}
        own = [f"{name}: {', '.join(keys)}" for name, keys in apart.items() if keys]
        said = f"Some arms train with settings of their own ({'; '.join(own)}), which a difference may come from."
        chosen = (
            ["These are validation images: choose by them, and test the choice on the test images."]
            if self.split == "validation"
            else []
        )
        if self.split == "validation" and self.best_epochs:
            chosen.append(
                "The same images have chosen the epochs (train.checkpoint: best): every error here is a little too low."
            )
        empty = [
            name
            for name, *errors in zip(self.class_names, *(arm.class_errors for arm in self.arms), strict=True)
            if np.isnan(errors).all()
        ]
        lacking = f"No {self.split} image is of class {', '.join(empty)}: figures over classes leave it out."
        return [
            *([warning] if (warning := self.about_probe()) else []),
            *([warning] if (warning := self.about_collapse()) else []),
            updates,
            *([objectives] if (objectives := self.about_objectives()) else []),
            *([said] if own else []),
            f"The 95 % interval over seeds covers other trainings on these very {self.split} images (Student's t, "
            f"{self.num_seeds}); the one over seeds and images covers "
            "other images of the same kind too (bootstrap). P-values are of the paired t-test over seeds, corrected "
            "for the number of arms that are compared with the same reference (Holm).",
            *([lacking] if empty else []),
            *chosen,
        ]

    def about_probe(self) -> str | None:
        """Warn of a probe that has learned hardly anything by the separation epoch; None if it has."""
        epoch = self.probe_curve["epoch"].index(self.selection["separation_epoch"])
        error, guess = self.probe_curve["error"][epoch], 100 * (1 - 1 / len(self.class_names))
        if error < _UNTRAINED * guess:
            return None
        return (
            f"WARNING: the probe is hardly better than a guess ({error:.0f} % train error at its separation epoch, a "
            f"guess has {guess:.0f} %): what was selected, and every figure by its features, says little. Raise "
            "probe.epochs, or lower probe.batch_size or probe.lr."
        )

    def left_out(self) -> str:
        """Say how many synthetic images no arm trains on, and why."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()) if count)
        filtered = f"{sum(self.dropped.values())} more ({reasons})" if reasons else "none"
        pools, of_them = ("The pools hold", "them") if self.provenance.imported else ("The pool holds", "the pool")
        return (
            f"{pools} {self.pool_size} synthetic images; generate.filter dropped {filtered}, and a person "
            f"rejected {self.num_rejected or 'none'} of {of_them} (rejects.csv), which no arm trains on."
        )

    def about_suspects(self) -> str | None:
        """Say how many labels are probably wrong and what was done; None if nobody looked."""
        count = self.selection["num_suspects"]
        if count is None:
            return None
        done = "no arm augments" if self.selection["suspects_excluded"] else "arms augment like any other"
        return f"{count} of {self.num_train} training images are probably mislabelled, which {done}."

    def about_copies(self) -> dict[str, str]:
        """Say in a sentence each what was found of copies, by what was compared."""
        said = about_copies(self.cleanliness, self.split)
        if self.without_copies:
            errors = ", ".join(f"{name} {points(error)} %" for name, error in self.without_copies.items())
            said["split_train"] += f" The errors without them: {errors}."
        return said

    def corrupted(self) -> list[tuple[str, Estimate, Estimate]]:
        """Return each arm's error over seeds on the chosen images as they are, and on corrupted ones."""
        return [
            (
                arm.name,
                estimate([each.clean for each in self.robustness if each.arm == arm.name]),
                estimate([each.mean for each in self.robustness if each.arm == arm.name]),
            )
            for arm in (self.arms if self.robustness else [])
        ]

    def by_corruption(self) -> list[tuple[str, list[float]]]:
        """Return the error on each corruption, per arm, as means over severities and seeds."""
        of_arms = [
            np.mean([each.errors for each in self.robustness if each.arm == arm.name], axis=(0, 2))
            for arm in (self.arms if self.robustness else [])
        ]
        return [(name, [float(each[row]) for each in of_arms]) for row, name in enumerate(CORRUPTIONS) if of_arms]

    def confusions(self) -> list[tuple[str, str, list[float]]]:
        """Return the most frequent confusions: label, class that it is taken for, and how often, a mean per arm."""
        counts = np.stack([arm.confusion for arm in self.arms]) / len(self.seeds)
        counts[:, np.eye(len(self.class_names), dtype=bool)] = 0
        order = np.argsort(-counts.sum(0), axis=None, kind="stable")[:_CONFUSIONS]
        pairs = [divmod(place, len(self.class_names)) for place in order.tolist()]
        return [
            (self.class_names[label], self.class_names[guess], counts[:, label, guess].tolist())
            for label, guess in pairs
            if counts[:, label, guess].any()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all figures, without images."""
        return {
            "headline": self.headline(),
            "split": self.split,
            "seeds": self.seeds,
            "num_train": self.num_train,
            "num_images": self.num_images,
            "num_late": self.num_late,
            "class_names": self.class_names,
            "pool": {"images": self.pool_size, "dropped": self.dropped, "rejected": self.num_rejected},
            "num_suspects": self.selection["num_suspects"],
            "arms": {
                arm.name: _finite({name: value for name, value in asdict(arm).items() if name != "confusion"})
                for arm in self.arms
            },
            "comparisons": {
                reference: {arm: {**_finite(asdict(each)), "told": each.told} for arm, each in by_arm.items()}
                for reference, by_arm in self.comparisons.items()
            },
            "quality": [_finite(asdict(each)) for each in self.pool.quality] if self.pool else [],
            "copies": self.cleanliness.to_metrics(),
            "courses": {arm: course.to_json() for arm, course in self.courses.items()},
            "advice": _finite(advice_page.to_json(self.advised())),
            "robustness": [each.to_json() for each in self.robustness],
            "train": self.train,
            "provenance": asdict(self.provenance),
        }

    def to_metrics(self) -> dict[str, Any]:
        """Return the figures that `dvc metrics` and `dvc exp show` compare (DVC takes a key `error` for a failure)."""
        arms = {
            arm.name: {
                f"{self.split}_error": round(arm.error.mean, 4),
                **({f"{self.split}_error_sd": round(arm.error.sd, 4)} if arm.error.sd is not None else {}),
                "balanced_error": round(arm.balanced_error.mean, 4),
                "macro_f1": round(arm.macro_f1.mean, 4),
                "late_error": round(arm.late_error.mean, 4),
                "early_error": round(arm.early_error.mean, 4),
                "calibration_error": round(arm.calibration_error.mean, 4),
                "updates": arm.effort.updates,
                "images_seen": arm.effort.images_seen,
            }
            for arm in self.arms
        }
        return _finite({"arms": arms, "num_seeds": len(self.seeds)})


def _verdict(comparison: Comparison) -> str:
    if not comparison.told:
        return f"it cannot be told ({signed(comparison.difference.mean)} points)"
    return f"{abs(comparison.difference.mean):.2f} points {'lower' if comparison.difference.mean < 0 else 'higher'}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
