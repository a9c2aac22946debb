//! Background tasks that a draining worker waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The tasks of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    ended: Notify,
}

/// One task, until it ends, panics or is dropped.
struct Task(Arc<Running>);

// ORDERING: the last task is seen to have ended by those that what it did may matter to: AcqRel.
impl Drop for Task {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

impl Tasks {
    /// Starts a task on the current runtime.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        let entry = Task(Arc::clone(&self.0));
        tokio::spawn(async move {
            let _entry = entry;
            task.await
        })
    }

    /// The number of tasks that run.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until none runs.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has a runtime of its own")]
    fn block_on(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn tasks_have_ended_when_each_returned_panicked_or_was_aborted() {
        block_on(async {
            let tasks = Tasks::default();
            tasks.ended().await;
            let go = Arc::new(Notify::new());
            let told = Arc::clone(&go);
            let returns = tasks.spawn(async move { told.notified().await });
            let panics = tasks.spawn(async { panic!("as it was told to") });
            let aborted = tasks.spawn(std::future::pending::<()>());
            assert_eq!(tasks.count(), 3);
            panics.await.expect_err("it panics");
            aborted.abort();
            let early = tokio::time::timeout(Duration::from_millis(1), tasks.ended()).await;
            assert!(early.is_err() && tasks.count() == 1);
            go.notify_one();
            tasks.ended().await;
            returns.await.unwrap();
        });
    }
}
