//! Bounds the memory of what is under way: who wants more than is left waits, first come first
//! served. A large request is never overtaken by small ones behind it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A number of bytes that passes share. Clones are the same turnstile.
#[derive(Clone, Debug)]
pub struct Turnstile(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    in_use: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    admitted: Cell<bool>,
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
        Self(Rc::new(Inner { bytes_max, in_use: Cell::new(0), queue: RefCell::default() }))
    }

    /// Waits for `bytes`; for all there are, when that is less.
    pub fn enter(&self, bytes: usize) -> Enter {
        let bytes = bytes.min(self.0.bytes_max);
        let mut queue = self.0.queue.borrow_mut();
        let admitted = queue.is_empty() && self.0.has_room(bytes);
        let waiter =
            Rc::new(Waiter { bytes, admitted: Cell::new(admitted), waker: RefCell::default() });
        if admitted {
            self.0.in_use.set(self.0.in_use.get() + bytes);
        } else {
            queue.push_back(Rc::clone(&waiter));
        }
        Enter { turnstile: self.clone(), waiter, taken: false }
    }

    fn leave(&self, bytes: usize) {
        let inner = &self.0;
        inner.in_use.set(inner.in_use.get() - bytes);
        inner.admit();
    }
}

impl Inner {
    fn has_room(&self, bytes: usize) -> bool {
        self.in_use.get() + bytes <= self.bytes_max
    }

    fn admit(&self) {
        let mut queue = self.queue.borrow_mut();
        while let Some(waiter) = queue.pop_front_if(|waiter| self.has_room(waiter.bytes)) {
            self.in_use.set(self.in_use.get() + waiter.bytes);
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
        if self.taken {
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
        self.turnstile.leave(self.bytes);
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
