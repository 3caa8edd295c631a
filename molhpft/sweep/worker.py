"""A process that makes attempts at trials for a sweep, one after another, until the sweep ends.

Started as `python -m molhpft.sweep.worker OUT`: jobs come as lines of JSON on
standard input, outcomes go as lines of JSON to standard output.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TextIO

import torch

from molhpft.sweep.trial import Job, attempt


def main() -> None:
    """Attempt what comes until standard input ends, which is when the sweep does."""
    out = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is for the log
    # a process forked for packing may outlive this one; the sweep would take it for this one
    os.register_at_fork(after_in_child=lambda: os.close(answers.fileno()))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    jobs: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(sys.stdin, jobs), daemon=True).start()
    while True:
        job = Job(**json.loads(jobs.get()))
        print(f"--- {job.name}", flush=True)
        outcome = attempt(job, out)
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


def _listen(source: TextIO, jobs: "SimpleQueue[str]") -> None:
    for line in source:
        jobs.put(line)
    # the sweep is gone, killed perhaps: nobody would read what this process still writes, and the
    # next sweep of the folder waits for the run it has. It leads a session of its own.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
