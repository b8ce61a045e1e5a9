"""Asking the rejected requests of a finished run again, alone.

`replay.json` holds the number of the last replay; a unit's footer says in which replay it was last touched, so a replay
that is killed goes on where it was.
"""

import json

from raylib.errors import RunConflictError
from raylib.runs import Run

FILE = "replay.json"


def replay_number(run: Run, is_wanted: bool) -> int:
    """The replay that this start of the job belongs to, 0 for the run itself; reopens a finished run for a new one.

    Raises RunConflictError when a replay is wanted of a run that was never finished.
    """
    try:
        number = int(json.loads(run.read_text(FILE))["replay"])
    except FileNotFoundError:
        number = 0
    if not run.is_done:
        if is_wanted and not number:
            raise RunConflictError(f"{run.uri}: unfinished, so there is nothing to replay yet; run it without --replay")
        return number
    if is_wanted and run.metrics()["rejected"]:
        number += 1
        run.write_json(FILE, {"replay": number})
        run.reopen()
    return number
