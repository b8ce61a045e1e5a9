"""What the tests of interrupted training share."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil


class WorkerKiller(threading.Thread):
    """Kills one training process with SIGKILL as soon as Ray Train knows a checkpoint to go back to."""

    def __init__(self, storage: Path) -> None:
        super().__init__(daemon=True)
        self.snapshot = storage / "ray" / "checkpoint_manager_snapshot.json"
        self.killed: int | None = None

    def run(self) -> None:
        while not self.snapshot.exists() or "checkpoint_2" not in self.snapshot.read_text():
            time.sleep(0.01)
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if "RayTrainWorker" in " ".join(process.cmdline())
        ]
        self.killed = workers[-1].pid
        os.kill(self.killed, signal.SIGKILL)
