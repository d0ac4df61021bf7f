//! An eventfd: rung from any thread, or by the kernel, and awaited on a shard.
#![expect(unsafe_code, reason = "makes a descriptor and hands one to glommio")]

use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

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
        Ok(Ear { file: Rc::new(file), reading: None })
    }
}

/// The hearing side. Rings that nobody awaited are heard by the next wait.
pub(super) struct Ear {
    file: Rc<BufferedFile>,
    /// Stays armed when a wait is given up: dropping it could lose a ring.
    reading: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Ear {
    /// Ready after a ring, however many there were; now and then for no reason.
    pub(super) fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reading = self.reading.get_or_insert_with(|| {
            let file = Rc::clone(&self.file);
            Box::pin(async move {
                // An error is a wake-up for no reason.
                let _ = file.read_at(0, size_of::<u64>()).await;
            })
        });
        ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(())
    }
}
