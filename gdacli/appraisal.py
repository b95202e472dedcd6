"""What is measured of a project to advise on it: see `docs/advise.md`."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.advice_figures import CopiesOfTrain, Figures, ImageGroup, Judge, Probe, Selection, Settings
from gdacli.arm_descriptions import main_arm
from gdacli.arms import Arm
from gdacli.array_cache import cached_arrays
from gdacli.artifacts import read_json, require
from gdacli.cleanliness import LEAST_TELLING_SIDE, Cleanliness
from gdacli.clustered_share import Share, clustered_share
from gdacli.compared_images import compared_side
from gdacli.evidence import look_at_pixels, pool_references
from gdacli.features import ImageFeatures, image_features, image_predictions
from gdacli.generators import EMBEDDED, NONE, backend_facts
from gdacli.histories import read_history
from gdacli.image_index import References, take
from gdacli.memorisation import Memorisation, coarse_pixels, memorisation, nearest_train_images
from gdacli.models import Classifier, load_checkpoint
from gdacli.paths import PROBE, SELECTION, TRAIN
from gdacli.pools import NO_SOURCE, sources_in
from gdacli.prepared import Prepared
from gdacli.quality import group_name, pool_groups
from gdacli.rng import derive_seed, digest
from gdacli.two_sample import LEAST_PAIRS, VERSION, accuracy, pairs_of_classes, pairs_of_sources, told_apart

MOST_JUDGED = 2000
"""Real images of a split that the judge is asked about, and images without a source that are held against all train
images; a share is then known to about 2 points."""

Model = tuple[str, Classifier]


def load_judge(prepared: Prepared, runs: Sequence[str]) -> tuple[Model, bool]:
    """Load the model that is asked about labels: the first of some trainings that is there, else the probe.

    Args:
        prepared: the real images.
        runs: trainings on real images alone, `<arm>-<seed>`.

    Returns:
        its name and itself, and whether it is a training.
    """
    trained = next((run for run in runs if (TRAIN / run / "model.safetensors").exists()), None)
    judge = load_checkpoint(TRAIN / trained if trained else require(PROBE, "gdacli probe"))
    judge.image_size = prepared.training_size(judge.image_size, "train.image_size")
    return (trained or "probe", judge), trained is not None


def read_probe_state() -> Probe:
    """Read the state of the probe at its separation epoch.

    Raises:
        GdaError: `gdacli probe` has not run.
    """
    with np.load(require(PROBE / "dynamics.npz", "gdacli probe"), allow_pickle=False) as recorded:
        epoch = int(recorded["separation_epoch"])
    return Probe(epoch, read_history(PROBE / "curve.csv")["error"][epoch - 1])


def read_selected(settings: Settings) -> Selection | None:
    """Read what the arm selects; None if it selects nothing, or `gdacli select` has not run, or not with this arm."""
    path = SELECTION / "selection.json"
    share = read_json(path)["arms"].get(settings.arm) if path.exists() else None
    if share is None or settings.strategy is None:
        return None
    shares = [100 * each for each in share["per_class"].values()]
    return Selection(settings.strategy, 100 * share["share"], min(shares), max(shares))


def settings_of(
    arms: Mapping[str, Arm], objectives: Mapping[str, str], backend: str, guidance_scale: float
) -> Settings:
    """Return what of the settings advice names.

    Args:
        arms: that are compared, by name.
        objectives: `train.objective` by arm.
        backend, guidance_scale: of `generate`.
    """
    about = main_arm(arms, objectives)
    arm = arms[about] if about else None
    guided = backend != NONE and not backend_facts(backend).noise_only
    return Settings(
        arm=about,
        objective=objectives[about] if about else None,
        strategy=arm.select if arm else None,
        strengths=tuple(arm.strengths) if arm else (),
        guidance_scale=guidance_scale if guided else None,
        generates=backend != NONE,
        fitted=backend in EMBEDDED,
    )


def appraise(
    prepared: Prepared,
    pool: Mapping[str, Any],
    model: Model,
    judge: tuple[Model, bool],
    cleanliness: Cleanliness,
    *,
    settings: Settings,
    device: torch.device,
    cache: Path,
    reading: Mapping[str, Any],
) -> Figures:
    """Measure what advice rests on; reads no test image.

    Args:
        prepared: the real images.
        pool: of `pools.read_pools`; may be empty.
        model: name and model whose features to compare by.
        judge: of `load_judge`.
        cleanliness: what was found of copies among pool and train images.
        settings: of `settings_of`.
        device: where the models run.
        cache: folder for features, predictions and answers.
        reading: `loading` and `workers` of `loading.open_images`.

    Returns:
        all but the verdict.
    """
    (judged_by, judging), trained = judge
    looking: Any = {"device": device, "cache": cache, **reading}
    of_train = prepared.references("train")
    real = image_features(of_train, model[1], title="features, train", **looking)
    labels = prepared.labels("train")

    def right(split: str, title: str) -> Share:
        """Return how often the judge is right on real images."""
        of_split, wanted = prepared.references(split), prepared.labels(split)
        rows = _drawn(len(wanted), split)
        found = image_predictions(take(of_split, rows), judging, title=title, **looking)
        return clustered_share(found == wanted[rows], rows)

    control = None
    if prepared.splits["validation"].count:
        rows, new_rows = pairs_of_classes(labels, prepared.labels("validation"))
        if len(rows) >= LEAST_PAIRS:
            held_out = take(prepared.references("validation"), new_rows)
            new = image_features(held_out, model[1], title="features, validation", **looking)
            control = _apart(real, new, rows, np.arange(len(new_rows)), cache)
    groups, memorised = list[ImageGroup](), None
    if pool["key"]:
        groups = _groups(prepared, pool, model[1], judging, cleanliness, real, labels, looking)
        memorised = _memorised(prepared, pool, of_train, cache)
    return Figures(
        settings=settings,
        class_counts=dict(zip(prepared.class_names, prepared.splits["train"].class_counts, strict=True)),
        num_features=real.features.shape[1],
        features=model[0],
        control=control,
        judge=Judge(
            judged_by,
            trained,
            right("train", "labels, train"),
            right("validation", "labels, validation") if prepared.splits["validation"].count else None,
        ),
        probe=read_probe_state(),
        selection=read_selected(settings),
        groups=groups,
        copies=_copies(cleanliness),
        memorised=memorised,
        verdict=None,
        no_verdict=None,
    )


def _groups(
    prepared: Prepared,
    pool: Mapping[str, Any],
    model: Classifier,
    judge: Classifier,
    cleanliness: Cleanliness,
    real: ImageFeatures,
    labels: np.ndarray,
    looking: Mapping[str, Any],
) -> list[ImageGroup]:
    made = pool_references(pool)
    synthetic = image_features(made, model, title="features, pool", **looking)
    found = image_predictions(made, judge, title="labels, pool", **looking) == pool["label"]
    sources = sources_in(pool, prepared.keys("train"))
    unchanged = np.zeros(len(sources), bool)
    if cleanliness.unchanged is not None:
        unchanged[cleanliness.unchanged.rows] = True
    result = []
    for name, strength, members in pool_groups(np.asarray(pool["pool"]), sources, pool["strength"]):
        has_source = bool(sources[members[0]] != NO_SOURCE)
        if has_source:
            rows, of_members = pairs_of_sources(sources[members])
        else:
            rows, of_members = pairs_of_classes(labels, pool["label"][members])
        enough = len(rows) >= LEAST_PAIRS
        result.append(
            ImageGroup(
                name=group_name(name, strength, has_source=has_source),
                strength=strength,
                imported=bool(name),
                has_source=has_source,
                num_images=len(members),
                apart=_apart(real, synthetic, rows, members[of_members], looking["cache"]) if enough else None,
                found=clustered_share(found[members], sources[members] if has_source else members),
                unchanged=float(100 * unchanged[members].mean()) if has_source else None,
            )
        )
    return result


def _apart(a: ImageFeatures, b: ImageFeatures, rows_a: np.ndarray, rows_b: np.ndarray, cache: Path) -> Share:
    """Return how many are told apart, or what the cache holds of it."""
    chosen = hashlib.sha256(np.stack([rows_a, rows_b]).astype(np.int64).tobytes()).hexdigest()
    identity = digest("two-sample", VERSION, version("scikit-learn"), a.digest, b.digest, chosen)
    found = cached_arrays(
        cache, identity, {"right"}, lambda: {"right": told_apart(a.features[rows_a], b.features[rows_b])}
    )
    return accuracy(found["right"])


def _copies(cleanliness: Cleanliness) -> CopiesOfTrain | None:
    found = cleanliness.memorised
    if found is None:
        return None
    telling = cleanliness.side >= LEAST_TELLING_SIDE
    return CopiesOfTrain(found.num_images, found.num_drawn, found.num_exact, found.num_near, telling)


def _memorised(prepared: Prepared, pool: Mapping[str, Any], of_train: References, cache: Path) -> Memorisation | None:
    """Hold images without a source, as they are and mirrored, against how near train images are to each other."""
    sampled = np.flatnonzero(sources_in(pool, prepared.keys("train")) == NO_SOURCE)
    if not len(sampled) or len(of_train) < 3:
        return None
    side = compared_side(prepared.image_size)
    _, of_pool = look_at_pixels(pool_references(pool), side, "pool", cache)
    _, known = look_at_pixels(of_train, side, "train", cache)
    train, own = _coarse(known["squares"]), _drawn(len(of_train), "memorised")
    made = of_pool["squares"][sampled[_drawn(len(sampled), "sampled")]]
    near = nearest_train_images([_coarse(made), _coarse(made[..., ::-1])], train)
    drawn = known["squares"][own]
    real = nearest_train_images([_coarse(drawn), _coarse(drawn[..., ::-1])], train, own)
    return memorisation(near.relative_distances, real.relative_distances)


def _coarse(squares: np.ndarray) -> np.ndarray:
    return coarse_pixels(np.ascontiguousarray(squares[:, None]))


def _drawn(num_rows: int, name: str) -> np.ndarray:
    rng = np.random.default_rng(derive_seed("advise", name, num_rows))
    return np.sort(rng.permutation(num_rows)[:MOST_JUDGED])
