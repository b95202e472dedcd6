"""`gdacli advise`: what the artifacts of a project say of its synthetic images, and what to try next."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gdacli.advice_figures import Figures, Settings, Verdict
from gdacli.appraisal import appraise, load_judge, read_probe_state, read_selected
from gdacli.arm_descriptions import main_arm, real_alone
from gdacli.compute import set_up
from gdacli.evidence import look_for_copies
from gdacli.features import load_feature_model
from gdacli.generators import EMBEDDED
from gdacli.params import Params
from gdacli.paths import POOLS, PROBE, SOURCE, SYNTHETIC, run_name
from gdacli.pools import read_pools
from gdacli.prepared import read_prepared
from gdacli.sharing.findings import OF_OLDER, findings_of_pool
from gdacli.store import local_work_folder


def run(params: Params) -> Figures:
    """Measure what there is: real images and the probe, and pool, trained arms and their comparison as they come.

    The test split is not read; of the comparison its verdict is.
    """
    prepared, probe = read_prepared(SOURCE), read_probe_state()
    arms = params.compared_arms()
    objectives = {name: params.train_of(name).objective for name in arms}
    about = main_arm(arms, objectives)
    device = set_up(params.compute.device, params.compute.threads)
    model = load_feature_model(params.evaluate.features, params.evaluate.features_weights, PROBE)
    model.image_size = prepared.training_size(model.image_size, "probe.image_size")
    reading = params.train.of_loading()
    reading.pop("random_resized_crop")  # models see the centred squares
    looking: dict[str, Any] = {"device": device, "cache": local_work_folder() / "evaluation", "reading": reading}
    pool = read_pools(arms.values())
    figures = appraise(
        prepared,
        pool,
        (params.evaluate.features, model),
        load_judge(prepared, [run_name(name, params.compare.seeds[0]) for name in real_alone(arms, objectives)]),
        look_for_copies(prepared, None, pool, model, **looking),
        settings=Settings(
            about,
            objectives[about] if about else None,
            params.generate.guidance_scale,
            params.generate.backend in EMBEDDED,
        ),
        probe=probe,
        selection=read_selected(about, arms[about].select if about else None),
        **looking,
    )
    verdict, why = _compared(pool["pool"])
    return replace(figures, verdict=verdict, no_verdict=why)


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
