//! What happened, for a person to read: every event that concerns one key, or all of them.

use std::cell::RefCell;

/// Which events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Those of one key, and those that concern all keys.
    Key(u16),
    /// All.
    All,
}

#[derive(Default)]
struct Trace {
    watch: Option<Watch>,
    step: u64,
    now_us: u64,
    lines: Vec<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Begins to keep what is told, or stops.
pub(crate) fn watch(watch: Option<Watch>) {
    TRACE.with_borrow_mut(|trace| *trace = Trace { watch, ..Trace::default() });
}

/// What has been told since [`watch`].
pub(crate) fn lines() -> Vec<String> {
    TRACE.with_borrow(|trace| trace.lines.clone())
}

pub(crate) fn at(step: u64, now_us: u64) {
    TRACE.with_borrow_mut(|trace| (trace.step, trace.now_us) = (step, now_us));
}

/// Tells of an event of a key; `None` concerns all.
pub(crate) fn tell(key: Option<u16>, text: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let kept = match (trace.watch, key) {
            (None, _) => false,
            (Some(Watch::Key(watched)), Some(key)) => watched == key,
            (Some(_), _) => true,
        };
        if kept {
            let Trace { step, now_us, .. } = *trace;
            let (ms, us) = (now_us / 1000, now_us % 1000);
            trace.lines.push(format!("step {step:5} {ms:8}.{us:03} ms  {}", text()));
        }
    });
}
