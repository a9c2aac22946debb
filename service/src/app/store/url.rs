//! Database URLs: the mistakes that would let a part of a password be taken for something else,
//! and what other programs mean by the same URL.

use std::path::Path;

/// Refuses an `@` behind the host. A `/`, `?` or `#` in a password ends the part of the URL that it
/// belongs to: its rest would be taken for a database's name, and be shown as one. Without `//` all
/// of it would, and tabs and newlines would be passed over where these signs are looked for.
///
/// # Errors
/// The remedy, as the end of a sentence.
pub(super) fn refuse_misleading(url: &str) -> Result<(), String> {
    if url.contains(char::is_control) {
        return Err("there is a control character in it, a tab or a newline, say".into());
    }
    let after_scheme = url.split_once(':').map_or("", |(_, rest)| rest);
    let Some(rest) = after_scheme.strip_prefix("//") else {
        return Err("its scheme is not followed by ://".into());
    };
    match rest.find(['/', '?', '#']) {
        Some(end) if rest[end..].contains('@') => {
            Err("there is an @ behind its host; write / as %2F, ? as %3F, # as %23 and @ as %40 \
                in a password"
                .into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses an SQLite file in the root folder, which a fourth slash still names: `sqlite:///app.db` is
/// `app.db` in the working folder for SQLAlchemy, whose URLs many have.
///
/// # Errors
/// The remedy, as the end of a sentence.
pub(super) fn refuse_file_in_root(path: &Path) -> Result<(), String> {
    let Some(name) = path.to_str().and_then(|path| path.strip_prefix('/')) else {
        return Ok(());
    };
    if name.contains('/') {
        return Ok(());
    }
    Err(format!(
        "it names /{name}, a file in the root folder; write sqlite://{name} for the working folder \
         (as SQLAlchemy means three slashes), or sqlite:////{name} for the root folder"
    ))
}

/// Returns the fault of a URL that sqlx cannot read: it quotes no more than an option's value.
pub(super) fn fault(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// The URL without the options that sqlx does not know, since it would log them with their values.
///
/// # Errors
/// When one is about TLS: who asks for it must not go without.
pub(super) fn without_unknown_options(url: &str, known: &[&str]) -> Result<String, String> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok(url.to_owned());
    };
    let mut kept = Vec::new();
    for option in query.split('&') {
        let key = option.split('=').next().unwrap_or_default();
        if known.contains(&key) || key.starts_with("options[") {
            kept.push(option);
        } else if key.starts_with("ssl") || key.starts_with("tls") {
            return Err(format!("its option {key} is not known; known are {}", known.join(" ")));
        }
    }
    Ok(if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Target;
    use super::*;

    /// The secret parts, which must never be seen, and are in no name that a URL may show.
    const SECRET: &str = "Tr0ub4dor";

    /// A URL with a password, as people write it or nearly: with whatever stands for itself nowhere
    /// but in a password, and with slips beside it.
    fn with_a_password() -> impl Strategy<Value = String> {
        let schemes = ["postgres", "postgresql", "mysql", "mariadb", "postgresql+psycopg2"];
        let scheme = prop::sample::select(schemes.to_vec());
        let few = prop::sample::select(&[":", ":/", ":///", "//"][..]);
        let slashes = prop_oneof![4 => Just("://"), 1 => few];
        let odd = || prop_oneof!["[a-z0-9]{0,3}", "[!-~]{0,3}", "[ -~\\t\\né€]{0,4}"];
        let host = prop_oneof![3 => "[a-z]{1,4}(:[0-9]{1,6})?", 1 => odd()];
        let rest = prop_oneof![
            3 => "/[a-z]{1,4}(\\?[a-z]{1,3}=[a-z]{0,3})?",
            1 => odd().prop_map(|odd| format!("/d?sslmode={odd}&password={SECRET}&{odd}")),
            1 => odd(),
        ];
        (scheme, slashes, "[a-z]{0,3}", (odd(), odd()), host, rest).prop_map(
            |(scheme, slashes, user, (before, behind), host, rest)| {
                format!("{scheme}{slashes}{user}:{before}{SECRET}{behind}@{host}{rest}")
            },
        )
    }

    proptest! {
        #[test]
        fn no_password_is_seen_of_any_url(url in with_a_password()) {
            let seen = match Target::parse(&url) {
                Ok(target) => format!("{target} {target:?}"),
                Err(error) => error,
            };
            prop_assert!(!seen.is_empty() && !seen.contains(SECRET), "{url}: {seen}");
        }

        #[test]
        fn any_text_is_a_database_or_an_error(
            scheme in prop_oneof!["(sqlite|postgres|mysql)(:|://)", ".{0,8}"],
            rest in prop_oneof!["[a-z:/?#@&=%.\\[\\]0-9]{0,24}", ".{0,24}"],
        ) {
            let url = format!("{scheme}{rest}");
            if let Err(error) = Target::parse(&url) {
                prop_assert!(error.len() > 8, "{url}: {error:?}");
            }
        }
    }

    #[test]
    fn a_password_with_a_slash_is_refused_before_its_rest_is_shown() {
        for url in ["postgres://u:a/b@h/d", "mysql://u:1?b@h/d", "postgres://u:1#b@h/d"] {
            let error = refuse_misleading(url).unwrap_err();
            assert!(error.starts_with("there is an @ behind its host"), "{error}");
        }
        for url in ["postgres://u:a%2Fb@h/d", "mysql://u:p@h", "postgres://u:p@x@h/d?a=b"] {
            assert_eq!(refuse_misleading(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn a_url_of_sqlalchemy_is_taken_as_it_means_it() {
        for (url, expected) in [
            ("postgresql+psycopg2://u:p@h/d", "postgres://h:5432/d"),
            ("postgresql+asyncpg://u:p@h:6432/d", "postgres://h:6432/d"),
            ("mysql+pymysql://u:p@h/d?charset=utf8mb4", "mysql://h:3306/d"),
            ("mariadb+mariadbconnector://u:p@h/d", "mysql://h:3306/d"),
            ("sqlite+pysqlite:////var/lib/app.db", "sqlite:////var/lib/app.db"),
            ("sqlite:////app.db", "sqlite:////app.db"),
            ("sqlite:///var/app.db", "sqlite:///var/app.db"),
        ] {
            assert_eq!(Target::parse(url).unwrap().to_string(), expected, "{url}");
        }
        let error = Target::parse("sqlite:///app.db").unwrap_err();
        assert!(error.contains("write sqlite://app.db for the working folder"), "{error}");
        let error = Target::parse("oracle+cx://u:p@h/d").unwrap_err();
        assert!(error.starts_with("its scheme is none of "), "{error}");
    }

    #[test]
    fn what_would_be_taken_for_a_name_as_a_whole_is_refused() {
        for url in ["postgres:/u:p@h/d", "postgres:u:p@h/d", "mysql::u:p@h/d"] {
            assert_eq!(refuse_misleading(url).unwrap_err(), "its scheme is not followed by ://");
        }
        let error = refuse_misleading("postgres:/\t/u:1/p@h/d").unwrap_err();
        assert_eq!(error, "there is a control character in it, a tab or a newline, say");
    }

    #[test]
    fn unknown_options_are_left_out_unless_they_are_about_tls() {
        let known = ["sslmode", "user"];
        let kept = |url| without_unknown_options(url, &known);
        assert_eq!(kept("pg://h/d").unwrap(), "pg://h/d");
        assert_eq!(kept("pg://h/d?pass=secret").unwrap(), "pg://h/d");
        assert_eq!(
            kept("pg://h/d?user=u&x=1&sslmode=require").unwrap(),
            "pg://h/d?user=u&sslmode=require"
        );
        assert!(kept("pg://h/d?sslmod=require").unwrap_err().contains("option sslmod is"));
    }
}
