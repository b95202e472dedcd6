"""The Hugging Face Hub: the login, repositories, tags and downloads; uploads are in `uploads`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from gdacli.errors import GdaError
from gdacli.sharing.hub_calls import calling, keep_time, tried_again
from gdacli.sharing.transfers import bar_class, megabytes

ATTRIBUTES = ".gitattributes"
"""The Hub's own file of a repository: which files go by LFS."""

THREADS = 4
"""Files that are sent or fetched at the same time."""


@dataclass(frozen=True)
class Login:
    """Who uploads."""

    user: str
    token: str = field(repr=False)


def check_repo_id(repo_id: str) -> None:
    """Check the form of a repository's name.

    Raises:
        GdaError: it is not `user/name`.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise GdaError(
            f"repository {repo_id}: expected user/name or organisation/name, of letters, digits, '-', '_' and '.', for "
            "example me/digits-augmented"
        )


def check_login() -> Login:
    """Ask the Hub whose token it is: that of HF_TOKEN, or of `hf auth login`.

    Raises:
        GdaError: there is none, it is not valid, or it may only read.
    """
    from huggingface_hub import constants, get_token

    tokens = f"{constants.ENDPOINT}/settings/tokens"
    with calling("login"):
        token = get_token()
        if not token:
            raise GdaError(
                f"login: no token for {constants.ENDPOINT}: set HF_TOKEN to one with the right to write, from {tokens}"
                ", or run `hf auth login`"
            )
        api = api_of(token)
        account = tried_again(api.whoami)
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise GdaError(
            f"login: the token of {account['name']} may only read: take one with the right to write, from {tokens}"
        )
    return Login(account["name"], token)


def create_repository(login: Login, repo_id: str, repo_type: str, private: bool) -> str:
    """Create a repository if it does not exist; returns its address.

    Args:
        login: who does it.
        repo_id: `user/name`.
        repo_type: `dataset` or `model`.
        private: only its owners see it.

    Raises:
        GdaError: the login may not, or the repository exists and is public though `private` is asked for.
    """
    api = api_of(login.token)
    create = partial(api.create_repo, repo_id, repo_type=repo_type, private=private or None, exist_ok=True)
    with calling(f"creating {repo_id}"):
        url = tried_again(create)
        if private and not tried_again(partial(api.repo_info, repo_id, repo_type=repo_type)).private:
            raise GdaError(
                f"--private: {repo_id} exists already and is public: make it private in its settings first, or take "
                "another --repo-id"
            )
    return str(url)


def tag_commit(login: Login, repo_id: str, repo_type: str, commit: str, names: Sequence[str]) -> str:
    """Give a commit the first of some names that no other commit has; returns that name.

    A commit that has one of them keeps it. The last name should hold a digest of the content: if an older commit has
    it, that one holds the same content, and the name stays there.

    Raises:
        GdaError: the Hub refused or failed.
    """
    api = api_of(login.token)

    def attempt() -> str:
        refs = api.list_repo_refs(repo_id, repo_type=repo_type)
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        for name in names:
            if name not in tags:
                api.create_tag(repo_id, tag=name, revision=commit, repo_type=repo_type)
                return name
            if tags[name] == commit:
                return name
        return names[-1]

    with calling(f"tagging {repo_id}"):
        return tried_again(attempt)


def download(
    repo_id: str, revision: str | None = None, repo_type: str = "dataset", files: Sequence[str] = ("*",)
) -> tuple[Path, str]:
    """Bring a repository into the Hub's cache; files that are there already are not fetched again.

    Args:
        repo_id: `user/name`.
        revision: a branch, tag or commit; the newest when None.
        repo_type: `dataset` or `model`.
        files: patterns of those to bring, as of `fnmatch`.

    Returns:
        the folder in the cache (of symbolic links: do not change it), and the hash of the commit. Lengths are checked,
        contents are not: that is what its SHA256SUMS is for.

    Raises:
        GdaError: it does not exist, may not be read, or the Hub failed; one line.
    """
    from huggingface_hub import get_token

    check_repo_id(repo_id)
    what = f"downloading {repo_id}" + (f" at {revision}" if revision else "")
    with calling(what):
        api = api_of(get_token() or False)
        commit = tried_again(partial(api.repo_info, repo_id, repo_type=repo_type, revision=revision)).sha
        entries = listed(api, repo_id, repo_type, commit)
        entries.pop(ATTRIBUTES, None)
        entries = {name: entry for name, entry in entries.items() if any(fnmatch(name, each) for each in files)}
        if not entries:
            raise GdaError(f"{what}: the repository holds no files of the kind ({', '.join(files)})")
        with megabytes("download", sum(entry.size for entry in entries.values())) as advance:

            def fetch(name: str) -> str:
                came = 0

                def count(num_bytes: int) -> None:
                    nonlocal came
                    came += num_bytes
                    advance(num_bytes)

                options = {"repo_type": repo_type, "revision": commit, "tqdm_class": bar_class(count)}
                path = tried_again(partial(api.hf_hub_download, repo_id, name, **options), resumes=True)
                advance(entries[name].size - came, free=True)  # what was in the cache
                return str(path)

            with ThreadPoolExecutor(THREADS) as executor:
                tasks = {name: executor.submit(fetch, name) for name in entries}
                try:
                    paths = {name: task.result() for name, task in tasks.items()}
                except BaseException:
                    executor.shutdown(cancel_futures=True)
                    raise
    name, path = next(iter(paths.items()))
    return Path(path).parents[name.count("/")], commit


def api_of(token: str | bool) -> Any:
    """Return huggingface_hub's client for a token; False for none."""
    from huggingface_hub import HfApi

    from gdacli import __version__

    keep_time()
    return HfApi(token=token, library_name="gdacli", library_version=__version__)


def listed(api: Any, repo_id: str, repo_type: str, revision: str) -> dict[str, Any]:
    """Return the files of a version by path: `size`, git's hash `blob_id`, and `lfs.sha256` of large ones."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
