//! What a shard counts about the requests it served, per namespace: single writer, read by whoever
//! asks for statistics on the shard.

use longship::wire::{Action, ResultCode};
use longship_rt::metrics::Counter;

/// Results of one kind of request.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    pub(super) success: Counter,
    pub(super) error: Counter,
    pub(super) not_found: Counter,
}

impl Results {
    #[inline]
    fn count(&self, code: ResultCode) {
        match code {
            ResultCode::OK => self.success.add(1),
            ResultCode::NOT_FOUND => self.not_found.add(1),
            _ => self.error.add(1),
        }
    }
}

/// What one shard counts for one namespace. A clone stays at what was counted so far.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub(super) read: Results,
    pub(super) write: Results,
    pub(super) delete: Results,
    pub(super) xdr_write: Results,
    pub(super) xdr_delete: Results,
    pub(super) fail_generation: Counter,
    pub(super) fail_record_too_big: Counter,
    pub(super) fail_xdr_forbidden: Counter,
}

impl Figures {
    /// Counts an answered request.
    #[inline]
    pub fn count(&self, action: Action, shipped: bool, code: ResultCode) {
        match action {
            Action::Write => self.write.count(code),
            Action::Delete => self.delete.count(code),
            _ => self.read.count(code),
        }
        match action {
            Action::Write if shipped => self.xdr_write.count(code),
            Action::Delete if shipped => self.xdr_delete.count(code),
            _ => {}
        }
        match code {
            ResultCode::GENERATION => self.fail_generation.add(1),
            ResultCode::RECORD_TOO_BIG => self.fail_record_too_big.add(1),
            _ => {}
        }
    }

    /// Counts a write refused for its origin.
    pub fn count_forbidden(&self) {
        self.fail_xdr_forbidden.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_writes_count_twice() {
        let figures = Figures::default();
        figures.count(Action::Write, true, ResultCode::OK);
        figures.count(Action::Write, false, ResultCode::GENERATION);
        figures.count(Action::Delete, true, ResultCode::NOT_FOUND);
        figures.count(Action::ReadAll, false, ResultCode::OK);
        let Figures { read, write, xdr_write, xdr_delete, fail_generation, .. } = &figures;
        let shipped = xdr_write.success.value();
        assert_eq!((write.success.value(), write.error.value(), shipped), (1, 1, 1));
        let not_found = xdr_delete.not_found.value();
        assert_eq!((not_found, read.success.value(), fail_generation.value()), (1, 1, 1));
    }
}
