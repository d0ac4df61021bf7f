//! What ends a shipping connection.

use std::io;

use super::pipeline::Surplus;
use crate::wire::reply::ReplyError;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer ended it.
    #[error("closed by the destination")]
    ClosedByPeer,
    /// Sending failed.
    #[error("sending failed: {0}")]
    Send(io::Error),
    /// Receiving failed.
    #[error("receiving failed: {0}")]
    Receive(io::Error),
    /// What came cannot be followed.
    #[error("reply stream broken: {0}")]
    Reply(ReplyError),
    /// A reply longer than the receive buffer.
    #[error("a reply longer than {bytes} bytes")]
    ReplyTooLong {
        /// Length of the buffer.
        bytes: usize,
    },
    /// More replies than requests.
    #[error("reply stream broken: {0}")]
    Surplus(Surplus),
    /// The engine ended it, because a reply was overdue for instance.
    #[error("cut: {0}")]
    Cut(&'static str),
    /// What its hello said is no longer true.
    #[error("opened anew: {0}")]
    Renewed(&'static str),
    /// The node left the cluster, or the DC was stopped, and everything had been answered.
    #[error("drained and closed")]
    Drained,
}

impl Fault {
    /// Whether it ended by our own will, so that nothing is wrong with the destination.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self, Self::Drained | Self::Renewed(_))
    }
}
