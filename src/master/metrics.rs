//! The master's part of the metrics: the listener of the stats process, and the numbers that the master
//! alone knows.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Master;
use super::events::MasterEvent;
use super::handle::ChildHandle;
use crate::config::Config;
use crate::embed::App;
use crate::ids::Slot;
use crate::listeners::Listeners;
use crate::logging::{self, Ring};
use crate::scoreboard::{
    Block, Cause, Code, Held, MasterMetrics, MetricsMemory, Overview, ReloadResult, WorkerRow,
    WorkerState,
};
use crate::stats;
use crate::supervisor::Supervisor;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::{Ending, Notice};
use crate::supervisor::stage::{Child, Stage};
use crate::sys::channel::Lower;
use crate::sys::exec::{self, Handover};
use crate::sys::fork::{self, InChild};
use crate::sys::shared::Claim;
use crate::sys::socket::{self, Families, Join};
use crate::sys::{clock, statistics};

/// Scrapes that may wait to be accepted.
const BACKLOG: u32 = 64;

/// The metrics, as the master holds them.
#[derive(Debug)]
pub(crate) struct Metrics {
    memory: MetricsMemory,
    /// The master's own block; `None` in a child.
    own: Option<MasterMetrics>,
    /// Those of all configurations in use.
    listeners: Vec<StatsListener>,
    /// The address of the configuration in force.
    bind: Option<SocketAddr>,
    /// The stats process has asked for the numbers of the master, and these are older.
    is_asked: bool,
    /// When the server was started, in seconds since the epoch.
    started: u64,
    /// The processor time of the children that were reaped by the last look.
    reaped: Duration,
    /// The processor time of reaped workers of each slot that no picture shows yet.
    unpublished: BTreeMap<Slot, Duration>,
}

/// [`Metrics`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedMetrics {
    memory: i32,
    /// The listener in force, with the address that the configuration names.
    listener: Option<(SocketAddr, i32)>,
}

/// The listening socket of the stats process.
#[derive(Debug)]
pub(super) struct StatsListener {
    /// As the configuration names it.
    bind: SocketAddr,
    listener: TcpListener,
}

impl Metrics {
    /// Metrics of a server that starts.
    ///
    /// # Errors
    /// The error of memfd_create(2), ftruncate(2) and mmap(2).
    pub(crate) fn new() -> io::Result<Self> {
        Self::of(MetricsMemory::new()?)
    }

    fn of(memory: MetricsMemory) -> io::Result<Self> {
        let own = MasterMetrics::new(memory.master()?);
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started = own.overview().map_or(now.as_secs(), |picture| picture.started);
        let reaped = statistics::processor_time_of_children().unwrap_or_default();
        Ok(Self {
            memory,
            own: Some(own),
            listeners: Vec::new(),
            bind: None,
            is_asked: true,
            started,
            reaped,
            unpublished: BTreeMap::new(),
        })
    }

    pub(super) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedMetrics {
        let memory = handover.add(&self.memory);
        let listener = self.listener().map(|(bind, listener)| (bind, handover.add(listener)));
        HandedMetrics { memory, listener }
    }

    /// # Errors
    /// As [`Metrics::new`], and when a descriptor is not open.
    pub(super) fn take_over(handed: HandedMetrics) -> io::Result<Self> {
        let HandedMetrics { memory, listener } = handed;
        let mut metrics = Self::of(MetricsMemory::inherit(exec::inherited(memory)?))?;
        metrics.bind = listener.map(|(bind, _)| bind);
        if let Some((bind, number)) = listener {
            let listener = exec::inherited(number)?.into();
            metrics.listeners.push(StatsListener { bind, listener });
        }
        Ok(metrics)
    }

    /// The blocks of all processes.
    pub(super) fn memory(&self) -> &MetricsMemory {
        &self.memory
    }

    /// The block that a worker of this configuration counts in, with this ring; `None` where it counts
    /// nothing.
    ///
    /// # Errors
    /// The error of ftruncate(2) and mmap(2).
    pub(super) fn block_for(&self, config: &Config, ring: &Ring) -> io::Result<Option<Block>> {
        config.stats.is_on().then(|| self.memory.of_place(ring.place())).transpose()
    }

    /// The listener in force, with the address that the configuration names.
    pub(super) fn listener(&self) -> Option<(SocketAddr, &TcpListener)> {
        let open = self.listeners.iter().find(|open| Some(open.bind) == self.bind)?;
        Some((open.bind, &open.listener))
    }

    /// In the stats process: the listener in force, which is its own.
    pub(super) fn take_listener(&mut self) -> Option<TcpListener> {
        let place = self.listeners.iter().position(|open| Some(open.bind) == self.bind)?;
        Some(self.listeners.swap_remove(place).listener)
    }

    /// In a child: gives up what is the master's.
    pub(super) fn shed(&mut self) {
        self.own = None;
        self.listeners.clear();
    }

    /// Opens what this configuration names, unless that is open. It is in force when [`Metrics::settle`] is
    /// called, and closed by [`Metrics::close_others`] where no configuration names it.
    ///
    /// # Errors
    /// A sentence that names the address and the reason.
    pub(crate) fn open(&mut self, config: &Config) -> Result<(), String> {
        let Some(bind) = config.stats.bind else { return Ok(()) };
        if self.listeners.iter().any(|open| open.bind == bind) {
            return Ok(());
        }
        let listener = socket::listen_families(bind, Families::Default, Join::First, BACKLOG)
            .map_err(|error| format!("cannot bind stats.bind {bind}: {error}"))?;
        self.listeners.push(StatsListener { bind, listener });
        Ok(())
    }

    /// This configuration is in force.
    pub(crate) fn settle(&mut self, config: &Config) {
        if std::mem::replace(&mut self.bind, config.stats.bind) == config.stats.bind {
            return;
        }
        let Some((bind, listener)) = self.listener() else { return };
        let address = listener.local_addr().unwrap_or(bind);
        logging::emit(&MasterEvent::StatsListening {
            address: format!("http://{address}/metrics"),
        });
    }

    /// Closes what none of these configurations names.
    pub(super) fn close_others<'a>(&mut self, used: impl Iterator<Item = &'a Config> + Clone) {
        let is_used =
            |open: &StatsListener| used.clone().any(|config| config.stats.bind == Some(open.bind));
        self.listeners.retain(is_used);
    }

    /// Notes that the stats process has asked for the numbers of the master.
    pub(super) fn note_asked(&mut self) {
        self.is_asked = true;
    }

    /// Counts what a notice tells.
    pub(super) fn note(&self, notice: &Notice) {
        let Some(own) = &self.own else { return };
        match notice {
            Notice::Exited { status, ending, .. } => own.count_end(cause(*ending, *status)),
            Notice::Reloaded { .. } => own.count_reload(ReloadResult::Success),
            Notice::ReloadFailed { .. } => own.count_reload(ReloadResult::Failure),
            _ => {}
        }
    }

    /// Counts what a child that was just reaped had of the processor; it was a worker if it had a slot.
    pub(super) fn note_reaped(&mut self, slot: Option<Slot>) {
        let sum = statistics::processor_time_of_children().unwrap_or_default();
        let before = std::mem::replace(&mut self.reaped, sum);
        if let Some(slot) = slot {
            *self.unpublished.entry(slot).or_default() += sum.saturating_sub(before);
        }
    }

    /// Counts a request that a dead worker had in hand, unless the worker has: as its answer, if that was
    /// sent, or as aborted.
    pub(super) fn note_held(&self, block: Option<&Block>, request: &Held) {
        let (Some(own), Some(block)) = (&self.own, block) else { return };
        match request.counted {
            Some(noted) if noted.is_done(block.requests(noted.code).unchecked()) => {}
            Some(noted) => own.count_request(noted.code),
            None => own.count_request(request.sent.unwrap_or(Code::ABORTED)),
        }
    }

    /// Returns true if the stats process has asked since the last time.
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.is_asked)
    }

    /// Writes the overview for the stats process.
    pub(super) fn publish(
        &mut self,
        supervisor: &Supervisor,
        handles: &[ChildHandle],
        listeners: &Listeners,
    ) {
        let Some(own) = &self.own else { return };
        // In the picture that no longer shows their workers, so that no time is seen twice.
        let unpublished = std::mem::take(&mut self.unpublished);
        let processor = |slot| {
            let more = unpublished.get(&slot).copied().unwrap_or_default();
            let more = Claim::new(u64::try_from(more.as_micros()).unwrap_or(0));
            own.processor(slot).saturating_add(more).unchecked()
        };
        let place = |pid| handles.iter().find(|handle| handle.pid() == pid)?.ring;
        own.publish(&Overview {
            started: self.started,
            generation: supervisor.generation().number(),
            wanted: supervisor.wanted(),
            is_reloading: supervisor.is_reloading(),
            workers: supervisor.workers().filter_map(|child| row(child, place)).collect(),
            queues: listeners.queues(),
            processor: (0..listeners.slots()).map(Slot::new).map(processor).collect(),
        });
    }
}

impl<A: App> Master<A> {
    /// Writes what the stats process is to read. The overview is the last, since that process waits for it.
    pub(super) fn publish_metrics(&mut self) {
        let text = self.status_text();
        if let Some(own) = &self.lasting.metrics.own {
            own.publish_status(super::now(), &text);
        }
        self.lasting.publish_overview();
    }

    /// In a child: becomes the stats process, which keeps the memory of the metrics and its listener.
    pub(super) fn serve_stats(
        &mut self,
        child: InChild,
        channel: Lower,
        master: i32,
        config: Arc<Config>,
        mut kept: Vec<RawFd>,
    ) -> i32 {
        let addresses = self.lasting.listeners.names();
        let listener = self.lasting.metrics.take_listener();
        let certificates = self.lasting.tls.certificates(self.lasting.supervisor.generation());
        kept.push(self.lasting.metrics.memory().as_fd().as_raw_fd());
        kept.extend(listener.as_ref().map(AsRawFd::as_raw_fd));
        if let Err(error) = self.shed(&child, &kept) {
            logging::emit(&MasterEvent::ShedFailed { reason: error.to_string() });
            return fork::PANICKED;
        }
        let birth = stats::Birth {
            config: &config,
            addresses,
            certificates,
            listener,
            memory: self.lasting.metrics.memory(),
            signals: &self.signals,
            channel,
            master,
            identity: &self.identity,
        };
        stats::main(child, birth)
    }
}

/// A worker as the stats process reads of it; `None` before its fork.
fn row(child: &Child, place: impl Fn(i32) -> Option<usize>) -> Option<WorkerRow> {
    let pid = child.pid()?.0;
    let state = match child.stage {
        Stage::Forking | Stage::Booting { .. } => WorkerState::Booting,
        Stage::Serving { .. } | Stage::Yielding { .. } => WorkerState::Serving,
        Stage::Draining { .. } => WorkerState::Draining,
        Stage::Aborting { .. } | Stage::Killed { .. } => WorkerState::Ending,
    };
    Some(WorkerRow {
        pid: u32::try_from(pid).ok()?,
        slot: child.slot()?,
        state,
        generation: child.generation.number(),
        place: u32::try_from(place(pid)?).ok()?,
        began: child.began,
    })
}

fn cause(ending: Ending, status: ExitStatus) -> Cause {
    match (ending, status) {
        (_, ExitStatus::OutOfMemory) => Cause::OutOfMemory,
        (Ending::Boot, _) => Cause::Boot,
        (Ending::Left, _) => Cause::Left,
        (Ending::Stalled, _) => Cause::Stall,
        (Ending::Overstayed, _) => Cause::Overstay,
        (Ending::Died | Ending::DiedDraining, ExitStatus::Code(_)) => Cause::Exit,
        (Ending::Died | Ending::DiedDraining, ExitStatus::Signal { .. }) => Cause::Signal,
        (Ending::Died | Ending::DiedDraining, ExitStatus::Unknown) => Cause::Unknown,
    }
}
