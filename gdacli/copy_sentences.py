"""What is said of copies, a sentence for each comparison."""

from gdacli.cleanliness import LEAST_TELLING_SIDE, Cleanliness, Copies


def about_copies(found: Cleanliness, split: str) -> dict[str, str]:
    """Say what was found, by what was compared; nothing of a comparison of no images.

    Args:
        found: the copies.
        split: the name of the one that was compared with the train images.
    """
    skipped = "" if found.near_within_train else "; near ones were not looked for among so many images"
    what = {
        "split_train": (f"{split} images", "a train image", ": a model may know them by heart"),
        "within_train": ("train images", "another one", ""),
        "synthetic_split": ("synthetic images", f"a {split} image", ": the error may flatter who trains on them"),
        "memorised": ("synthetic images", "a train image other than their source", ": perhaps memorised"),
        "unchanged": ("synthetic images", "their own source", ": they teach what a copy teaches"),
    }
    said = {}
    for name, copies in found.compared().items():
        if not copies.num_images:  # images without a source are not like it
            continue
        whose, of, therefore = what[name]
        # What is like its own source at any size is a copy of it; what is like one of thousands may be so by chance.
        by_chance = copies.num_near > 0 and found.side < LEAST_TELLING_SIDE and name != "unchanged"
        doubt = f"at {found.side} x {found.side} pixels unrelated images look alike too" if by_chance else ""
        told = copies.num_exact or (copies.num_near and not by_chance)
        said[name] = (
            _count(copies, whose, of, doubt)
            + (therefore if told else "")
            + (skipped if name == "within_train" else "")
            + "."
        )
    return said


def _count(copies: Copies, whose: str, of: str, doubt: str) -> str:
    if not copies.num_drawn or not copies.is_draw:
        all_pairs = f"{len(copies.pairs) or 'None'} of {copies.num_images} {whose} look like {of}"
        return f"{all_pairs} ({copies.num_exact} equal it in every pixel{f'; {doubt}' if doubt else ''})"
    exact = f"{copies.num_exact or 'None'} of {copies.num_images} {whose} equal {of} in every pixel"
    drawn = f"of {copies.num_drawn} drawn ones " if copies.num_drawn < copies.num_images else ""
    among = f" of {copies.num_among} drawn of {copies.num_others}" if copies.num_among < copies.num_others else ""
    near = f"{drawn}{copies.num_near or 'no'} more look like one{among}"
    return f"{exact}, and {near}{f' ({doubt})' if doubt else ''}"
