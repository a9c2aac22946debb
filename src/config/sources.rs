//! Where the layers come from, kept so that a reload can read them again. The one file of the
//! configuration that asks the system anything.
//!
//! The environment and the command line are those of the start; the files are read anew. Relative
//! paths of files that the configuration itself reads are relative to the folder of the start, also
//! after `chdir`. That folder is kept by its name, not by its inode.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::bind::Bind;
use super::environment::{CHECK_VARIABLE, STATE_VARIABLE, Variable};
use super::problem::reason;
use super::setting::Setting;

/// A larger file is not a configuration.
pub(super) const FILE_MAX_BYTES: u64 = 1 << 20;

/// gunicorn's options in the environment: they win over all other variables, and the command line wins
/// over them.
pub(crate) const ARGUMENTS_VARIABLE: &str = "GUNICORN_CMD_ARGS";

/// The name of the flag that is the command `run`.
pub(crate) const RUN: &str = "run --";

/// Where the layers come from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) file: FileSource,
    /// The options that were given, those that win last.
    pub(crate) flags: Vec<Flag>,
    /// True if those of [`ARGUMENTS_VARIABLE`] are among them.
    pub(crate) arguments_read: bool,
    /// The environment, sorted by name.
    pub(crate) environment: Vec<Variable>,
    /// The folder that the process was started in.
    pub(crate) folder: PathBuf,
    /// The application's settings, once they are known.
    pub(crate) app: Option<&'static [Setting]>,
    /// The names that the application has for listeners, once they are known.
    pub(crate) listeners: Option<&'static [&'static str]>,
    /// The addresses that each name stands for, once resolved. The resolver may take its time, and is
    /// not asked for the same again while a server waits for it.
    pub(crate) binds: Vec<(String, Vec<Bind>)>,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileSource {
    /// There is none.
    None,
    /// It is this text.
    Text(String),
    /// It is read if it exists.
    Optional(PathBuf),
    /// It must exist.
    Required(PathBuf),
}

/// An option that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// The setting that it is for.
    pub(crate) key: &'static str,
    /// The option as `--help` writes it, with its dashes.
    pub(crate) name: String,
    /// The variable that holds it; `None`: the command line.
    pub(crate) variable: Option<&'static str>,
    /// Its values, in their order.
    pub(crate) texts: Vec<String>,
}

impl Sources {
    /// Defaults alone.
    pub(super) fn none() -> Self {
        Self {
            file: FileSource::None,
            flags: Vec::new(),
            arguments_read: false,
            environment: Vec::new(),
            folder: PathBuf::new(),
            app: None,
            listeners: None,
            binds: Vec::new(),
        }
    }

    /// The environment of this process, and a file.
    pub(crate) fn process(file: FileSource) -> Self {
        let mut environment: Vec<Variable> = std::env::vars_os()
            .map(|(name, text)| Variable {
                name: name.to_string_lossy().into_owned(),
                text: text.into_string().ok(),
                line: None,
            })
            .collect();
        environment.sort_by(|one, other| one.name.cmp(&other.name));
        // A folder that was removed leaves relative paths as they are, and reading them says why.
        let folder = logical_folder().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        Self { file, environment, folder, ..Self::none() }
    }

    /// A variable of the environment that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let variable = self.environment.iter().find(|variable| variable.name == name)?;
        variable.text.clone().filter(|text| !text.is_empty())
    }

    /// Returns true if this image takes over from another one: it is the master by now, which waits for no
    /// resolver. The reload that follows asks.
    pub(super) fn takes_over(&self) -> bool {
        let is_set = |name| self.variable(name).is_some();
        is_set(STATE_VARIABLE) && !is_set(CHECK_VARIABLE)
    }

    /// The configuration file's text and what errors call it; the error is a line of its own.
    pub(super) fn read_file(&self) -> Result<Option<(String, String)>, String> {
        let (path, required) = match &self.file {
            FileSource::None => return Ok(None),
            FileSource::Text(text) => return Ok(Some((text.clone(), "config.toml".to_owned()))),
            FileSource::Optional(path) => (path, false),
            FileSource::Required(path) => (path, true),
        };
        let full = self.folder.join(path);
        // Only what is not there is optional: what is there and cannot be read is an error.
        if !required && !full.exists() {
            return Ok(None);
        }
        match self.read_text(path, FILE_MAX_BYTES) {
            Ok(text) => Ok(Some((text, path.display().to_string()))),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Reads a text file that must not be larger than so many bytes. A pipe may make a server wait that
    /// reads its configuration again, and has nothing to say the second time.
    pub(super) fn read_text(&self, path: &Path, max_bytes: u64) -> Result<String, String> {
        let path = self.folder.join(path);
        let other = std::fs::metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        if other && path != Path::new("/dev/null") {
            return Err(
                "failed to read: it is no regular file, and is read more than once".to_owned()
            );
        }
        read_text(&path, max_bytes)
    }

    /// The file as the next reload must find it: one that was there must not be gone.
    pub(super) fn insist(&mut self) {
        if let FileSource::Optional(path) = &self.file
            && self.folder.join(path).exists()
        {
            self.file = FileSource::Required(path.clone());
        }
    }
}

/// Not derived: the environment and the options hold secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The folder of this process as the shell that entered it calls it (POSIX, `PWD`): where that is a
/// link to a release, a reload finds the release that it leads to by then. `None` where the variable
/// names another folder, or none.
fn logical_folder() -> Option<PathBuf> {
    let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute())?;
    let [there, here] = [named.as_path(), Path::new(".")].map(|path| std::fs::metadata(path).ok());
    let id = |folder: std::fs::Metadata| (folder.dev(), folder.ino());
    (there.map(id)? == here.map(id)?).then_some(named)
}

fn read_text(path: &Path, max_bytes: u64) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("failed to read: {}", reason(&error));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| max_bytes < length) {
        return Err(format!("failed to read: it has more than {max_bytes} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        format!("failed to read: line {line} is not UTF-8")
    })
}
