//! The application of one worker: its store, its writer, and what they have been through.

use std::sync::Arc;
use std::time::Duration;

use ferricorn::{Slot, WorkerLoad};
use tokio::sync::{Mutex, Semaphore, TryAcquireError};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::fault::Fault;
use super::outage::{FaultKind, Outage, Siblings, Work};
use super::record::{Data, Page, Span};
use super::settings::Database;
use super::store::{ANSWER_TIMEOUT, Error, Store};
use super::writer::Writer;

/// The time for which a delete is silent until the database is asked whether it still answers others,
/// and how long until the next time.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// The time that this answer is waited for: together with the interval, no longer than any request.
const DOUBT_TIMEOUT: Duration = Duration::from_millis(1200);

/// The same behind a read that came to nothing.
const READ_DOUBT_TIMEOUT: Duration = Duration::from_millis(600);

/// The interval at which a database that fails is asked whether it works again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The time for which a worker that drains during an outage asks whether it is over.
const LAST_TIMEOUT: Duration = Duration::from_millis(600);

/// Deletes that wait at the most; more are answered 503.
const DELETES_MAX: u32 = 64;

/// One worker's application.
#[derive(Debug)]
pub(crate) struct Service {
    slot: Slot,
    access: Access,
    store: Arc<Store>,
    writer: Writer,
    /// Deletes queue here: two at once would each hold a connection, and wait for the same rows. When
    /// the last one failed, if it did.
    deletes: Mutex<Option<Instant>>,
    /// Each delete that was begun holds one permit; who has them all has seen the last of them.
    begun: Arc<Semaphore>,
    outage: Arc<Outage>,
    follower: AbortHandle,
}

/// Asks a database that fails until it works again: the end is logged though no client should come.
async fn follow(store: Arc<Store>, outage: Arc<Outage>) {
    loop {
        outage.begins().await;
        while !outage.is_over() {
            sleep(ASK_INTERVAL).await;
            outage.claim_lead();
            // The answer is noted in the outage, and no client waits for it.
            drop(outage.watch(Work::Read, store.ping(ANSWER_TIMEOUT)).await);
            if outage.is_met(FaultKind::Unwritable) && !outage.is_met(FaultKind::Away) {
                // No client may come, where readiness sends them elsewhere.
                drop(outage.watch(Work::Store, store.write(ANSWER_TIMEOUT)).await);
            }
            outage.settle();
        }
    }
}

impl Service {
    /// Starts the worker's part of the application, on the current runtime. The database need not
    /// be there yet.
    pub(crate) fn start(
        database: Database,
        access: Access,
        slot: Slot,
        siblings: impl Siblings + 'static,
    ) -> Arc<Self> {
        let store =
            Arc::new(Store::new(database.target, database.max_connections, database.lifetimes));
        let outage = Arc::new(Outage::new(siblings));
        let follower = tokio::spawn(follow(Arc::clone(&store), Arc::clone(&outage)));
        Arc::new(Self {
            slot,
            access,
            writer: Writer::start(Arc::clone(&store), Arc::clone(&outage), database.clients_max),
            store,
            deletes: Mutex::default(),
            begun: Arc::new(Semaphore::new(DELETES_MAX as usize)),
            outage,
            follower: follower.abort_handle(),
        })
    }

    /// The worker's slot.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// The rules about writing.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The workers that serve now.
    pub(crate) fn workers(&self) -> Vec<WorkerLoad> {
        self.outage.workers()
    }

    /// Stores a new row. A client that goes away does not stop it.
    ///
    /// # Errors
    /// See [`Writer::store`].
    pub(crate) async fn populate(&self) -> Result<Data, Fault> {
        let data = Data::random();
        self.writer.store(data).await.map(|()| data)
    }

    /// Removes every row, and says how many they were. A client that goes away does not stop it.
    ///
    /// # Errors
    /// When the database fails. Nothing was removed, but in one case: when the connection broke, it
    /// is not known.
    pub(crate) async fn delete(self: &Arc<Self>) -> Result<u64, Fault> {
        let begun = match Arc::clone(&self.begun).try_acquire_owned() {
            Ok(begun) => begun,
            Err(TryAcquireError::NoPermits) => return Err(Fault::Overloaded),
            Err(TryAcquireError::Closed) => return Err(Fault::Unavailable),
        };
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let deleted = service.delete_in_turn().await;
            drop(begun);
            deleted
        });
        // A panic in the task has been reported by the runtime.
        task.await.map_err(|_| Fault::Unavailable)?
    }

    async fn delete_in_turn(&self) -> Result<u64, Fault> {
        let begun = Instant::now();
        let mut failed = self.deletes.lock().await;
        if failed.is_some_and(|failed| failed > begun) {
            // It has waited as long as the one that failed, and would wait as long again.
            return Err(Fault::Unavailable);
        }
        let deleted = self.outage.watch(Work::Delete, self.delete_while_it_lives()).await;
        *failed = deleted.is_err().then(Instant::now);
        Ok(deleted?)
    }

    /// A delete of many rows may take as long as it needs, provided that the database still answers
    /// others: a server that hangs is not waited for.
    async fn delete_while_it_lives(&self) -> Result<u64, Error> {
        let doubt = async {
            loop {
                sleep(DOUBT_INTERVAL).await;
                if let Err(error) = self.store.ping(DOUBT_TIMEOUT).await {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            deleted = self.store.delete_all() => deleted,
            error = doubt => Err(error),
        }
    }

    /// Reads some rows.
    ///
    /// # Errors
    /// When the database fails, and when too many read.
    pub(crate) async fn page(&self, span: Span) -> Result<Page, Fault> {
        let begun = Instant::now();
        let page = self.outage.watch(Work::Read, async {
            match self.store.page(span).await {
                // It was the others' reads, or a slow one, unless no request is answered.
                Err(Error::Crowded | Error::Silent(_)) => {
                    self.store.ping(READ_DOUBT_TIMEOUT).await?;
                    let was_away = self.outage.was_away_since(begun);
                    Err(if was_away { Error::Silent(begun.elapsed()) } else { Error::Crowded })
                }
                done => done,
            }
        });
        Ok(page.await?)
    }

    /// Returns `Ok` if the database answers, and a write would succeed.
    ///
    /// # Errors
    /// When the database does not answer, and when the last write failed or the next one would.
    pub(crate) async fn ready(&self) -> Result<(), Fault> {
        if !self.writer.is_open() {
            return Err(Fault::Unavailable);
        }
        self.outage.watch(Work::Read, self.store.ping(ANSWER_TIMEOUT)).await?;
        if !self.outage.is_met(FaultKind::Unwritable) {
            let would_write = self.store.would_write(ANSWER_TIMEOUT);
            let asked = self.outage.doubt(Work::Store, would_write).await;
            if !self.outage.is_met(FaultKind::Unwritable) {
                return Ok(asked?);
            }
        }
        Err(Fault::Unwritable)
    }

    /// Finishes the writes that were asked for, also those whose clients have gone, and takes leave
    /// of the database.
    pub(crate) async fn finish(&self) {
        self.writer.finish().await;
        let last = self.begun.acquire_many(DELETES_MAX).await;
        self.begun.close();
        drop(last);
        self.follower.abort();
        if self.outage.is_open(FaultKind::Away) {
            // A reload may be what has ended the outage.
            drop(self.outage.watch(Work::Read, self.store.ping(LAST_TIMEOUT)).await);
        }
        self.outage.settle_for_good();
        self.store.close().await;
    }
}
