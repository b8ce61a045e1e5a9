#!/usr/bin/env python
"""Run a job on an existing Ray cluster through its job API.

    python cluster/submit.py prepare --config configs/esci.yaml --address http://head:8265 --output s3://bucket/pairs
    python cluster/submit.py --stop SUBMISSION_ID --address http://head:8265

Sends this checkout (cluster/runtime_env.yaml says what of it), streams the job's log and exits with the job's exit
code. Ctrl-C or SIGTERM here stops the job there. The same command again resumes an unfinished run. Paths in the
configuration are paths on the cluster; `--config` may name a file of this checkout.

A cluster with token authentication needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE in the environment here.
"""

import argparse
import asyncio
import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

ROOT = Path(__file__).resolve().parent.parent
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py") if file.stem != "__init__")
EXIT_STOPPED = 130  # as a shell reports Ctrl-C
EXIT_USAGE = 2
STOP_WAIT_S = 60.0


def main(words: list[str]) -> int:
    """Submit, follow or stop; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", choices=JOBS, help="module of jobs/ to run")
    parser.add_argument("--address", help="job API of the cluster, http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)")
    parser.add_argument("--stop", metavar="SUBMISSION_ID", help="stop this job instead of submitting one")
    parser.add_argument("--no_wait", action="store_true", help="print the submission id and return at once")
    options, job_words = parser.parse_known_args(words)
    if bool(options.job) == bool(options.stop):
        parser.error("give either a job to submit or --stop SUBMISSION_ID")
    if options.stop and job_words:
        parser.error(f"--stop takes no settings of a job: {' '.join(job_words)}")
    try:
        client = JobSubmissionClient(options.address)
    except (ConnectionError, RuntimeError) as error:
        print(f"submit: no job API at {options.address or 'the default address'}: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.stop:
        return stop(client, options.stop)
    try:
        submission_id = client.submit_job(entrypoint=entrypoint(options.job, job_words), runtime_env=runtime_env())
    except RuntimeError as error:
        print(f"submit: the cluster does not take the job: {error}", file=sys.stderr)
        return 1
    print(f"submit: {submission_id}", file=sys.stderr, flush=True)
    return 0 if options.no_wait else follow(client, submission_id)


def entrypoint(job: str, words: list[str]) -> str:
    """The command that the cluster runs; a `--config` file inside this checkout becomes relative to it."""
    words = list(words)
    for i, word in enumerate(words[:-1]):
        if word == "--config" and (path := Path(words[i + 1]).resolve()).is_relative_to(ROOT):
            words[i + 1] = str(path.relative_to(ROOT))
    return shlex.join(["python", "-m", f"jobs.{job}", *words])


def runtime_env() -> dict[str, Any]:
    """cluster/runtime_env.yaml with this checkout as the working directory."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())
    return loaded | {"working_dir": str(ROOT)}


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Stream the log until the job ends; returns its exit code. Ctrl-C and SIGTERM stop the job."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(_print_log(client, submission_id))
        return _exit_code(client, submission_id)
    except KeyboardInterrupt:
        print(f"\nsubmit: stopping {submission_id}", file=sys.stderr, flush=True)
        stop(client, submission_id)
        return EXIT_STOPPED


async def _print_log(client: JobSubmissionClient, submission_id: str) -> None:
    """Print the log as it grows. A dropped connection is opened again and what was printed already is left out."""
    num_printed = 0
    while True:
        num_seen = 0
        try:
            async for text in client.tail_job_logs(submission_id):
                new = text[max(0, num_printed - num_seen) :]
                num_seen += len(text)
                if new:
                    num_printed = num_seen
                    sys.stdout.write(new)
                    sys.stdout.flush()
        except (RuntimeError, OSError) as error:
            print(f"submit: the log's connection broke ({error}); trying again", file=sys.stderr)
        if client.get_job_status(submission_id).is_terminal():
            return
        await asyncio.sleep(1.0)


def _exit_code(client: JobSubmissionClient, submission_id: str) -> int:
    info = client.get_job_info(submission_id)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        print(f"submit: {submission_id} was stopped; submit it again to resume", file=sys.stderr)
        return EXIT_STOPPED
    print(f"submit: {submission_id} failed: {(info.message or '').partition(',')[0]}", file=sys.stderr)
    return info.driver_exit_code or 1


def stop(client: JobSubmissionClient, submission_id: str) -> int:
    """Stop a job and wait until it has ended; returns 0 when it has."""
    try:
        client.stop_job(submission_id)
        deadline_s = time.monotonic() + STOP_WAIT_S
        while time.monotonic() < deadline_s:
            status = client.get_job_status(submission_id)
            if status.is_terminal():
                print(f"submit: {submission_id} is {status}", file=sys.stderr)
                return 0
            time.sleep(0.5)
    except RuntimeError as error:
        print(f"submit: cannot stop {submission_id}: {error}", file=sys.stderr)
        return 1
    print(f"submit: {submission_id} has not ended after {STOP_WAIT_S:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")  # cluster/runtime_env.yaml names them all
    logging.disable(logging.INFO)  # else Ray prints a line for each .gitignore that is not sent
    raise SystemExit(main(sys.argv[1:]))
