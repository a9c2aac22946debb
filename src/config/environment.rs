//! The layers of the environment: the process's own, and that of the `env_file` under it.

use std::path::Path;

use super::problem::{Origin, Problems};
use super::resolve::SettingValue;
use super::setting::Setting;
use super::sources::{ARGUMENTS_VARIABLE, Sources};
use super::table::Table;

/// The beginning of every variable of ferricorn's.
pub(super) const PREFIX: &str = "FERRICORN_";
/// Variables that ferricorn hands to itself across an upgrade; no other source may set them.
const INTERNAL_PREFIX: &str = "FERRICORN_INTERNAL_";
/// Names the descriptor with the state, for an image that takes over, or that could.
pub(crate) const STATE_VARIABLE: &str = "FERRICORN_INTERNAL_STATE";
/// Asks an image whether it could take over state of this version.
pub(crate) const CHECK_VARIABLE: &str = "FERRICORN_INTERNAL_CHECK";
/// Names the configuration file.
pub(crate) const CONFIG_VARIABLE: &str = "FERRICORN_CONFIG";
/// The warning of a variable in the `env_file` that nothing reads there.
const TOO_LATE: &str = "it is read before the env_file; set it outside of it";
/// A secret is a line; more is a wrong file.
const SECRET_MAX_BYTES: u64 = 64 * 1024;

/// A variable that is set, from wherever.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// `None` when it is not UTF-8.
    pub(crate) text: Option<String>,
    /// The line of the `env_file` that sets it.
    pub(crate) line: Option<(String, usize)>,
}

impl Variable {
    fn origin(&self) -> Origin {
        let variable = self.name.clone();
        match &self.line {
            Some((file, line)) => Origin::EnvFile { file: file.clone(), line: *line, variable },
            None => Origin::Environment { variable },
        }
    }
}

/// Reads every setting that a variable gives.
pub(super) fn read(
    variables: &[Variable],
    sources: &Sources,
    table: &Table,
    problems: &mut Problems,
) -> Vec<SettingValue> {
    let mut layer = Layer { variables, sources, problems, entries: Vec::new() };
    for setting in table.settings() {
        layer.setting(setting);
    }
    let entries = layer.entries;
    for variable in variables {
        judge_name(variable, table, problems);
    }
    entries
}

struct Layer<'a> {
    variables: &'a [Variable],
    sources: &'a Sources,
    problems: &'a mut Problems,
    entries: Vec<SettingValue>,
}

impl Layer<'_> {
    /// The last one that is set; an empty variable counts as unset, since that is all that compose
    /// files and CI systems can say.
    fn find(&self, name: &str) -> Option<&Variable> {
        let mut named = self.variables.iter().rev().filter(|variable| variable.name == name);
        named.next().filter(|variable| variable.text.as_deref() != Some(""))
    }

    /// The less particular name first: the one that is ours wins.
    fn setting(&mut self, setting: &'static Setting) {
        let own = self.find(&setting.variable()).cloned();
        let foreign = setting.env.and_then(|env| Some((self.find(env.name)?.clone(), env.shape)));
        let file = setting.file_env.and_then(|name| self.find(name)).cloned();
        if let Some(file) = &file {
            let other = own.as_ref().or(foreign.as_ref().map(|(variable, _)| variable));
            if let Some(other) = other {
                let error = format!("{} is set, too; unset one of the two", other.name);
                self.problems.add_for(&file.origin().place(), setting, error);
                return;
            }
            self.secret(setting, file);
        }
        if let Some((variable, shape)) = foreign {
            self.variable(setting, &variable, shape);
        }
        if let Some(variable) = own {
            self.variable(setting, &variable, "{}");
        }
    }

    fn variable(&mut self, setting: &'static Setting, variable: &Variable, shape: &str) {
        let origin = variable.origin();
        let value = match &variable.text {
            Some(text) => setting.read_text(&shape.replace("{}", text)),
            None => Err("expected UTF-8, found other bytes".to_owned()),
        };
        self.put(setting, value, origin);
    }

    fn secret(&mut self, setting: &'static Setting, variable: &Variable) {
        let Some(file) = variable.text.clone() else {
            let value = Err("expected UTF-8, found other bytes".to_owned());
            return self.put(setting, value, variable.origin());
        };
        let value = match self.sources.read_text(Path::new(&file), SECRET_MAX_BYTES) {
            Ok(text) if text.trim().is_empty() => Err("expected a value, found nothing".to_owned()),
            Ok(text) => setting.read_text(text.trim()),
            Err(error) => Err(error),
        };
        self.put(setting, value, Origin::SecretFile { file, variable: variable.name.clone() });
    }

    fn put(
        &mut self,
        setting: &'static Setting,
        value: Result<super::value::Value, String>,
        origin: Origin,
    ) {
        match value {
            Ok(value) => self.entries.push(SettingValue { setting, value, origin }),
            Err(error) => self.problems.add_for(&origin.place(), setting, error),
        }
    }
}

/// Refuses a `FERRICORN_` variable that is unknown, or that comes too late.
fn judge_name(variable: &Variable, table: &Table, problems: &mut Problems) {
    let name = variable.name.as_str();
    if name == ARGUMENTS_VARIABLE && variable.line.is_some() {
        return problems.add(&variable.origin().place(), TOO_LATE);
    }
    if !name.starts_with(PREFIX) || name.starts_with(INTERNAL_PREFIX) {
        return;
    }
    if is_kubernetes(variable) {
        return;
    }
    let place = variable.origin().place();
    let late = name == CONFIG_VARIABLE || name == "FERRICORN_ENV_FILE";
    if late && variable.line.is_some() {
        return problems.add(&place, TOO_LATE);
    }
    let known = name == CONFIG_VARIABLE
        || table.settings().iter().any(|setting| {
            setting.variable() == name
                || setting.file_env == Some(name)
                || setting.env.is_some_and(|foreign| foreign.name == name)
        });
    if !known && table.is_complete() {
        problems.add(&place, table.unknown_variable(name));
    }
}

/// Returns true if Kubernetes has set it: a pod that stands beside a Service called `ferricorn` or
/// `ferricorn-web` finds `FERRICORN_SERVICE_HOST`, `FERRICORN_PORT_80_TCP_ADDR` and the like in its
/// environment, unasked (Kubernetes, "Service: environment variables").
fn is_kubernetes(variable: &Variable) -> bool {
    let name = variable.name.as_str();
    let has_protocol =
        |text: &str| ["_TCP", "_UDP", "_SCTP"].iter().any(|part| text.contains(part));
    let address = variable.text.as_deref().is_some_and(|text| text.contains("://"));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && address)
        || name.split_once("_PORT_").is_some_and(|(_, rest)| has_protocol(rest))
}
