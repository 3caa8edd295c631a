"""Models on the Hugging Face hub, and those of it that lie in its cache on this machine.

Its client is imported where it is used: it takes as long as half of a command.
"""

from pathlib import Path
from typing import Any

FILES = ("config.json", "model.safetensors", "README.md")
"""What a model of this package is, in a folder and on the hub."""

_LIBRARY = "molhpft"


def fetched(name: str, **options: Any) -> Path:
    """Folder with the files of the model that the hub has under a name.

    Args:
        name: `owner/name`.
        options: of huggingface_hub's `snapshot_download`.

    Raises:
        FileNotFoundError: the hub has none, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest:
        raise FileNotFoundError(f"no folder at {name!r}; a model on the hub is called owner/name")
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES), **options))
    except (OSError, HFValidationError) as error:
        said = " ".join(str(error).split())
        raise FileNotFoundError(
            f"no folder at {name!r}, and none from the model hub: {said:.200}"
        ) from error


def hub_names() -> list[str]:
    """Names of the models of this package on the hub.

    Raises:
        FileNotFoundError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        return sorted(model.id for model in HfApi().list_models(filter=_LIBRARY))
    except Exception as error:
        # the errors are those of an HTTP library, which the hub's client has exchanged before
        said = " ".join(str(error).split())
        raise FileNotFoundError(f"the model hub cannot be reached: {said:.200}") from error


def cached_names() -> list[str]:
    """Names of the models that an earlier use has fetched; they load offline."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        repo.repo_id
        for repo in repos
        for revision in repo.revisions
        if set(FILES) <= {file.file_name for file in revision.files}
    )
