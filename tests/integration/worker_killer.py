"""What the tests of interrupted training share."""

import os
import re
import signal
import threading
import time
from pathlib import Path

from processes import children


class WorkerKiller(threading.Thread):
    """Kills a training process without grace, `times` times, each when Ray Train knows of a new checkpoint."""

    def __init__(self, storage: Path, times: int = 1) -> None:
        super().__init__(daemon=True)
        self.snapshot = storage / "ray" / "checkpoint_manager_snapshot.json"
        self.times = times
        self.killed: list[int] = []

    def run(self) -> None:
        seen: set[str] = set()
        ended: set[int] = set()
        while len(self.killed) < self.times:
            time.sleep(0.01)
            text = self.snapshot.read_text() if self.snapshot.exists() else ""
            found = set(re.findall(r"checkpoint_\d[\w.-]*", text))
            pids = [process.pid for process in children("RayTrainWorker") if process.pid not in ended]
            if not pids:
                seen |= found  # by workers of which one was killed: their last checkpoint may be known only now
            elif found - seen:
                os.kill(pids[-1], signal.SIGKILL)
                self.killed.append(pids[-1])
                ended.update(pids)
