"""What `gdacli theory selection` prints: small tables, and what they say."""

from collections.abc import Mapping, Sequence
from typing import Any

from gdacli.console import table
from gdacli.theory.outcome import Row
from gdacli.theory.presentation import bullets
from gdacli.theory.separation import STRATEGIES

_SPOKEN = {"cluster": "cluster", "high_loss": "high loss", "misclassified": "misclassified", "random": "random"}
_SHOWN = ("cluster", "high_loss")


def selection_summary(figures: Mapping[str, Sequence[Row]], level: float) -> str:
    """Write the tables and sentences; the arguments are the figures and the level of `early_selection.run`."""
    training, differences, settings = (figures[name] for name in ("training", "differences", "windows"))
    sentences = [
        _window_sentence(settings[0], level),
        _too_late_sentence(training),
        *(_f1_sentence(differences, rival) for rival in ("high_loss", "misclassified")),
        _ranking_sentence(differences),
        _auto_sentence(settings),
    ]
    tables = [_quality_table(figures["quality"], training), _settings_table(settings, figures["stop"], level)]
    return "\n\n".join([*tables, bullets(sentences)])


def _quality_table(quality: Sequence[Row], training: Sequence[Row]) -> str:
    rows = []
    for trained in training:
        chosen = {row["strategy"]: row for row in quality if row["epoch"] == trained["epoch"]}
        cells = [f"{_two(chosen[name]['precision'])}/{_two(chosen[name]['recall'])}" for name in STRATEGIES]
        errors = [f"{trained[name]:.0f}" for name in ("fast_error", "slow_error")]
        rows.append([trained["epoch"], *errors, *cells, _with_interval(chosen["cluster"], "f1")])
    header = ["epoch", "fast err %", "slow err %", *(f"{_SPOKEN[name]} P/R" for name in STRATEGIES), "cluster F1"]
    return table(header, rows)


def _settings_table(settings: Sequence[Row], stop: Sequence[Row], level: float) -> str:
    rows = []
    for name in dict.fromkeys(str(row["setting"]) for row in settings):
        own = {row["strategy"]: row for row in settings if row["setting"] == name}
        compared = [
            cell
            for row in stop
            if (row["setting"], row["rival"]) == (name, "high_loss")
            for cell in (
                _with_interval({**row, "difference_low": row["low"], "difference_high": row["high"]}, "difference"),
                row["verdict"],
            )
        ] or ["-", "-"]
        epoch = own["cluster"]["auto_epoch"]
        stops = ["-" if epoch is None else f"{epoch:.0f}", *(_with_interval(own[each], "auto_f1") for each in _SHOWN)]
        rows.append([name, *(_window(own[each]) for each in _SHOWN), *stops, *compared])
    good = [f"{_SPOKEN[each]} good" for each in _SHOWN]
    found = table(
        ["setting", *good, "probe stops", *(f"{_SPOKEN[each]} F1 there" for each in _SHOWN), "difference", "verdict"],
        rows,
    )
    return (
        f"Epochs at which F1 is surely {level:g} or more (+: still at the last), and F1 where the probe stops:\n{found}"
    )


def _window(row: Row) -> str:
    if row["first_good_epoch"] is None:
        return "never"
    return f"{row['first_good_epoch']}-{row['last_good_epoch']}{'+' if row['good_at_the_end'] else ''}"


def _window_sentence(row: Row, level: float) -> str:
    if row["first_good_epoch"] is None:
        return f"Cluster never chooses well (F1 surely {level:g} or more) in this setting."
    end = "still at the last epoch" if row["good_at_the_end"] else f"until epoch {row['last_good_epoch']}"
    return f"Cluster chooses well (F1 surely {level:g} or more) from epoch {row['first_good_epoch']}, {end}."


def _too_late_sentence(training: Sequence[Row]) -> str:
    first, last = training[0], training[-1]
    margin, of_feature = float(last["slow_margin"] or 0), float(last["slow_margin_of_feature"] or 0)
    text = (
        f"The training error of the slow-learnable examples goes from {first['slow_error']:.0f} % after epoch "
        f"{first['epoch']} to {last['slow_error']:.0f} % after epoch {last['epoch']}"
    )
    if not 0 <= of_feature <= margin or not margin:
        return f"{text}."
    return f"{text}; of their mean margin then, {100 * (1 - of_feature / margin):.0f} % is their own noise, memorised."


def _f1_sentence(differences: Sequence[Row], rival: str) -> str:
    rows = [row for row in differences if (row["measure"], row["rival"]) == ("f1", rival)]
    parts = [
        f"{verdict} at {'epochs' if len(epochs) > 1 else 'epoch'} {', '.join(epochs)}"
        for verdict in dict.fromkeys(str(row["verdict"]) for row in rows)
        if (epochs := [str(row["epoch"]) for row in rows if row["verdict"] == verdict])
    ]
    return f"F1 against {_SPOKEN[rival]} (paired; p-values corrected): {'; '.join(parts)}."


def _ranking_sentence(differences: Sequence[Row]) -> str:
    rows = [row for row in differences if row["measure"] == "average_precision" and row["rival"] == "high_loss"]
    called = [row for row in rows if str(row["verdict"]).startswith("cluster")]
    largest = max(rows, key=lambda row: abs(float(row["difference"] or 0)))
    interval = "" if largest["low"] is None else f" [{largest['low']:.3f}, {largest['high']:.3f}]"
    size = f"the largest difference in average precision is {largest['difference']:.3f}{interval}"
    if not called:
        return f"As rankings, cluster and high loss do not differ significantly at any epoch ({size})."
    better = sum(row["verdict"] == "cluster better" for row in called)
    return (
        f"As a ranking, cluster is better than high loss at {better} and worse at {len(called) - better} of "
        f"{len(rows)} epochs ({size})."
    )


def _auto_sentence(settings: Sequence[Row]) -> str:
    rows = [row for row in settings if row["strategy"] == "cluster" and row["auto_f1"] is not None]
    if not rows:
        return "The probe's own rule (`probe.epochs: auto`) does not stop within these epochs."
    worst = min(rows, key=lambda row: float(row["auto_f1"] or 0))
    return (
        f"Where the probe stops by itself (`probe.epochs: auto`), cluster's F1 is at worst "
        f"{_with_interval(worst, 'auto_f1')} ({worst['setting']})."
    )


def _two(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with_interval(row: Row, name: str) -> str:
    if row[name] is None or row[f"{name}_low"] is None:
        return _two(row[name])
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
