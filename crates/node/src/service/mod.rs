//! What requests about records do.
//!
//! | file | what happens there |
//! |---|---|
//! | `execute` | locate the record, decide, keep, submit, reply: one step |
//! | `apply` | what a request does to a record; pure |
//! | `operate` | its operations, one by one; pure |

pub mod apply;
pub mod execute;
pub mod operate;

use std::future::Future;
use std::rc::Rc;

use longship::engine::Shipper;
use longship::model::{Lut, SrcId};
use longship::wire::{Request, ResultCode};

use crate::server::service::{Context, Progress, Service, Target};

use self::execute::{Fetched, Read, Reading, Records, Submit, Wish};

/// Records, served.
impl<S: Submit> Service for Records<S> {
    type Fetching = Reading;
    type Fetched = Read;
    type Wish = Wish;

    fn namespace_count(&self) -> usize {
        self.namespace_count()
    }

    fn src_id(&self) -> SrcId {
        self.submit().src_id()
    }

    fn note_shipper(&self, shipper: Shipper) -> Rc<Shipper> {
        self.submit().note_shipper(shipper)
    }

    #[inline]
    fn note_time(&self) -> Lut {
        self.note_time()
    }

    /// Devices that have stopped answering, such as take writes again, sets that are empty.
    fn look_around(&self) {
        self.look_for_stuck_reads();
        self.store().borrow().look_at_devices();
        self.store().borrow_mut().give_back_sets();
    }

    #[inline]
    fn prefetch<'a>(&self, bodies: impl Iterator<Item = &'a [u8]>) {
        self.prefetch(bodies);
    }

    #[inline]
    fn wish(request: &Request<'_>, body: &[u8]) -> Wish {
        Wish::of(request, body)
    }

    fn reply_bytes(&self, body: &[u8]) -> usize {
        self.reply_bytes(body)
    }

    fn reply_bytes_max(&self, wish: Wish, target: Target) -> usize {
        self.reply_bytes_max(wish, target)
    }

    #[inline]
    fn carry_out(
        &self,
        request: Result<Request<'_>, ResultCode>,
        context: Context,
        out: &mut Vec<u8>,
    ) -> Progress {
        self.carry_out(request, context, Fetched::No, out)
    }

    #[inline]
    fn take_work(&self) -> usize {
        self.take_work()
    }

    fn fetch(&self, target: Target) -> impl Future<Output = Reading> {
        self.read(target).begun()
    }

    fn fetch_for_other(&self, target: Target) -> Reading {
        self.read_for_other(target)
    }

    fn finish(
        &self,
        body: &[u8],
        context: Context,
        read: Read,
        out: &mut Vec<u8>,
    ) -> impl Future<Output = ()> {
        self.finish(body, context, read, out)
    }

    fn committed(
        &self,
        target: Target,
        position: u64,
    ) -> impl Future<Output = Result<(), ResultCode>> {
        self.committed(target, position)
    }
}
