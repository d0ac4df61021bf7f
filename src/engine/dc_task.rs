//! The DC task: decides. Settles what came back, dispatches what may ship, recovers what was
//! missed, and keeps the time of whatever waits.

use std::cell::Ref;
use std::collections::VecDeque;
use std::rc::Rc;

use tracing::warn;

use crate::dest::{Cluster, NodeIndex, Notice, Reply, Route, Unanswered};
use crate::host::{Host, Peek};
use crate::model::{NamespaceId, PartitionId, Tick};
use crate::rt::shard::yield_now;
use crate::ship::{
    Abandoned, Cause, DcShard, Dispatch, LimitedBy, Now, Outcome, Room, Routes, Settled, SweepStep,
    hints_at_stale_map,
};
use crate::wire::ResultCode;

use super::batch_memory::BatchBuffer;
use super::dc::Dc;
use super::letters::Letter;
use super::service_task::Service;

/// Changes dispatched per turn, so that replies and other tasks get theirs.
const DISPATCH_MAX: u32 = 512;
/// Replies whose changes are fetched into the cache together.
const PREFETCH_REPLIES: usize = 32;
/// Decided changes the service task may lag behind.
const WORK_MAX: usize = 2048;
/// Slots a sweep looks at per turn.
const SWEEP_SLOTS: u32 = 8192;
/// Between two sweeps, measurements and looks at connections.
const SECOND_MS: u64 = 1000;
/// Replies and returned changes settled per turn: a lost connection gives back as many as a window
/// holds.
const SETTLE_MAX: usize = 4096;

/// What the task keeps between turns.
#[derive(Default)]
struct State {
    /// Those from `settled` on are still to be settled.
    replies: Vec<Reply>,
    settled: usize,
    notices: VecDeque<Notice>,
    came: Vec<Notice>,
    loss: Option<Loss>,
    outcomes: Vec<(u32, Outcome)>,
    dispatched: Vec<Dispatch>,
    second_at: Tick,
    sweeping: bool,
}

/// What a lost connection owed, as far as it is not settled yet.
struct Loss {
    unanswered: Unanswered,
    fenced: bool,
}

/// Runs until the DC ends.
pub(crate) async fn run<H: Host>(dc: Rc<Dc<H>>) {
    let mut state = State::default();
    while !dc.ended.get() {
        let now = dc.context.now();
        match step(&dc, &mut state, now) {
            Next::Again => yield_now().await,
            Next::At(due) => {
                dc.bell.wait_until(due.0).await;
            }
        }
    }
}

/// When the next turn makes sense.
enum Next {
    Again,
    At(Tick),
}

fn step<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) -> Next {
    let more = settle_replies(dc, state, now);
    let returns = !more && take_notices(dc, state, now);
    settle_outcomes(dc, state, now);
    dc.post_letters();
    // What a lost connection gives back goes in front of what is queued, so that waits for it.
    let (due, full) = if returns { (now.tick, true) } else { dispatch(dc, state, now) };
    keep_time(dc, state, now);
    if dc.rules.borrow().has_gaps() {
        dc.recovery_bell.set();
    }
    // There is work, or a socket became free.
    dc.service_bell.set();
    if more || full || state.sweeping || due <= now.tick {
        return Next::Again;
    }
    let config = dc.config.borrow();
    let lap = if config.doorbell { Tick::NEVER } else { now.tick.plus_ms(config.period_ms.into()) };
    Next::At(due.min(lap).min(state.second_at))
}

/// Settles what was answered, as much as fits a turn. True when there is more.
fn settle_replies<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) -> bool {
    if state.settled == state.replies.len() {
        state.replies.clear();
        state.settled = 0;
        dc.cluster.drain(&mut state.replies, &mut state.came);
        state.notices.extend(state.came.drain(..));
    }
    let end = state.replies.len().min(state.settled + SETTLE_MAX);
    let mut service = dc.service.borrow_mut();
    let mut rules = dc.rules.borrow_mut();
    let mut is_stale = false;
    for replies in state.replies[state.settled..end].chunks(PREFETCH_REPLIES) {
        rules.prefetch(replies.iter().map(|reply| reply.tag));
        for &Reply { tag, code } in replies {
            if let Some(digest) = service.landed(tag) {
                dc.lag.borrow_mut().acknowledged(&digest, now.tick);
            }
            is_stale |= hints_at_stale_map(code);
            note(dc, &mut rules, tag, Outcome::Reply(code), now);
        }
    }
    if is_stale {
        dc.cluster.poke();
    }
    state.settled = end;
    end < state.replies.len()
}

/// Acts on what happened at the destination, after the replies that came before it. True when there
/// is more.
fn take_notices<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) -> bool {
    loop {
        if let Some(loss) = &mut state.loss {
            return_some(dc, loss, now);
            if !loss.unanswered.tags.is_empty() {
                return true;
            }
            state.loss = None;
        }
        let Some(notice) = state.notices.pop_front() else { return false };
        state.loss = take_notice(dc, notice, now);
    }
}

/// Returns some of what a lost connection owed, newest first, so that lanes keep their order.
fn return_some<H: Host>(dc: &Dc<H>, loss: &mut Loss, now: Now) {
    let Loss { unanswered: Unanswered { tags, in_doubt }, fenced } = loss;
    let from = tags.len().saturating_sub(SETTLE_MAX);
    let (mut service, mut rules) = (dc.service.borrow_mut(), dc.rules.borrow_mut());
    for (place, &tag) in tags.iter().enumerate().skip(from).rev() {
        service.landed(tag);
        let outcome = if place < *in_doubt {
            Outcome::Unanswered { fenced: *fenced }
        } else {
            Outcome::Unsent
        };
        note(dc, &mut rules, tag, outcome, now);
    }
    tags.truncate(from);
}

fn settle_outcomes<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) {
    std::mem::swap(&mut state.outcomes, &mut dc.outcomes.borrow_mut());
    let mut rules = dc.rules.borrow_mut();
    for (slot, outcome) in state.outcomes.drain(..) {
        note(dc, &mut rules, slot, outcome, now);
    }
}

fn note<H: Host>(dc: &Dc<H>, rules: &mut DcShard, slot: u32, outcome: Outcome, now: Now) {
    if let Settled::Abandoned(letter) = rules.settle(slot, outcome, now) {
        bury(dc, letter, now);
    }
}

/// Writes a letter about a change that was given up. A record that is only on the device is read
/// first: the letter tells its set and key.
fn bury<H: Host>(dc: &Dc<H>, abandoned: Abandoned, now: Now) {
    let Abandoned { slot, namespace, digest, lut, cause } = abandoned;
    let host = dc.context.host.borrow();
    let mut is_unread = false;
    let (set, key) = match host.peek(namespace, &digest) {
        Peek::Here(record) => (record.set.to_owned(), record.key.to_vec()),
        Peek::Gone => Default::default(),
        Peek::OnDevice => {
            is_unread = cause != Cause::Unreadable;
            Default::default()
        }
    };
    let letter = Letter {
        dc: dc.config.borrow().name.clone(),
        namespace: dc.context.namespaces[namespace.index()].clone(),
        set,
        key,
        digest,
        lut,
        code: match cause {
            Cause::Refused(code) => i16::from(code.0),
            Cause::Unreadable => -1,
        },
        at: now.wall,
        is_replayed: false,
    };
    if is_unread {
        dc.unread_letters.borrow_mut().push((slot, namespace, letter));
    } else {
        dc.letters.borrow_mut().push((slot, letter));
    }
}

/// Acts on a notice. Gives what a lost connection owed, to be returned.
fn take_notice<H: Host>(dc: &Dc<H>, notice: Notice, now: Now) -> Option<Loss> {
    let name = dc.config.borrow().name.clone();
    let mut rules = dc.rules.borrow_mut();
    match notice {
        Notice::Up { node, hello } => {
            if let Some(hello) = hello {
                rules.set_destination(hello.src_id);
                rules.node_window(node.0, hello.loss_window_ms);
            }
            dc.service.borrow_mut().set_hello(node, hello.map(|hello| hello.src_id));
            rules.map_changed();
        }
        Notice::Down { node, fault, unanswered } => {
            warn!(dc = name, node = node.0, %fault, owed = unanswered.tags.len(), "connection lost");
            return Some(Loss { unanswered, fenced: dc.service.borrow().is_fenced(node) });
        }
        Notice::Rebooted(reboot) => {
            warn!(
                dc = name,
                node = reboot.node.0,
                loss_window_ms = reboot.loss_window_ms,
                "destination node restarted: what it may have lost is shipped again"
            );
            rules.node_restarted(reboot.node.0);
        }
        Notice::MapChanged => {
            rules.map_changed();
            dc.cluster.look(now.tick);
        }
        // What it acknowledged within its loss window may never have become durable.
        Notice::Gone { node } => rules.node_restarted(node.0),
        Notice::Alive { node, asked } => rules.node_answered(node.0, asked),
        Notice::FactsChanged(namespace) => take_facts(dc, &mut rules, namespace, now),
    }
    None
}

/// What would make every write fail parks the namespace before anything is tried.
fn take_facts<H: Host>(dc: &Dc<H>, rules: &mut DcShard, namespace: NamespaceId, now: Now) {
    let facts = dc.cluster.facts(namespace);
    let refusal = match (facts.exists, facts.takes_shipped) {
        (Some(false), _) => Some(ResultCode::NAMESPACE),
        (_, Some(false)) => Some(ResultCode::FORBIDDEN),
        _ => None,
    };
    rules.foresee(namespace, refusal, now);
    if refusal.is_none() && facts.takes_ttl == Some(false) {
        let (name, of) = (&dc.config.borrow().name, &dc.context.namespaces[namespace.index()]);
        warn!(
            dc = name,
            namespace = of,
            "the destination refuses records with a time to live: set nsup-period or \
             allow-ttl-without-nsup there"
        );
    }
}

/// Dispatches within budget. Gives when the rules want the next turn, and whether they had more.
fn dispatch<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) -> (Tick, bool) {
    let waiting = dc.work.borrow().len();
    if waiting >= WORK_MAX {
        return (Tick::NEVER, false);
    }
    let mut rules = dc.rules.borrow_mut();
    let host = dc.context.host.borrow();
    rules.note_in_memory(|namespace| host.in_memory_above(namespace));
    rules.note_clock(|namespace| host.version_clock(namespace));
    let mut routes = NodeRoutes::new(dc);
    let idle = rules.dispatch(now, &mut routes, &mut state.dispatched, DISPATCH_MAX);
    if state.dispatched.is_empty() {
        return (idle.next_due, false);
    }
    let full = state.dispatched.len() >= DISPATCH_MAX as usize;
    dc.work.borrow_mut().extend(state.dispatched.drain(..));
    dc.lap_us.set(dc.context.clock.now().saturating_sub(now.tick.0));
    (idle.next_due, full || idle.limited_by == LimitedBy::Reads)
}

/// The way to the destination's nodes, as connections and open batches stand.
pub(crate) struct NodeRoutes<'a, H: Host> {
    cluster: &'a Cluster<BatchBuffer>,
    service: Ref<'a, Service<H>>,
}

impl<'a, H: Host> NodeRoutes<'a, H> {
    pub(crate) fn new(dc: &'a Dc<H>) -> Self {
        Self { cluster: &dc.cluster, service: dc.service.borrow() }
    }
}

impl<H: Host> Routes for NodeRoutes<'_, H> {
    #[inline]
    fn room(&mut self, namespace: NamespaceId, partition: PartitionId) -> Room {
        match self.cluster.route(namespace, partition) {
            Route::Open(node) if self.service.has_room(node) => Room::Yes(node.0),
            Route::Open(node) | Route::Full(node) => Room::Full(node.0),
            Route::Down(_) | Route::NoNode => Room::NoNode,
        }
    }

    fn is_full(&self, node: u16) -> bool {
        let node = NodeIndex(node);
        !self.service.has_room(node) || self.cluster.is_full(node)
    }

    fn has_node(&self, namespace: NamespaceId, partition: PartitionId) -> bool {
        matches!(self.cluster.route(namespace, partition), Route::Open(_) | Route::Full(_))
    }
}

/// Once a second: connections that do not move, rates, and the sweep that moves LSTs.
fn keep_time<H: Host>(dc: &Dc<H>, state: &mut State, now: Now) {
    if now.tick >= state.second_at {
        state.second_at = now.tick.plus_ms(SECOND_MS);
        state.sweeping = true;
        dc.rules.borrow_mut().measure(now);
        dc.cluster.look(now.tick);
        dc.look_for_trouble(now);
    }
    if state.sweeping {
        let step = {
            let host = dc.context.host.borrow();
            dc.rules.borrow_mut().sweep(SWEEP_SLOTS, |id| host.version_clock(id))
        };
        state.sweeping = step == SweepStep::More;
        if !state.sweeping {
            dc.post_settled_replays();
            dc.post_outdated_letters();
        }
    }
}
