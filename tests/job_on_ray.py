"""A command line as a job on a Ray cluster of its own, to its end: `python -m tests.job_on_ray FOLDER < command`.

A process of its own, since Ray decides at its import whether it wants a token. It prints one JSON object: the job's
status, what it printed, and all that Ray says of it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(folder: str, entrypoint: str) -> dict[str, str]:
    import ray
    from ray.job_submission import JobStatus, JobSubmissionClient

    context = ray.init(
        address="local", num_cpus=4, include_dashboard=True, dashboard_host="127.0.0.1", _temp_dir=folder,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    try:
        client = JobSubmissionClient(f"http://{context.dashboard_url}")
        job = _submitted(client, entrypoint)
        ends = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
        while (status := client.get_job_status(job)) not in ends:
            time.sleep(1)
        return {"status": status.value, "said": client.get_job_logs(job), "spec": repr(client.get_job_info(job).dict())}
    finally:
        ray.shutdown()


def _submitted(client: Any, entrypoint: str, within_s: float = 300) -> str:
    """The job's id. A dashboard that is up refuses jobs until the node's agent has told it of itself."""
    last = time.monotonic() + within_s
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > last:
                raise
            time.sleep(1)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.stdin.read())))
