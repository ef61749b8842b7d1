#!/usr/bin/env bash
# A cluster on one machine: a head and workers, each a process of its own, behind a token.
#
#     cluster/local.sh start [WORKERS] [CPUS_OF_EACH]     default: 2 workers that share this machine's CPUs
#     eval "$(cluster/local.sh env)"                      where it is and its token, for submit.sh and `ray job submit`
#     cluster/local.sh stop
#
# It stands under $LGSRR_LOCAL (default: runs/local, in the folder where it is called): token, logs, and who was started.
# What `stop` ends are these processes and no others; `ray stop` would end every Ray of this machine. All ports are free
# ones on loopback; agents look for theirs themselves, because one that is given a port which somebody takes meanwhile
# stays up without a word and no job reaches its node. The first worker has the machine's GPUs. Ray's files lie in a
# short folder under /tmp, for the sockets' sake, and go with the cluster.
set -euo pipefail

here=${LGSRR_LOCAL:-$PWD/runs/local}
python=${PYTHON:-python}
[ -x .venv/bin/python ] && python=${PYTHON:-$PWD/.venv/bin/python}
python=$(command -v "$python") # jobs say `python` and mean this one: it comes first in the nodes' PATH
ray=("$python" -m ray.scripts.scripts)
wait_s=${LGSRR_LOCAL_WAIT:-180}

fail() {
    echo "error: $*" >&2
    exit 1
}

started_at() { ps -o lstart= -p "$1" 2>/dev/null || true; } # numbers are given out again; with its start, one is unique

free_ports() {
    "$python" - "$1" <<'END'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
END
}

# node NAME FLAGS…: starts one, in a process group of its own, and waits until it says that it is up. Ray gives a raylet
# 30 s to come up and then gives up, which on a busy machine it may do twice.
node() {
    local name=$1
    shift
    for _ in 1 2 3; do
        launch "$name" "$@"
        if comes_up "$name"; then return; fi
    done
    tail -n 20 "$here/$name.log" >&2
    stop >&2
    fail "$name did not come up; all that it said is in $here/$name.log"
}

launch() {
    local name=$1
    shift
    set -m
    PATH=$(dirname "$python"):$PATH RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$here/token RAY_USAGE_STATS_ENABLED=0 \
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 "${ray[@]}" start --block --disable-usage-stats \
        --node-ip-address 127.0.0.1 --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0 \
        --object-store-memory "${OBJECT_STORE_BYTES:-1000000000}" "$@" >"$here/$name.log" 2>&1 </dev/null &
    launched=$!
    set +m
    echo "$launched $(started_at "$launched")" >>"$here/nodes"
}

comes_up() {
    local tenths
    for ((tenths = 0; tenths < wait_s * 10; tenths++)); do
        grep -q 'Ray runtime started' "$here/$1.log" && return
        kill -0 "$launched" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

start() {
    local workers=${1:-2} cpus=${2:-} ports n
    [[ $workers =~ ^[1-9][0-9]*$ ]] || fail "WORKERS is '$workers'; expected 1 or more"
    [ -n "$cpus" ] || cpus=$("$python" -c "import os; print(max(1, os.cpu_count() // $workers))")
    [[ $cpus =~ ^[1-9][0-9]*$ ]] || fail "CPUS_OF_EACH is '$cpus'; expected 1 or more"
    "$python" -c 'import ray' || fail "$python has no ray; run make setup, or name another by PYTHON=…"
    [ ! -e "$here/nodes" ] || fail "a cluster of $here is running, or was not stopped; first: cluster/local.sh stop"
    (umask 077 && mkdir -p "$here" && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$here/token")
    trap 'stop; exit 130' INT TERM
    mktemp -d /tmp/lgsrr.XXXX >"$here/files"

    # shellcheck disable=SC2207
    ports=($(free_ports 2))
    echo "http://127.0.0.1:${ports[1]}" >"$here/address"
    node head --head --port "${ports[0]}" --dashboard-port "${ports[1]}" --dashboard-host 127.0.0.1 \
        --include-dashboard true --temp-dir "$(<"$here/files")" --num-cpus 0 --num-gpus 0 \
        --resources '{"driver": 2}'
    for ((n = 1; n <= workers; n++)); do
        local flags=()
        ((n == 1)) || flags=(--num-gpus 0)
        # Files of its own: nodes that share them unpack a job's code anew under the feet of the job.
        node "worker-$n" --address "127.0.0.1:${ports[0]}" --num-cpus "$cpus" --temp-dir "$(<"$here/files")/$n" "${flags[@]}"
    done
    trap - INT TERM
    echo "a head and $workers workers with $cpus CPUs each are up; dashboard: $(<"$here/address")"
    echo "to use it here:   eval \"\$(cluster/local.sh env)\""
}

stop() {
    [ -e "$here/nodes" ] || fail "nothing was started by this script in $here"
    local pids=() pid at tenths
    while read -r pid at; do
        [ "$(started_at "$pid")" = "$at" ] && pids+=("$pid")
    done <"$here/nodes"
    for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    for ((tenths = 0; tenths < 100; tenths++)); do
        at=""
        for pid in "${pids[@]}"; do kill -0 -- "-$pid" 2>/dev/null && at=1; done
        [ -n "$at" ] || break
        sleep 0.1
    done
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
    rm -rf "$(<"$here/files")" "$here"/{nodes,address,token,files}
    echo "stopped ${#pids[@]} nodes"
}

env() {
    [ -e "$here/address" ] || fail "no cluster runs in $here; first: cluster/local.sh start"
    printf 'export RAY_API_SERVER_ADDRESS=%q RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=%q\n' \
        "$(<"$here/address")" "$here/token"
}

case ${1:-} in
    start) shift && start "$@" ;;
    stop) stop ;;
    env) env ;;
    *) fail "expected start, stop or env; see the head of cluster/local.sh" ;;
esac
