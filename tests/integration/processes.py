"""Processes that a test has started, to be killed or counted; others' are not ours to kill."""

import contextlib

import psutil


def children(mark: str) -> list[psutil.Process]:
    """Those whose command line holds `mark`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may have ended
            if mark in " ".join(process.cmdline()):
                found.append(process)
    return found
