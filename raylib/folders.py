"""Folders that appear under their name only when they are whole: models, adapters."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the block ends, replacing an older one.

    After an error the older one is as it was; a full disk leaves no half of a model under a name that others read.
    """
    partial = target.with_name(f"_partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
