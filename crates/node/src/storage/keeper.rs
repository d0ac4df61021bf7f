//! Takes the volumes of a running node to a new epoch now and then, so that a copy of a device made
//! in the middle of a long run is known to be older after a crash, too.
//!
//! Runs on a thread outside the shards: a write to a header waits for the device.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::volume::Volume;

/// Between two epochs. A copy that is less old than this is not noticed after a crash.
const EVERY: Duration = Duration::from_secs(300);

/// The thread, until this is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    pub fn start(volumes: &[Arc<Volume>]) -> Self {
        let (stop, stopped) = mpsc::channel();
        let volumes = volumes.to_vec();
        let body = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                volumes.iter().for_each(|volume| volume.begin_epoch());
            }
        };
        let thread = thread::Builder::new().name("epochs".into()).spawn(body);
        let thread = thread.inspect_err(|error| tracing::warn!("no thread for epochs: {error}"));
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
