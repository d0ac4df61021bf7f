//! The three tasks of a DC: when to do a step, and nothing else.
//!
//! The DC task decides, the service task reads and encodes, the recovery task walks in the
//! background.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::dc::Dc;
use super::steps::{Look, Next};
use crate::host::Host;
use longship_rt::shard::yield_now;

/// How long to wait before looking again, while gaps have no destination or finds have to ship. The
/// DC task rings where lanes have gaps. Not for every find that has shipped: a walk goes on when room
/// for many has come together.
const LOOK_MS: u64 = 20;

/// Decides until the DC ends.
pub(super) async fn decide<H: Host>(dc: Rc<Dc<H>>) {
    while !dc.is_ended() {
        match dc.decide() {
            Next::Again => yield_now().await,
            Next::At(due) => _ = dc.bell.wait_until(due.0).await,
        }
    }
}

/// Serves until the DC ends, and until all it has begun to read has come back.
pub(super) async fn serve<H: Host>(dc: Rc<Dc<H>>) {
    while !dc.is_ended() {
        if dc.serve() {
            // Reads go on while others are served from memory.
            poll_fn(|cx| {
                let _ = dc.poll_reads(cx);
                Poll::Ready(())
            })
            .await;
            yield_now().await;
        } else {
            let mut bell = pin!(dc.service_bell.wait());
            poll_fn(|cx| match bell.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => dc.poll_reads(cx),
            })
            .await;
        }
    }
    while dc.drop_reads() {
        poll_fn(|cx| dc.poll_reads(cx)).await;
    }
}

/// Walks until the DC ends.
pub(super) async fn walk<H: Host>(dc: Rc<Dc<H>>) {
    while !dc.is_ended() {
        dc.begin_walk();
        let look = poll_fn(|cx| match dc.step_walks(cx) {
            Look::Reading => Poll::Pending,
            look => Poll::Ready(look),
        });
        match look.await {
            Look::Idle if !dc.has_gaps() => dc.recovery_bell.wait().await,
            Look::Idle | Look::Throttled => {
                dc.recovery_bell.wait_until(dc.in_ms(LOOK_MS)).await;
            }
            Look::Progress | Look::Reading => {
                dc.bell.set();
                yield_now().await;
            }
        }
    }
    dc.close_walks();
}
