# shellcheck shell=bash disable=SC2034,SC2154,SC2164,SC2317  # tests/docker sets, reads, calls; and it stops at errors
# What an operator does about users, the password and backups, by the commands of docs/containers.md.

# login NAME PASSWORD: a token, or nothing
login() {
    curl -s -m 10 --json "{\"name\":\"$1\",\"password\":\"$2\"}" "http://$address/login" |
        sed -n 's/^{"token":"\(.*\)"}$/\1/p'
}
signed_in() { [ -n "$(login "$@")" ]; }
# write TOKEN: the status of a write with it
write() { curl -s -m 10 -o /dev/null -w '%{http_code}' -X POST -H "Authorization: Bearer $1" "http://$address/populate"; }

guarded() {
    say 'a first user from .env, another by the command'
    local web password=Xk47-first-password another=Vw93-other-password token file
    cp .env "$work/env"
    printf 'FERRICORN_ACCESS_USERS=data/users\nACCESS_FIRST_USER=alice:%s\n' "$password" >>.env
    dc up -d
    web=$(container web)
    eventually 60 healthy "$web"
    logged "$web" 'data/users is made, with the user alice' || fail 'the first user is not announced'
    is 'a write without a token' "$(status POST /populate)" 401
    is 'reading without a token' "$(status GET /data)" 200
    token=$(login alice "$password")
    is 'a write with a token' "$(write "$token")" 201
    echo "$another" | dc exec -T web ferricorn user add bob | grep -F 'bob is in ' >/dev/null ||
        fail 'bob is not added'
    hup
    eventually 20 signed_in bob "$another"
    is 'a write with the token of before' "$(write "$token")" 201
    inspect "$web" '{{json .}}' >"$work/inspect.web"
    inside "$web" "$environs" >"$work/inside"
    logs "$web" >"$work/logs"
    for file in inspect.web inside logs; do
        for text in "$password" "$another" "$token"; do
            ! grep -aqF -e "$text" "$work/$file" || fail "a secret stands in $file"
        done
    done
    dc down
    dc up -d
    eventually 60 healthy "$(container web)"
    signed_in bob "$another" || fail 'bob is gone with the container'
    is 'a write with the token of before' "$(write "$token")" 201
    cp "$work/env" .env
    dc up -d
    eventually 60 healthy "$(container web)"
    eventually 10 answers 201 POST /populate
}

kept() {
    say 'a backup, and the rows from it'
    local count new=another-Password_2
    count=$(rows)
    dc exec -T db pg_dump -U postgres -Fc ferricorn >"$work/rows.dump"
    is 'DELETE /delete' "$(status DELETE /delete)" 200
    is rows "$(rows)" 0
    dc stop web
    dc exec -T db pg_restore -U postgres -d ferricorn --clean --if-exists --single-transaction <"$work/rows.dump"
    dc start web
    eventually 60 healthy "$(container web)"
    is 'rows of the backup' "$(rows)" "$count"
    is 'a write to them' "$(status POST /populate)" 201

    say 'another password of the database'
    cp .env "$work/env"
    sed -i "s/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=$new/" .env
    begin_load passwords 2 keep-alive 'POST /populate' "$address"
    dc up credentials >>"$work/build.log"
    dc exec -T db psql -qU postgres -c "ALTER ROLE ferricorn PASSWORD '$new'"
    hup
    eventually 20 logged "$(container web)" 'reloaded: generation 2'
    end_load passwords failed=0 unreachable=0
    dc down
    dc up -d
    eventually 60 healthy "$(container web)"
    is 'a write with the new password' "$(status POST /populate)" 201
    cp "$work/env" .env
    dc up credentials >>"$work/build.log"
    dc exec -T db psql -qU postgres -v "password=$secret" <<<"ALTER ROLE ferricorn PASSWORD :'password'"
    hup
    eventually 20 logged "$(container web)" 'reloaded: generation 2'
}
