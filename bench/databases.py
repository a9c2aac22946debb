"""Database servers for a measurement, thrown away at its end: a cluster in a temporary folder, a port of
its own, an unprivileged user, from the distribution's own programs. They are as durable as they are by
default: a row that is committed is on the disk."""
import glob, os, re, shutil, signal, socket, subprocess, tempfile, time

NOBODY = "65534"
# What a server may take to start.
PATIENCE_S = 60


def free_port():
    """Below the ports that the kernel gives to clients, so that none of them takes it meanwhile."""
    first_ephemeral = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
    for port in range(first_ephemeral - 1, 1024, -1):
        with socket.socket() as it:
            try:
                it.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def unprivileged(command):
    """Root must not run a database server; any other user runs it as itself."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", *command]


def run(command):
    done = subprocess.run(unprivileged(command), capture_output=True, text=True, cwd="/",
                          env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {(done.stdout + done.stderr).strip()[-500:]}")


class Database:
    """What the two have in common. `program` is None where the server is not installed."""

    def __init__(self):
        self.version = self.say_version() if self.program else None

    def say_version(self):
        text = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout
        return f"{self.name} {re.search(r'[0-9]+[0-9.]*', text.split('Ver', 1)[-1])[0]}"

    def __enter__(self):
        self.folder, self.port = tempfile.mkdtemp(prefix="ferricorn-bench-"), free_port()
        os.chmod(self.folder, 0o755)
        if os.geteuid() == 0:
            os.chown(self.folder, int(NOBODY), int(NOBODY))
        self.process = None
        try:
            command = self.prepare()
            self.log = open(os.path.join(self.folder, "log"), "ab")
            self.process = subprocess.Popen(unprivileged(command), cwd="/", stdout=self.log, stderr=self.log,
                                            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                                            start_new_session=True)
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_ready(self):
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{self.name} did not start: {open(self.log.name).read()[-500:]}")
            time.sleep(0.05)

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(self.quit)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                # It waits for a client of its own that does not leave.
                self.process.kill()
                self.process.wait()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)


class Postgres(Database):
    name, package, quit = "PostgreSQL", "postgresql", signal.SIGQUIT

    def __init__(self):
        by_version = lambda path: [int(it) for it in re.findall(r"\d+", path)]
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=by_version)
        self.programs = found[-1] if found else os.path.dirname(shutil.which("postgres") or "")
        self.program = os.path.join(self.programs, "postgres") if self.programs else None
        super().__init__()

    def prepare(self):
        run([os.path.join(self.programs, "initdb"), "-U", "bench", "--auth=trust", "--encoding=UTF8",
             "--locale=C", "-D", self.path("data")])
        self.url = f"postgres://bench@127.0.0.1:{self.port}/postgres"
        return [self.program, "-D", self.path("data"), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                "-c", "unix_socket_directories=", "-c", "max_connections=200"]

    def answers(self):
        ready = [os.path.join(self.programs, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready).returncode == 0

    def insert_rate(self, clients, seconds):
        """Rows a second that pgbench stores, a row a transaction: what the cluster can take."""
        table, insert = self.path("table.sql"), self.path("insert.sql")
        with open(table, "w") as it:
            it.write("CREATE TABLE IF NOT EXISTS pgbench_records (id bigint GENERATED ALWAYS AS IDENTITY "
                     "PRIMARY KEY, data text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());\n")
        with open(insert, "w") as it:
            it.write("INSERT INTO pgbench_records (data) VALUES ('Qt69DssuZp');\n")
        program = [os.path.join(self.programs, "pgbench"), "-n", "-M", "prepared"]
        subprocess.run([*program, "-c1", "-t1", "-f", table, self.url], capture_output=True, check=True)
        done = subprocess.run([*program, f"-c{clients}", "-j1", "-T", str(seconds), "-f", insert, self.url],
                              capture_output=True, text=True)
        failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
        rate = re.search(r"tps = ([\d.]+)", done.stdout)
        if done.returncode != 0 or not rate or (failed and int(failed[1])):
            raise OSError(f"pgbench: {(done.stdout + done.stderr).strip()[-300:]}")
        return float(rate[1])


class Mariadb(Database):
    name, package, quit = "MariaDB", "mariadb-server", signal.SIGKILL

    def __init__(self):
        places = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", shutil.which("mariadbd") or ""]
        self.program = next((it for it in places if os.path.exists(it)), None)
        super().__init__()

    def prepare(self):
        run(["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
             "--skip-test-db", f"--datadir={self.path('data')}", f"--tmpdir={self.folder}"])
        with open(self.path("users.sql"), "w") as it:
            it.write("CREATE USER bench@'%' IDENTIFIED BY 'bench';\nCREATE DATABASE bench;\n"
                     "GRANT ALL ON bench.* TO bench@'%';\n")
        self.url = f"mysql://bench:bench@127.0.0.1:{self.port}/bench"
        return [self.program, "--no-defaults", f"--datadir={self.path('data')}", f"--tmpdir={self.folder}",
                f"--socket={self.path('socket')}", f"--pid-file={self.path('pid')}",
                f"--init-file={self.path('users.sql')}", f"--port={self.port}", "--bind-address=127.0.0.1",
                "--max-connections=200"]

    def answers(self):
        # It greets each client, once it serves.
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as it:
                return len(it.recv(1)) == 1
        except OSError:
            return False


class Pooler(Database):
    """PgBouncer in transaction mode in front of a PostgreSQL server that runs, with no setting for its clients."""
    name, package, quit = "PgBouncer", "pgbouncer", signal.SIGQUIT
    program = next((it for it in ("/usr/sbin/pgbouncer", shutil.which("pgbouncer") or "") if os.path.exists(it)), None)

    def __init__(self, server):
        self.server = server
        super().__init__()

    def prepare(self):
        with open(self.path("pgbouncer.ini"), "w") as it:
            it.write(f"[databases]\npostgres = host=127.0.0.1 port={self.server.port} user=bench\n"
                     f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
                     "auth_type = any\npool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 500\n")
        self.url = f"postgres://bench@127.0.0.1:{self.port}/postgres"
        return [self.program, self.path("pgbouncer.ini")]

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False
