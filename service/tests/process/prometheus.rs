//! The files of `deploy/prometheus` and `deploy/grafana`, with a real Prometheus that scrapes a real
//! server.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::{Address, Connection};
use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::metrics::stats_address;
use crate::program::repository;

/// A Prometheus that ends with this.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Prometheus {
    /// With the configuration of the repository, that scrapes this address five times a second.
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let text = std::fs::read_to_string(repository("deploy/prometheus/prometheus.yml"))
            .expect("it is there")
            .replace("15s", "200ms")
            .replace("web:9464", &target.to_string())
            .replace(
                "alerts.yml",
                repository("deploy/prometheus/alerts.yml").to_str().unwrap_or(""),
            );
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, text).expect("the folder is ours");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|bind| bind.local_addr());
        let address = address.expect("a free port");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prometheus is installed (package prometheus)");
        Self { child, address, _folder: folder }
    }

    /// The response of its API at a path; `None` while it does not answer.
    fn ask(&self, target: &str) -> Option<Value> {
        let mut connection = Connection::open(&Address::Tcp(self.address)).ok()?;
        let response = connection.get(target).ok()?;
        serde_json::from_slice(&response.body).ok()
    }

    /// The samples that a query finds.
    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.ask(&format!("/api/v1/query?query={encoded}"))?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }
}

/// Every query of the dashboard, with Grafana's variables as Grafana sets them.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(repository("deploy/grafana/ferricorn.json"));
    let dashboard: Value = serde_json::from_str(&text.expect("it is there")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let query = |target: &Value| {
        let expression = target["expr"].as_str().expect("a target has a query");
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    };
    targets.map(query).collect()
}

#[test]
fn prometheus_takes_configuration_and_rules() {
    for arguments in [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["check", "rules", "deploy/prometheus/alerts.yml"],
    ] {
        let output = Command::new("promtool").args(arguments).current_dir(repository("")).output();
        let output = output.expect("promtool is installed (package prometheus)");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn every_query_of_the_dashboard_finds_numbers() {
    let text = "workers = 2\n[stats]\nbind = \"127.0.0.1:0\"\n";
    let server = Ferricorn::hello().config(text).start();
    let prometheus = Prometheus::start(stats_address(&server));
    eventually("Prometheus scrapes", PATIENCE, || {
        let up = prometheus.query("up{job=\"ferricorn\"}")?;
        (up.first()?["value"][1] == "1").then_some(())
    });
    let queries = queries();
    assert!(queries.len() > 15, "{queries:?}");
    for query in queries {
        eventually(&query, PATIENCE, || {
            // A rate needs two scrapes, and a first request.
            assert_eq!(server.get("/").expect("it answers").status, 200);
            prometheus.query(&query).filter(|found| !found.is_empty()).map(drop)
        });
    }
    let rules = || {
        let answer = prometheus.ask("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    };
    let rules = eventually("every rule is evaluated", PATIENCE, rules);
    assert_eq!(rules.len(), 9);
    server.stop();
}

/// The rule by which the autoscaler of `deploy/kubernetes` is given its metric.
#[test]
fn autoscalers_metric_is_found_by_the_adapters_query() {
    let read = |name| std::fs::read_to_string(repository(name)).expect("it is there");
    let adapter = read("deploy/prometheus/adapter.yaml");
    let (_, name) = adapter.split_once("as: ").expect("the rule has a name");
    let name = name.lines().next().expect("a line");
    let autoscaler = read("deploy/kubernetes/autoscaler.yaml");
    assert!(autoscaler.contains(&format!("name: {name}\n")), "{name}");
    let (_, query) = adapter.split_once("metricsQuery: >-").expect("the rule has a query");
    let query = query
        .replace("<<.Series>>", "ferricorn_queue_wait_seconds_bucket")
        .replace("<<.LabelMatchers>>", "job=\"ferricorn\"")
        .replace("<<.GroupBy>>", "instance");
    let server =
        Ferricorn::hello().config("workers = 1\n[stats]\nbind = \"127.0.0.1:0\"\n").start();
    let prometheus = Prometheus::start(stats_address(&server));
    let value = || {
        let found = prometheus.query(&query)?;
        assert!(found.len() <= 1, "one for each pod: {found:?}");
        found.first()?["value"][1].as_str()?.parse::<f64>().ok()
    };
    assert_eq!(eventually("a number without any connection", PATIENCE, value), 0.0);
    eventually("a number with connections", PATIENCE, || {
        assert_eq!(server.get("/").expect("it answers").status, 200);
        value().filter(|seconds| *seconds > 0.0)
    });
    server.stop();
}
