//! A configuration whose files are read and whose host names are not looked up yet: a resolver may take
//! its time, which a server that reads its files again does not have.

use super::Error;
use super::bind::{self, Bind};
use super::problem::Problems;
use super::resolve::{self, Resolved};
use super::sources::Sources;
use super::{Config, typed};

/// Names with a port, as they are written, and what the resolver says of each.
pub(crate) type Answers = Vec<(String, Result<Vec<Bind>, String>)>;

/// The settings of all layers.
#[derive(Debug)]
pub(crate) struct Draft {
    resolved: Resolved,
    pub(super) sources: Sources,
    problems: Problems,
}

impl Draft {
    /// Reads all layers.
    pub(super) fn read(mut sources: Sources) -> Self {
        let mut problems = Problems::default();
        let resolved = resolve::resolve(&sources, &mut problems);
        sources.insist();
        Self { resolved, sources, problems }
    }

    /// The names that are to be looked up.
    pub(crate) fn names(&self) -> Vec<&str> {
        let texts = ["bind", "tls.bind"].into_iter().flat_map(|key| self.resolved.list(key));
        let is_known = |text: &str| self.sources.binds.iter().any(|(known, _)| known == text);
        let mut names: Vec<&str> = Vec::new();
        for text in texts.map(String::as_str).filter(|text| bind::is_named(text)) {
            if !is_known(text) && !names.contains(&text) {
                names.push(text);
            }
        }
        names
    }

    /// Asks the resolver.
    pub(crate) fn look_up(&self) -> Answers {
        self.names().into_iter().map(|name| (name.to_owned(), bind::parse(name))).collect()
    }

    /// Answers without any address: the names are looked up with the next [`Draft`].
    pub(super) fn without_addresses(&self) -> Answers {
        self.names().into_iter().map(|name| (name.to_owned(), Ok(Vec::new()))).collect()
    }

    /// Returns the configuration, with these answers to its [`Draft::names`], and everything that is wrong
    /// with it.
    pub(super) fn with_problems(&self, answers: &Answers) -> (Config, Problems) {
        typed::config(&self.resolved, &self.sources, answers, self.problems.clone())
    }

    /// The configuration, with these answers to its [`Draft::names`]; the fields that were changed in the one
    /// before stay as they are there.
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong, one line each.
    pub(crate) fn finish(
        &self,
        before: Option<&Config>,
        answers: &Answers,
    ) -> Result<Config, Error> {
        let (mut fresh, problems) = self.with_problems(answers);
        problems.into_result().map_err(Error::Config)?;
        before.inspect(|before| fresh.carry(before));
        Ok(fresh)
    }
}
