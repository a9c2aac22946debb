//! The time that a container engine or a service manager allows for a stop, as far as a file says it: those
//! beside the configuration, and the unit that this process runs in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;

/// Longer files are something else.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Where systemd looks for units, the strongest first (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// A sentence for each file that allows less than `announce` and `graceful_timeout` together.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let needed = config.announce.saturating_add(config.graceful_timeout);
    let sentence = |path: PathBuf| {
        let is_short = std::fs::metadata(&path).is_ok_and(|found| found.len() <= FILE_MAX_BYTES);
        let text = is_short.then(|| std::fs::read_to_string(&path).ok()).flatten()?;
        let Allowed { by, time } = allowed(&path, &text)?;
        (time < needed).then(|| {
            format!(
                "{}: {by} allows {} s for a stop, and announce + graceful_timeout are {} s: what is in hand \
                 then is lost",
                path.display(),
                time.as_secs_f64(),
                needed.as_secs_f64()
            )
        })
    };
    files(config).into_iter().filter_map(sentence).collect()
}

/// The files that may say it, in their order.
fn files(config: &Config) -> Vec<PathBuf> {
    let file = config.file_place().map(|place| place.path);
    let folder = file.as_deref().and_then(Path::parent);
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(unit) = own_unit(&groups) {
        let places = UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(unit));
        files.extend(places.into_iter().find(|path| path.exists()));
    }
    files
}

/// The unit of the service with these control groups.
fn own_unit(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.rsplit('/').find(|name| name.ends_with(".service")))
}

/// The time that a file allows, and the name of what says so.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Allowed {
    by: &'static str,
    time: Duration,
}

fn allowed(path: &Path, text: &str) -> Option<Allowed> {
    match path.extension()?.to_str()? {
        "service" => {
            let by = "TimeoutStopSec";
            let value =
                text.lines().rev().find_map(|line| line.trim().strip_prefix("TimeoutStopSec="));
            Some(Allowed { by, time: value.map_or(Some(Duration::from_secs(90)), time)? })
        }
        "yml" | "yaml" if text.contains("terminationGracePeriodSeconds:") => {
            let by = "terminationGracePeriodSeconds";
            let mut lines = text.lines().map(str::trim);
            let value =
                lines.find_map(|line| line.strip_prefix("terminationGracePeriodSeconds:"))?;
            // Of a Pod that runs something else nothing is asked.
            text.contains("image: ferricorn").then_some(())?;
            Some(Allowed { by, time: time(value)? })
        }
        "yml" | "yaml" => {
            let by = "stop_grace_period";
            let service = service(text)?;
            let mut lines = service.iter().map(|line| line.trim());
            let value = lines.find_map(|line| line.strip_prefix("stop_grace_period:"));
            Some(Allowed { by, time: value.map_or(Some(Duration::from_secs(10)), time)? })
        }
        _ => None,
    }
}

/// The lines of the service of a compose file that runs ferricorn, or what is built there.
fn service(text: &str) -> Option<Vec<&str>> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines = text.lines().skip_while(|line| !line.starts_with("services:")).skip(1);
    let lines = lines.filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let lines: Vec<&str> = lines.take_while(|line| line.starts_with(' ')).collect();
    let depth = indent(lines.first()?);
    let mut services: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        match services.last_mut() {
            Some(service) if indent(line) > depth => service.push(line),
            Some(_) | None => services.push(Vec::new()),
        }
    }
    let is_ours = |line: &&str| {
        let line = line.trim();
        line.starts_with("build:") || line.starts_with("image:") && line.contains("ferricorn")
    };
    services.into_iter().find(|service| service.iter().any(is_ours))
}

/// A time as these files have it: seconds, or with units.
fn time(text: &str) -> Option<Duration> {
    let text = text.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let with_units = || text.parse::<jiff::SignedDuration>().ok()?.try_into().ok();
    seconds.or_else(with_units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, text: &str) -> Option<(&'static str, f64)> {
        allowed(Path::new(name), text).map(|found| (found.by, found.time.as_secs_f64()))
    }

    #[test]
    fn each_file_says_how_long_a_stop_may_take() {
        let unit = |value: &str| told("a.service", &format!("[Service]\n{value}\n"));
        assert_eq!(unit("TimeoutStopSec=40"), Some(("TimeoutStopSec", 40.0)));
        assert_eq!(unit("TimeoutStopSec=1min 30s"), Some(("TimeoutStopSec", 90.0)));
        assert_eq!(unit("TimeoutStopSec=infinity"), None);
        assert_eq!(unit(""), Some(("TimeoutStopSec", 90.0)));
        let compose = "services:\n  db:\n    image: postgres\n    stop_grace_period: 60s\n  web:\n    \
                       image: ${IMAGE:-ferricorn}\n    # or so\n    stop_grace_period: 1m5s # long\n\
                       networks:\n";
        assert_eq!(told("compose.yaml", compose), Some(("stop_grace_period", 65.0)));
        let silent = "services:\n  web:\n    build: .\n";
        assert_eq!(told("docker-compose.yml", silent), Some(("stop_grace_period", 10.0)));
        assert_eq!(told("compose.yml", "services:\n  db:\n    image: postgres\n"), None);
        let pod =
            "spec:\n  terminationGracePeriodSeconds: 45\n  containers:\n    - image: ferricorn:1\n";
        assert_eq!(told("pod.yaml", pod), Some(("terminationGracePeriodSeconds", 45.0)));
        assert_eq!(told("config.toml", "TimeoutStopSec=1"), None);
    }

    #[test]
    fn own_unit_is_that_of_the_control_group() {
        assert_eq!(own_unit("0::/system.slice/web.service\n"), Some("web.service"));
        assert_eq!(own_unit("0::/system.slice/web.service/inner\n"), Some("web.service"));
        assert_eq!(own_unit("0::/init.scope\n"), None);
    }

    /// The shipped files fit the shipped configurations.
    #[test]
    fn shipped_files_allow_enough() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = [
            ("docker-compose.yml", "config.toml"),
            ("deploy/stack.yml", "config.toml"),
            ("deploy/systemd/ferricorn.service", "config.toml"),
            ("deploy/kubernetes/deployment.yaml", "deploy/kubernetes/config.toml"),
        ];
        for (file, config) in files {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let allowed = allowed(Path::new(file), &text).unwrap();
            let text = std::fs::read_to_string(root.join(config)).unwrap();
            let value = |key: &str, otherwise: u64| {
                let prefix = format!("{key} =");
                let value = text.lines().find_map(|line| time(line.strip_prefix(&prefix)?));
                value.unwrap_or(Duration::from_secs(otherwise))
            };
            let needed = value("announce", 0) + value("graceful_timeout", 30);
            assert!(allowed.time > needed, "{file}: {allowed:?} for {needed:?}");
        }
    }
}
