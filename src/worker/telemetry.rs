//! The application's layers of `tracing` in a child, from its boot to its end.

use std::time::Duration;

use crate::embed::{App, BoxError, Process};
use crate::logging;

/// The time that the layers have at the end to send what waits.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The work of the layers at the end of the process.
pub(super) struct Telemetry(Vec<Box<dyn FnOnce() + Send>>);

impl Telemetry {
    /// Sets the layers of this process.
    ///
    /// # Errors
    /// The application's, or that it has set a subscriber in this process already.
    pub(super) fn start(app: &impl App, process: Process<'_>) -> Result<Self, BoxError> {
        let mut layers = app.telemetry(process)?;
        let ends = layers.take_ends();
        logging::set_global(layers).map_err(|_| {
            "a tracing subscriber is installed already: return its layers from App::telemetry \
             instead of calling init()"
        })?;
        Ok(Self(ends))
    }

    /// Lets the layers send what waits: they may block for so long.
    pub(super) async fn end(self) {
        if self.0.is_empty() {
            return;
        }
        let ends = tokio::task::spawn_blocking(|| self.0.into_iter().for_each(|end| end()));
        // One that panics has been logged, and one that takes longer is left.
        let _ended = tokio::time::timeout(END_TIMEOUT, ends).await;
    }
}
