"""Servers under measurement, and the load that they are put under."""
import collections, os, re, signal, socket, ssl, subprocess, time

import databases

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASE = os.path.join(ROOT, "target", "release")
# What `bench/profiled` builds.
PROFILED = os.path.join(ROOT, "target", "profiled", "release")
WORKERS = 4
CLIENTS = 64

Sample = collections.namedtuple("Sample", "rate p99_ms cpu_us")


class Failed(Exception):
    """A measurement that is none, and why."""


class Server:
    """A program in a process group of its own, which is ended with all its children."""

    def __init__(self, command, port, folder, env=None, is_tls=False):
        self.url, self.port = f"{'https' if is_tls else 'http'}://127.0.0.1:{port}", port
        self.context = None
        if is_tls:
            self.context = ssl.create_default_context()
            # Its certificate is made for this run.
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.log = open(os.path.join(folder, "log"), "ab")
        # Nothing of this shell's: WEB_CONCURRENCY, for one, would change the number of workers.
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **(env or {})}
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, cwd=folder,
                                        env=environment, start_new_session=True)
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        self.ready_ms = (time.monotonic() - self.begun) * 1000

    def wait_ready(self):
        while True:
            try:
                with self.connect() as it:
                    it.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    if it.recv(16).startswith(b"HTTP/1.1"):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() - self.begun > 30:
                said = open(self.log.name, errors="replace").read().strip()[-300:]
                raise Failed(f"{os.path.basename(self.process.args[0])} did not start: {said}")
            time.sleep(0.001)

    def connect(self):
        it = socket.create_connection(("127.0.0.1", self.port), 1)
        return self.context.wrap_socket(it) if self.context else it

    def pids(self, name=""):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(pid)) == self.process.pid:
                    if open(f"/proc/{pid}/comm").read().startswith(name):
                        yield pid
            except OSError:
                pass

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
            except OSError:
                pass
        return total / 1e9

    def private_kib(self, name):
        """Memory of the processes with this name that no other process has."""
        total = 0
        for pid in self.pids(name):
            text = open(f"/proc/{pid}/smaps_rollup").read()
            total += sum(int(it) for it in re.findall(r"^Private_\w+:\s+(\d+)", text, re.M))
        return total

    def load(self, seconds, path="/", options=()):
        """Asks for so long; every request must be answered, and with 2xx or 3xx."""
        # It counts as a timeout what takes longer than 2 s otherwise: slow is no failure.
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "60s", "--latency", *options]
        before = self.cpu_seconds()
        done = subprocess.run([*command, self.url + path], capture_output=True, text=True)
        cpu = self.cpu_seconds() - before
        text = done.stdout
        count, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text)
        if done.returncode != 0 or not (count and rate and p99) or count[1] == "0":
            raise Failed(f"wrk: {(text + done.stderr).strip()[-300:]}")
        bad = re.findall(r"(Socket errors: .*|Non-2xx or 3xx responses: \d+)", text)
        if bad:
            raise Failed(f"{'; '.join(bad)}, of {count[1]} requests")
        unit = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[p99[2]]
        return Sample(float(rate[1]), float(p99[1]) * unit, cpu / int(count[1]) * 1e6)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()
