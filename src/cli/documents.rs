//! Documents that are made from the command line: completions, the manual page and the version.

use clap::ArgMatches;
use clap_complete::Shell;
use clap_mangen::Man;

use super::command::{Own, shown};

/// The document that a command prints; `None` where the command prints none.
pub(super) fn text(own: Own, name: &str, matches: &ArgMatches) -> Option<String> {
    match name {
        "completions" => {
            let shell = *matches.get_one::<Shell>("SHELL").expect("clap requires it");
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut shown(own), own.program.name, &mut script);
            Some(String::from_utf8_lossy(&script).into_owned())
        }
        "man" => {
            let mut page = Vec::new();
            let man = Man::new(shown(own).flatten_help(true));
            man.render(&mut page).expect("a vector takes every byte");
            Some(String::from_utf8_lossy(&page).into_owned())
        }
        "version" => Some(shown(own).render_version()),
        _ => None,
    }
}
