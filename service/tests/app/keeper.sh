# Keeps one database server: obeys a word a line, and answers each with "done". At the end of its
# input, which is the end of the test run however it ends, it stops the server and removes the
# folder.
#
# usage: keeper.sh FOLDER STOP_SIGNAL COMMAND...
folder=$1 signal=$2
shift 2
pid=

# PostgreSQL's backends are sessions of their own: no process group holds them all.
family() { echo "$pid" $(cat "/proc/$pid/task/$pid/children"); }

# A process stops when one of its threads comes to it; until then the others answer.
stands() {
    for it in $(family); do
        ! grep -qs '^State:[[:space:]]*[^[:space:]TZX]' "/proc/$it/task/"*/status || return 1
    done
}

stop() {
    [ -n "$pid" ] || return
    kill -CONT $(family)
    kill "-$signal" "$pid"
    wait "$pid"
    pid=
}

while read -r order; do
    case $order in
        start) "$@" >>"$folder/log" 2>&1 & pid=$! ;;
        stop) stop ;;
        pause)
            kill -STOP $(family)
            until stands; do sleep 0.01; done
            ;;
        resume) kill -CONT $(family) ;;
    esac
    echo done
done 2>>"$folder/log"
stop 2>/dev/null
rm -rf "$folder"
