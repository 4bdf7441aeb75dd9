# shellcheck shell=bash
#
# Steps of a long job: each says what it does and how long it took, and keeps its output in a log that is shown only
# when the step fails. To be sourced by a bash script; the working folder becomes the root of the project.
#
# Environment:
#   VERBOSE=1         shows the output of every step while it runs
#   CARGO_TARGET_DIR  where cargo builds; logs are in its folder `log`

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
readonly TARGET LOGS="$TARGET/log"
mkdir -p "$LOGS"

# Whoever reads the log of a failed step looks for the error, not for the crates that did compile.
[[ ${VERBOSE:-} == 1 ]] || export CARGO_TERM_QUIET=true

# duration SECONDS: prints a length of time for people.
duration() {
    if (($1 < 60)); then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# step NAME TITLE COMMAND [ARGUMENT...]: runs one step; its output goes to the log NAME.
step() {
    local name=$1 title=$2 log="$LOGS/$1.log" start=$SECONDS status
    shift 2
    fail_early
    printf '%-64s ' "$title"
    # Bash forgets `set -e` in all that stands left of `||`, so the status is asked for in the old way.
    set +e
    if [[ ${VERBOSE:-} == 1 ]]; then
        echo
        (set -e; "$@") 2>&1 | tee "$log"
    else
        (set -e; "$@") >"$log" 2>&1
    fi
    status=$?
    set -e
    if ((status)); then
        echo "FAILED after $(duration $((SECONDS - start)))"
        show_log "$name"
        exit 1
    fi
    duration $((SECONDS - start))
}

# show_log NAME: prints the end of the log of a step that failed.
show_log() {
    [[ ${VERBOSE:-} == 1 ]] || tail -n 400 "$LOGS/$1.log" | sed 's/^/    /'
    echo "The whole log is $LOGS/$1.log"
}

# --- Work in the background ----------------------------------------------------------------------------------------

# Title, process id of each job that runs or whose end was not noticed yet.
declare -A JOB_TITLE=() JOB_ID=()

# background NAME TITLE COMMAND [ARGUMENT...]: starts a job at low priority. Standard error goes to the log NAME,
# standard output to the file NAME.out beside it. A failure is noticed by the next step, or by `finish`.
background() {
    local name=$1
    JOB_TITLE[$name]=$2
    shift 2
    # A process group of its own, so that an early end takes all its children along.
    setsid nice "$@" >"$LOGS/$name.out" 2>"$LOGS/$name.log" </dev/null &
    JOB_ID[$name]=$!
}

# finish NAME: waits for a job of the background, if it still runs.
finish() {
    local name=$1 start=$SECONDS
    fail_early
    [[ -n ${JOB_ID[$name]:-} ]] || return 0
    printf '%-64s ' "${JOB_TITLE[$name]} (goes on in the background)"
    collect "$name"
    echo "waited $(duration $((SECONDS - start)))"
}

# fail_early: ends the script when a job of the background has failed.
fail_early() {
    local name
    for name in "${!JOB_ID[@]}"; do
        kill -0 "${JOB_ID[$name]}" 2>/dev/null || collect "$name"
    done
}

# collect NAME: takes the end of a job; its failure is ours.
collect() {
    local name=$1 status=0
    wait "${JOB_ID[$name]}" || status=$?
    unset "JOB_ID[$name]"
    ((status)) || return 0
    echo "FAILED in the background: ${JOB_TITLE[$name]}"
    VERBOSE=0 show_log "$name"
    exit 1
}

# Whatever ends the script ends its jobs.
stop_jobs() {
    local id
    for id in "${JOB_ID[@]}"; do
        kill -- "-$id" 2>/dev/null || true
    done
}
trap stop_jobs EXIT
