//! Users and groups, as they are written.

/// A name, or a number that names a user: the last one stands for none (chown(2), setuid(2)).
pub(super) fn check(text: &str) -> Result<(), String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && text.parse().ok().is_none_or(|number: u32| number == u32::MAX) {
        let most = u32::MAX - 1;
        return Err(format!("expected a name or a number of at most {most}, found {text:?}"));
    }
    Ok(())
}
