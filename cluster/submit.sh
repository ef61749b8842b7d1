#!/usr/bin/env bash
# Sends a command of this project to a Ray cluster, and shows what it prints until it ends.
#
#     cluster/submit.sh [--gpu-nodes N] [--cpu-nodes N] [--no-wait] -- COMMAND…
#
#     cluster/submit.sh --gpu-nodes 4 -- python pipelines/extract.py --dataset mintrec2 --data /shared/released \
#         --videos s3://BUCKET/clips --out s3://BUCKET/extracted --runs /shared/runs \
#         --engines 4 --gpus-per-engine 1 --decoders 20 --rpm 500 --tpm 200000 --budget-usd 20
#     cluster/submit.sh --gpu-nodes 2 -- python -m lgsrr.train --dataset mintrec2 --data s3://BUCKET/extracted \
#         --encoder bert-large-uncased --workers 2 --gpu True --cpus-per-worker 4 \
#         --runs /shared/runs --storage s3://BUCKET/checkpoints
#     cluster/submit.sh --gpu-nodes 4 -- python tune/search.py --dataset mintrec2 --data s3://BUCKET/extracted \
#         --encoder bert-large-uncased --trials 24 --seeds 5 --epochs 20 --runs /shared/runs \
#         --storage s3://BUCKET/checkpoints
#
# Where: $RAY_API_SERVER_ADDRESS, by default http://127.0.0.1:8265, which `ray dashboard cluster/aws.yaml` or `kubectl
# port-forward` leads to the head. Ray's token: $RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
#
# --gpu-nodes, --cpu-nodes: wait until so many nodes with a GPU, or with a CPU and no GPU asked for, are there. A command
# of this project plans by the nodes that it finds, and groups that scale to zero have none before somebody asks.
#
# The command itself runs on the head, which no spot market takes away: the head has `driver`, a resource of its own
# (2: as many commands at once). Sent along is the code alone; keys, data and results in this folder stay here. Passed on
# are $MLFLOW_TRACKING_URI and $LGSRR_CACHE; keys never are: they are in the nodes' environment or in a --key-file there.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
[ -x "$root/.venv/bin/python" ] && python=${PYTHON:-$root/.venv/bin/python}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
ray=("$python" -m ray.scripts.scripts)

gpu_nodes=0 cpu_nodes=0 wait=()
while [ $# -gt 0 ]; do
    case $1 in
        --gpu-nodes) gpu_nodes=${2:-} && shift 2 ;;
        --cpu-nodes) cpu_nodes=${2:-} && shift 2 ;;
        --no-wait) wait=(--no-wait) && shift ;;
        --) shift && break ;;
        *) fail "$1 is no option of submit.sh; expected --gpu-nodes, --cpu-nodes, --no-wait, then -- and the command" ;;
    esac
done
[ $# -gt 0 ] || fail "no command; expected: cluster/submit.sh [options] -- python pipelines/extract.py …"
for n in "$gpu_nodes" "$cpu_nodes"; do
    [[ $n =~ ^[0-9]+$ ]] || fail "a number of nodes is '$n'; expected 0 or more"
done

# A job's command line is kept by Ray and shown to whoever sees its dashboard.
for word in "$@" "${MLFLOW_TRACKING_URI:-}"; do
    if [[ $word =~ sk-[A-Za-z0-9_-]{16} || $word =~ ://[^/@]*:[^/@]+@ ]]; then
        fail "the command or \$MLFLOW_TRACKING_URI holds what looks like a key or a password; it would be stored in the" \
            "job's record. Put it into the nodes' environment, or into a file there and name it by --key-file"
    fi
done
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    fail "no token of the cluster: set RAY_AUTH_TOKEN_PATH to a file that holds it. On this machine's own cluster:" \
        "eval \"\$(cluster/local.sh env)\"; on Kubernetes: see cluster/README.md"
fi

code=$(mktemp -d)
trap 'rm -rf "$code"' EXIT
cp -R "$root"/{lgsrr,pipelines,tune,pyproject.toml} "$code"

environment=$("$python" -c '
import json, os
names = ("MLFLOW_TRACKING_URI", "LGSRR_CACHE")
print(json.dumps({"env_vars": {n: os.environ[n] for n in names if os.environ.get(n)}, "excludes": ["__pycache__"]}))')
head='{"driver": 1}'

# One bundle for each node, on nodes of their own; when it is there, it is given back, and the node stays for the
# autoscaler's idle time, in which the command begins.
if [ $((gpu_nodes + cpu_nodes)) -gt 0 ]; then
    echo "waiting for $gpu_nodes GPU nodes and $cpu_nodes CPU nodes"
    "${ray[@]}" job submit --entrypoint-resources "$head" -- python -c '
import ray, sys
ray.init(logging_level="ERROR")
bundles = [{"GPU": 1}] * int(sys.argv[1]) + [{"CPU": 1}] * int(sys.argv[2])
ray.get(ray.util.placement_group(bundles, strategy="STRICT_SPREAD").ready())
print("they are there")' "$gpu_nodes" "$cpu_nodes"
fi

"${ray[@]}" job submit "${wait[@]}" --working-dir "$code" --runtime-env-json "$environment" \
    --entrypoint-resources "$head" -- "$@"
