"""The report as a page and as Markdown."""

from importlib.resources import files

from gdacli import advice_page
from gdacli.advice import advise
from gdacli.evidence import PoolEvidence
from gdacli.galleries import GALLERY_SIDE
from gdacli.plots import (
    class_plot,
    course_plot,
    curve_plot,
    distance_plot,
    feature_map_plot,
    gradient_variance_plot,
    interval_plot,
    probe_plot,
    reliability_plot,
    validation_plot,
)
from gdacli.report import Report
from gdacli.thumbnails import data_uri
from gdacli.wording import between, change, comparison_rows, ends, p_value, points, seeds, signed, spread, table

_PIXELATED_BELOW = 64
_ABOUT_COMPARISONS = (
    "Points of error, paired by seed: negative is better. Effect size: Hedges' g. Seeds needed: with how many a "
    "difference like this would be told, four times in five."
)


def render_markdown(report: Report) -> str:
    """Return the headline, the tables and what they say, for a terminal or a pull request."""
    arms = [["arm", f"{report.split} error %", "95 % over seeds", "over seeds and images", "late-learned %"]]
    arms[0] += ["early-learned %", "calibration error %", "updates", "images seen"]
    for arm in report.arms:
        row = [arm.name, spread(arm.error), between(arm.error), ends(arm.error_interval), spread(arm.late_error)]
        row += [spread(arm.early_error), spread(arm.calibration_error)]
        arms.append([*row, str(arm.effort.updates), str(arm.effort.images_seen)])
    compared = comparison_rows(report.comparisons)
    what = [f"- {arm.name}: {arm.description}" for arm in report.arms]
    lines = [
        f"**{report.headline()}**",
        "",
        f"{report.split.capitalize()} error on {report.num_images} images ({report.num_late} late-learned), mean ± "
        f"standard deviation over {report.num_seeds}; {report.num_train} training images.",
        "",
        *table(arms),
        "",
        *what,
        "",
        *([*table(compared), "", _ABOUT_COMPARISONS, ""] if len(compared) > 1 else []),
        *([*table(_quality_rows(report.pool)), "", _about_quality(report.pool), ""] if report.pool else []),
        *([*table(_corrupted_rows(report)), ""] if report.robustness else []),
        *[f"- {line}" for line in report.caveats()],
        *[f"- {line}" for line in report.about_copies().values()],
        *([f"- {about}"] if (about := report.about_suspects()) else []),
        *([f"- {report.left_out()}"] if any(report.dropped.values()) or report.rejects else []),
        "",
        *advice_page.render_markdown(report.advised()),
    ]
    return "\n".join(lines) + "\n"


def _about_quality(pool: PoolEvidence) -> str:
    return (
        f"Synthetic images beside those that they were made of, by features of {pool.features}: Fréchet and KID, lower "
        "is nearer; the next four, higher is better; diversity and distance from the source, in units of the features; "
        f"labels found by {pool.judge}, which was trained on real images alone."
    )


def _corrupted_rows(report: Report) -> list[list[str]]:
    """Return a header and a row per arm."""
    header = ["arm", f"error % on {report.robustness[0].num_images} clean images", "on them corrupted"]
    header.append("95 % over seeds")
    return [header, *([arm, spread(clean), spread(bad), between(bad)] for arm, clean, bad in report.corrupted())]


def _quality_rows(pool: PoolEvidence) -> list[list[str]]:
    """Return a header and a row per strength and pool."""
    rows = [["strength", "images", "Fréchet", "KID", "precision", "recall", "density", "coverage", "diversity"]]
    rows[0] += ["from source", "label found %"]
    for each in pool.quality:
        near = each.neighbours
        scores = [near.precision, near.recall, near.density, near.coverage] if near else [None] * 4
        row = [each.name, str(each.num_images)]
        row += [points(each.frechet, 3), points(each.kernel.mean if each.kernel else None, 4), *map(points, scores)]
        row += [points(each.diversity.between_variants if each.diversity else None, 3)]
        row += [points(each.diversity.to_source if each.diversity else None, 3), points(each.faithfulness, 1)]
        rows.append(row)
    return rows


def render_html(report: Report) -> str:
    """Return the whole report as one HTML page that loads nothing from elsewhere."""
    import jinja2
    import yaml

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    validated = {name: curve for name, curve in report.curves.items() if "validation_loss" in curve}
    searching = any(course.distances for course in report.courses.values())
    advised = report.advised()
    environment.filters |= {
        "spread": spread,
        "between": between,
        "ends": ends,
        "p_value": p_value,
        "points": points,
        "signed": signed,
        "seeds": seeds,
        "change": change,
        "picture": lambda image: data_uri(image, GALLERY_SIDE),
        "pixelated": lambda image: max(image.shape) < _PIXELATED_BELOW,
    }
    return environment.from_string(_template("templates/report.html.j2")).render(
        report=report,
        quality=_quality_rows(report.pool) if report.pool else None,
        advice=advise(advised),
        advice_rows=advice_page.group_rows(advised),
        advice_sentences=advice_page.sentences(advised),
        advice_caveats=advice_page.caveats(advised),
        corrupted=_corrupted_rows(report) if report.robustness else None,
        feature_map=feature_map_plot(report.pool.map, report.pool.groups) if report.pool else None,
        style=_template("templates/report.css"),
        script=_template("templates/rejects.js"),
        settings=yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True),
        interval_plot=interval_plot(report),
        class_plot=class_plot(report),
        reliability_plot=reliability_plot(report),
        curve_plot=curve_plot(report),
        gradient_variance_plot=gradient_variance_plot(_gradient_curves(report)) if report.gradient_variance else None,
        validation_plot=validation_plot(validated) if validated else None,
        course_plots={name: course_plot(course) for name, course in report.courses.items() if course.maps},
        distance_plot=distance_plot(report.courses) if searching else None,
        probe_plot=probe_plot(report),
    )


def _gradient_curves(report: Report) -> dict[str, dict[str, list[float]]]:
    return {
        arm: {
            "updates": [row.updates for row in rows],
            "gradient_variance": [row.gradient_variance for row in rows],
        }
        for arm, rows in report.gradient_variance.items()
    }


def _template(name: str) -> str:
    return files("gdacli").joinpath(name).read_text(encoding="utf-8")
