"""The doctor's check of Ray: the cluster that commands will run on, its token, and a task on it.

Ray takes a cluster's token from RAY_AUTH_TOKEN, else from the file RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token,
and uses it towards a named address only where RAY_AUTH_MODE is `token`. Where it is wrong or missing, Ray says so late
and in many words; here it is looked at before Ray is.
"""

from __future__ import annotations

import os
import socket
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from lgsrr.checkup import DoctorConfig, Finding

_DEFAULT_PORTS = {"ray": 10001, "http": 8265, "https": 443}
_REACH_S = 5.0
_LOCAL = ("", "local", "auto")
"""Values of RAY_ADDRESS that name no host."""
_HOW_TO_GET_A_TOKEN = (
    "take the token of the head node (ray get-auth-token there) into ~/.ray/auth_token, chmod 600, or name its file "
    "with RAY_AUTH_TOKEN_PATH; a new one is made by: ray get-auth-token --generate"
)


def ray_cluster(config: DoctorConfig) -> Iterator[Finding]:
    """The cluster of RAY_ADDRESS, or a local one for a moment."""
    found = [*token_findings(os.environ, Path.home()), *_unreachable(os.environ.get("RAY_ADDRESS", ""))]
    yield from found
    if not any(finding.level == "fails" for finding in found):
        yield from _task()


def token_findings(environment: Mapping[str, str], home: Path) -> Iterator[Finding]:
    """What is wrong with the token that this machine would show a cluster."""
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else home / ".ray" / "auth_token"
    mode = environment.get("RAY_AUTH_MODE", "").lower()
    remote = environment.get("RAY_ADDRESS", "") not in _LOCAL
    if not environment.get("RAY_AUTH_TOKEN"):
        if named and not path.is_file():
            yield Finding(
                level="fails", found=f"RAY_AUTH_TOKEN_PATH names {path}, which is not there", do=_HOW_TO_GET_A_TOKEN
            )
            return
        if mode == "token" and remote and not path.is_file():
            found = f"RAY_AUTH_MODE is token, and there is no token: RAY_AUTH_TOKEN is not set and {path} not there"
            yield Finding(level="fails", found=found, do=_HOW_TO_GET_A_TOKEN)
            return
        if path.is_file() and path.stat().st_mode & 0o077:
            found = f"others on this machine can read the token of Ray in {path}; who has it can run anything"
            yield Finding(level="warning", found=found, do=f"chmod 600 {path}")
    if mode == "disabled" and remote:
        found = "RAY_AUTH_MODE is disabled: whoever reaches the cluster's ports can run anything on it"
        yield Finding(
            level="warning", found=found, do="start the cluster with RAY_AUTH_MODE=token, and set it here too"
        )


def _unreachable(address: str) -> Iterator[Finding]:
    """Ray itself waits a minute for a head node that is not there."""
    if address in _LOCAL:
        return
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        place = (parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 6379))
        socket.create_connection(place, timeout=_REACH_S).close()
    except (OSError, ValueError) as error:
        do = "start the head node (ray start --head), correct RAY_ADDRESS, or unset it to run on this machine alone"
        yield Finding(level="fails", found=f"RAY_ADDRESS is {address}, and nothing answers there ({error})", do=do)


def _task() -> Iterator[Finding]:
    """Connect as every command does, and run one task."""
    import ray

    from lgsrr.cluster import connected

    began = time.monotonic()
    try:
        with connected():
            knows_us = ray.get(ray.remote(_knows_lgsrr).options(num_cpus=1).remote())
            nodes = sum(1 for node in ray.nodes() if node["Alive"])
            has = ray.cluster_resources()
    except Exception as error:
        yield _refused(error)
        return
    where = os.environ.get("RAY_ADDRESS") or "a local cluster"
    size = f"{nodes} node{'s' * (nodes != 1)}, {has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs"
    took = time.monotonic() - began
    yield Finding(
        level="ok", found=f"Ray {ray.__version__} on {where}: {size}; a task ran, {took:.0f} s with the start"
    )
    if not knows_us:
        do = "install lgsrr on every node, or send the code: ray job submit --working-dir . -- python -m lgsrr.train …"
        yield Finding(level="fails", found="tasks on the cluster cannot import lgsrr", do=do)


def _knows_lgsrr() -> bool:
    import importlib.util

    return importlib.util.find_spec("lgsrr") is not None


def _refused(error: Exception) -> Finding:
    """What Ray's refusal means."""
    said = " ".join(str(error).split())
    if type(error).__name__ == "AuthenticationError" or "InvalidAuthToken" in said or "Unauthenticated" in said:
        mode = os.environ.get("RAY_AUTH_MODE")
        if mode is None or mode.lower() != "token":
            do = f"export RAY_AUTH_MODE=token; where that is not enough, {_HOW_TO_GET_A_TOKEN}"
            return Finding(level="fails", found="the cluster wants a token, and RAY_AUTH_MODE is not token here", do=do)
        return Finding(level="fails", found="the cluster refuses the token (InvalidAuthToken)", do=_HOW_TO_GET_A_TOKEN)
    found = f"Ray cannot be used: {type(error).__name__}: {said[:300]}"
    if "version" in said.lower() and "mismatch" in said.lower():
        return Finding(level="fails", found=found, do="install the cluster's versions of Ray and Python here")
    return Finding(level="fails", found=found, do="look at /tmp/ray/session_latest/logs; ray status says what is up")
