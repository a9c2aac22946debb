//! The `[access]` table.

use std::path::PathBuf;
use std::time::Duration;

use ferricorn::{BoxError, Config, Setting};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::site::Hosts;
use super::{add, secret};

/// A token that lives for less is over before it is used; one for longer than a month is a password.
const LIFETIME_MS: std::ops::RangeInclusive<u64> = 1000..=31 * 24 * 3_600_000;

/// The settings of the table.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::path(
        "access.users",
        "",
        "File of name:hash lines, bcrypt (htpasswd -B) or argon2id; `ferricorn user add NAME` writes \
         it. With it, writing takes a token of POST /login; \"\": writing is open to every client.",
    ),
    Setting::path(
        "access.secret",
        "",
        "File with the key that signs tokens: 32 bytes or more, or an Ed25519 key in PEM. It is made \
         where it is missing; \"\": the file of users with .secret behind its name.",
    ),
    Setting::duration("access.lifetime", "1h", LIFETIME_MS, "How long a token is valid."),
    Setting::boolean(
        "access.read",
        "false",
        "Reading rows takes a token, too; it needs access.users.",
    ),
    Setting::text(
        "access.first_user",
        "",
        "The user, name:password, of a file of users that is made where none is; \"none\": none.",
    )
    .file_env("FERRICORN_ACCESS_FIRST_USER_FILE")
    .check(add::check_first_user)
    .secret(),
    Setting::list(
        "access.hosts",
        "",
        "Host names under which browsers reach the service: \"name\" or \"name:port\". Writing \
         requests of browsers for other names are refused (DNS rebinding); addresses and localhost \
         are always known. None: every name is.",
    )
    .value_name("HOST")
    .check(check_host),
];

fn check_host(text: &str) -> Result<(), String> {
    Hosts::parse([text]).map(drop)
}

/// The table, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) hosts: Hosts,
    pub(crate) with_users: Option<WithUsers>,
}

/// The part that counts where there are users. `Debug` would show the first one's password.
#[derive(Clone)]
pub(crate) struct WithUsers {
    pub(crate) users: PathBuf,
    pub(crate) secret: PathBuf,
    pub(crate) lifetime: Duration,
    pub(crate) read: bool,
    /// `name:password`, or nothing.
    pub(crate) first_user: Zeroizing<String>,
}

impl std::fmt::Debug for WithUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithUsers").field("users", &self.users).finish_non_exhaustive()
    }
}

/// The table as it is read.
#[derive(Deserialize)]
struct Raw {
    users: PathBuf,
    secret: String,
    #[serde(with = "ferricorn::seconds")]
    lifetime: Duration,
    read: bool,
    first_user: String,
    hosts: Vec<String>,
}

impl Table {
    /// The table of a configuration.
    ///
    /// # Errors
    /// When reading is to take a token and there are no users.
    pub(crate) fn of(config: &Config) -> Result<Self, BoxError> {
        let Raw { users, secret, lifetime, read, first_user, hosts } = config.section("access")?;
        let hosts = Hosts::parse(hosts.iter().map(String::as_str))?;
        if read && users.as_os_str().is_empty() {
            return Err("access.read = true needs users, and access.users names no file; set \
                        access.users (`ferricorn user add NAME` writes the file), or remove access.read"
                .into());
        }
        let with_users = (!users.as_os_str().is_empty()).then(|| WithUsers {
            secret: secret::path(&secret, &users),
            users,
            lifetime,
            read,
            first_user: Zeroizing::new(first_user),
        });
        Ok(Self { hosts, with_users })
    }
}
