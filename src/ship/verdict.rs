//! What a reply means for the change it answers: one total function.

use crate::wire::ResultCode;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A write of bins.
    Write,
    /// A delete that leaves no tombstone.
    Delete,
    /// A delete that asks for a tombstone.
    DurableDelete,
}

/// How soon another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Soon: the cause passes by itself.
    Quick,
    /// Slowly: somebody has to make room first.
    Slow,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The destination holds this version or a newer one.
    Success,
    /// Try again later.
    Retry(Pace),
    /// Try again as a plain delete: the destination knows no durable ones.
    PlainDelete,
    /// This record will never be taken: a dead letter.
    Abandon,
    /// Refused, this record or all: judge by what others get (`refusals`).
    Refuse,
}

/// The verdict on a reply. Total: codes without a meaning here are permanent errors.
///
/// Source: `docs/behaviour.md` section 5.3, `docs/destinations.md` section 1, `docs/wire.md`
/// section 6.
pub const fn verdict(code: ResultCode, sent: Sent) -> Verdict {
    match (code, sent) {
        (ResultCode::OK | ResultCode::LOST_CONFLICT, _) => Verdict::Success,
        (ResultCode::NOT_FOUND, Sent::Delete | Sent::DurableDelete) => Verdict::Success,
        (ResultCode::ENTERPRISE_ONLY, Sent::DurableDelete) => Verdict::PlainDelete,
        (
            ResultCode::TIMEOUT
            | ResultCode::UNAVAILABLE
            | ResultCode::KEY_BUSY
            | ResultCode::DEVICE_OVERLOAD
            | ResultCode::XDR_KEY_BUSY
            | ResultCode::MRT_BLOCKED,
            _,
        ) => Verdict::Retry(Pace::Quick),
        (
            ResultCode::OUT_OF_SPACE | ResultCode::NOT_AUTHENTICATED | ResultCode::QUOTA_EXCEEDED,
            _,
        ) => Verdict::Retry(Pace::Slow),
        (
            ResultCode::NAMESPACE
            | ResultCode::FORBIDDEN
            | ResultCode::ROLE_VIOLATION
            | ResultCode::NOT_WHITELISTED,
            _,
        ) => Verdict::Refuse,
        _ => Verdict::Abandon,
    }
}

/// Whether the node that answered so is the wrong one: what is known of the partitions is to be asked
/// for again at once.
#[inline]
pub fn hints_at_stale_map(code: ResultCode) -> bool {
    code == ResultCode::UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_verdict() {
        use Sent::{Delete, DurableDelete, Write};
        let expected = |code: u8, sent: Sent| match code {
            0 | 28 => Verdict::Success,
            2 if sent != Write => Verdict::Success,
            25 if sent == DurableDelete => Verdict::PlainDelete,
            9 | 11 | 14 | 18 | 32 | 120 => Verdict::Retry(Pace::Quick),
            8 | 80 | 83 => Verdict::Retry(Pace::Slow),
            20 | 22 | 81 | 82 => Verdict::Refuse,
            _ => Verdict::Abandon,
        };
        for code in 0..=u8::MAX {
            for sent in [Write, Delete, DurableDelete] {
                assert_eq!(
                    verdict(ResultCode(code), sent),
                    expected(code, sent),
                    "{code} {sent:?}"
                );
            }
        }
    }
}
