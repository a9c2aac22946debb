//! Parts that the suites share: one HTTP client, one load generator, the harness that starts and stops servers,
//! and looks at processes, sockets and disks.

pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod harness;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod numbered;
pub(crate) mod proc;
pub(crate) mod program;
#[path = "../../../../tests/support/request.rs"]
pub(crate) mod request;
pub(crate) mod seen;
#[expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
#[expect(dead_code, reason = "TLS is a matter of the application's own tests")]
#[path = "../../app/servers.rs"]
pub(crate) mod servers;
pub(crate) mod sockets;
pub(crate) mod tls;
