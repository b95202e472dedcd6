"""`gdacli push`: share the pool and the trained model on the Hugging Face Hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gdacli.arm_descriptions import describe, main_arm
from gdacli.arms import STORED
from gdacli.artifacts import CHECKSUMS, read_json, require, sha256_file
from gdacli.errors import GdaError
from gdacli.params import Params
from gdacli.paths import EVALUATION, REJECTS, SELECTION, SHARE, SYNTHETIC, TRAIN, mix_file, run_name
from gdacli.published import MANIFEST
from gdacli.sharing import hub
from gdacli.sharing.dataset_folder import needed_licenses, write_dataset
from gdacli.sharing.licenses import check_stated
from gdacli.sharing.model_folder import NEEDED_LICENSE, write_model
from gdacli.sharing.origin import PROJECT_FILES
from gdacli.sharing.revision import revision_name
from gdacli.sharing.shared_pool import pool_of
from gdacli.sharing.uploads import upload


def run(
    params: Params,
    repo_id: str,
    what: str,
    private: bool = False,
    arm: str | None = None,
    seed: int | None = None,
    include_source: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write the folders of what is shared, and make repositories on the Hub hold them.

    Licences are checked first, then the login, then the folders are written, and only then the Hub is changed.

    Args:
        params: of the project.
        repo_id: `user/name`, of the dataset and of the model.
        what: `dataset`, `model` or `both`.
        private: make new repositories that only their owners see.
        arm: share the images that this arm adds, and the model of this arm; the whole pool, and the main arm's model,
            when None.
        seed: of the model; the first of `compare.seeds` when None.
        include_source: share the originals too.
        dry_run: write the folders and ask nothing of the Hub.

    Raises:
        GdaError: a licence is missing, there is nothing to share, the login is not valid, or the Hub failed.
    """
    hub.check_repo_id(repo_id)
    kinds = ["dataset", "model"] if what == "both" else [what]
    if include_source and "dataset" not in kinds:
        raise GdaError(f"--include-source: the originals go with the dataset; found --what {what}: leave either out")
    if arm is not None:
        params.arm(arm)
    arms = params.compared_arms()
    objectives = {name: params.train_of(name).objective for name in arms}
    model_arm = arm or main_arm(arms, objectives) or params.compare.arms[0]
    model_seed = params.compare.seeds[0] if seed is None else seed
    share, pool = params.push.of_cards(), SYNTHETIC
    needed: dict[str, str] = {}
    if "dataset" in kinds:
        pool = pool_of(arm)
        manifest = read_json(require(pool / MANIFEST, "gdacli generate"))
        needed |= needed_licenses(manifest, include_source=include_source)
    if "model" in kinds:
        needed |= NEEDED_LICENSE
    check_stated(share, needed)
    login = None if dry_run else hub.check_login()

    words = {name: _in_words(params, name) for name in {*arms, model_arm}}
    dataset = {
        "arm": arm,
        "include_source": include_source,
        "arms": {name: words[name] for name in arms if arms[name].add in STORED},
        "features": params.evaluate.features,
    }
    model = {
        "arm": model_arm,
        "seed": model_seed,
        "description": words[model_arm],
        "datasets": [repo_id] if what == "both" else [],
    }
    training = TRAIN / run_name(model_arm, model_seed)
    write: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any], list[Path]]] = {
        "dataset": (write_dataset, dataset, [pool / CHECKSUMS, REJECTS, *([mix_file(arm)] if arm else [])]),
        "model": (write_model, model, [training / CHECKSUMS, mix_file(model_arm)]),
    }
    result: dict[str, Any] = {"repo_id": repo_id, "dry_run": dry_run}
    for kind in kinds:
        write_folder, options, made_from = write[kind]
        project = [Path(name) for name in PROJECT_FILES] + [EVALUATION / CHECKSUMS]
        usual = arm is None and not include_source if kind == "dataset" else arm is None and seed is None
        revision = revision_name(project + made_from, f"{repo_id} {sorted(options.items())}", usual=usual)
        folder = SHARE / kind
        written = write_folder(
            folder, repo_id=repo_id, revision=revision, share=share, data_source=params.data.source, **options
        )
        num_files = sum(path.is_file() for path in folder.rglob("*"))
        result[kind] = {**written, "revision": revision, "files": num_files}
    if login is not None:
        for kind in kinds:
            result[kind] |= _publish(login, repo_id, kind, SHARE / kind, private, result[kind]["revision"])
    return result


def summary(result: dict[str, Any]) -> str:
    """Say where each lies, what was sent, and its tag."""
    lines = []
    for kind in ("dataset", "model"):
        if kind not in result:
            continue
        part = result[kind]
        size = f"{part['files']} files, {part['megabytes']:.1f} MB"
        if result["dry_run"]:
            lines.append(f"{kind}: {part['folder']}: {size} would be shared as {part['revision']}; nothing was sent")
        elif not part["changed"]:
            lines.append(f"{kind}: {part['url']}: unchanged ({size} are there already), nothing was sent; {_tag(part)}")
        else:
            there = part["files"] - part["files_sent"]
            lines.append(
                f"{kind}: {part['url']}: {part['files_sent']} files sent ({part['megabytes_sent']:.1f} MB), "
                f"{there} there already; {_tag(part)}"
            )
        for name, what in (("deleted", "deleted, no longer shared"), ("kept", "left alone, not ours")):
            if part.get(name):
                lines.append(f"  {what}: {', '.join(part[name])}")
    return "\n".join(lines)


def _in_words(params: Params, name: str) -> str:
    """Say what an arm is, and how many of the train images it selects."""
    arm = params.arm(name)
    path = SELECTION / "selection.json"
    chosen = read_json(path)["arms"].get(name) if path.exists() else None  # a pulled pool may be shared without one
    words = describe(arm, chosen and chosen["count"], params.arms[name].train)
    if chosen is None or arm.select in (None, "all") or not chosen["count"]:
        return words
    return f"{words}; it selects {chosen['count']} train images, {100 * chosen['share']:.0f} %"


def _tag(part: dict[str, Any]) -> str:
    return f"tag {part['tag']}, commit {part['commit'][:12]}"


def _publish(login: hub.Login, repo_id: str, kind: str, folder: Path, private: bool, revision: str) -> dict[str, Any]:
    """Create the repository, upload, tag; returns what was done."""
    url = hub.create_repository(login, repo_id, kind, private)
    done = upload(login, repo_id, kind, folder, message=revision)
    content = sha256_file(folder / CHECKSUMS)[:8]
    tag = hub.tag_commit(login, repo_id, kind, done.commit, [revision, f"{revision}-{content}"])
    return {
        "url": url,
        "commit": done.commit,
        "tag": tag,
        "changed": done.changed,
        "files_sent": done.files_sent,
        "megabytes_sent": round(done.bytes_sent / 1e6, 3),
        "deleted": done.deleted,
        "kept": done.kept,
    }
