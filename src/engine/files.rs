//! Whether the file system of the work directory answers. The control loop alone writes there, on a
//! thread that may wait for ever. While that thread waits, no dead letter is kept, no position is
//! stored and no command is answered. So it notes, where every shard can see it, that it waits.
//!
//! A shard that is slow to follow orders keeps commands waiting as well, but no file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::{info, warn};

use super::letters::LetterFile;
use crate::host::{CheckpointStore, Marks, StoreError};
use crate::model::Tick;
use longship_rt::clock::Clock;

/// A file system that takes longer to answer is told of.
const ANSWERS_S: u64 = 5;
/// No file is waited for.
const NONE: u64 = 0;

/// What the control loop waits for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct FileWait(Arc<Wait>);

#[derive(Debug, Default)]
struct Wait {
    /// Since when, in microseconds of the process's clock.
    since_us: AtomicU64,
    folder: OnceLock<PathBuf>,
}

impl FileWait {
    /// The folder that is meant, for people.
    pub(super) fn name(&self, folder: &Path) {
        let _ = self.0.folder.set(folder.to_owned());
    }

    /// A file is asked something.
    pub(super) fn begin(&self, now: Tick) {
        // Nothing else is told with it: whoever looks takes it as it comes.
        self.0.since_us.store(now.0.max(NONE + 1), Ordering::Relaxed);
    }

    /// It has answered.
    pub(super) fn end(&self) {
        self.0.since_us.store(NONE, Ordering::Relaxed);
    }

    /// A file system that has not answered for too long.
    pub(super) fn silence(&self, now: Tick) -> Option<Silence> {
        let since = self.0.since_us.load(Ordering::Relaxed);
        let seconds = now.us_since(Tick(since)) / 1_000_000;
        let is_told = since != NONE && seconds >= ANSWERS_S;
        is_told.then(|| Silence { folder: self.0.folder.get().cloned(), seconds })
    }
}

/// The work directory does not answer; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    folder: Option<PathBuf>,
    seconds: u64,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the work directory")?;
        if let Some(folder) = &self.folder {
            write!(f, " {}", folder.display())?;
        }
        write!(
            f,
            " has not answered for {} s, and positions, dead letters and commands wait: look at \
             its file system",
            self.seconds
        )
    }
}

/// What the log says of it: that it begins, and that it ends.
#[derive(Debug, Default)]
pub(super) struct SilenceLog {
    /// What was last seen of one that has begun.
    told: Option<Silence>,
}

impl SilenceLog {
    /// About once a second, on one shard of the process.
    pub(super) fn look(&mut self, silence: Option<Silence>) {
        match (&self.told, &silence) {
            (None, Some(silence)) => warn!("{silence}"),
            (Some(told), None) => {
                info!("the work directory answers again, after {} s", told.seconds)
            }
            _ => {}
        }
        self.told = silence;
    }
}

/// Files that say when they are waited for.
pub(super) struct Watched<F: ?Sized> {
    wait: FileWait,
    clock: Clock,
    inner: Box<F>,
}

impl<F: ?Sized> Watched<F> {
    pub(super) const fn new(inner: Box<F>, wait: FileWait) -> Self {
        Self { wait, clock: Clock::real(), inner }
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut F) -> T) -> T {
        self.wait.begin(Tick(self.clock.now()));
        let answer = ask(&mut self.inner);
        self.wait.end();
        answer
    }
}

impl CheckpointStore for Watched<dyn CheckpointStore> {
    fn load(&mut self) -> Result<Option<Marks>, StoreError> {
        self.ask(|store| store.load())
    }

    fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
        self.ask(|store| store.store(marks))
    }
}

impl LetterFile for Watched<dyn LetterFile> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.ask(|file| file.read())
    }

    fn set_aside(&mut self, content: &[u8]) -> (String, io::Result<()>) {
        self.ask(|file| file.set_aside(content))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.ask(|file| file.append(bytes))
    }

    fn replace(&mut self, content: &[u8]) -> io::Result<()> {
        self.ask(|file| file.replace(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship_rt::clock::ManualClock;

    const fn s(seconds: u64) -> Tick {
        Tick(seconds * 1_000_000)
    }

    #[test]
    fn a_file_that_does_not_answer_is_told_of_after_some_seconds_and_until_it_does() {
        let wait = FileWait::default();
        assert_eq!(wait.silence(s(1000)), None, "nothing is asked");
        wait.begin(s(1000));
        assert_eq!(wait.silence(s(1004)), None, "a slow disk takes a while");
        let words = "the work directory has not answered for 5 s";
        assert!(wait.silence(s(1005)).unwrap().to_string().starts_with(words));
        wait.name(Path::new("/work"));
        let words = "the work directory /work has not answered for 72 s";
        assert!(wait.silence(s(1072)).unwrap().to_string().starts_with(words));
        wait.end();
        assert_eq!(wait.silence(s(1073)), None);
    }

    #[test]
    fn files_are_waited_for_while_they_are_asked() {
        /// It tells what others see meanwhile.
        struct Hangs(ManualClock, FileWait, Vec<bool>);

        impl LetterFile for Hangs {
            fn name(&self) -> String {
                format!("{:?}", self.2)
            }

            fn read(&mut self) -> io::Result<Vec<u8>> {
                unreachable!("not asked")
            }

            fn set_aside(&mut self, _: &[u8]) -> (String, io::Result<()>) {
                unreachable!("not asked")
            }

            fn append(&mut self, _: &[u8]) -> io::Result<()> {
                self.0.advance_us(6_000_000);
                self.2.push(self.1.silence(Tick(self.0.clock().now())).is_some());
                Ok(())
            }

            fn replace(&mut self, content: &[u8]) -> io::Result<()> {
                self.append(content)
            }
        }

        let (clock, wait) = (ManualClock::new(0, 0), FileWait::default());
        let inner: Box<dyn LetterFile> = Box::new(Hangs(clock.clone(), wait.clone(), Vec::new()));
        let mut file = Watched { wait: wait.clone(), clock: clock.clock(), inner };
        file.append(&[]).unwrap();
        file.replace(&[]).unwrap();
        assert_eq!(file.name(), "[true, true]", "each from its own beginning");
        assert_eq!(wait.silence(Tick(clock.clock().now())), None);
    }
}
