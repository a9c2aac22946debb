//! The `tracing` layers of a process: ferricorn's error log, and the application's beside it.
//!
//! # Why the master's subscriber is no global one
//! A global subscriber can be set once, and a child begins with what its parent has set. The master has
//! one thread, so its subscriber is that thread's; each child gives it up and sets a global one of its
//! own, whose layers may have threads.

use std::cell::RefCell;
use std::fmt;
use std::io;

use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_log::AsLog as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry};

use super::ErrorLayer;
use super::levels::Severe;
use crate::logging::{TARGET, error, lock};

/// A layer of any type.
type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The layers of a process beside ferricorn's error log, and what they do at its end: see
/// [`App::telemetry`](crate::App::telemetry).
#[derive(Default)]
pub struct Layers {
    layers: Vec<Boxed>,
    is_replaced: bool,
    ends: Vec<Box<dyn FnOnce() + Send>>,
}

impl Layers {
    /// None: the error log alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer, which gets the events and spans that `log.level` and `RUST_LOG` let pass.
    #[must_use]
    pub fn with(self, layer: impl Layer<Registry> + Send + Sync) -> Self {
        self.with_unfiltered(layer.with_filter(Severe))
    }

    /// Adds a layer that gets every event and span, or those that a filter of its own lets pass.
    #[must_use]
    pub fn with_unfiltered(mut self, layer: impl Layer<Registry> + Send + Sync) -> Self {
        self.layers.push(layer.boxed());
        self
    }

    /// Leaves the application's events out of ferricorn's error log, since a layer of these writes them:
    /// a [`fmt`](mod@tracing_subscriber::fmt) layer to a [`LogWriter`], say. Ferricorn's own events stay
    /// there.
    #[must_use]
    pub fn replace_error_log(mut self) -> Self {
        self.is_replaced = true;
        self
    }

    /// Calls this when the process has nothing more to log: it may take 5 s to send what waits. It is
    /// called on a thread of its own, in workers and in the process that prepares; a process that is
    /// killed does not call it.
    #[must_use]
    pub fn at_end(mut self, end: impl FnOnce() + Send + 'static) -> Self {
        self.ends.push(Box::new(end));
        self
    }

    /// The functions that are called at the end.
    pub(crate) fn take_ends(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        std::mem::take(&mut self.ends)
    }

    fn into_dispatch(self) -> Dispatch {
        let own = ErrorLayer { write: error };
        let own = match self.is_replaced {
            true => own.with_filter(Own).boxed(),
            false => own.with_filter(Severe).boxed(),
        };
        let layers: Vec<Boxed> = [own].into_iter().chain(self.layers).collect();
        Dispatch::new(Registry::default().with(layers))
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("count", &self.layers.len()).finish_non_exhaustive()
    }
}

/// Lets ferricorn's own events pass, where they are severe enough.
#[derive(Clone, Copy, Debug)]
struct Own;

impl<S: Subscriber> Filter<S> for Own {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        metadata.target() == TARGET && Severe.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() != TARGET {
            return Interest::never();
        }
        <Severe as Filter<S>>::callsite_enabled(&Severe, metadata)
    }
}

thread_local! {
    /// The subscriber of this thread.
    static SCOPE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// Gives this thread these layers, and no other ones: in a process of one thread.
pub(crate) fn scope(layers: Layers) {
    SCOPE.with_borrow_mut(|scope| {
        // Before the next one, which it would end.
        drop(scope.take());
        *scope = Some(dispatcher::set_default(&layers.into_dispatch()));
    });
}

/// Gives this process these layers, and the records of the `log` crate to them, for the rest of its life.
///
/// # Errors
/// When the application has set a subscriber in this process already.
pub(crate) fn set_global(layers: Layers) -> Result<(), dispatcher::SetGlobalDefaultError> {
    SCOPE.with_borrow_mut(Option::take);
    let set = dispatcher::set_global_default(layers.into_dispatch());
    if set.is_err() {
        scope(Layers::new());
        return set;
    }
    // An application with a logger of its own keeps it: those records are its own business.
    let max_level = LevelFilter::current().as_log();
    let _its_own = tracing_log::LogTracer::builder().with_max_level(max_level).init();
    Ok(())
}

/// Writes lines into the error log, through this process's ring: a reader that stops reading stops no
/// worker. What is written between two calls of [`MakeWriter::make_writer`] is one piece, of at most
/// 64 KiB.
///
/// ```
/// # use ferricorn::telemetry::{Layers, LogWriter};
/// let layers = Layers::new()
///     .replace_error_log()
///     .with(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(LogWriter));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

/// A piece that is being written; it goes out when this is dropped.
#[derive(Debug)]
pub struct LogPiece(Vec<u8>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogPiece;

    fn make_writer(&'a self) -> LogPiece {
        LogPiece(Vec::with_capacity(256))
    }
}

impl io::Write for LogPiece {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogPiece {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            lock().raw_error(std::mem::take(&mut self.0));
        }
    }
}
