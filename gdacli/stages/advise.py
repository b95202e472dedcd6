"""`gdacli advise`: what the artifacts of a project say of its synthetic images, and what to try next."""

from collections.abc import Iterable
from dataclasses import replace

from gdacli.advice_figures import Figures, Verdict
from gdacli.appraisal import appraise, load_judge, settings_of
from gdacli.arm_descriptions import real_alone
from gdacli.artifacts import require
from gdacli.compute import set_up
from gdacli.evidence import look_for_copies, looking
from gdacli.features import load_feature_model
from gdacli.params import Params
from gdacli.paths import POOLS, PROBE, SOURCE, SYNTHETIC, TRAIN, mix_file, run_name
from gdacli.pools import read_pools
from gdacli.prepared import read_prepared
from gdacli.provenance import out_of_date
from gdacli.sharing.findings import OF_OLDER, findings_of_pool


def run(params: Params) -> Figures:
    """Measure what there is: real images and the probe, and pool, trained arms and their comparison as they come.

    The test split is not read; of the comparison its verdict is.
    """
    prepared = read_prepared(SOURCE)
    require(PROBE / "dynamics.npz", "gdacli probe")
    arms = params.compared_arms()
    objectives = {name: params.train_of(name).objective for name in arms}
    trainings = {run_name(name, params.compare.seeds[0]): name for name in real_alone(arms, objectives)}
    look = looking(params.train.of_loading(), set_up(params.compute.device, params.compute.threads))
    model = load_feature_model(params.evaluate.features, params.evaluate.features_weights, PROBE)
    model.image_size = prepared.training_size(model.image_size, "probe.image_size")
    pool = read_pools(arms.values())
    judge = load_judge(prepared, list(trainings))
    figures = appraise(
        prepared,
        pool,
        (params.evaluate.features, model),
        judge,
        look_for_copies(prepared, None, pool, model, **look),
        settings=settings_of(arms, objectives, params.generate.backend, params.generate.guidance_scale),
        **look,
    )
    verdict, why = _compared(pool["pool"])
    arm = trainings.get(judge[0][0])
    doubts = () if arm is None else _doubts(params, judge[0][0], arm)
    return replace(figures, verdict=verdict, no_verdict=why, doubts=doubts)


def _doubts(params: Params, training: str, arm: str) -> tuple[str, ...]:
    """Say what of the model that is asked about labels is not as it would be now."""
    folder, mix = TRAIN / training, mix_file(arm)
    if not mix.exists() or not (folder / "provenance.json").exists():
        return (f"What {training} was trained on is not on record here.",)
    why = out_of_date(folder, mix, params.train_of(arm).of_weights())
    again = f"`gdacli train --arm {arm} --seed {params.compare.seeds[0]}`"
    return (f"{training} {why}: {again} trains it again.",) if why else ()


def _compared(pools: Iterable[str]) -> tuple[Verdict | None, str | None]:
    """Return what the evaluation says, if it is of these pools; else None and why."""
    found = [findings_of_pool(POOLS / name if name else SYNTHETIC) for name in sorted(set(pools))]
    if not found:
        return None, "No arm with synthetic images was compared yet."
    for results, why in found:
        if results is None:
            return None, why
    said = (found[0][0] or {}).get("advice", {}).get("figures")
    if said is None:
        return None, OF_OLDER
    return Verdict(**said["verdict"]) if said["verdict"] else None, said["no_verdict"]
