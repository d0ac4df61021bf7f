//! The way into a shard from other threads: a bounded ring that one push fills without waiting, and
//! a reader that sleeps when there is nothing.
//!
//! A push to a reader that is awake costs one compare-and-swap, one fence and no system call. Only
//! the push that finds the reader asleep rings its eventfd (12-16 us for the pusher here): a busy
//! reader is never rung.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::eventfd::{Ear, EventFd};
use super::mpsc::{Consumer, Producer, Wake, ring};
use super::turn;
#[cfg(any(test, feature = "testing"))]
use super::virtual_shard::{self, VirtualBell};

/// Makes a mailbox for at least `capacity` items (a power of two). Fails when the process has no
/// descriptor left.
pub fn mailbox<T: Send>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    let (producer, consumer) = ring(capacity);
    let bell = Bell::new()?;
    Ok((Sender { producer, bell: bell.clone() }, Receiver { consumer, bell }))
}

/// What wakes a reader.
#[derive(Clone)]
enum Bell {
    Real(Arc<EventFd>),
    #[cfg(any(test, feature = "testing"))]
    Virtual(Arc<VirtualBell>),
}

/// Where a reader hears it.
enum Hearing {
    Real(Ear),
    #[cfg(any(test, feature = "testing"))]
    Virtual(Arc<VirtualBell>),
}

impl Bell {
    fn new() -> io::Result<Self> {
        #[cfg(any(test, feature = "testing"))]
        if virtual_shard::is_here() {
            return Ok(Self::Virtual(Arc::default()));
        }
        Ok(Self::Real(Arc::new(EventFd::new()?)))
    }

    fn ring(&self) {
        match self {
            Self::Real(bell) => bell.ring(),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(bell) => bell.ring(),
        }
    }

    fn listen(self) -> io::Result<Hearing> {
        match self {
            Self::Real(bell) => bell.listen().map(Hearing::Real),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(bell) => Ok(Hearing::Virtual(bell)),
        }
    }
}

impl Hearing {
    fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Real(ear) => ear.poll_rung(cx),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(bell) => bell.poll_rung(cx),
        }
    }
}

/// The pushing side, for any thread.
pub struct Sender<T> {
    producer: Producer<T>,
    bell: Bell,
}

impl<T> Sender<T> {
    /// Puts `item` into the mailbox. Never waits and never allocates.
    pub fn push(&self, item: T) -> Result<(), Full<T>> {
        let wake = self.producer.push(item).map_err(Full)?;
        self.ring_if(wake);
        Ok(())
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.producer.is_closed()
    }

    fn ring_if(&self, wake: Wake) {
        if wake == Wake::Needed {
            self.bell.ring();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { producer: self.producer.clone(), bell: self.bell.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ring_if(self.producer.leave());
    }
}

/// No room, now or (with the reader gone) ever. Gives the item back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is full")]
pub struct Full<T>(pub T);

/// The reading side on its way to its shard.
pub struct Receiver<T> {
    consumer: Consumer<T>,
    bell: Bell,
}

impl<T> Receiver<T> {
    /// Settles on the current shard, for good.
    pub fn open(self) -> io::Result<Inbox<T>> {
        Ok(Inbox { ear: self.bell.listen()?, consumer: self.consumer })
    }
}

/// The reading side, on its shard.
pub struct Inbox<T> {
    consumer: Consumer<T>,
    ear: Hearing,
}

/// Every sender is gone and everything they sent has been drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is closed")]
pub struct Closed;

impl<T> Inbox<T> {
    /// Moves up to `max` items to the end of `into`, oldest first per sender; says how many.
    pub fn drain(&mut self, into: &mut Vec<T>, max: usize) -> usize {
        let before = into.len();
        into.extend(std::iter::from_fn(|| self.consumer.pop()).take(max));
        into.len() - before
    }

    /// How many pushes have begun so far. One that is under way hides those behind it from
    /// [`Self::drain`], though their senders have gone on.
    pub fn begun(&self) -> usize {
        self.consumer.begun()
    }

    /// Whether as many have been drained.
    pub fn has_drained(&self, begun: usize) -> bool {
        self.consumer.has_popped(begun)
    }

    /// Waits until there is something to drain. May be given up and begun again.
    pub async fn wait(&mut self) -> Result<(), Closed> {
        turn::lasting().await;
        loop {
            // In this order: what the last sender pushed before it went is still seen.
            let abandoned = self.consumer.is_abandoned();
            if self.consumer.has_value() {
                return Ok(());
            }
            if abandoned {
                return Err(Closed);
            }
            if self.consumer.fall_asleep() {
                poll_fn(|cx| self.ear.poll_rung(cx)).await;
                self.consumer.wake_up();
            }
        }
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::shard::{ShardSpec, spawn_shard};

    #[test]
    fn a_shard_reads_what_threads_push_until_the_last_of_them_goes() {
        const THREADS: u32 = 3;
        const EACH: u32 = 20_000;
        let (sender, receiver) = mailbox::<u32>(64).unwrap();
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let shard = spawn_shard(spec, || async move {
            let mut inbox = receiver.open().unwrap();
            let (mut sum, mut batch) = (0u64, Vec::new());
            while inbox.wait().await.is_ok() {
                assert!(inbox.drain(&mut batch, 16) <= 16);
                sum += batch.drain(..).map(u64::from).sum::<u64>();
            }
            assert_eq!(inbox.drain(&mut batch, 16), 0);
            sum
        })
        .unwrap();
        for _ in 0..THREADS {
            let sender = sender.clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    let mut item = n;
                    while let Err(Full(back)) = sender.push(item) {
                        item = back;
                        thread::yield_now();
                    }
                }
            });
        }
        drop(sender);
        let expected = u64::from(THREADS) * (0..u64::from(EACH)).sum::<u64>();
        assert_eq!(shard.join(), expected);
    }

    #[test]
    fn waits_that_were_given_up_lose_no_wake() {
        let (ping, pings) = mailbox::<()>(2).unwrap();
        let (pong, pongs) = mailbox::<()>(2).unwrap();
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let shard = spawn_shard(spec, || async move {
            let (mut inbox, mut batch) = (pings.open().unwrap(), Vec::new());
            loop {
                // Polled once and dropped: leaves its read armed.
                let _ = futures_lite::future::poll_once(inbox.wait()).await;
                if inbox.wait().await.is_err() {
                    break;
                }
                inbox.drain(&mut batch, 1);
                pong.push(()).unwrap();
            }
            batch.len()
        })
        .unwrap();
        let spec = ShardSpec { index: 1, core: None, name: "shard-1".into() };
        let other = spawn_shard(spec, || async move {
            let (mut inbox, mut batch) = (pongs.open().unwrap(), Vec::new());
            for _ in 0..500 {
                ping.push(()).unwrap();
                inbox.wait().await.unwrap();
                inbox.drain(&mut batch, 1);
            }
            batch.len()
        })
        .unwrap();
        assert_eq!((shard.join(), other.join()), (500, 500));
    }
}
