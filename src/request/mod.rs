//! The facts about a request that a handler may ask for, as extractors, and the limits that an application
//! sets on a request's body. The worker, which knows the facts, stands above.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) mod body_limits;
pub(crate) mod client;
pub(crate) mod client_certificate;
pub(crate) mod deadline;
pub(crate) mod draining;
pub(crate) mod id;
pub(crate) mod listener;
pub(crate) mod local;
pub(crate) mod peer;
pub(crate) mod trace_context;

use self::client::Client;
use self::client_certificate::ClientCertificate;
use self::draining::Draining;
use self::id::RequestId;
use self::local::Origin;
use self::peer::PeerCredentials;

/// The facts about the request in hand for ferricorn's extractors: one entry among its extensions for
/// all of them, since each costs an allocation.
#[derive(Clone, Debug)]
pub(crate) struct InHand {
    pub(crate) connection: Arc<dyn Connection>,
    /// The number of the request among those of the connection.
    pub(crate) number: u64,
    pub(crate) client: Client,
    pub(crate) id: RequestId,
    /// Of a client on a unix socket.
    pub(crate) credentials: Option<PeerCredentials>,
    pub(crate) listener: Origin,
}

/// The connection that a request came by, as far as extractors ask for it.
pub(crate) trait Connection: fmt::Debug + Send + Sync {
    /// Gives the request of this number so much longer; nothing happens when that one is over.
    fn extend(&self, request: u64, by: Duration);

    /// The client's certificate, where TLS has asked for one.
    fn certificate(&self) -> Option<&ClientCertificate>;

    /// The notice that the worker drains.
    fn draining(&self) -> &Draining;
}
