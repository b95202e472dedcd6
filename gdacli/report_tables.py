"""The figures of the report as CSV: whole tables beside it, and what `dvc plots` draws."""

from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from gdacli.corruptions import CORRUPTIONS, SEVERITIES
from gdacli.course import DistanceRow
from gdacli.replays import GradientRow
from gdacli.report import Report
from gdacli.tables import write_csv


def write_tables(folder: Path, report: Report) -> None:
    """Write confusions, copies, and what was measured of corruptions, gradients and a search."""
    names = report.class_names
    confusions = [
        [arm.name, names[label], names[guess], int(arm.confusion[label, guess])]
        for arm in report.arms
        for label, guess in np.argwhere(arm.confusion).tolist()
    ]
    write_csv(folder / "confusion.csv", ["arm", "label", "prediction", "count"], confusions)
    copies = [
        [kind, pair.key, pair.of, pair.similarity, pair.mirrored, pair.exact]
        for kind, found in report.cleanliness.compared().items()
        for pair in found.pairs
    ]
    write_csv(folder / "copies.csv", ["kind", "key", "copy_of", "similarity", "mirrored", "exact"], copies)
    if report.robustness:
        corrupted = [
            [each.arm, each.seed, corruption, severity, float(each.errors[row, column])]
            for each in report.robustness
            for row, corruption in enumerate(CORRUPTIONS)
            for column, severity in enumerate(SEVERITIES)
        ]
        write_csv(folder / "corruptions.csv", ["arm", "seed", "corruption", "severity", "error"], corrupted)
    if report.gradient_variance:
        columns = ["arm", *(field.name for field in fields(GradientRow))]
        rows = [[arm, *astuple(row)] for arm, each in report.gradient_variance.items() for row in each]
        write_csv(folder / "gradient_variance.csv", columns, rows)
    if any(course.distances for course in report.courses.values()):
        columns = ["arm", *(field.name for field in fields(DistanceRow))]
        rows = [[arm, *astuple(row)] for arm, course in report.courses.items() for row in course.distances]
        write_csv(folder / "frechet_distances.csv", columns, rows)


def write_plots(folder: Path, report: Report) -> None:
    """Write what `dvc plots show` draws."""
    arms = [
        [arm.name, seed, error, arm.effort.updates]
        for arm in report.arms
        for seed, error in zip(report.seeds, arm.errors, strict=True)
    ]
    write_csv(folder / "arms.csv", ["arm", "seed", "error", "updates"], arms)
    columns = ["updates", "loss", "error"]
    if all("validation_loss" in curve for curve in report.curves.values()):
        columns.append("validation_loss")
    training = [
        [name, int(updates), *others]
        for name, curve in report.curves.items()
        for updates, *others in zip(*(curve[column] for column in columns), strict=True)
    ]
    write_csv(folder / "training.csv", ["arm", *columns], training)
    reliability = [[arm.name, *row] for arm in report.arms for row in arm.reliability]
    write_csv(folder / "reliability.csv", ["arm", "confidence", "accuracy", "count"], reliability)
