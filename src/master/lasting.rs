//! The state of the master that outlives an image of the program.
//!
//! A field is named in five places, and the compiler finds the one that was forgotten: [`Lasting`], its
//! start, [`HandedLasting`], and the two functions between these.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::handle::{ChildHandle, HandedChild};
use super::metrics::{HandedMetrics, Metrics};
use super::pidfile::PidFile;
use super::tls::{self, HandedTls, Tls};
use super::victims::Victims;
use super::{control, now, policy};
use crate::config::{AtStart, Config, Error};
use crate::control::{Control, HandedControl};
use crate::ids::SlotSet;
use crate::listeners::{HandedListeners, Listeners};
use crate::logging::{HandedRings, Rings};
use crate::scoreboard::SlotBoard;
use crate::supervisor::Supervisor;
use crate::sys::exec::{self, Handover, Passed};
use crate::sys::{clock, statistics};

/// The state that outlives this image of the program.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(super) supervisor: Supervisor,
    pub(crate) listeners: Listeners,
    pub(super) tls: Tls,
    pub(super) counters: Arc<SlotBoard>,
    pub(crate) metrics: Metrics,
    pub(crate) rings: Rings,
    pub(super) handles: Vec<ChildHandle>,
    /// Slots whose queue is watched.
    pub(super) armed: SlotSet,
    pub(super) pidfile: Option<PidFile>,
    pub(super) victims: Victims,
    /// Where the master writes, once, that every worker serves.
    pub(super) ready: Option<File>,
    /// The settings in force that take effect at a start only.
    pub(crate) started: AtStart,
    pub(super) control: Control,
    /// When the server was started, by the time of day.
    pub(super) began: SystemTime,
}

/// [`Lasting`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedLasting {
    supervisor: Supervisor,
    listeners: HandedListeners,
    tls: HandedTls,
    counters: i32,
    metrics: HandedMetrics,
    rings: HandedRings,
    pub(super) handles: Vec<HandedChild>,
    armed: SlotSet,
    pidfile: Option<(PathBuf, i32)>,
    victims: Victims,
    ready: Option<i32>,
    started: AtStart,
    control: HandedControl,
    began: SystemTime,
}

impl Lasting {
    /// Opens what a server needs that starts. The rings are taken when that succeeds.
    ///
    /// # Errors
    /// When something cannot be opened.
    pub(crate) fn open(
        config: &Config,
        activated: &[(i32, String)],
        passed: Passed,
        ready: Option<File>,
        rings: &mut Rings,
    ) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        let bundle = tls::read(config)?;
        let supervisor = Supervisor::new(policy(config), rand::random());
        let mut tls = Tls::default();
        tls.keep(now(), supervisor.generation(), bundle)
            .map_err(system("make keys for session tickets"))?;
        let counters = SlotBoard::new().map_err(system("share memory"))?;
        let mut metrics = Metrics::new().map_err(system("share memory"))?;
        let listeners = Listeners::open(config, activated, passed, config.workers)?;
        metrics.open(config).map_err(Error::Bind)?;
        let pidfile = config.pidfile.as_deref().map(PidFile::write).transpose()?;
        Ok(Self {
            supervisor,
            listeners,
            tls,
            counters: Arc::new(counters),
            metrics,
            rings: std::mem::take(rings),
            handles: Vec::new(),
            armed: SlotSet::EMPTY,
            pidfile,
            victims: Victims::new(statistics::out_of_memory_kills()),
            ready,
            started: config.at_start(),
            control: control::open(config),
            began: clock::wall(),
        })
    }

    /// Writes the overview of workers, queues and processor times for the stats process.
    pub(super) fn publish_overview(&mut self) {
        self.metrics.publish(&self.supervisor, &self.handles, &self.listeners);
    }

    pub(super) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedLasting {
        let Self {
            supervisor,
            listeners,
            tls,
            counters,
            metrics,
            rings,
            handles,
            armed,
            pidfile,
            victims,
            ready,
            started,
            control,
            began,
        } = self;
        let pidfile = pidfile.as_ref();
        HandedLasting {
            supervisor: supervisor.clone(),
            listeners: listeners.hand_over(handover),
            tls: tls.hand_over(handover),
            counters: handover.add(&**counters),
            metrics: metrics.hand_over(handover),
            rings: rings.hand_over(handover),
            handles: handles.iter().map(|handle| handle.hand_over(handover)).collect(),
            armed: *armed,
            pidfile: pidfile.map(|file| (file.path().to_owned(), handover.add(file.file()))),
            victims: victims.clone(),
            ready: ready.as_ref().map(|ready| handover.add(ready)),
            started: started.clone(),
            control: control.hand_over(handover),
            began: *began,
        }
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(super) fn take_over(handed: HandedLasting) -> io::Result<Self> {
        let HandedLasting {
            supervisor,
            listeners,
            tls,
            counters,
            metrics,
            rings,
            handles,
            armed,
            pidfile,
            victims,
            ready,
            started,
            control,
            began,
        } = handed;
        let file = |number| exec::inherited(number).map(File::from);
        let pidfile =
            pidfile.map(|(path, number)| file(number).map(|file| PidFile::inherit(path, file)));
        Ok(Self {
            supervisor,
            listeners: Listeners::take_over(listeners)?,
            tls: Tls::take_over(tls)?,
            counters: Arc::new(SlotBoard::inherit(exec::inherited(counters)?)?),
            metrics: Metrics::take_over(metrics)?,
            rings: Rings::take_over(rings)?,
            handles: handles.into_iter().map(ChildHandle::take_over).collect::<io::Result<_>>()?,
            armed,
            pidfile: pidfile.transpose()?,
            victims,
            ready: ready.map(file).transpose()?,
            started,
            control: Control::take_over(now(), control)?,
            began,
        })
    }
}
