//! The parts of the inside that `benches/` measure: the same code that runs in the server, behind names
//! that may be seen from outside. Nothing here is used by the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use axum::http::{Method, Uri, Version};

use crate::ids::{Pid, Slot};
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::supervisor::Supervisor;
use crate::supervisor::action::Action;
use crate::supervisor::event::{Event, ExitStatus, Kept};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::Task;
use crate::sys::clock;
use crate::time::Instant;

/// The shared memory of one worker, and the counters of all slots.
#[derive(Debug)]
pub struct Board {
    worker: WorkerBoard,
    slots: SlotBoard,
    remote: IpAddr,
    started: SystemTime,
}

impl Board {
    /// For a worker that may hold so many connections.
    ///
    /// # Errors
    /// Returns the system's word about memory and descriptors.
    pub fn new(connections: usize) -> io::Result<Self> {
        Ok(Self {
            worker: WorkerBoard::new(connections)?,
            slots: SlotBoard::new()?,
            remote: Ipv4Addr::new(203, 0, 113, 195).into(),
            started: clock::wall(),
        })
    }

    /// The work of a worker each time its event loop proves that it turns.
    pub fn note_heartbeat(&self) {
        self.worker.note_heartbeat(Instant::from_millis(clock::monotonic_millis()));
    }

    /// The cost of the scoreboard for a request on the connection with this number: its entry written
    /// and cleared, a note around each of two turns of its code, and one request more in the counters
    /// of its slot.
    pub fn request(&self, connection: usize, method: &Method, target: &Uri) {
        let entry = self.worker.entry(connection);
        if let Some(entry) = &entry {
            entry.fill(Some(self.remote), self.started, method, target, Version::HTTP_11);
        }
        for _ in ["its handler", "the body of its answer"] {
            self.worker.set_running(connection, true);
            self.worker.set_running(connection, false);
        }
        self.slots.count_request(Slot::new(3));
        if let Some(entry) = &entry {
            entry.clear();
        }
    }

    /// The cost of the scoreboard for a connection.
    pub fn connection(&self) {
        self.worker.connection_opened();
        self.worker.connection_closed();
    }

    /// Leaves a request in the entry of this connection.
    pub fn hold(&self, connection: usize, target: &Uri) {
        if let Some(entry) = self.worker.entry(connection) {
            let remote = Some(self.remote);
            let method = Method::GET;
            entry.fill(remote, self.started, &method, target, Version::HTTP_11);
        }
    }

    /// The work of the master when a worker has died: how many requests it held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.worker.held().len()
    }
}

/// The state machine of a server that serves, with a kernel that obeys at once.
#[derive(Clone, Debug)]
pub struct Decisions {
    supervisor: Supervisor,
    now: u64,
    pid: i32,
}

impl Decisions {
    /// A server whose workers all serve.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        let policy = Policy {
            workers,
            workers_max: Slot::MAX,
            graceful_timeout: Duration::from_secs(30),
            announce: Duration::ZERO,
            boot_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(2),
            max_lifetime: Duration::ZERO,
            max_memory: 0,
            stats: false,
            extensible: false,
        };
        let mut server = Self { supervisor: Supervisor::new(policy, 1), now: 1, pid: 100 };
        server.tell(Event::Started);
        assert!(server.supervisor.is_complete(), "every worker serves");
        server
    }

    /// The master wakes, and nothing has happened. Answers the orders that follow.
    pub fn tick(&mut self) -> usize {
        self.now += 10;
        self.tell(Event::Tick)
    }

    /// Each worker is asked for a sign of life, and has given one.
    pub fn heartbeats(&mut self) -> usize {
        self.now += 120_000;
        self.tell(Event::Tick)
    }

    /// A connection has waited in a queue, and is gone when it is looked for.
    pub fn queued(&mut self, slot: u16) -> usize {
        let orders = self.tell(Event::Queued { slot: Slot::new(slot) });
        self.now += 11;
        orders + self.tell(Event::Tick)
    }

    /// A worker is killed, and replaced by one that is ready at once.
    pub fn death(&mut self) -> usize {
        self.now += 3000;
        // The youngest there is.
        let pid = Pid(self.pid);
        self.tell(Event::Exited { pid, status: ExitStatus::Signal { number: 9, core: false } })
    }

    /// Tells it a fact, and those that follow from obeying. Answers how many orders there were.
    fn tell(&mut self, event: Event) -> usize {
        let mut orders = 0;
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.supervisor.handle(Instant::from_millis(self.now), event) {
                orders += 1;
                events.extend(self.obey(action));
            }
        }
        orders
    }

    fn obey(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Fork { child, task: Task::Worker { .. }, .. } => {
                self.pid += 1;
                vec![Event::Forked { child, pid: Pid(self.pid) }, Event::Ready { child }]
            }
            Action::Fork { child, task: Task::Logger | Task::Stats, .. } => {
                vec![Event::Forked { child, pid: Pid(98) }]
            }
            Action::Fork { child, task: Task::Prepare | Task::Check, .. } => {
                let pid = Pid(99);
                let status = ExitStatus::Code(0);
                vec![Event::Forked { child, pid }, Event::Exited { pid, status }]
            }
            Action::OpenSlots { count } => vec![Event::SlotsOpen { count }],
            Action::ReadHeartbeat { child } => {
                let heartbeat = Instant::from_millis(self.now);
                vec![Event::Heartbeat { child, heartbeat, kept: Kept::ByNothing }]
            }
            Action::Look { slot } => {
                let heartbeat = Instant::from_millis(self.now);
                vec![Event::QueueLength { slot, length: 0, heartbeat }]
            }
            _ => Vec::new(),
        }
    }
}
