//! Changes made on a shard itself.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use super::ticket::Versions;
use crate::model::{Change, Digest, Lut, NamespaceId};
use longship_rt::clock::Clock;

type Submit = Box<dyn Fn(&Change, &str)>;

/// Makes changes on the shard whose host it was given to, for servers whose writes run there. Clones
/// are the same; none leaves its shard.
#[derive(Clone)]
pub struct OnShard {
    versions: Versions,
    clock: Clock,
    /// Set when every DC is in place on the shard.
    submit: Rc<OnceCell<Submit>>,
}

impl OnShard {
    pub(super) fn new(versions: Versions, clock: Clock) -> Self {
        Self { versions, clock, submit: Rc::default() }
    }

    /// Changes are taken from now on.
    pub(super) fn seat(&self, submit: impl Fn(&Change, &str) + 'static) {
        let _ = self.submit.set(Box::new(submit));
    }

    /// One change of a record whose partition is this shard's. `write` puts the record into the store
    /// with the version that the change names, and sets what only it knows: `previous_lut`, `set`,
    /// `kind`, and for what was shipped in `shipped` and `src_id`. The change is queued for every DC
    /// before this returns: one push for each, no mailbox, no lock, and nothing in between that awaits.
    /// `set` is the name of the record's set.
    ///
    /// False, and nothing is written, until every DC is in place, shortly before
    /// [`Shipper::start`](super::Shipper::start) returns: who is not shipped to yet would miss it. What a
    /// host holds when it is made counts as there before.
    #[must_use = "false says that nothing was written"]
    pub fn change(
        &self,
        namespace: NamespaceId,
        digest: Digest,
        set: &str,
        write: impl FnOnce(&mut Change),
    ) -> bool {
        let Some(submit) = self.submit.get() else { return false };
        let version = self.versions.next(Lut::of_clock(self.clock.wall_ms()));
        let mut change = Change::new(namespace, digest, version);
        write(&mut change);
        submit(&Change { namespace, digest, version, ..change }, set);
        true
    }
}

impl fmt::Debug for OnShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnShard").field("versions", &self.versions).finish_non_exhaustive()
    }
}
