//! A shell that tells anything at all: facts in no order, about no child, twice, at any time. Nothing
//! can be asked of the supervisor then but that it stays sane. proptest shortens what breaks that.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::ids::{ChildId, CommandId, Pid, Slot, SlotSet};
use crate::supervisor::Supervisor;
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::command::{Command, Scale};
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::{Due, Stage};
use crate::supervisor::tests::transcript;
use crate::time::Instant;

fn child() -> impl Strategy<Value = ChildId> {
    (1..12_u64).prop_map(ChildId)
}

fn pid() -> impl Strategy<Value = Pid> {
    (100..112).prop_map(Pid)
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![9 => 0..4_u16, 1 => Just(Slot::MAX - 1)].prop_map(Slot::new)
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        Just(ExitStatus::Code(0)),
        Just(ExitStatus::Code(1)),
        Just(ExitStatus::Signal { number: 9, core: false }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let settings = (1..4, 0..3, 0..3, 0..3, 0..3, 0..2);
    settings.prop_map(|(workers, graceful, boot, stall, lifetime, memory)| {
        transcript::policy(&format!(
            "workers={workers} graceful={graceful} boot={boot} stall={stall} lifetime={lifetime} \
             memory={memory}"
        ))
    })
}

fn signal() -> impl Strategy<Value = Signal> {
    prop_oneof![
        4 => Just(Signal::Reload),
        2 => Just(Signal::More),
        2 => Just(Signal::Fewer),
        2 => Just(Signal::Upgrade),
        1 => Just(Signal::Reopen),
        1 => Just(Signal::Terminate),
        1 => Just(Signal::Interrupt),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let slots = prop::option::of(prop::collection::vec(slot(), 0..3));
    prop_oneof![
        2 => Just(Command::Reload),
        1 => Just(Command::Upgrade),
        3 => slots.prop_map(|slots| Command::Restart(slots.map(SlotSet::from_iter))),
        1 => any::<u16>().prop_map(|workers| Command::Scale(Scale::To(workers))),
        3 => (-2..3_i16).prop_map(|change| Command::Scale(Scale::By(change))),
        1 => Just(Command::Reopen),
    ]
}

/// Any fact. Those that bring a server up are the most frequent, or nothing would ever come about.
fn fact() -> impl Strategy<Value = Event> {
    let heartbeat = (0..9000_u64).prop_map(Instant::from_millis);
    let kept = prop_oneof![Just(Kept::ByNothing), Just(Kept::ByStarvation)];
    let why = prop_oneof![Just(Due::Requests), Just(Due::ByHand)];
    let refused = (child(), Just("no memory".to_owned()));
    prop_oneof![
        6 => Just(Event::Started),
        8 => Just(Event::Tick),
        1 => Just(Event::Upgraded),
        4 => signal().prop_map(Event::Signalled),
        9 => (child(), pid()).prop_map(|(child, pid)| Event::Forked { child, pid }),
        2 => refused.prop_map(|(child, reason)| Event::ForkFailed { child, reason }),
        9 => child().prop_map(|child| Event::Ready { child }),
        2 => (child(), why).prop_map(|(child, why)| Event::WorkerDue { child, why }),
        8 => (pid(), status()).prop_map(|(pid, status)| Event::Exited { pid, status }),
        2 => child().prop_map(|child| Event::Unheard { child }),
        4 => policy().prop_map(|policy| Event::Loaded(Ok(policy))),
        1 => Just(Event::Loaded(Err("unreadable".to_owned()))),
        2 => (0..5_u16).prop_map(|count| Event::SlotsOpen { count }),
        2 => slot().prop_map(|slot| Event::Queued { slot }),
        2 => (slot(), 0..3_u32, (0..9000_u64).prop_map(Instant::from_millis))
            .prop_map(|(slot, length, heartbeat)| Event::QueueLength { slot, length, heartbeat }),
        3 => (child(), heartbeat, kept)
            .prop_map(|(child, heartbeat, kept)| Event::Heartbeat { child, heartbeat, kept }),
        2 => (child(), 0..3_u64).prop_map(|(child, bytes)| Event::MemoryRead { child, bytes }),
        2 => child().prop_map(|child| Event::NeedsTime { child }),
        1 => Just(Event::UpgradeFailed { reason: "not found".to_owned() }),
        4 => (0..9_u64, command())
            .prop_map(|(id, command)| Event::Commanded { id: CommandId(id), command }),
        1 => (0..9_u64).prop_map(|id| Event::Abandoned { id: CommandId(id) }),
        1 => any::<bool>().prop_map(|is_complete| Event::Reopened { is_complete }),
    ]
}

/// The time that goes by before a fact.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![5 => Just(0), 5 => 0..50_u64, 3 => 0..3000_u64, 1 => Just(3_600_000)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_told_leads_it_astray(
        first in policy(),
        facts in prop::collection::vec((pause(), fact()), 1..60),
    ) {
        let mut supervisor = Supervisor::new(first, 1);
        let mut now = Instant::default();
        let mut killed = BTreeSet::new();
        let mut ended = false;
        for (pause, fact) in facts {
            now = now.after(std::time::Duration::from_millis(pause));
            let orders = supervisor.handle(now, aim(&supervisor, fact));
            prop_assert!(!ended || orders.is_empty(), "after the end: {orders:?}");
            ended |= orders.iter().any(|order| matches!(order, Action::Exit(_)));
            check_orders(&supervisor, &orders, &mut killed)?;
            check_state(&supervisor, now)?;
            if !supervisor.awaits_tick(now) {
                let again = supervisor.clone().handle(now, Event::Tick);
                prop_assert!(again.is_empty(), "the second time: {again:?}");
            }
        }
    }
}

/// Most facts about a child that does not exist are made facts about one that does.
fn aim(supervisor: &Supervisor, mut fact: Event) -> Event {
    let some = |number: u64| {
        let at = usize::try_from(number).expect("a small number");
        let children = &supervisor.children;
        (at < 9 && !children.is_empty()).then(|| &children[at % children.len()])
    };
    match &mut fact {
        Event::Forked { child, .. }
        | Event::ForkFailed { child, .. }
        | Event::Ready { child }
        | Event::WorkerDue { child, .. }
        | Event::Heartbeat { child, .. }
        | Event::Unheard { child }
        | Event::NeedsTime { child }
        | Event::MemoryRead { child, .. } => {
            *child = some(child.0).map_or(*child, |found| found.id);
        }
        Event::Exited { pid, .. } => {
            let number = u64::from(pid.0.unsigned_abs()) - 100;
            *pid = some(number).and_then(|found| found.pid()).unwrap_or(*pid);
        }
        _ => {}
    }
    fact
}

/// Orders name children that are there; none is killed twice.
fn check_orders(
    supervisor: &Supervisor,
    orders: &[Action],
    killed: &mut BTreeSet<ChildId>,
) -> Result<(), TestCaseError> {
    let children = &supervisor.children;
    for order in orders {
        match order {
            Action::Signal { pid, signal } => {
                let of_pid = || children.iter().filter(|child| child.pid() == Some(*pid));
                prop_assert!(of_pid().next().is_some(), "{pid} is no child's");
                // A shell that gives two children one pid cannot blame the supervisor.
                if *signal == ChildSignal::Kill && of_pid().count() == 1 {
                    prop_assert!(
                        of_pid().all(|pid| killed.insert(pid.id)),
                        "{pid} is killed twice"
                    );
                }
            }
            Action::Drain { child } | Action::Stop { child } | Action::Accept { child, .. } => {
                prop_assert!(
                    children.iter().any(|other| other.id == *child),
                    "{child} is no child"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_state(supervisor: &Supervisor, now: Instant) -> Result<(), TestCaseError> {
    prop_assert!(supervisor.next_deadline().is_none_or(|next| next > now));
    prop_assert!(supervisor.wanted > 0);
    for slot in supervisor.slots() {
        let count = |is: fn(&Stage) -> bool| {
            supervisor.in_slot(slot).filter(|child| is(&child.stage)).count()
        };
        let starting = count(|count| matches!(count, Stage::Forking | Stage::Booting { .. }));
        prop_assert!(starting <= 1, "{starting} boot in slot {slot}");
        let serving = count(|count| matches!(count, Stage::Serving { .. }));
        prop_assert!(serving <= 1, "{serving} serve in slot {slot}");
        let yielding = count(|count| matches!(count, Stage::Yielding { .. }));
        prop_assert!(yielding <= 1, "{yielding} yield in slot {slot}");
    }
    for child in &supervisor.children {
        let known = supervisor.policies.contains_key(&child.generation);
        prop_assert!(known, "the generation of {} is forgotten", child.id);
    }
    Ok(())
}
