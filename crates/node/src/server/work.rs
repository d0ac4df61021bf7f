//! How much a task does between two turns: what it carries out for one client, or for another shard,
//! is counted, and others are let in when it was enough.

use longship_rt::shard::{need_preempt, yield_now};

use crate::limits::{BYTES_PER_LOOK, REQUESTS_PER_LOOK};
use crate::server::memory::Memory;

/// What a task has done since it last looked at the clock.
#[derive(Default)]
pub(super) struct Work {
    requests: usize,
    /// Bytes of requests, of what they found and of their replies.
    pub(super) bytes: usize,
}

impl Work {
    /// After each request: whether it is time for the next look.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.requests += 1;
        let is_due = self.requests >= REQUESTS_PER_LOOK || self.bytes >= BYTES_PER_LOOK;
        if is_due {
            *self = Self::default();
        }
        is_due
    }

    /// After each request of a client: lets others go on when it is time, and waits for one's turn
    /// when it was much. True when it did.
    #[inline]
    pub(super) async fn let_others(&mut self, memory: &Memory) -> bool {
        let is_much = self.bytes >= BYTES_PER_LOOK;
        let lets = self.is_due() && (is_much || need_preempt());
        if is_much {
            memory.turn().await;
        } else if lets {
            yield_now().await;
        }
        lets
    }
}
