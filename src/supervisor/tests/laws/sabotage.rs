//! Each law can be broken: false orders are slipped in behind the supervisor's back, and the judge
//! must name the law that they break. A law that nothing breaks would prove nothing.

use std::collections::BTreeSet;

use super::Law;
use crate::ids::{ChildId, Generation, Pid, Slot};
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::{Task, Urgency};
use crate::supervisor::tests::world::machine::Process;
use crate::supervisor::tests::world::plan::Release;
use crate::supervisor::tests::world::{Sabotage, World};

/// The ways in which the laws are broken, one for each.
#[expect(clippy::too_many_lines, reason = "one arm for each law")]
fn sabotage(law: Law) -> Sabotage {
    match law {
        Law::Bounds => |world, orders| {
            let starting = world.machine.workers().find(|(_, it)| it.starts());
            if let Some((slot, it)) = starting.filter(|_| is_untouched(world)) {
                orders.push(fork(slot, it.generation));
            }
        },
        Law::NoForkWhenStopping => |_, orders| {
            if orders.contains(&Action::StopListening) {
                orders.push(fork(Slot::new(0), Generation::FIRST));
            }
        },
        Law::OnlyTheLiving => |_, orders| {
            orders.push(Action::Signal { pid: Pid(4711), signal: ChildSignal::Quit });
        },
        Law::OrdersOnce => |_, orders| {
            let is_end =
                |order: &&Action| matches!(order, Action::Drain { .. } | Action::Stop { .. });
            let again = orders.iter().find(is_end).cloned();
            orders.extend(again);
        },
        Law::UrgencyRises => |_, orders| {
            for order in orders {
                if let Action::Log(Notice::Stopping { urgency, .. }) = order {
                    *urgency = Urgency::Graceful;
                }
            }
        },
        Law::ReconcileOnce => |world, _| world.asks_otherwise.set(true),
        Law::EndIsEnd => |world, orders| {
            if world.has_ended() {
                orders.push(Action::ReopenLogs);
            }
        },
        Law::NoBusyLoop => |world, _| world.wakes_itself.set(true),
        Law::BackOff => |_, orders| {
            let refused = orders.iter().find_map(|order| match order {
                Action::Log(Notice::ForkFailed { task: Task::Worker { slot }, .. }) => Some(*slot),
                _ => None,
            });
            orders.extend(refused.map(|slot| fork(slot, Generation::FIRST)));
        },
        Law::Recovers => |_, orders| orders.retain(|order| !matches!(order, Action::Load { .. })),
        Law::StopsInTime => |_, orders| {
            orders
                .retain(|order| !matches!(order, Action::Signal { signal: ChildSignal::Kill, .. }));
        },
        Law::BadReleasesFail => |world, orders| {
            let bad = world.releases.iter().find(|(_, (it, _))| *it == Release::HangsAtBoot);
            orders.extend(bad.map(|(generation, _)| Action::Use { generation: *generation }));
        },
        Law::ServedThroughout => |world, orders| {
            let settled = serving(world).filter(|serving| serving.ready_at < Some(world.now));
            orders.extend(settled.map(|settled| signal(settled, ChildSignal::Quit)));
        },
        Law::ReloadsEnd => |_, orders| {
            orders.retain(|order| {
                !matches!(order, Action::Fork { task: Task::Prepare, generation, .. }
                    if *generation > Generation::FIRST)
            });
        },
        Law::OnlyTheStuck => |world, orders| {
            orders.extend(serving(world).map(|serving| signal(serving, ChildSignal::Abort)));
        },
        Law::TheStuckEnd => |_, orders| {
            orders.retain(|order| !matches!(order, Action::ReadHeartbeat { .. }));
        },
        Law::NoEarlyKill => |world, orders| {
            let booting = world.machine.processes.iter().find(|process| process.starts());
            orders.extend(booting.map(|booting| signal(booting, ChildSignal::Kill)));
        },
        Law::EverySlotAccepted => |_, orders| {
            orders.retain(|order| !matches!(order, Action::Accept { .. }));
        },
        Law::SteeredToTheLiving => |world, orders| {
            orders.retain(|order| world.now < 200 || !matches!(order, Action::Steer { .. }));
        },
        Law::QueuesDrain => {
            |_, orders| orders.retain(|order| !matches!(order, Action::Look { .. }))
        }
        Law::ExitCodes => |_, orders| {
            for order in orders {
                if let Action::Exit(reason) = order {
                    *reason = match reason {
                        ExitReason::Stopped => ExitReason::WorkerBoot,
                        ExitReason::WorkerBoot | ExitReason::Prepare => ExitReason::Stopped,
                    };
                }
            }
        },
        Law::OneAtATime => |world, orders| {
            let serving = world.machine.workers().filter(|(_, it)| it.serves()).take(2);
            for (slot, it) in serving.filter(|_| is_untouched(world)) {
                orders.push(fork(slot, it.generation));
            }
        },
        Law::HupsCoalesce => |_, orders| {
            orders.push(Action::Log(Notice::Reloading { generation: Generation::FIRST }));
        },
        Law::ReplacementFirst => |world, orders| {
            let drain = |process: &Process| Action::Drain { child: process.id };
            orders.extend(serving(world).map(drain));
        },
        Law::Remembered => |_, orders| {
            orders.push(Action::Forget { generation: Generation::FIRST });
        },
        Law::PreparedFirst => |_, orders| {
            let prepared = orders.iter().find_map(|order| match order {
                Action::Fork { task: Task::Prepare, generation, .. } => Some(*generation),
                _ => None,
            });
            orders.extend(prepared.map(|generation| fork(Slot::new(0), generation)));
        },
        Law::UpgradeAlone => |world, orders| {
            if world.supervisor.reload.is_some() {
                orders.push(Action::Upgrade);
            }
        },
        Law::LoggerLast => |_, orders| {
            if orders.contains(&Action::StopListening) {
                orders.push(Action::FinishLogs);
            }
        },
    }
}

/// The law after this one. A new law does not compile until it has a place here.
fn next(law: &Law) -> Option<Law> {
    Some(match law {
        Law::Bounds => Law::NoForkWhenStopping,
        Law::NoForkWhenStopping => Law::OnlyTheLiving,
        Law::OnlyTheLiving => Law::OrdersOnce,
        Law::OrdersOnce => Law::UrgencyRises,
        Law::UrgencyRises => Law::ReconcileOnce,
        Law::ReconcileOnce => Law::EndIsEnd,
        Law::EndIsEnd => Law::NoBusyLoop,
        Law::NoBusyLoop => Law::BackOff,
        Law::BackOff => Law::Recovers,
        Law::Recovers => Law::StopsInTime,
        Law::StopsInTime => Law::BadReleasesFail,
        Law::BadReleasesFail => Law::ServedThroughout,
        Law::ServedThroughout => Law::ReloadsEnd,
        Law::ReloadsEnd => Law::OnlyTheStuck,
        Law::OnlyTheStuck => Law::TheStuckEnd,
        Law::TheStuckEnd => Law::NoEarlyKill,
        Law::NoEarlyKill => Law::EverySlotAccepted,
        Law::EverySlotAccepted => Law::SteeredToTheLiving,
        Law::SteeredToTheLiving => Law::QueuesDrain,
        Law::QueuesDrain => Law::ExitCodes,
        Law::ExitCodes => Law::OneAtATime,
        Law::OneAtATime => Law::HupsCoalesce,
        Law::HupsCoalesce => Law::ReplacementFirst,
        Law::ReplacementFirst => Law::Remembered,
        Law::Remembered => Law::PreparedFirst,
        Law::PreparedFirst => Law::UpgradeAlone,
        Law::UpgradeAlone => Law::LoggerLast,
        Law::LoggerLast => return None,
    })
}

#[test]
fn each_law_can_be_broken() {
    for law in std::iter::successors(Some(Law::Bounds), next) {
        let mut named = BTreeSet::new();
        let found = (0..4000).any(|seed| {
            let mut world = World::new(seed).sabotaged(sabotage(law));
            world.run();
            named.extend(world.verdict().err().map(|broken| broken.law));
            named.contains(&law)
        });
        assert!(found, "{law:?} is not named in 4000 worlds that break it; these are: {named:?}");
    }
}

/// A fork that the supervisor knows nothing of.
fn fork(slot: Slot, generation: Generation) -> Action {
    let child = ChildId(1_000_000 + u64::from(slot.number()));
    Action::Fork { child, task: Task::Worker { slot }, generation }
}

fn is_untouched(world: &World) -> bool {
    world.machine.processes.iter().all(|process| process.id < ChildId(1_000_000))
}

fn serving(world: &World) -> Option<&Process> {
    world.machine.processes.iter().find(|process| process.serves())
}

fn signal(process: &Process, signal: ChildSignal) -> Action {
    Action::Signal { pid: process.pid, signal }
}
