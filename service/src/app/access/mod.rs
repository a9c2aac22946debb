//! Permission to write: requests of other sites are refused, always; with users, a writing request
//! brings a token that a login has given.
//!
//! Each worker reads the files as it boots, so a reload reads them again; `prepare` has read them
//! before, and a reload with a wrong one changes nothing.

mod add;
mod credentials;
mod crypto;
mod files;
mod hash;
mod hasher;
mod limits;
pub(super) mod login;
mod refusal;
mod secret;
pub(crate) mod settings;
mod site;
mod token;
mod users;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use ferricorn::Client;

pub(super) use self::add::{COMMANDS, first_user};
use self::credentials::Brought;
use self::hasher::Hasher;
pub(crate) use self::limits::Limits;
use self::refusal::Refusal;
use self::secret::Secret;
pub(super) use self::settings::SETTINGS;
pub(crate) use self::settings::Table;
use self::site::Hosts;
use self::token::Tokens;
use self::users::Users;
use super::service::Service;

/// The rules of one worker.
#[derive(Debug, Default)]
pub(crate) struct Access {
    hosts: Hosts,
    login: Option<Login>,
    reading: Reading,
}

/// The requirement for reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// Nothing.
    #[default]
    Open,
    /// A token.
    Token,
}

/// The worker's part of the access control.
#[derive(Debug)]
struct Login {
    users: Users,
    tokens: Tokens,
    hasher: Hasher,
    limits: Arc<Limits>,
}

/// Reads what a generation's workers are going to read, and makes what is missing: the first user, and
/// the secret.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn prepare(table: &Table) -> Result<(), String> {
    let Some(with) = &table.with_users else { return Ok(()) };
    first_user(with)?;
    Users::read(&with.users)?;
    Tokens::new(&Secret::read_or_make(&with.secret)?, with.lifetime).map(drop)
}

impl Access {
    /// From the `[access]` table, and the files that it names.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn new(table: &Table, limits: Arc<Limits>) -> Result<Self, String> {
        let hosts = table.hosts.clone();
        let Some(with) = &table.with_users else { return Ok(Self { hosts, ..Self::default() }) };
        let login = Login {
            users: Users::read(&with.users)?,
            tokens: Tokens::new(&Secret::read(&with.secret)?, with.lifetime)?,
            hasher: Hasher::default(),
            limits,
        };
        let reading = if with.read { Reading::Token } else { Reading::Open };
        Ok(Self { hosts, login: Some(login), reading })
    }

    fn judge_site(&self, head: &Parts) -> Result<(), Refusal> {
        let scheme = Client::of(&head.extensions).scheme();
        Ok(site::judge(&head.headers, &head.uri, scheme, &self.hosts)?)
    }

    fn judge_write(&self, head: &Parts) -> Result<(), Refusal> {
        self.judge_site(head)?;
        match &self.login {
            Some(login) => login.user(&head.headers).map(drop),
            None => Ok(()),
        }
    }

    fn judge_read(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match (self.reading, &self.login) {
            (Reading::Token, Some(login)) => login.user(headers).map(drop),
            (Reading::Open, _) | (Reading::Token, None) => Ok(()),
        }
    }
}

impl Login {
    /// The user whose token these headers bring.
    fn user(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        match credentials::token(headers) {
            Brought::Nothing => Err(Refusal::NoToken),
            Brought::Nonsense => Err(Refusal::WrongToken),
            Brought::Token(token) => {
                let name = self.tokens.check(&token).ok_or(Refusal::WrongToken)?;
                if self.users.contains(&name) { Ok(name) } else { Err(Refusal::WrongToken) }
            }
        }
    }
}

/// Permission to write, which a handler takes before it does anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayWrite;

/// Permission to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayRead;

/// Permission to sign in and out: no page of another site does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnSite;

impl FromRequestParts<Arc<Service>> for MayWrite {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        service.access().judge_write(head).map(|()| Self)
    }
}

impl FromRequestParts<Arc<Service>> for MayRead {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        service.access().judge_read(&head.headers).map(|()| Self)
    }
}

impl FromRequestParts<Arc<Service>> for OwnSite {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        service.access().judge_site(head).map(|()| Self)
    }
}
