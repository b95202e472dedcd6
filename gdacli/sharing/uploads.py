"""Uploads of a folder to the Hub, in one commit; what the Hub holds already is not sent."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import CHECKSUMS, sha256_file
from gdacli.console import say
from gdacli.sharing.hub import ATTRIBUTES, THREADS, Login, api_of, listed
from gdacli.sharing.hub_calls import calling, tried_again
from gdacli.sharing.transfers import Reader, megabytes

_BATCH_FILES, _BATCH_BYTES = 100, 500_000_000
"""Files of one preupload request: few requests for many small files, and not all bytes before it is told how far."""


@dataclass(frozen=True)
class Uploaded:
    """What an upload did."""

    commit: str
    """Hash of the version that holds the files."""
    changed: bool
    """False: the repository held the same bytes already, and there is no new commit."""
    files: int
    files_sent: int
    bytes_sent: int
    """Of the files that were sent; those that an earlier, interrupted upload brought are not sent again."""
    deleted: list[str]
    """Files of an earlier upload that the folder no longer holds."""
    kept: list[str]
    """Files of the repository that no upload of ours brought: they are left alone."""


def upload(login: Login, repo_id: str, repo_type: str, folder: Path, message: str) -> Uploaded:
    """Make a repository hold the files of a folder, in one commit; what it holds already is not sent.

    Large files go first, then the commit that names them: an upload that fails or is killed leaves the repository as
    it was, and the next one sends only the files that did not arrive.

    Args:
        login: who does it.
        repo_id: `user/name` of a repository that exists.
        repo_type: `dataset` or `model`.
        folder: a published folder, with SHA256SUMS. Files that the repository's SHA256SUMS lists and this folder does
            not hold are deleted.
        message: of the commit.

    Raises:
        GdaError: the Hub refused or failed; one line.
    """
    api = api_of(login.token)
    what = f"uploading to {repo_id}"
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sums = _sums(files)
    sent: dict[str, int] = {}
    deleted: set[str] = set()
    tried = False

    def attempt() -> Uploaded:
        """Upload what is missing now: after a commit whose answer was lost, that is nothing."""
        nonlocal tried
        head = api.repo_info(repo_id, repo_type=repo_type).sha
        with calling(what):
            there = listed(api, repo_id, repo_type, head)
            stale = _stale(api, repo_id, repo_type, head, set(files), there)
        missing = {name: path for name, path in files.items() if not _same(path, sums[name], there.get(name))}
        if missing or stale:
            tried = True
            deleted.update(stale)
            head = _publish(api, repo_id, repo_type, head, missing, stale, sums, sent, message)
        return Uploaded(
            commit=head,
            changed=tried,
            files=len(files),
            files_sent=len(sent),
            bytes_sent=sum(sent.values()),
            deleted=sorted(deleted),
            kept=sorted(there.keys() - files.keys() - deleted - {ATTRIBUTES}),
        )

    with calling(what):
        return tried_again(attempt)


def _sums(files: Mapping[str, Path]) -> dict[str, str]:
    sums = {}
    with megabytes("checksums", sum(path.stat().st_size for path in files.values())) as advance:
        for name, path in files.items():
            sums[name] = sha256_file(path)
            advance(path.stat().st_size)
    return sums


def _same(path: Path, sha256: str, remote: Any) -> bool:
    """Say whether the repository's file of that name has the same bytes."""
    size = path.stat().st_size
    if remote is None or remote.size != size:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == sha256)
    blob = hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False)  # git's name of it
    return bool(remote.blob_id == blob.hexdigest())


def _stale(api: Any, repo_id: str, repo_type: str, head: str, names: set[str], there: Mapping[str, Any]) -> list[str]:
    """Name the files that an earlier upload brought, as its SHA256SUMS says, and that the folder no longer holds."""
    others = there.keys() - names - {ATTRIBUTES}
    if CHECKSUMS not in there or not others:
        return []
    path = tried_again(lambda: api.hf_hub_download(repo_id, CHECKSUMS, repo_type=repo_type, revision=head))
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return sorted({line.partition("  ")[2] for line in lines} & others)


def _publish(
    api: Any,
    repo_id: str,
    repo_type: str,
    head: str,
    files: Mapping[str, Path],
    stale: Sequence[str],
    sums: Mapping[str, str],
    sent: dict[str, int],
    message: str,
) -> str:
    """Send large files as far as the server does not have them, then commit all; returns the commit's hash.

    `sent` gets the size of each file that goes over the line.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    for addition in additions:
        addition.upload_info.sha256 = bytes.fromhex(sums[addition.path_in_repo])  # or it would be computed again
    sizes = {name: path.stat().st_size for name, path in files.items()}
    with megabytes("upload", sum(sizes.values())) as advance:
        readers = {name: Reader(path, advance) for name, path in files.items()}
        with calling(f"uploading to {repo_id}"):  # these calls are tried again by huggingface_hub itself
            by_xet = bool(additions) and _takes_xet(api, repo_id, repo_type, additions[0])
            for batch in _batches(additions, sizes):
                if not by_xet:
                    for addition in batch:
                        addition.path_or_fileobj = readers[addition.path_in_repo]
                try:
                    api.preupload_lfs_files(repo_id, batch, repo_type=repo_type, num_threads=THREADS, free_memory=False)
                finally:
                    sent.update(_read(readers, sizes))
                for addition in batch:
                    readers[addition.path_in_repo].skip()
        operations = [*additions, *(CommitOperationDelete(name, is_folder=False) for name in stale)]
        try:
            return _commit(api, repo_id, repo_type, head, operations, message)
        finally:
            sent.update(sizes if by_xet else _read(readers, sizes))


def _read(readers: Mapping[str, Reader], sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: sizes[name] for name, reader in readers.items() if reader.was_read}


def _takes_xet(api: Any, repo_id: str, repo_type: str, addition: Any) -> bool:
    """Ask the server how it takes large files: by Xet, or by plain LFS, which every server of the Hub's kind knows.

    huggingface_hub takes Xet wherever its package is installed, without asking; a file that it is given open it sends
    by LFS.
    """
    from importlib.util import find_spec

    from huggingface_hub import constants
    from huggingface_hub.lfs import post_lfs_batch_info

    if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
        return False
    *_, chosen = post_lfs_batch_info(
        [addition.upload_info],
        token=api.token,
        repo_type=repo_type,
        repo_id=repo_id,
        revision="main",
        endpoint=api.endpoint,
        transfers=["basic", "multipart", "xet"],
    )
    return bool(chosen == "xet")


def _batches(additions: Sequence[Any], sizes: Mapping[str, int]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    num_bytes = 0
    for addition in additions:
        batch.append(addition)
        num_bytes += sizes[addition.path_in_repo]
        if len(batch) == _BATCH_FILES or num_bytes > _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _commit(api: Any, repo_id: str, repo_type: str, head: str, operations: Sequence[Any], message: str) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=head)
    for warning in caught:
        say(f"the Hub says: {' '.join(str(warning.message).split())}")
    return str(made.oid)
