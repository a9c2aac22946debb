"""The part `tls` of `compare`: reads over TLS, kept, a connection a request, and over HTTP/2.

Connections are made by `openssl s_time`, several at once, with TLS 1.2, where a client may resume a session as often
as it likes; the share that was resumed is counted. Granian (pip install granian) is left out of those: each of its
workers knows its own sessions alone. Streams are made by h2load (apt install nghttp2-client).
"""
import os, re, shutil, subprocess, time

from servers import RELEASE, ROOT, WORKERS, Failed, Sample

PLAIN, OURS, GRANIAN = "plain axum on axum-server, rustls, no log", "ferricorn", "granian"
PEER = os.path.join(ROOT, "bench", "plain_tls")
BUILT = os.path.join(ROOT, "target", "plain_tls")
# Clients of `s_time`, each of which has one connection at a time.
SHAKERS = 4


def build():
    """Builds the yardstick."""
    manifest = os.path.join(PEER, "Cargo.toml")
    subprocess.run(["cargo", "build", "--release", "--manifest-path", manifest, "--target-dir", BUILT], check=True)


def make_pair(folder):
    """A certificate and its key."""
    pair = [os.path.join(folder, name) for name in ("server.crt", "server.key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "90", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-out", pair[0], "-keyout", pair[1]], check=True, capture_output=True)
    return pair


def commands(pair):
    """The servers by name: functions of a port and a folder."""
    certificate, key = pair

    def ours(port, folder):
        with open(os.path.join(folder, "config.toml"), "w") as it:
            it.write(f'workers = {WORKERS}\nbind = "127.0.0.1:{port}"\n'
                     f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
        return [os.path.join(RELEASE, "examples", "plain_served"), "-c", "config.toml"]

    def plain(port, _folder):
        return [os.path.join(BUILT, "release", "plain_tls"), f"127.0.0.1:{port}", certificate, key]

    def nginx(port, folder):
        temporary = " ".join(f"{it}_temp_path {folder}/{it};" for it in
                             ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(os.path.join(folder, "nginx.conf"), "w") as it:
            it.write(f"worker_processes {WORKERS}; pid {folder}/pid; error_log {folder}/error;\n"
                     "events { worker_connections 4096; }\n"
                     f"http {{ access_log {folder}/access; keepalive_requests 1000000000; {temporary}\n"
                     f"ssl_certificate {certificate}; ssl_certificate_key {key};\n"
                     f"server {{ listen 127.0.0.1:{port} ssl http2 reuseport;\n"
                     'location / { default_type text/plain; return 200 "hello from nginx\\n"; } } }\n')
        return ["nginx", "-c", os.path.join(folder, "nginx.conf"), "-g", "daemon off;"]

    def granian(port, folder):
        with open(os.path.join(folder, "hello.py"), "w") as it:
            it.write("async def app(scope, protocol):\n"
                     "    protocol.response_str(200, [('content-type', 'text/plain')], 'hello from granian\\n')\n")
        return ["granian", "--host", "127.0.0.1", "--port", str(port), "--workers", str(WORKERS), "--interface", "rsgi",
                "--http", "auto", "--ssl-protocol-min", "tls1.2", "--ssl-certificate", certificate,
                "--ssl-keyfile", key, "hello:app"]

    servers = {PLAIN: plain}
    if shutil.which("nginx"):
        servers["nginx"] = nginx
    if shutil.which("granian"):
        servers[GRANIAN] = granian
    return {**servers, OURS: ours}


def shake(server, seconds, kind):
    """Connections that are made anew, each for one request; `kind`: new or reuse."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{server.port}", "-www", "/", "-time", str(seconds),
               "-tls1_2", f"-{kind}"]
    before, begun = server.cpu_seconds(), time.monotonic()
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for _ in range(SHAKERS)]
    texts = [client.communicate()[0] for client in clients]
    cpu, took = server.cpu_seconds() - before, time.monotonic() - begun
    count = 0
    for client, text in zip(clients, texts):
        # A mark for each connection: "r" where a session was resumed.
        found, marks = re.search(r"(\d+) connections in \d+ real seconds", text), re.findall(r"^[r*]+$", text, re.M)
        if client.returncode != 0 or not found or found[1] == "0":
            raise Failed(f"s_time: {text.strip()[-300:]}")
        resumed = "".join(marks).count("r")
        if kind == "reuse" and resumed < 0.99 * int(found[1]):
            raise Failed(f"{resumed} of {found[1]} sessions were resumed")
        count += int(found[1])
    return Sample(count / took, None, cpu / count * 1e6)


def streams(server, seconds):
    """16 connections with 10 streams each."""
    before = server.cpu_seconds()
    done = subprocess.run(["h2load", "-t1", "-c16", "-m10", "-D", str(seconds), server.url + "/"],
                          capture_output=True, text=True)
    cpu = server.cpu_seconds() - before
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
    if done.returncode != 0 or not (rate and counts) or "protocol: h2" not in done.stdout:
        raise Failed(f"h2load: {(done.stdout + done.stderr).strip()[-300:]}")
    succeeded, *bad = map(int, counts.groups())
    if any(bad) or not succeeded:
        raise Failed(f"h2load: {counts[0]}")
    return Sample(float(rate[1]), None, cpu / succeeded * 1e6)
