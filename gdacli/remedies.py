"""What to try: other strengths, fewer images, as keys and commands that a project takes."""

from collections.abc import Collection, Sequence

from gdacli.advice_figures import Figures, ImageGroup


def other_images(figures: Figures) -> str:
    """Say how to get other images where nothing says which."""
    strengths = figures.settings.strengths
    if not figures.settings.generates or not strengths:
        return ""
    taken = strengths_taken(figures)
    values = strengths_beside(min(strengths), (0.5, 0.75), taken), strengths_beside(max(strengths), (1.3,), taken)
    tried = ",".join(each for each in values if each)
    sweep = f"`gdacli sweep strengths --values {tried}`, " if tried else ""
    return f"; or other images: {sweep}`gdacli sweep selection`"


def alternatives(*each: str | bool | Sequence[ImageGroup] | None) -> str:
    """Join those remedies that are not empty, as ones of which to take one."""
    said = [remedy for remedy in each if isinstance(remedy, str) and remedy]
    return "; or ".join(["; ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or "fewer of these images"


def lower(figures: Figures, groups: Sequence[ImageGroup]) -> str:
    """Say how to get less or gentler of the images of groups."""
    strengths, generates = _generated(groups), figures.settings.generates
    values = strengths_beside(min(strengths), (0.5, 0.75), strengths_taken(figures)) if strengths and generates else ""
    sampled = any(not each.has_source and not each.imported for each in groups)
    more = ", or more fit.updates" if figures.settings.fitted else ""
    return alternatives(
        fewer(figures, groups),
        values and f"lower: `gdacli sweep strengths --values {values}`",
        sampled and f"fewer sampled images (num_images; `gdacli sweep sampled`){more}",
        any(each.imported for each in groups) and "fewer of the imported images (num_images of their arm), or none",
    )


def fewer(figures: Figures, groups: Sequence[ImageGroup]) -> str:
    """Say how the arm leaves the strengths of groups out, if others remain."""
    strengths, out = figures.settings.strengths, _generated(groups)
    left = [each for each in strengths if each not in out]
    if not left or len(left) == len(strengths):
        return ""
    return f"fewer strengths: arms.{figures.settings.arm}.strengths: [{', '.join(f'{each:g}' for each in left)}]"


def _generated(groups: Sequence[ImageGroup]) -> list[float]:
    return [each.strength for each in groups if each.strength is not None and not each.imported]


def strengths_taken(figures: Figures) -> set[float]:
    """Return the strengths that there are."""
    return {*_generated(figures.groups), *figures.settings.strengths}


def strengths_beside(strength: float, times: Sequence[float], taken: Collection[float]) -> str:
    """Return strengths on one side of one that are not there yet, in twentieths if these differ; empty without any."""
    wanted = [strength * each for each in times]
    above = wanted[0] > strength
    for values in ({round(20 * each) / 20 for each in wanted}, {round(each, 3) for each in wanted}):
        allowed = {min(0.95, each) for each in values} - {0.0, *taken}
        if beside := sorted(each for each in allowed if (each > strength) == above):
            return ",".join(f"{each:g}" for each in beside)
    return ""
