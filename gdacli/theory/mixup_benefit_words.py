"""What `gdacli theory mixup` prints: a small table, and what it says."""

from collections.abc import Mapping, Sequence
from typing import Any

from gdacli.console import table
from gdacli.theory.outcome import Row
from gdacli.theory.presentation import bullets, paragraph

_SPOKEN = {"erm": "no mixup", "mixup": "mixup", "two_weights": "two weights"}
_OF = {"rare_error": "rare examples", "common_error": "common examples", "error": "all examples"}


def benefit_summary(figures: Mapping[str, Sequence[Row]], updates: int, repeats: int, level: float) -> str:
    """Write the table and the sentences; the arguments are the figures and settings of `mixup_benefit.run`."""
    differences, learned = figures["differences"], {str(row["arm"]): row for row in figures["learned"]}
    ends = {str(row["arm"]): row for row in figures["curves"] if row["update"] == updates}
    header = ["arm", "rare error %", "common error %", "all error %", f"rare <= {level:g} % at", "at the end"]
    rows = [
        [
            spoken(arm),
            *(_with_interval(ends[arm], name) for name in ("rare_error", "common_error", "error")),
            _when(learned[arm]),
            f"{learned[arm]['learned_at_the_end']}/{repeats}",
        ]
        for arm in ends
    ]
    stopped = [arm for arm in ends if arm not in _SPOKEN]
    ahead = (
        f"After {updates} updates in every arm, {repeats} repeats. Differences are paired; an interval is of one "
        f"comparison, a verdict holds for all {len(differences)} together (Holm):"
    )
    sentences = [
        *(_sentence(differences, arm, "erm") for arm in ("mixup", "two_weights")),
        _sentence(differences, "two_weights", "mixup"),
        *(_sentence(differences, arm, "mixup") for arm in stopped),
        *(_after_the_stop(figures["curves"], arm, ends[arm]) for arm in stopped),
    ]
    return "\n\n".join([table(header, rows), f"{paragraph(ahead)}\n{bullets(sentences)}"])


def spoken(arm: str) -> str:
    """Return an arm's name in words."""
    return _SPOKEN.get(arm) or f"mixup until {arm.removeprefix('stop_')}"


def _when(row: Row) -> str:
    if not row["learned"]:
        return f"never (0/{row['repeats']})"
    return f"{row['median_update']:.0f} ({row['learned']}/{row['repeats']})"


def _sentence(differences: Sequence[Row], arm: str, reference: str) -> str:
    own = {str(row["measure"]): row for row in differences if (row["arm"], row["reference"]) == (arm, reference)}
    parts = [f"{_OF[name]} {_verdict(own[name])}" for name in ("rare_error", "common_error", "error")]
    return f"{spoken(arm)} against {spoken(reference)}: {'; '.join(parts)}."


def _verdict(row: Row) -> str:
    interval = "" if row["low"] is None else f" [{row['low']:+.1f}, {row['high']:+.1f}]"
    return f"{row['verdict']} ({row['difference']:+.1f} points{interval})"


def _after_the_stop(curves: Sequence[Row], arm: str, end: Row) -> str:
    stop = int(arm.removeprefix("stop_"))
    at_stop = next(row for row in curves if (row["arm"], row["update"]) == (arm, stop))
    parts = [f"{_OF[name]} {at_stop[name]:.1f} to {end[name]:.1f} %" for name in ("rare_error", "common_error")]
    alignment = f"alignment with the rare feature {at_stop['rare_alignment']:.2f} to {end['rare_alignment']:.2f}"
    common = f"with the common one {at_stop['common_alignment']:.2f} to {end['common_alignment']:.2f}"
    return f"From the stop at {stop} to the end: {'; '.join(parts)}; {alignment}, {common}."


def _with_interval(row: Row, name: str) -> str:
    values: list[Any] = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
    return "{:.1f} [{:.1f}, {:.1f}]".format(*values)
