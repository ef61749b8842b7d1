#!/usr/bin/env bash
# Serves MLflow to everybody who trains: in the foreground, until it is told to end.
#
#     mlflow/serve.sh                              # for this machine alone: sqlite and files under runs/server
#     mlflow/serve.sh --env-file server.env        # for a team: PostgreSQL, S3, passwords (mlflow/server.env.example)
#
# Settings come from the environment, then from the file, which is read as NAME=VALUE lines and not as a program:
#
#     LGSRR_MLFLOW_HOST, LGSRR_MLFLOW_PORT      where it listens: 127.0.0.1 and 5000
#     LGSRR_MLFLOW_STATE                        folder of what it keeps on this machine: runs/server
#     LGSRR_MLFLOW_DATABASE                     sqlite:///FILE (default: in that folder) or postgresql://USER:PASSWORD@HOST/NAME
#     LGSRR_MLFLOW_ARTIFACTS                    a folder (default: in that folder) or s3://BUCKET/PREFIX
#     LGSRR_MLFLOW_NAMES                        names by which it is called, with commas between: mlflow.example.org
#     LGSRR_MLFLOW_WORKERS                      processes that answer: 1 for sqlite, 4 for PostgreSQL
#     MLFLOW_AUTH_ADMIN_PASSWORD                switches passwords on; of the user `admin`, set at the very first start
#     MLFLOW_FLASK_SERVER_SECRET_KEY            needed with it: signs forms; the same at every start
#     LGSRR_MLFLOW_MAY                          what a user may who was granted nothing: EDIT (read and write), READ, …
#     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, MLFLOW_S3_ENDPOINT_URL      of the bucket, where no role gives access
#
# Without passwords it listens on loopback alone. No password is an argument of a process, where every user of the
# machine could read it.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

read_settings() {
    local line number=0
    [ -r "$1" ] || fail "the file $1 cannot be read; make one from mlflow/server.env.example"
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
        [[ $line =~ ^[A-Z][A-Z0-9_]*= ]] || fail "line $number of $1 is no NAME=VALUE"
        declare -p "${line%%=*}" >/dev/null 2>&1 || export "${line?}"
    done <"$1"
}

while [ $# -gt 0 ]; do
    case $1 in
        --env-file) read_settings "${2:-}" && shift 2 ;;
        *) fail "$1 is no option of serve.sh; expected --env-file FILE" ;;
    esac
done

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
[ -x "$root/.venv/bin/python" ] && python=${PYTHON:-$root/.venv/bin/python}
host=${LGSRR_MLFLOW_HOST:-127.0.0.1} port=${LGSRR_MLFLOW_PORT:-5000} names=${LGSRR_MLFLOW_NAMES:-}
state=${LGSRR_MLFLOW_STATE:-$PWD/runs/server}
mkdir -p "$state"
state=$(cd "$state" && pwd)
database=${LGSRR_MLFLOW_DATABASE:-sqlite:///$state/mlflow.db}
artifacts=${LGSRR_MLFLOW_ARTIFACTS:-$state/artifacts}
case $database in
    sqlite:///*) workers=${LGSRR_MLFLOW_WORKERS:-1} ;;
    postgresql://*) workers=${LGSRR_MLFLOW_WORKERS:-4} database=postgresql+psycopg:${database#*:} ;; # the driver we bring
    *) fail "LGSRR_MLFLOW_DATABASE begins with '${database%%:*}:'; expected sqlite:///FILE or postgresql://…" ;;
esac

auth=()
if [ -n "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]; then
    [ "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -ge 12 ] || fail "MLFLOW_AUTH_ADMIN_PASSWORD has fewer than 12 letters"
    secret=${MLFLOW_FLASK_SERVER_SECRET_KEY:-}
    [ "${#secret}" -ge 32 ] || fail "MLFLOW_FLASK_SERVER_SECRET_KEY has fewer than 32 letters; openssl rand -hex 32 makes one"
    "$python" -c 'import flask_wtf' 2>/dev/null || fail "passwords need the extra \`server\`: pip install '.[server]'"
    # MLflow wants a file for this. Users are kept in the same database, in tables of their own. To check a password takes
    # a good part of a second of CPU, so each process remembers for a minute that it was right: a changed one holds then.
    (
        umask 077
        printf '%s\n' '[mlflow]' "default_permission = ${LGSRR_MLFLOW_MAY:-EDIT}" "database_uri = ${database//%/%%}" \
            'auth_cache_ttl_seconds = 60' 'admin_username = admin' \
            'authorization_function = mlflow.server.auth:authenticate_request_basic_auth' >"$state/auth.ini"
    )
    export MLFLOW_AUTH_CONFIG_PATH=$state/auth.ini
    auth=(--app-name basic-auth)
elif [[ ! $host =~ ^(127(\.[0-9]+){3}|localhost|::1)$ ]]; then
    fail "it would listen on $host without passwords; set MLFLOW_AUTH_ADMIN_PASSWORD, or listen on 127.0.0.1"
fi

# A page elsewhere must not reach this server through somebody's browser: it answers to these names and no others, and
# takes changes from its own pages alone.
hosts='localhost,localhost:*,127.0.0.1,127.0.0.1:*' origins="http://localhost:$port"
for name in ${names//,/ }; do
    hosts+=",$name,$name:*" origins+=",https://$name,https://$name:$port,http://$name:$port"
done

export MLFLOW_BACKEND_STORE_URI=$database
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # six processes for jobs that this project does not have
export MLFLOW_DISABLE_TELEMETRY=true
# A worker that has not answered its parent within 5 s would be killed: while it still starts, on a busy machine.
patient='--timeout-worker-healthcheck 120'
cd "$state" # where MLflow would lay whatever it lays into the folder it is started in
exec "$python" -m mlflow server --host "$host" --port "$port" --workers "$workers" "${auth[@]}" \
    --uvicorn-opts "$patient" --artifacts-destination "$artifacts" --allowed-hosts "$hosts" --cors-allowed-origins "$origins"
