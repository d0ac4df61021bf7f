//! What a shard counts about the requests it served, per namespace: single writer, read by whoever
//! asks for statistics on the shard.

use longship::wire::{Action, ResultCode};
use longship_rt::metrics::Counter;

/// Results of one kind of request.
#[derive(Debug, Default)]
struct Results {
    success: Counter,
    error: Counter,
    not_found: Counter,
}

/// The same, as they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultCounts {
    /// Done.
    pub success: u64,
    /// Refused or failed.
    pub error: u64,
    /// There was no such record.
    pub not_found: u64,
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

    fn counted(&self) -> ResultCounts {
        let Self { success, error, not_found } = self;
        ResultCounts {
            success: success.value(),
            error: error.value(),
            not_found: not_found.value(),
        }
    }
}

/// What one shard counts for one namespace.
#[derive(Debug, Default)]
pub struct Figures {
    read: Results,
    write: Results,
    delete: Results,
    xdr_write: Results,
    xdr_delete: Results,
    fail_generation: Counter,
    fail_record_too_big: Counter,
    fail_xdr_forbidden: Counter,
}

/// What it had counted when somebody asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Reads.
    pub read: ResultCounts,
    /// Writes, those of shippers too.
    pub write: ResultCounts,
    /// Deletes, those of shippers too.
    pub delete: ResultCounts,
    /// Writes of shippers.
    pub xdr_write: ResultCounts,
    /// Deletes of shippers.
    pub xdr_delete: ResultCounts,
    /// Refused for the generation.
    pub fail_generation: u64,
    /// Refused for the size.
    pub fail_record_too_big: u64,
    /// Refused for their origin.
    pub fail_xdr_forbidden: u64,
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

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        Counted {
            read: self.read.counted(),
            write: self.write.counted(),
            delete: self.delete.counted(),
            xdr_write: self.xdr_write.counted(),
            xdr_delete: self.xdr_delete.counted(),
            fail_generation: self.fail_generation.value(),
            fail_record_too_big: self.fail_record_too_big.value(),
            fail_xdr_forbidden: self.fail_xdr_forbidden.value(),
        }
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
        let Counted { read, write, xdr_write, xdr_delete, fail_generation, .. } = figures.counted();
        assert_eq!((write.success, write.error, xdr_write.success), (1, 1, 1));
        assert_eq!((xdr_delete.not_found, read.success, fail_generation), (1, 1, 1));
    }
}
