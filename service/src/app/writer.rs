//! The one task of a worker that stores new rows.
//!
//! It takes whatever was asked for while the last commit ran, stores it in one transaction, and
//! answers each request after the commit. There is no timer: a lone request is stored at once.
//!
//! # Why a task
//! A request's own future is dropped when its client goes away, in the middle of a statement even.
//! A row handed to this task is stored, or fails, with all the others of its batch.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::fault::Fault;
use super::outage::{Outage, Work};
use super::record::Data;
use super::store::Store;

/// Rows in one transaction.
pub(super) const BATCH_MAX: usize = 128;

/// Rows that may wait in any case. More wait where a worker has more connections, so that the limit
/// is met by clients that went away, not by those that wait.
const QUEUE_MIN: usize = 1024;

/// A row, and who waits for it.
#[derive(Debug)]
struct Job {
    data: Data,
    done: oneshot::Sender<Result<(), Fault>>,
}

/// Where requests leave their rows.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    closing: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the task, on the current runtime. So many clients may ask at once.
    pub(crate) fn start(store: Arc<Store>, outage: Arc<Outage>, clients_max: usize) -> Self {
        let (jobs, inbox) = mpsc::channel(clients_max.max(QUEUE_MIN));
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(run(inbox, Arc::clone(&closing), store, outage));
        Self { jobs, closing, task: Mutex::new(Some(task)) }
    }

    /// Stores a row. On return it is durable.
    ///
    /// # Errors
    /// When too many wait, and when the database fails.
    pub(crate) async fn store(&self, data: Data) -> Result<(), Fault> {
        let (done, answer) = oneshot::channel();
        match self.jobs.try_send(Job { data, done }) {
            Ok(()) => answer.await.unwrap_or(Err(Fault::Unavailable)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Fault::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Fault::Unavailable),
        }
    }

    /// Returns true if it takes rows. It does until it is finished, unless its task has panicked.
    pub(crate) fn is_open(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Takes no more rows, and returns when those that wait are stored: also those whose clients
    /// have gone.
    pub(crate) async fn finish(&self) {
        self.closing.notify_one();
        if let Some(task) = self.task.lock().await.take() {
            // A panic has been reported by the runtime, and nothing is left to wait for.
            drop(task.await);
        }
    }
}

async fn run(
    mut inbox: mpsc::Receiver<Job>,
    closing: Arc<Notify>,
    store: Arc<Store>,
    outage: Arc<Outage>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut rows = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            biased;
            taken = inbox.recv_many(&mut batch, 1) => if taken == 0 { return },
            () = closing.notified() => {
                inbox.close();
                continue;
            }
        }
        let turn = store.turn().await;
        while batch.len() < BATCH_MAX
            && let Ok(job) = inbox.try_recv()
        {
            batch.push(job);
        }
        rows.clear();
        rows.extend(batch.iter().map(|job: &Job| job.data));
        let answer = outage.watch(Work::Store, store.insert(&rows)).await.map_err(Fault::from);
        drop(turn);
        if answer.is_err() {
            // These have waited long enough, and the next try may take as long again.
            batch.extend(std::iter::from_fn(|| inbox.try_recv().ok()));
        }
        for job in batch.drain(..) {
            // Who does not wait any more needs no answer.
            let _ = job.done.send(answer);
        }
    }
}
