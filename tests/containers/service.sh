# shellcheck shell=bash disable=SC2034,SC2154,SC2164,SC2317  # tests/docker sets, reads, calls; and it stops at errors
# One service and its database: started, confined, operated, hurt, stopped.

hup() { dc kill -s HUP web; }

started() {
    say 'what the service could not read, or should not, is said before anything starts'
    refused() { # SAID
        ! dc up -d >/dev/null || fail 'it starts all the same'
        logs "$(container credentials)" | grep -F -- "$1" >/dev/null || fail "it says: $(logs "$(container credentials)")"
        is 'containers that run' "$(dc ps -q --status running | wc -l)" 0
        dc down
    }
    chmod 600 config.toml && refused 'chmod -R go+rX config.toml deploy'
    chmod 644 config.toml .env && refused 'chmod 600 .env'
    chmod 600 .env

    say 'from nothing to healthy'
    local begun
    begun=$(now_ms)
    # As the README says it; --build finds the image made already.
    dc up --build -d >>"$work/build.log"
    eventually 60 healthy "$(container web)"
    figure "from up to healthy: $(($(now_ms) - begun)) ms"
    is 'POST /populate' "$(ask POST /populate | sed -E '2s/[[:alnum:]]{10}/TENLETTERS/')" \
        $'201\n{"data":"TENLETTERS","message":"Data added successfully"}'
    is 'DELETE /delete' "$(ask DELETE /delete)" $'200\n{"message":"1 rows deleted"}'
    curl -s -H 'Accept: text/html' "http://$address/" | grep '<html' >/dev/null || fail 'the page is no page'
    for _ in 1 2 3; do is 'POST /populate' "$(status POST /populate)" 201; done
    is 'services with a published port' "$(docker ps -q --filter "publish=1-65535" \
        --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" | wc -l)" 1

    # shellcheck disable=SC2016  # it is what the program writes
    is 'what check says' "$(dc exec -T web ferricorn check | sed 's/of [0-9]* settings/of all/')" \
        '/etc/ferricorn/config.toml: ok (3 of all differ from their default: `ferricorn config --changed`)'

    say 'rows survive the containers'
    local unnamed
    unnamed=$(docker inspect -f '{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}' \
        "$(container web)" "$(container db)" "$(container credentials)" | sort -u | sed "/^$project/d" | xargs)
    is 'volumes without a name' "$unnamed" ''
    dc down
    dc up -d
    eventually 60 healthy "$(container web)"
    is rows "$(rows)" 3
}

confined() {
    say 'no privilege, no secret'
    local web db file
    web=$(container web) db=$(container db)
    # shellcheck disable=SC2016  # for the shell inside
    inside "$web" '
        for process in /proc/[0-9]*; do
            case $(cat "$process/comm") in ferricorn*) ;; *) continue ;; esac
            awk "/^(Uid|Gid|Umask|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):/" "$process/status"
        done | tr -s "\t " " " | sort | uniq -c | tr -s " "
        cat /proc/1/comm
        awk "\$5 == \"/\" { print \$6 }" /proc/1/mountinfo | cut -d, -f1
        '"$environs" >"$work/inside"
    inside "$db" "$environs" >"$work/inside.db"
    for file in inside inside.db; do
        grep -aqF PASSWORD_FILE= "$work/$file" || grep -aqF DATABASE_URL_FILE= "$work/$file" || fail "no environment in $file"
    done
    is 'what the service is in its database' "$(dc exec -T db psql -U postgres -tAc \
        "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'ferricorn'")" 'f|f|f'
    for expected in 'Uid: 65532 65532 65532 65532' 'Gid: 65532 65532 65532 65532' 'Umask: 0077' \
        'CapInh: 0000000000000000' 'CapPrm: 0000000000000000' 'CapEff: 0000000000000000' \
        'CapBnd: 0000000000000000' 'CapAmb: 0000000000000000' 'NoNewPrivs: 1' 'Seccomp: 2'; do
        is "${expected%%:*} of the processes" "$(grep -a "^ [0-9]* ${expected%%:*}:" "$work/inside" | sed 's/ [0-9]* //')" "$expected"
    done
    is 'PID 1' "$(sed -n '/^ferricorn$/p' "$work/inside")" ferricorn
    is 'the root file system' "$(sed -n '/^r[ow]$/p' "$work/inside")" ro
    is 'limits and rights of web' "$(inspect "$web" '{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.CpuQuota}} {{
        .PidsLimit}} {{.ReadonlyRootfs}} {{.CapDrop}} {{.SecurityOpt}} {{.Privileged}} {{
        .RestartPolicy.Name}} {{.Tmpfs}}{{end}} {{.Config.StopTimeout}}')" \
        '268435456 268435456 200000 256 true [ALL] [no-new-privileges:true] false unless-stopped '\
'map[/tmp:size=16m,mode=1777,noexec,nosuid,nodev] 40'
    is 'limits and rights of db' "$(inspect "$db" '{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{
        .CpuQuota}} {{.PidsLimit}} {{.ReadonlyRootfs}} {{.CapDrop}} {{.SecurityOpt}} {{.RestartPolicy.Name}}{{end}}')" \
        '536870912 536870912 200000 512 true [ALL] [no-new-privileges:true] unless-stopped'
    is 'limits and rights of credentials' "$(inspect "$(container credentials)" '{{with .HostConfig}}{{.Memory}} {{
        .MemorySwap}} {{.CpuQuota}} {{.PidsLimit}} {{.ReadonlyRootfs}} {{.CapDrop}} {{.CapAdd}} {{.SecurityOpt}} {{
        .NetworkMode}}{{end}}' | sed 's/CAP_//')" \
        '67108864 67108864 200000 32 true [ALL] [CHOWN] [no-new-privileges:true] none'
    inspect "$web" '{{json .}}' >"$work/inspect.web"
    inspect "$db" '{{json .}}' >"$work/inspect.db"
    docker history --no-trunc ferricorn-test >"$work/history"
    dc logs >"$work/logs"
    ! docker run --rm --user 65532:65532 -v "$PWD:/etc/ferricorn:ro" --entrypoint cat postgres:17 \
        /etc/ferricorn/.env >"$work/read" 2>&1 || fail 'the service can read .env'
    is 'why not' "$(cat "$work/read")" 'cat: /etc/ferricorn/.env: Permission denied'
    local encoded
    encoded=$(printf %s "$secret_core" | od -An -v -tx1 | tr -d '\n' | tr ' ' %)
    for file in inside inside.db inspect.web inspect.db history logs; do
        ! grep -aqF -e "$secret_core" -e "$encoded" "$work/$file" || fail "the secret stands in $file"
    done
    local memory
    memory=$(docker stats --no-stream --format '{{.MemUsage}}' "$web" |
        awk '{ split($1, part, /[A-Z]/); print int(part[1] * ($1 ~ /GiB/ ? 1024 : $1 ~ /MiB/ ? 1 : 1 / 1024) * 1024) }')
    workers "$web" 4 || fail 'there are not four workers'
    # The engine leaves out what the kernel has charged to another group, such as the program's own pages.
    local proportional
    # shellcheck disable=SC2016  # for the shell inside
    proportional=$(inside "$web" 'for process in $(grep -l "^ferricorn" /proc/[0-9]*/comm); do
        cat "${process%comm}smaps_rollup"
    done' | awk '$1 == "Pss:" { sum += $2 } END { print sum }')
    figure "memory of the container with 4 idle workers: $memory KiB, with the program's pages $proportional KiB"
    at_most 'memory with 4 idle workers in KiB' "$memory" $((25 * 1024))
    at_most 'memory with 4 idle workers and the program in KiB' "$proportional" $((25 * 1024))
}

operated() {
    say 'signals under load'
    local web before pid
    web=$(container web) pid=$(inspect "$web" '{{.State.Pid}} {{.State.StartedAt}}')
    begin_load writes 4 keep-alive 'POST /populate' "$address"
    begin_load reads 4 close 'GET /data?limit=5' "$address"
    cp config.toml "$work/config.toml"
    # As most editors do it: another file in its place.
    sed -i 's/^workers = .*/workers = 6/' config.toml && hup
    eventually 20 workers "$web" 6
    eventually 20 logged "$web" 'reloaded: generation 2'
    dc kill -s TTIN web && eventually 20 workers "$web" 7
    dc kill -s TTOU web && eventually 20 workers "$web" 6
    before=$(pids "$web")
    dc kill -s USR1 web
    dc kill -s WINCH web
    eventually 20 logged "$web" 'WINCH'
    is 'workers after USR1' "$(pids "$web")" "$before"
    dc kill -s USR2 web
    eventually 20 logged "$web" 'Upgraded in place'
    eventually 20 replaced "$web" "$before"
    eventually 20 workers "$web" 6
    echo 'wrokers = 3' >>config.toml && hup
    eventually 20 logged "$web" 'wrokers'
    workers "$web" 6 || fail 'a wrong file changed the workers'
    # More often than the health check may fail.
    for _ in 1 2 3 4; do
        sleep 3
        docker exec "$web" ferricorn healthcheck || fail 'a wrong file makes the service unhealthy'
        healthy "$web" || fail 'a wrong file makes the container unhealthy'
    done
    cp "$work/config.toml" config.toml
    hup
    eventually 20 workers "$web" 4
    end_load reads failed=0 unreachable=0
    end_load writes failed=0 unreachable=0
    is 'PID 1 and its start' "$(inspect "$web" '{{.State.Pid}} {{.State.StartedAt}}')" "$pid"
}

wounded() {
    say 'a worker that is killed from inside is replaced'
    local web before
    web=$(container web) before=$(pids "$web")
    # shellcheck disable=SC2016  # for the shell inside
    inside "$web" 'kill -9 $(grep -lx ferricorn-w1 /proc/[0-9]*/comm | cut -d/ -f3)'
    eventually 10 logged "$web" 'signal 9'
    eventually 10 workers "$web" 4
    is 'workers that live on' "$(comm -12 <(echo "$before") <(pids "$web") | wc -l)" 3
    is 'POST /populate' "$(status POST /populate)" 201

    say 'orphans are reaped in silence'
    local lines
    lines=$(logs "$web" | grep -vc '"GET /readyz')
    # shellcheck disable=SC2016  # for the shell inside
    inside "$web" '
        orphan=$(sleep 3 >/dev/null & echo $!)
        grep -qx "PPid:.1" "/proc/$orphan/status" || exit 1
        for try in {1..100}; do
            [ -e "/proc/$orphan" ] || exit 0
            sleep 0.1
        done
        exit 1'
    is 'lines in the log' "$(logs "$web" | grep -vc '"GET /readyz')" "$lines"
}

starved() {
    say 'a worker that the memory limit kills is replaced, and the log says why'
    local web
    web=$(container web)
    docker update --memory 48m --memory-swap 48m "$web" >/dev/null
    # Files in memory eat what is left of the container's: they belong to no process that the kernel could end.
    # shellcheck disable=SC2016  # for the shell inside
    docker run --rm --network none --pid host --cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup \
        --tmpfs /hoard --entrypoint bash postgres:17 -euc '
        if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
            group=/sys/fs/cgroup$(sed -n "s/^0:://p" "/proc/$1/cgroup") counts=memory.events
        else
            group=/sys/fs/cgroup/memory$(sed -n "s/^[0-9]*:memory://p" "/proc/$1/cgroup") counts=memory.oom_control
        fi
        echo $$ >"$group/cgroup.procs"
        while grep -qx "oom_kill 0" "$group/$counts"; do
            head -c 65536 /dev/zero >>/hoard/file || true
        done' - "$(inspect "$web" '{{.State.Pid}}')"
    lost() { logs "$web" | grep -E 'worker [0-9]+ \(pid [0-9]+\).* killed by the kernel: out of memory' >/dev/null; }
    eventually 10 lost
    eventually 10 workers "$web" 4
    docker update --memory 256m --memory-swap 256m "$web" >/dev/null
    is 'POST /populate' "$(status POST /populate)" 201
    is 'state of the container' "$(inspect "$web" '{{.State.Status}} {{.RestartCount}}')" 'running 0'
}

parted() {
    say 'the database goes and comes back'
    local web count begun waited
    web=$(container web) count=$(rows)
    dc stop db
    begun=$(now_ms)
    is 'POST /populate without a database' "$(status POST /populate)" 503
    at_most 'milliseconds to say so' $(($(now_ms) - begun)) 3000
    is 'GET /healthz without a database' "$(status GET /healthz)" 200
    is 'GET /readyz without a database' "$(status GET /readyz)" 503
    dc start db
    begun=$(now_ms)
    eventually 30 answers 201 POST /populate
    figure "from the database's start to a write: $(($(now_ms) - begun)) ms"
    is rows "$(rows)" $((count + 1))

    say 'the service waits for a database that starts later'
    dc stop web db
    waited=$(said "$web" 'waiting for the database')
    # The container that is there, as the engine does when its machine starts: `up` may make another.
    docker start "$web" >/dev/null
    eventually 20 said_more "$web" "$waited" 'waiting for the database'
    dc start db
    eventually 60 healthy "$web"
}

stopped() {
    say 'stop, idle and under load'
    local web begun ended
    web=$(container web)
    begun=$(now_ms)
    docker stop "$web" >/dev/null
    figure "docker stop, idle: $(($(now_ms) - begun)) ms"
    for connection in close keep-alive; do
        dc start web
        eventually 30 healthy "$web"
        # Its own address: the engine's proxy for localhost takes connections that no process has accepted.
        begin_load "stop-$connection" 8 "$connection" 'POST /populate' "$(ip "$web"):5000"
        begun=$(now_ms)
        dc stop web
        # What the engine has to clear away afterwards takes as long as its machine is busy.
        ended=$(date -d "$(inspect "$web" '{{.State.FinishedAt}}')" +%s%3N)
        figure "docker compose stop under load ($connection): $((ended - begun)) ms to its end, $(($(now_ms) - begun)) ms in all"
        end_load "stop-$connection" failed=0
        at_most 'milliseconds to stop' $((ended - begun)) 3000
        is 'exit code' "$(inspect "$web" '{{.State.ExitCode}}')" 0
    done
}

