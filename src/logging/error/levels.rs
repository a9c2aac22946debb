//! Which `tracing` events and spans are severe enough: by `log.level`, and by `RUST_LOG` before it.
//!
//! # Levels
//! At `debug` everything counts but what the libraries below us log for themselves ([`QUIET`]): one
//! request makes dozens of such lines, and none of them is about ferricorn or the application. TRACE
//! counts for `RUST_LOG` alone, as gunicorn knows nothing below DEBUG; the error log calls it DEBUG.
//! `RUST_LOG` has the form `level,target=level,…`: its targets have their own levels, and a level
//! without a target stands for `log.level`.

use std::sync::{PoisonError, RwLock};

use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};

use super::fields::CRITICAL;
use crate::config::Level;

/// The variable that has directives for `tracing`, as Rust programs read it.
pub(crate) const VARIABLE: &str = "RUST_LOG";

/// Libraries whose events count from `info` on only, by the first part of their targets.
const QUIET: [&str; 14] = [
    "axum",
    "axum_core",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "tokio",
    "tokio_util",
    "tower",
];

/// The rule of this process. It is asked once about each place in the code that logs, and about each
/// record of the `log` crate.
static RULE: RwLock<Rule> = RwLock::new(Rule { level: Level::Info, directives: None });

/// Sets the rule, now and for every subscriber that is there. Malformed directives count for nothing.
pub(crate) fn set(level: Level, directives: Option<&str>) {
    *RULE.write().unwrap_or_else(PoisonError::into_inner) = Rule::new(level, directives);
    tracing::callsite::rebuild_interest_cache();
}

/// The error in directives, if they are malformed.
pub(crate) fn error_in(directives: &str) -> Option<String> {
    let parsed = directives.parse::<Targets>();
    parsed.err().filter(|_| !directives.trim().is_empty()).map(|error| error.to_string())
}

/// Returns true if an event of level ERROR from this place counts only where it is a critical one.
pub(crate) fn is_for_critical(metadata: &Metadata<'_>) -> bool {
    rule(|rule| rule.level_of(metadata.target()).is_none())
}

fn rule<T>(ask: impl FnOnce(&Rule) -> T) -> T {
    ask(&RULE.read().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug)]
struct Rule {
    level: Level,
    directives: Option<Targets>,
}

impl Rule {
    fn new(level: Level, directives: Option<&str>) -> Self {
        let directives = directives.filter(|text| !text.trim().is_empty());
        Self { level, directives: directives.and_then(|text| text.parse().ok()) }
    }

    /// The least severe level that counts without a directive for the target; `None` is CRITICAL.
    fn general(&self) -> Option<LevelFilter> {
        let level = self.directives.as_ref().and_then(Targets::default_level);
        level.or(match self.level {
            Level::Debug => Some(LevelFilter::DEBUG),
            Level::Info => Some(LevelFilter::INFO),
            Level::Warning => Some(LevelFilter::WARN),
            Level::Error => Some(LevelFilter::ERROR),
            Level::Critical => None,
        })
    }

    /// The least severe level of this target that counts; `None` is CRITICAL.
    fn level_of(&self, target: &str) -> Option<LevelFilter> {
        let directives = self.directives.iter().flat_map(Targets::iter);
        let fitting = directives.filter(|(prefix, _)| target.starts_with(prefix));
        if let Some((_, level)) = fitting.max_by_key(|(prefix, _)| prefix.len()) {
            return Some(level);
        }
        let library = target.split("::").next().unwrap_or_default();
        let is_quiet = QUIET.contains(&library);
        self.general().map(|level| if is_quiet { level.min(LevelFilter::INFO) } else { level })
    }

    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        match self.level_of(metadata.target()) {
            Some(least) => *metadata.level() <= least,
            None => {
                let is_error = *metadata.level() == tracing::Level::ERROR;
                is_error && (metadata.is_span() || metadata.fields().field(CRITICAL).is_some())
            }
        }
    }
}

/// Lets events and spans pass that are severe enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Severe;

impl<S: Subscriber> Filter<S> for Severe {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        rule(|rule| rule.admits(metadata))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // A record of the `log` crate shows its target when it comes.
        if metadata.target() == "log" {
            return Interest::sometimes();
        }
        if rule(|rule| rule.admits(metadata)) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        rule(|rule| {
            let directives = rule.directives.iter().flat_map(Targets::iter);
            let most = directives.map(|(_, level)| level).max().unwrap_or(LevelFilter::ERROR);
            Some(rule.general().unwrap_or(LevelFilter::ERROR).max(most))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(level: Level, directives: &str, target: &str) -> Option<LevelFilter> {
        Rule::new(level, Some(directives)).level_of(target)
    }

    #[test]
    fn configured_level_counts_where_no_directive_does() {
        for target in ["shop", "shop::cart", "ferricorn"] {
            assert_eq!(level(Level::Info, "", target), Some(LevelFilter::INFO));
            assert_eq!(level(Level::Critical, " ", target), None);
        }
        assert_eq!(level(Level::Debug, "", "hyper::proto"), Some(LevelFilter::INFO));
        assert_eq!(level(Level::Debug, "", "hyper_of_ours"), Some(LevelFilter::DEBUG));
        assert_eq!(level(Level::Debug, "a=b=c", "shop"), Some(LevelFilter::DEBUG));
    }

    #[test]
    fn longest_directive_counts_before_the_configured_level() {
        let directives = "warn,shop=trace,shop::cart=off,hyper=debug";
        for (target, expected) in [
            ("other", LevelFilter::WARN),
            ("shop::till", LevelFilter::TRACE),
            ("shop::cart::add", LevelFilter::OFF),
            ("hyper::proto", LevelFilter::DEBUG),
            ("tokio", LevelFilter::WARN),
        ] {
            assert_eq!(level(Level::Critical, directives, target), Some(expected), "{target}");
        }
        assert_eq!(level(Level::Critical, "shop=info", "other"), None);
    }

    #[test]
    fn malformed_directives_are_told_and_empty_ones_are_none() {
        assert!(error_in("shop=loud").is_some());
        assert_eq!((error_in(""), error_in(" "), error_in("info,shop=debug")), (None, None, None));
    }
}
