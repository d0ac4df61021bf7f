//! Settles what came back, dispatches what may ship, and keeps the time of whatever waits.

use std::collections::VecDeque;

use tracing::warn;

use super::{Budget, DcEngine, Ways};
use crate::dest::{Destination, NodeEvent, Reply, Unanswered};
use crate::host::Host;
use crate::model::{NamespaceId, Tick};
use crate::ship::{LimitedBy, Now, Outcome, Settled, SweepStep, hints_at_stale_map};
use crate::wire::ResultCode;
use crate::wire::hello::HelloAnswer;
use longship_rt::prefetch;

/// Between two sweeps, measurements and looks at connections.
const SECOND_MS: u64 = 1000;

/// What came from the destination and is not settled yet.
#[derive(Default)]
pub(super) struct Incoming {
    /// Those from `settled` on are still to be settled.
    replies: Vec<Reply>,
    settled: usize,
    notices: VecDeque<NodeEvent>,
    came: Vec<NodeEvent>,
    loss: Option<Loss>,
    /// When the next second begins.
    second_at: Tick,
    sweeping: bool,
}

/// What a lost connection owed, as far as it is not settled yet.
struct Loss {
    unanswered: Unanswered,
    fenced: bool,
}

/// When the next call makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Again,
    /// Then, if nothing happens before.
    At(Tick),
}

/// What a call of [`DcEngine::decide`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// When to decide again.
    pub next: Next,
    /// Changes dispatched.
    pub dispatched: usize,
    /// A sweep of all slots has ended: LSTs and marks are up to date.
    pub is_swept: bool,
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// Settles what was answered, lost and found out, then dispatches, then keeps the time.
    pub fn decide(&mut self, host: &H, now: Now, budget: &Budget) -> Decided {
        self.dispatched.clear();
        let settled = self.settle_replies(host, now, budget.settled);
        let more = self.incoming.settled < self.incoming.replies.len();
        let returns = !more && self.take_notices(host, now, budget.settled - settled);
        self.settle_outcomes(host, now);
        // Changes that a lost connection gives back go before queued ones, so nothing is dispatched
        // until all of them are taken up.
        let (dispatched, due, full) =
            if returns { (0, now.tick, true) } else { self.dispatch(host, now, budget) };
        let is_swept = self.keep_time(host, now, budget);
        let again = more || full || self.incoming.sweeping || due <= now.tick;
        let lap = self.lap_ms.map_or(Tick::NEVER, |ms| now.tick.plus_ms(ms.into()));
        let next = match again {
            true => Next::Again,
            false => Next::At(due.min(lap).min(self.incoming.second_at)),
        };
        Decided { next, dispatched, is_swept }
    }

    /// Settles what was answered, up to `count`; tells how many it was.
    fn settle_replies(&mut self, host: &H, now: Now, count: usize) -> usize {
        let incoming = &mut self.incoming;
        if incoming.settled == incoming.replies.len() {
            incoming.replies.clear();
            incoming.settled = 0;
            self.destination.drain(&mut incoming.replies, &mut incoming.came);
            incoming.notices.extend(incoming.came.drain(..));
        }
        let end = incoming.replies.len().min(incoming.settled + count);
        let begin = incoming.settled;
        let replies = std::mem::take(&mut incoming.replies);
        let mut is_stale = false;
        for some in replies[begin..end].chunks(prefetch::WIDTH) {
            self.rules.prefetch(some.iter().map(|reply| reply.tag));
            for &Reply { tag, code } in some {
                if let Some(digest) = self.service.landed(tag) {
                    self.lag.acknowledged(&digest, now.tick);
                }
                is_stale |= hints_at_stale_map(code);
                self.settle(host, tag, Outcome::Reply(code), now);
            }
        }
        if is_stale {
            self.destination.poke();
        }
        self.incoming.replies = replies;
        self.incoming.settled = end;
        end - begin
    }

    /// Acts on what happened at the destination, once the replies that came before it have been
    /// settled. Of what lost connections owed, up to `left` changes return. True when there is
    /// more.
    fn take_notices(&mut self, host: &H, now: Now, mut left: usize) -> bool {
        loop {
            if let Some(mut loss) = self.incoming.loss.take() {
                left -= self.return_some(&mut loss, host, now, left);
                if !loss.unanswered.tags.is_empty() {
                    self.incoming.loss = Some(loss);
                    return true;
                }
            }
            if left == 0 {
                return !self.incoming.notices.is_empty();
            }
            let Some(notice) = self.incoming.notices.pop_front() else { return false };
            self.incoming.loss = self.take_notice(notice, now);
        }
    }

    /// Returns up to `count` of what a lost connection owed, newest first, so that lanes keep their
    /// order; tells how many it was.
    fn return_some(&mut self, loss: &mut Loss, host: &H, now: Now, count: usize) -> usize {
        let Loss { unanswered: Unanswered { tags, in_doubt }, fenced } = loss;
        let from = tags.len().saturating_sub(count);
        let returned = tags.len() - from;
        for (place, &tag) in tags.iter().enumerate().skip(from).rev() {
            self.service.landed(tag);
            let outcome = if place < *in_doubt {
                Outcome::Unanswered { fenced: *fenced }
            } else {
                Outcome::Unsent
            };
            self.settle(host, tag, outcome, now);
        }
        tags.truncate(from);
        returned
    }

    fn settle_outcomes(&mut self, host: &H, now: Now) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for (slot, outcome) in outcomes.drain(..) {
            self.settle(host, slot, outcome, now);
        }
        self.outcomes = outcomes;
    }

    #[inline]
    fn settle(&mut self, host: &H, slot: u32, outcome: Outcome, now: Now) {
        if let Settled::Abandoned(abandoned) = self.rules.settle(slot, outcome, now) {
            let names = (self.name.as_str(), &*self.namespaces);
            self.given_up.bury(abandoned, names, host, now);
        }
    }

    /// Acts on a notice. Gives what a lost connection owed, to be returned.
    fn take_notice(&mut self, notice: NodeEvent, now: Now) -> Option<Loss> {
        let rules = &mut self.rules;
        match notice {
            NodeEvent::Up { node, connection, hello } => {
                rules.map_changed();
                let src_id = hello.as_ref().map(|hello| hello.src_id);
                if let Some(HelloAnswer { boot, loss_window_ms, src_id, stores }) = hello {
                    rules.set_destination(src_id);
                    rules.node_window(node.0, loss_window_ms);
                    self.given_up.tell_stores(self.index, boot, stores);
                }
                self.connected(node, connection, src_id);
            }
            NodeEvent::Down { node, unanswered, .. } => {
                return Some(Loss { unanswered, fenced: self.service.is_fenced(node) });
            }
            NodeEvent::Rebooted(reboot) => {
                rules.node_restarted(reboot.node.0);
                self.drop_replays();
            }
            NodeEvent::MapChanged => {
                rules.map_changed();
                self.destination.look(now.tick);
            }
            // What it acknowledged within its loss window may never have become durable.
            NodeEvent::Gone { node } => {
                rules.node_restarted(node.0);
                self.drop_replays();
            }
            NodeEvent::Alive { node, asked } => rules.node_answered(node.0, asked),
            NodeEvent::FactsChanged(namespace) => self.take_facts(namespace, now),
        }
        None
    }

    /// What would make every write fail parks the namespace before anything is tried.
    fn take_facts(&mut self, namespace: NamespaceId, now: Now) {
        let facts = self.destination.facts(namespace);
        let refusal = match (facts.exists, facts.takes_shipped) {
            (Some(false), _) => Some(ResultCode::NAMESPACE),
            (_, Some(false)) => Some(ResultCode::FORBIDDEN),
            _ => None,
        };
        self.rules.foresee(namespace, refusal, now);
        let told = &mut self.told_of_ttl[namespace.index()];
        let is_news = facts.takes_ttl.is_some_and(|takes| *told == takes);
        if is_news {
            *told = !*told;
        }
        if is_news && *told {
            let (name, of) = (&self.name, &self.namespaces[namespace.index()]);
            warn!(
                dc = name,
                namespace = of,
                "the destination refuses records with a time to live: set nsup-period or \
                 allow-ttl-without-nsup there"
            );
        }
    }

    /// Dispatches within the budget. Gives how much that was, when the rules want the next turn,
    /// and whether they had more.
    fn dispatch(&mut self, host: &H, now: Now, budget: &Budget) -> (usize, Tick, bool) {
        let Self { rules, destination, service, work, .. } = self;
        rules.note_in_memory(|namespace| host.in_memory_above(namespace));
        rules.note_clock(|namespace| host.version_clock(namespace));
        let waiting_max = budget.waiting;
        let mut ways = Ways { destination: &*destination, service: &*service, work, waiting_max };
        let idle = rules.dispatch(now, &mut ways, &mut self.dispatched, budget.dispatched);
        let dispatched = self.dispatched.len();
        for some in self.dispatched.chunk_by(|one, next| one.namespace == next.namespace) {
            self.work[some[0].namespace.index()].extend(some);
        }
        let full = dispatched >= budget.dispatched as usize
            || dispatched > 0 && idle.limited_by == LimitedBy::Reads;
        (dispatched, idle.next_due, full)
    }

    /// Once a second: connections that do not move, rates, troubles, and the sweep that moves LSTs.
    /// Tells whether a sweep has ended.
    fn keep_time(&mut self, host: &H, now: Now, budget: &Budget) -> bool {
        if now.tick >= self.incoming.second_at {
            self.incoming.second_at = now.tick.plus_ms(SECOND_MS);
            self.incoming.sweeping = true;
            self.rules.measure(now);
            self.rules.note_record_bytes(|namespace| host.record_bytes(namespace));
            self.destination.look(now.tick);
            self.look_for_trouble(now);
        }
        if !self.incoming.sweeping {
            return false;
        }
        let step = self.rules.sweep(budget.swept, |id| host.version_clock(id));
        self.incoming.sweeping = step == SweepStep::More;
        if !self.incoming.sweeping {
            self.note_settled_replays();
            self.note_outdated_letters(host);
        }
        !self.incoming.sweeping
    }
}
