//! What a shard counts about the requests it served, per namespace: single writer, read by whoever
//! asks for statistics on the shard.

use longship::wire::{Action, ResultCode};
use longship_rt::metrics::Counter;

use crate::admin::info::Pairs;

/// Results of one kind of request.
#[derive(Debug, Default)]
struct Results {
    success: Counter,
    error: Counter,
    not_found: Counter,
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

/// What one shard counts for one namespace. Names: `docs/destinations.md` section 1.
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

    /// The counters by their names.
    pub fn report(&self, out: &mut Pairs) {
        let Self { read, write, delete, xdr_write, xdr_delete, .. } = self;
        let kinds = [
            ("client_read", read),
            ("client_write", write),
            ("client_delete", delete),
            ("xdr_client_write", xdr_write),
            ("xdr_client_delete", xdr_delete),
        ];
        for (name, results) in kinds {
            out.push(&format!("{name}_success"), results.success.value());
            out.push(&format!("{name}_error"), results.error.value());
            out.push(&format!("{name}_timeout"), 0);
            out.push(&format!("{name}_not_found"), results.not_found.value());
        }
        out.push("fail_generation", self.fail_generation.value());
        out.push("fail_key_busy", 0);
        out.push("fail_record_too_big", self.fail_record_too_big.value());
        out.push("fail_xdr_forbidden", self.fail_xdr_forbidden.value());
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
        let mut pairs = Pairs::default();
        figures.report(&mut pairs);
        let text = pairs.into_text();
        let value = |name: &str| {
            let found = longship::wire::info::pairs(&text).find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned()).unwrap()
        };
        assert_eq!(value("client_write_success"), "1");
        assert_eq!(value("client_write_error"), "1");
        assert_eq!(value("xdr_client_write_success"), "1");
        assert_eq!(value("xdr_client_delete_not_found"), "1");
        assert_eq!(value("client_read_success"), "1");
        assert_eq!(value("fail_generation"), "1");
    }
}
