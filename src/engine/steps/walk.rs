//! Walks the host's index for what a lane missed, and feeds what it finds to the rules. Live changes
//! go first; the rules keep the shares.

use std::task::{Context, Poll};

use tracing::info;

use super::{DcEngine, Ways};
use crate::dest::Destination;
use crate::host::{Host, WalkId, WalkStep};
use crate::model::NamespaceId;
use crate::ship::{Now, WalkDemand, WalkIndex, WalkRequest};

/// A walk open at the host.
pub(super) struct OpenWalk {
    walk: WalkIndex,
    id: WalkId,
    namespace: NamespaceId,
}

/// What a look at the open walks gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// No walk is open.
    Idle,
    /// Something was found or ended: look again.
    Progress,
    /// Every walk waits for its finds to ship.
    Throttled,
    /// Every walk that wants a step waits for the device.
    Reading,
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// Opens a walk, if lanes have gaps that may be recovered now. Gives what it walks.
    pub fn begin_walk(&mut self, host: &mut H, now: Now) -> Option<WalkRequest> {
        if !self.rules.has_gaps() {
            return None;
        }
        let Self { rules, destination, service, work, .. } = self;
        let ways = Ways { destination, service, work, waiting_max: usize::MAX };
        let request = rules.begin_walk(now, &ways, |id| host.issued(id))?;
        if let Some(held_back) = self.walk_lines.pass(now.tick.0) {
            info!(
                dc = self.name,
                namespace = self.namespaces[request.namespace.index()],
                partitions = request.lanes.len(),
                held_back,
                "recovery begins"
            );
        }
        let id = host.open(request.namespace, &request.lanes);
        self.walks.push(OpenWalk { walk: request.walk, id, namespace: request.namespace });
        Some(request)
    }

    /// Lets each open walk that wants a step do one.
    pub fn step_walks(&mut self, host: &mut H, cx: &mut Context<'_>) -> Look {
        if self.walks.is_empty() {
            return Look::Idle;
        }
        let mut found = std::mem::take(&mut self.found);
        let rules = &mut self.rules;
        let (mut progress, mut reading) = (false, false);
        self.walks.retain(|open| match rules.walk_demand(open.walk) {
            WalkDemand::Wait => true,
            WalkDemand::Close => {
                host.close(open.id);
                rules.walk_closed(open.walk);
                progress = true;
                false
            }
            WalkDemand::Step => match host.poll_step(open.id, cx, &mut found) {
                Poll::Pending => {
                    reading = true;
                    true
                }
                Poll::Ready(step) => {
                    progress = true;
                    rules.walked(open.walk, &found, |set| host.set_name(open.namespace, set));
                    found.clear();
                    match step {
                        WalkStep::More { complete_below } => {
                            rules.walk_progress(open.walk, complete_below);
                            if let Some((done, total)) = host.work(open.id) {
                                rules.walk_work(open.walk, done, total);
                            }
                            true
                        }
                        WalkStep::Done => {
                            host.close(open.id);
                            rules.walk_done(open.walk);
                            false
                        }
                    }
                }
            },
        });
        self.found = found;
        match (progress, reading) {
            (true, _) => Look::Progress,
            (false, true) => Look::Reading,
            (false, false) => Look::Throttled,
        }
    }

    /// Closes what is open, the DC having ended.
    pub fn close_walks(&mut self, host: &mut H) {
        self.walks.drain(..).for_each(|open| host.close(open.id));
    }
}
