# shellcheck shell=bash disable=SC2016,SC2154  # shells inside expand; tests/docker sets, and calls
# The Debian package, on a Debian that knows nothing of Rust.

packaged() {
    command -v cargo-deb >/dev/null || { say 'left out: the Debian package, since there is no cargo-deb'; return; }
    say 'the Debian package, installed and started'
    local package name=$project-package
    package=$("$root/deploy/debian/build" | tail -n 1)
    # As the unit starts it, whose file has the command and its environment.
    docker run -d --name "$name" -v "$package:/ferricorn.deb:ro" -p "$port:5000" --entrypoint bash postgres:17 -euc '
        dpkg --install /ferricorn.deb
        unit=$(dpkg -L ferricorn | grep /ferricorn.service$)
        install -d -m 700 /var/lib/ferricorn/data && cd /var/lib/ferricorn
        export $(sed -n s/^Environment=//p "$unit")
        $(sed -n s/^ExecStartPre=//p "$unit")
        exec $(sed -n s/^ExecStart=//p "$unit")' >/dev/null
    eventually 30 answers 200 GET /readyz
    in_it() { docker exec "$name" bash -euc "$1"; }
    is 'POST /populate' "$(status POST /populate)" 201
    is 'its configuration file' "$(in_it "dpkg-query -W -f '\${Conffiles}' ferricorn" | awk 'NF { print $1 }')" \
        /etc/ferricorn/config.toml
    is 'files that differ' "$(in_it 'dpkg --verify ferricorn')" ''
    in_it 'man=$(dpkg -L ferricorn | grep /man1/ferricorn.1.gz$) && zcat "$man" | grep -q "^\.TH ferricorn"'
    in_it 'bash -n /usr/share/bash-completion/completions/ferricorn'
    say 'the package once more, under the server that runs: it goes on, and the upgrade is in place'
    in_it 'dpkg --install /ferricorn.deb && ferricorn upgrade'
    is 'POST /populate' "$(status POST /populate)" 201
    is rows "$(rows)" 2
    in_it 'ferricorn stop' || true
    is 'exit code' "$(docker wait "$name")" 0
    docker rm "$name" >/dev/null
}
