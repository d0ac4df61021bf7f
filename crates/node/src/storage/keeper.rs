//! Takes the volumes of a running node to new epochs. The first one begins when the node serves,
//! and notes that marks of this run are stored: so marks of an earlier run are known to be older.
//! The others follow every five minutes. So a copy of a device that was made in the middle of a
//! long run is known to be older, even after a crash.
//!
//! Runs on a thread outside the shards: a write to a header waits for the device.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::volume::Volume;

/// Between two epochs. A copy that is less old than this is not noticed after a crash.
const EVERY: Duration = Duration::from_secs(300);

/// How long whoever drops a [`Keeper`] waits for a write to a header. A thread that a device holds up
/// longer is left to the end of the process.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread, until this is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    /// Closed when the thread ends.
    ended: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it, when the marks of this run are durable.
    pub fn start(volumes: &[Arc<Volume>]) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (ends, ended) = mpsc::channel::<()>();
        let volumes = volumes.to_vec();
        let body = move || {
            let _ends = ends;
            volumes.iter().for_each(|volume| volume.keeps_marks());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                volumes.iter().for_each(|volume| volume.begin_epoch());
            }
        };
        let thread = thread::Builder::new().name("epochs".into()).spawn(body);
        let thread = thread.inspect_err(|error| tracing::warn!("no thread for epochs: {error}"));
        Self { stop: Some(stop), ended, thread: thread.ok() }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.take();
        let is_stuck = self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if let Some(thread) = self.thread.take().filter(|_| !is_stuck) {
            let _ = thread.join();
        }
    }
}
