//! Database URLs: the mistakes that would let a part of a password be taken for something else.

/// Refuses an `@` behind the host. A `/`, `?` or `#` in a password ends the part of the URL that it
/// belongs to: its rest would be taken for a database's name, and be shown as one.
///
/// # Errors
/// What to do, as the end of a sentence.
pub(super) fn refuse_stray_at(url: &str) -> Result<(), String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    match rest.find(['/', '?', '#']) {
        Some(end) if rest[end..].contains('@') => {
            Err("there is an @ behind its host; write / as %2F, ? as %3F, # as %23 and @ as %40 \
                in a password"
                .into())
        }
        Some(_) | None => Ok(()),
    }
}

/// What is wrong with a URL that sqlx cannot read: it quotes no more than an option's value.
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
    use super::*;

    #[test]
    fn a_password_with_a_slash_is_refused_before_its_rest_is_shown() {
        for url in ["postgres://u:a/b@h/d", "mysql://u:1?b@h/d", "postgres://u:1#b@h/d"] {
            let error = refuse_stray_at(url).unwrap_err();
            assert!(error.starts_with("there is an @ behind its host"), "{error}");
        }
        for url in ["postgres://u:a%2Fb@h/d", "mysql://u:p@h", "postgres://u:p@x@h/d?a=b"] {
            assert_eq!(refuse_stray_at(url), Ok(()), "{url}");
        }
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
