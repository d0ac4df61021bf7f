//! An eventfd: rung from any thread, or by the kernel, and awaited on a shard.
#![expect(unsafe_code, reason = "makes a descriptor and hands one to glommio")]

use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use glommio::io::BufferedFile;

/// The ringing side.
#[derive(Debug)]
pub(super) struct EventFd(File);

impl EventFd {
    pub(super) fn new() -> io::Result<Self> {
        // Blocking, since a non-blocking one would fail the reads that are to wait.
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us `fd`; nobody else owns it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Rings: one system call, 12-16 us when it wakes a sleeping core.
    pub(super) fn ring(&self) {
        // Fails only when 2^64 - 2 rings were never heard.
        let _ = (&self.0).write_all(&1u64.to_ne_bytes());
    }

    /// For the kernel to ring.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The hearing side, for the current shard.
    pub(super) fn listen(&self) -> io::Result<Ear> {
        let own = self.0.try_clone()?;
        // SAFETY: the descriptor was just duplicated; from here on only the BufferedFile owns it.
        let file = unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) };
        Ok(Ear { file: Rc::new(file), reading: None, bell: Arc::default() })
    }
}

/// The hearing side. Rings that nobody awaited are heard by the next wait.
pub(super) struct Ear {
    file: Rc<BufferedFile>,
    /// Stays armed when a wait is given up: dropping it could lose a ring.
    reading: Option<Pin<Box<dyn Future<Output = ()>>>>,
    bell: Arc<Bell>,
}

impl Ear {
    /// Ready after a ring, however many there were; now and then for no reason.
    pub(super) fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { file, reading, bell } = self;
        bell.wakes(cx.waker());
        let reading = reading.get_or_insert_with(|| {
            let file = Rc::clone(file);
            bell.has_rung.store(true, Ordering::Relaxed);
            Box::pin(async move {
                // An error is a wake-up for no reason.
                let _ = file.read_at(0, size_of::<u64>()).await;
            })
        });
        if !bell.has_rung.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(bell));
        ready!(reading.as_mut().poll(&mut Context::from_waker(&waker)));
        self.reading = None;
        Poll::Ready(())
    }
}

/// What the reading wakes. glommio keeps a waker for each time that a pending read is polled, and a
/// task may have 32,767 of them (0.9.0, `Source::collect_rw`): who polls an ear beside something
/// else would go beyond that, so the reading is polled when it has something to say, and only then.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Bell {
    fn wakes(&self, waker: &Waker) {
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(waker)) {
            *waiter = Some(waker.clone());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Relaxed);
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::shard::{ShardSpec, spawn_shard};

    #[test]
    fn an_ear_that_is_polled_beside_something_else_keeps_one_waker() {
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let body = || async {
            let bell = EventFd::new().unwrap();
            let mut ear = bell.listen().unwrap();
            for _ in 0..40_000 {
                let is_pending = poll_fn(|cx| Poll::Ready(ear.poll_rung(cx).is_pending())).await;
                assert!(is_pending);
            }
            bell.ring();
            poll_fn(|cx| ear.poll_rung(cx)).await;
        };
        spawn_shard(spec, body).unwrap().join();
    }
}
