//! Bounds the memory of what is under way: who wants more than is left waits, first come first
//! served. A large request is never overtaken by small ones behind it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// A number of bytes that passes share. Clones are the same turnstile.
#[derive(Clone, Debug)]
pub struct Turnstile(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    in_use: Cell<usize>,
    /// A copy for other threads.
    told: Arc<AtomicUsize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
    /// Somebody has left since the last [`Turnstile::look`].
    moves: Cell<bool>,
    is_stuck: Cell<bool>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    admitted: Cell<bool>,
    /// It is not worth waiting.
    turned_away: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The right to use some bytes, until dropped.
#[derive(Debug)]
pub struct Pass {
    turnstile: Turnstile,
    bytes: usize,
}

impl Turnstile {
    /// Shares out `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self::telling(bytes_max, Arc::default())
    }

    /// Shares out `bytes_max`, and tells other threads through `told` how much is in use.
    pub fn telling(bytes_max: usize, told: Arc<AtomicUsize>) -> Self {
        let (in_use, queue) = (Cell::new(0), RefCell::default());
        let (moves, is_stuck) = Default::default();
        Self(Rc::new(Inner { bytes_max, in_use, told, queue, moves, is_stuck }))
    }

    /// A pass for nothing, to grow later.
    pub fn pass(&self) -> Pass {
        Pass { turnstile: self.clone(), bytes: 0 }
    }

    /// Bytes that passes are for.
    pub fn in_use(&self) -> usize {
        self.0.in_use.get()
    }

    /// Nothing is left, or somebody waits for it.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.0.in_use.get() >= self.0.bytes_max || !self.0.queue.borrow().is_empty()
    }

    /// More than half is in use: who need not hold anything gives it back.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.0.in_use.get() > self.0.bytes_max / 2
    }

    /// Waits for `bytes`; for all there are, when that is less.
    pub fn enter(&self, bytes: usize) -> Enter {
        let bytes = bytes.min(self.0.bytes_max);
        let mut queue = self.0.queue.borrow_mut();
        let admitted = queue.is_empty() && self.0.has_room(bytes);
        let turned_away = !admitted && self.0.is_stuck.get();
        let waiter = Rc::new(Waiter {
            bytes,
            admitted: Cell::new(admitted),
            turned_away: Cell::new(turned_away),
            waker: RefCell::default(),
        });
        if admitted {
            self.0.add(bytes);
        } else if !turned_away {
            queue.push_back(Rc::clone(&waiter));
        }
        Enter { turnstile: self.clone(), waiter, taken: false }
    }

    /// Turns away with void passes whoever waits, if nobody has left since the last call; and
    /// whoever comes after that, until somebody leaves.
    pub fn look(&self) {
        let inner = &self.0;
        if inner.moves.replace(false) || inner.queue.borrow().is_empty() {
            return;
        }
        inner.is_stuck.set(true);
        let waiting = std::mem::take(&mut *inner.queue.borrow_mut());
        for waiter in waiting {
            waiter.turned_away.set(true);
            if let Some(waker) = waiter.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn leave(&self, bytes: usize) {
        let inner = &self.0;
        inner.moves.set(true);
        inner.is_stuck.set(false);
        inner.set(inner.in_use.get() - bytes);
        inner.admit();
    }
}

impl Pass {
    /// It was given to who was turned away: nothing may be used.
    #[inline]
    pub const fn is_void(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes it is for.
    #[inline]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it one for so many bytes, more than are left if need be: for memory that is taken
    /// already. Whoever does so looks at [`Turnstile::is_full`] before it takes more.
    pub fn hold(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.turnstile.0.add(more),
            None => self.turnstile.leave(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    /// Makes it a pass for so many bytes, if half of all bytes stay for those who wait in line. For
    /// memory that its holder can do without.
    pub fn try_hold(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let inner = &self.turnstile.0;
        let may = inner.in_use.get() + more <= inner.bytes_max / 2;
        if may {
            self.hold(bytes);
        }
        may
    }

    /// Takes over another pass of the same turnstile.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Inner {
    fn set(&self, in_use: usize) {
        self.in_use.set(in_use);
        self.told.store(in_use, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.set(self.in_use.get() + bytes);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.in_use.get() + bytes <= self.bytes_max
    }

    fn admit(&self) {
        let mut queue = self.queue.borrow_mut();
        while let Some(waiter) = queue.pop_front_if(|waiter| self.has_room(waiter.bytes)) {
            self.add(waiter.bytes);
            waiter.admitted.set(true);
            if let Some(waker) = waiter.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

/// Future of [`Turnstile::enter`]. Its place in the queue is kept from the call on.
#[derive(Debug)]
pub struct Enter {
    turnstile: Turnstile,
    waiter: Rc<Waiter>,
    taken: bool,
}

impl Future for Enter {
    type Output = Pass;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Pass> {
        if self.waiter.turned_away.get() {
            self.taken = true;
            return Poll::Ready(self.turnstile.pass());
        }
        if !self.waiter.admitted.get() {
            *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.taken = true;
        Poll::Ready(Pass { turnstile: self.turnstile.clone(), bytes: self.waiter.bytes })
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        if self.taken || self.waiter.turned_away.get() {
            return;
        }
        if self.waiter.admitted.get() {
            self.turnstile.leave(self.waiter.bytes);
        } else {
            let inner = &self.turnstile.0;
            inner.queue.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
            inner.admit();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.turnstile.leave(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn try_enter(enter: &mut Enter) -> Option<Pass> {
        block_on(poll_once(enter))
    }

    #[test]
    fn who_finds_no_room_waits_in_order() {
        let turnstile = Turnstile::new(10);
        let first = try_enter(&mut turnstile.enter(6)).unwrap();
        let (mut large, mut small) = (turnstile.enter(8), turnstile.enter(1));
        assert!(try_enter(&mut large).is_none());
        assert!(try_enter(&mut small).is_none(), "nobody overtakes");
        drop(first);
        let large = try_enter(&mut large).unwrap();
        let small = try_enter(&mut small).unwrap();
        assert_eq!(turnstile.0.in_use.get(), 9);
        drop((large, small));
        assert_eq!(turnstile.0.in_use.get(), 0);
    }

    #[test]
    fn more_than_there_is_takes_everything() {
        let turnstile = Turnstile::new(10);
        let mut huge = turnstile.enter(1000);
        let pass = try_enter(&mut huge).unwrap();
        assert!(try_enter(&mut turnstile.enter(1)).is_none());
        drop(pass);
        assert!(try_enter(&mut turnstile.enter(1)).is_some());
    }

    #[test]
    fn a_pass_grows_at_will_by_leave_or_in_line() {
        let told = Arc::<AtomicUsize>::default();
        let turnstile = Turnstile::telling(10, Arc::clone(&told));
        let (mut forced, mut modest) = (turnstile.pass(), turnstile.pass());
        assert!(modest.try_hold(5) && !modest.try_hold(6), "half is for those in line");
        assert!(!turnstile.is_tight() && !turnstile.is_full());
        forced.hold(20);
        assert!(turnstile.is_tight() && turnstile.is_full());
        let mut waiting = turnstile.enter(4);
        assert!(try_enter(&mut waiting).is_none());
        assert_eq!(told.load(Ordering::Relaxed), 25);
        forced.hold(1);
        modest.absorb(try_enter(&mut waiting).unwrap());
        assert_eq!((modest.bytes(), turnstile.0.in_use.get()), (9, 10));
        drop(modest);
        assert!(!turnstile.is_full());
        drop(forced);
        assert_eq!((turnstile.0.in_use.get(), told.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn who_waits_where_nobody_leaves_is_turned_away_until_somebody_does() {
        let turnstile = Turnstile::new(10);
        let pass = try_enter(&mut turnstile.enter(10)).unwrap();
        let mut waiting = turnstile.enter(1);
        turnstile.look();
        assert!(try_enter(&mut waiting).unwrap().is_void());
        assert!(try_enter(&mut turnstile.enter(1)).unwrap().is_void(), "at once from then on");
        drop(pass);
        let (first, mut next) = (try_enter(&mut turnstile.enter(10)).unwrap(), turnstile.enter(1));
        turnstile.look();
        assert!(!first.is_void() && try_enter(&mut next).is_none(), "somebody has left");
        drop(first);
        turnstile.look();
        assert_eq!(try_enter(&mut next).unwrap().bytes(), 1);
        drop(next);
        assert_eq!(turnstile.in_use(), 0);
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let turnstile = Turnstile::new(10);
        let pass = try_enter(&mut turnstile.enter(10)).unwrap();
        let (waiting, mut next) = (turnstile.enter(10), turnstile.enter(3));
        drop(waiting);
        drop(pass);
        let admitted_but_dropped = turnstile.enter(7);
        drop(admitted_but_dropped);
        drop(try_enter(&mut next).unwrap());
        assert_eq!((turnstile.0.in_use.get(), turnstile.0.queue.borrow().len()), (0, 0));
    }
}
