//! Subcommands of an application.

use super::BoxError;
use crate::config::Config;

/// A subcommand of an application.
#[derive(Clone, Copy, Debug)]
pub struct Subcommand {
    pub(crate) words: &'static [&'static str],
    pub(crate) arguments: &'static [&'static str],
    pub(crate) about: &'static str,
    pub(crate) run: RunSubcommand,
}

/// The function of a [`Subcommand`], with the configuration and its arguments. It returns the text that is
/// printed; an error is printed, and ends with exit code 1.
pub type RunSubcommand = fn(&Config, &[String]) -> Result<String, BoxError>;

impl Subcommand {
    /// A subcommand of one word or two (`["user", "add"]`), the names of its arguments, which are all
    /// required, and a sentence for the help.
    ///
    /// # Panics
    /// When it has no word, or more than two.
    #[must_use]
    pub const fn new(
        words: &'static [&'static str],
        arguments: &'static [&'static str],
        about: &'static str,
        run: RunSubcommand,
    ) -> Self {
        assert!(matches!(words.len(), 1 | 2), "a subcommand has one word or two");
        Self { words, arguments, about, run }
    }
}
