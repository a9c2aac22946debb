//! The laws about the logger.

use super::orders::Scene;
use super::{Judge, Law, millis};
use crate::ids::ChildId;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::stage::Task;
use crate::supervisor::tests::world::machine::Process;
use crate::supervisor::tests::world::plan::DEEP_SLEEP;

impl Judge {
    pub(super) fn fork_logger(&mut self, scene: &Scene<'_>) {
        let now = scene.now;
        self.forking.insert(ChildId::LOGGER, Task::Logger);
        let alone = scene.machine.process(ChildId::LOGGER).is_none();
        self.holds(Law::Bounds, alone, || "a second logger is forked".to_owned());
        let pause = match self.logger.early_deaths {
            0 | 1 => 0,
            deaths => 2000.min(10 << (deaths - 2).min(20)),
        };
        let forked_at = self.logger.forked_at.replace(now);
        self.logger.forked_before = forked_at;
        let waited = forked_at.is_none_or(|at| now - at >= pause);
        let refused = self.logger.refused_at.is_some_and(|at| now - at < 250);
        self.holds(Law::BackOff, waited && !refused, || {
            format!("the logger waits {pause} ms from {forked_at:?}; just refused: {refused}")
        });
    }

    pub(super) fn finish_logger(&mut self, scene: &Scene<'_>) {
        let logger = scene.machine.process(ChildId::LOGGER);
        let once = logger.is_some_and(|logger| !logger.orders.any());
        self.holds(Law::OrdersOnce, once, || "a logger finishes once".to_owned());
        let others = scene.machine.others().filter(|other| !other.undying).count();
        self.holds(Law::LoggerLast, self.stop.is_none() || others == 0, || {
            format!("the logger leaves before {others} others")
        });
        self.logger_timeout = millis(scene.releases[&self.in_force].1.graceful_timeout);
        self.count(if self.stop.is_some() {
            "the logger was last"
        } else {
            "a logger was renewed"
        });
    }

    pub(super) fn kill_logger(&mut self, scene: &Scene<'_>, logger: &Process) {
        let since = |then| self.absences.awake_since(then, scene.now, DEEP_SLEEP);
        let stopped =
            self.stop.is_some_and(|stop| since(stop.deadline) > 0 || stop.deadline <= scene.now);
        let timeout = self.logger_timeout;
        let told = logger.orders.drains_since.is_some_and(|then| since(then) >= timeout);
        self.holds(Law::NoEarlyKill, told || stopped, || {
            "the logger is killed too early".to_owned()
        });
    }

    pub(super) fn logger_ended(&mut self, now: u64, logger: &Process, status: ExitStatus) {
        let told = logger.orders.drains_since.is_some() && status.is_clean();
        let wanted = told || logger.orders.killed.is_some();
        let early = !wanted && now - logger.forked_at < 2000;
        self.logger.early_deaths = if early { self.logger.early_deaths + 1 } else { 0 };
    }
}
