//! The recovery task: walks the host's index for what a lane missed, in the background, and feeds
//! what it finds to the rules. Live changes go first; the rules keep the shares.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tracing::info;

use crate::host::{Host, WalkId, WalkStep, Walked};
use crate::model::NamespaceId;
use crate::rt::shard::yield_now;
use crate::ship::{WalkDemand, WalkIndex};

use super::dc::Dc;
use super::dc_task::NodeRoutes;

/// How long to wait before looking again, while gaps have no destination or finds have to ship.
const LOOK_MS: u64 = 20;

/// A walk open at the host.
struct OpenWalk {
    walk: WalkIndex,
    id: WalkId,
    namespace: NamespaceId,
}

/// What one look at the open walks gave.
enum Look {
    /// Something was found or ended: look again.
    Progress,
    /// Every walk waits for its finds to ship.
    Throttled,
    /// Every walk that wants a step waits for the device.
    Reading,
}

/// Runs until the DC ends.
pub(crate) async fn run<H: Host>(dc: Rc<Dc<H>>) {
    let mut walks: Vec<OpenWalk> = Vec::new();
    let mut found = Vec::new();
    while !dc.ended.get() {
        open_next(&dc, &mut walks);
        if walks.is_empty() {
            rest(&dc, false).await;
            continue;
        }
        let throttled = poll_fn(|cx| match look(&dc, &mut walks, &mut found, cx) {
            Look::Progress => Poll::Ready(false),
            Look::Throttled => Poll::Ready(true),
            Look::Reading => Poll::Pending,
        });
        if throttled.await {
            rest(&dc, true).await;
        } else {
            dc.bell.set();
            yield_now().await;
        }
    }
    let mut host = dc.context.host.borrow_mut();
    walks.drain(..).for_each(|open| host.close(open.id));
}

/// Waits a moment while there are gaps, else until there are some.
async fn rest<H: Host>(dc: &Dc<H>, walking: bool) {
    let waiting = walking || dc.rules.borrow().has_gaps();
    let until = if waiting { dc.context.clock.now() + LOOK_MS * 1000 } else { u64::MAX };
    dc.recovery_bell.wait_until(until).await;
}

fn open_next<H: Host>(dc: &Dc<H>, walks: &mut Vec<OpenWalk>) {
    if !dc.rules.borrow().has_gaps() {
        return;
    }
    let now = dc.context.now();
    let mut host = dc.context.host.borrow_mut();
    let routes = NodeRoutes::new(dc);
    let request = dc.rules.borrow_mut().begin_walk(now, &routes, |id| host.issued(id));
    let Some(request) = request else { return };
    info!(
        dc = dc.config.borrow().name,
        namespace = dc.context.namespaces[request.namespace.index()],
        partitions = request.lanes.len(),
        "recovery begins"
    );
    let id = host.open(request.namespace, &request.lanes);
    walks.push(OpenWalk { walk: request.walk, id, namespace: request.namespace });
}

fn look<H: Host>(
    dc: &Dc<H>,
    walks: &mut Vec<OpenWalk>,
    found: &mut Vec<Walked>,
    cx: &mut Context<'_>,
) -> Look {
    let mut host = dc.context.host.borrow_mut();
    let mut rules = dc.rules.borrow_mut();
    let (mut progress, mut reading) = (false, false);
    walks.retain(|open| match rules.walk_demand(open.walk) {
        WalkDemand::Wait => true,
        WalkDemand::Close => {
            host.close(open.id);
            rules.walk_closed(open.walk);
            progress = true;
            false
        }
        WalkDemand::Step => match host.poll_step(open.id, cx, found) {
            Poll::Pending => {
                reading = true;
                true
            }
            Poll::Ready(step) => {
                progress = true;
                rules.walked(open.walk, found, |set| host.set_name(open.namespace, set));
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
    match (progress, reading) {
        (true, _) => Look::Progress,
        (false, true) => Look::Reading,
        (false, false) => Look::Throttled,
    }
}
