# shellcheck shell=bash disable=SC2034,SC2154,SC2164,SC2317  # tests/docker sets, reads, calls; and it stops at errors
# What the parts are written with.

compose=(docker compose)
dc() { "${compose[@]}" "$@" 2>>"$work/compose.log"; }
say() { echo "-- $*"; }
figure() { figures+=("$*"); say "$*"; }
now_ms() { date +%s%3N; }

fail() {
    trap - ERR
    echo "tests/docker: $*" >&2
    dc logs --no-color --tail 200 web 2>/dev/null | grep -v '" [0-9]* [0-9]* "' | tail -n 40 >&2 || true
    tail -n 5 "$work/compose.log" >&2 || true
    # In a substitution `exit` would end no more than that.
    [ "$BASHPID" = $$ ] || kill $$
    exit 1
}

# is WHAT FOUND EXPECTED
is() { [ "$2" = "$3" ] || fail "$1: expected $3, found $2"; }

# at_most WHAT FOUND LIMIT
at_most() { [ "$2" -le "$3" ] || fail "$1: expected $3 at most, found $2"; }

# within SECONDS COMMAND...: whether it succeeds in that time
within() {
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(now_ms)" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# eventually SECONDS COMMAND...: until it succeeds
eventually() { within "$@" || fail "not in time: ${*:2}"; }

# The container of a service.
container() { dc ps -aq "$1" | head -n 1; }
inspect() { docker inspect -f "$2" "$1"; }
healthy() { [ "$(inspect "$1" '{{.State.Health.Status}}')" = healthy ]; }
logs() { docker logs "$1" 2>&1; }
# The whole log is read: with grep -q, its writer would die of a broken pipe now and then.
logged() { logs "$1" | grep -F -- "$2" >/dev/null; }
# How often the log of a container says it; said_more CONTAINER COUNT TEXT: whether more often than that
said() { logs "$1" | grep -cF -- "$2" || true; }
said_more() { [ "$(said "$1" "$3")" -gt "$2" ]; }
# The address of a container on the network that is published.
ip() { inspect "$1" "{{(index .NetworkSettings.Networks \"${project}_outside\").IPAddress}}"; }
# This machine as the containers of a network see it. Not localhost: there the engine's own proxy takes
# connections for a container that is leaving. And not the engine's `bridge`, which may not say it.
host() { docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' "$1"; }

# ask METHOD PATH: the status, then the body on a line of its own
ask() { curl -s -m 10 -w '\n%{http_code}\n' -X "$1" "http://$address$2" | tac; }
status() { ask "$@" | sed -n 1p; }
answers() { [ "$(status "$2" "$3")" = "$1" ]; }
rows() { curl -s -m 10 "http://$address/data" | sed -E 's/.*"total":([0-9]+).*/\1/'; }

# The process ids of the workers of a container, as this machine numbers them.
pids() { docker top "$1" -eo pid,comm | awk '$2 ~ /^ferricorn-w[0-9]+$/ { print $1 }' | sort; }
workers() { [ "$(pids "$1" | wc -l)" = "$2" ]; }
# None of these processes is left.
replaced() { [ -z "$(comm -12 <(echo "$2") <(pids "$1"))" ]; }

# Every process's environment, as a script for the inside. One that ends meanwhile has none: a moment
# later it is gone, or a zombie.
# shellcheck disable=SC2016  # for the shell inside
environs='
    for process in /proc/[0-9]*; do
        cat "$process/environ" 2>/dev/null || { sleep 0.2; ! grep -qs "^State:.[^ZX]" "$process/status"; } || exit 1
    done'

# inside CONTAINER SCRIPT: bash among the processes of a container, allowed to look into them
inside() {
    docker run --rm --cap-add SYS_PTRACE --network none --pid "container:$1" --entrypoint bash postgres:17 -c "$2"
}

# begin_load NAME ARGUMENT...: runs until end_load
# begin_load_in NETWORK NAME ARGUMENT...: the same, from a container on that network
declare -A load_input load_pid
begin_load() { run_load "$1" "$work/load" - "${@:2}"; }
begin_load_in() {
    run_load "$2" docker run -i --rm --network "$1" -v "$work/load:/load:ro" --entrypoint /load postgres:17 - "${@:3}"
}
run_load() {
    local name=$1
    rm -f "$work/$name.input"
    mkfifo "$work/$name.input"
    sleep infinity >"$work/$name.input" &
    load_input[$name]=$!
    "${@:2}" <"$work/$name.input" >"$work/$name.out" 2>&1 &
    load_pid[$name]=$!
    sleep 0.5
}

# end_load NAME EXPECTED...: how many of each kind; what is not named may be
end_load() {
    local name=$1 line
    shift
    kill -0 "${load_pid[$name]}" || fail "the load ended early: $(cat "$work/$name.out")"
    kill "${load_input[$name]}"
    wait "${load_pid[$name]}" || true
    line=$(tail -n 1 "$work/$name.out")
    [[ $line =~ answered=[1-9] ]] || fail "the load of $name: $(cat "$work/$name.out")"
    for expected in "$@"; do
        [[ " $line " == *" $expected "* ]] || fail "the load of $name: $(cat "$work/$name.out")"
    done
    say "$name: $line"
}
