//! Requests that leave no access line: the items of `log.skip`.

use std::ops::RangeInclusive;

use super::from_value::from_value;

/// The statuses of a rule that names none: 2xx and 3xx.
const FINE: RangeInclusive<u16> = 200..=399;

/// Requests that leave no access line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    paths: Paths,
    statuses: RangeInclusive<u16>,
}

/// The paths of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Paths {
    All,
    One(String),
    /// Those with this beginning.
    Beginning(String),
}

from_value! {
    Vec<Skip>, Self::new(), |value| value.items()?.iter().map(|text| Skip::parse(text).ok()).collect();
}

impl Skip {
    /// The rule in a text: a path, or the beginning of paths before a `*` at its end; a status, or a class
    /// of them like `2xx`; or both, with a space between them.
    ///
    /// # Errors
    /// A sentence that says what was expected, and found.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a path like \"/healthz\" or \"/static/*\", a status like \"304\" or \
                 \"2xx\", or both like \"/healthz 200\", found {text:?}"
            )
        };
        match text.split_once(' ') {
            Some((path, status)) => {
                let paths = paths(path).ok_or_else(wrong)?;
                Ok(Self { paths, statuses: statuses(status).ok_or_else(wrong)? })
            }
            None => match (paths(text), statuses(text)) {
                (Some(paths), _) => Ok(Self { paths, statuses: FINE }),
                (None, Some(statuses)) => Ok(Self { paths: Paths::All, statuses }),
                (None, None) => Err(wrong()),
            },
        }
    }

    /// Returns true if a request with this path, where that is known, and this status leaves no line.
    pub(crate) fn covers(&self, path: Option<&str>, status: u16) -> bool {
        self.statuses.contains(&status)
            && match &self.paths {
                Paths::All => true,
                Paths::One(one) => path == Some(one),
                Paths::Beginning(beginning) => path.is_some_and(|path| path.starts_with(beginning)),
            }
    }
}

fn paths(text: &str) -> Option<Paths> {
    let beginning = text.strip_suffix('*');
    let plain = beginning.unwrap_or(text);
    let is_path = plain.starts_with('/') && !plain.contains(['*', '?', '#', ' ']);
    let kind = if beginning.is_some() { Paths::Beginning } else { Paths::One };
    is_path.then(|| kind(plain.to_owned()))
}

fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (class, rest) = text.split_at_checked(1)?;
    let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
    if rest.eq_ignore_ascii_case("xx") {
        return Some(class * 100..=class * 100 + 99);
    }
    let is_number = rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let status = class * 100 + rest.parse::<u16>().ok().filter(|_| is_number)?;
    Some(status..=status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_covers_its_paths_and_statuses() {
        for (rule, path, status, is_covered) in [
            ("/healthz", Some("/healthz"), 200, true),
            ("/healthz", Some("/healthz"), 304, true),
            ("/healthz", Some("/healthz"), 404, false),
            ("/healthz", Some("/healthz/"), 200, false),
            ("/static/*", Some("/static/a.js"), 206, true),
            ("/static/*", Some("/static"), 200, false),
            ("/*", None, 200, false),
            ("/healthz 503", Some("/healthz"), 503, true),
            ("/healthz 503", Some("/healthz"), 200, false),
            ("/static/* 4xx", Some("/static/b"), 499, true),
            ("/static/* 4XX", Some("/static/b"), 500, false),
            ("304", Some("/"), 304, true),
            ("304", None, 304, true),
            ("304", Some("/"), 303, false),
            ("2xx", Some("*"), 299, true),
            ("5xx", Some("/"), 499, false),
        ] {
            let parsed = Skip::parse(rule).expect("it is a rule");
            assert_eq!(parsed.covers(path, status), is_covered, "{rule}: {path:?} {status}");
        }
    }

    #[test]
    fn text_that_is_no_rule_is_refused() {
        for text in [
            "",
            " ",
            "healthz",
            "*",
            "/a?b",
            "/a*b",
            "/a#b",
            "20",
            "2000",
            "+04",
            "2+4",
            "600",
            "099",
            "0xx",
            "6xx",
            "xx",
            "2x",
            "200 /a",
            "/a 200 ",
            "/a  200",
            "/a b",
            "/a 200 201",
            "é00",
        ] {
            let error = Skip::parse(text).expect_err(text);
            assert!(error.ends_with(&format!("found {text:?}")), "{error}");
        }
    }
}
