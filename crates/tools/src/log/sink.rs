//! Where log lines go: a bounded queue that takes a line without waiting, and a thread that carries
//! it to a file or to standard error.
//!
//! Shards log, and a log sink may stand still: a pipe that nobody reads, a terminal that was
//! stopped, a disk that hangs. Then the queue fills, further lines are dropped and counted, and the
//! count is told when the sink takes lines again. Nobody but the sink's own thread ever waits for it.
//! The other sinks are told that it loses lines, once a minute.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use longship_rt::remedy::remedy;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Bytes of lines that may wait for a sink.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a line, at most; the rest of it is cut off.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Pause between two lines to the other sinks that one loses lines.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a sink's thread writes to.
pub(super) trait Out: Send + 'static {
    /// Writes one line, whole.
    fn line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Begins a new file where the configured name points now. Nothing, where there is no name.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails, with the reason, where a path leads to something that lines would damage.
pub(super) type IsFree = Box<dyn Fn(&Path) -> io::Result<()> + Send>;

/// A log file.
pub(super) struct LogFile {
    path: PathBuf,
    is_free: IsFree,
    file: File,
}

impl LogFile {
    /// Opens it for appending, makes it if need be.
    pub(super) fn open(path: &Path, is_free: IsFree) -> io::Result<Self> {
        let file = append(path, &is_free)?;
        Ok(Self { path: path.to_owned(), is_free, file })
    }
}

impl Out for LogFile {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path, &self.is_free)?;
        Ok(())
    }
}

fn append(path: &Path, is_free: &IsFree) -> io::Result<File> {
    is_free(path)?;
    // To write only to a pipe would wait until somebody reads it.
    let is_pipe = path.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    File::options().append(true).read(is_pipe).create(true).open(path)
}

/// Standard error; on a terminal each line takes the place of the progress bar, which is drawn again
/// below it.
pub(super) struct Console {
    pub(super) is_terminal: bool,
}

impl Out for Console {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut out = io::stderr().lock();
        if self.is_terminal {
            out.write_all(b"\r\x1b[2K")?;
        }
        out.write_all(line)
    }
}

/// A sink's queue; clones are the same one.
#[derive(Clone)]
pub(super) struct Sink(Arc<Shared>);

struct Shared {
    /// For people: where the lines go.
    name: String,
    state: Mutex<State>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// For whoever flushes: nothing is left.
    idle: Condvar,
    /// Where what this sink cannot tell by itself is told.
    others: OnceLock<Vec<Sink>>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of the lines in `jobs` and of those the thread has in hand.
    bytes: usize,
    /// Lines that were dropped, and of which nothing has been said yet.
    lost: u64,
    /// `jobs` has the wish to open the file again.
    reopens: bool,
    /// The thread has jobs in hand.
    busy: bool,
    /// When the others were told last that lines are lost.
    told_others: Option<Instant>,
}

enum Job {
    Line(Vec<u8>),
    Reopen,
}

impl Sink {
    /// Starts the thread.
    pub(super) fn start(name: String, out: impl Out) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            others: OnceLock::new(),
        });
        let carried = Arc::clone(&shared);
        thread::Builder::new().name("log".into()).spawn(move || carried.carry(out))?;
        Ok(Self(shared))
    }

    /// Has sinks tell each other of what they lose.
    pub(super) fn introduce(sinks: &[Self]) {
        for sink in sinks {
            let others = sinks.iter().filter(|other| !Arc::ptr_eq(&sink.0, &other.0));
            let _ = sink.0.others.set(others.cloned().collect());
        }
    }

    /// Takes a line, or drops and counts it. Never waits for the sink.
    fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let taken = line.len().min(LINE_BYTES_MAX);
        if state.bytes + taken > QUEUE_BYTES_MAX {
            state.lost += 1;
            drop(state);
            self.0.tell_of_loss("too many lines wait for it");
            return;
        }
        let mut kept = line[..taken].to_vec();
        if taken < line.len() {
            kept.extend_from_slice("…\n".as_bytes());
        }
        state.bytes += kept.len();
        state.jobs.push_back(Job::Line(kept));
        drop(state);
        self.0.work.notify_one();
    }

    /// Has the file opened again under its name: what was logged before goes to the old one.
    pub(super) fn reopen(&self) {
        let mut state = self.0.lock();
        if !std::mem::replace(&mut state.reopens, true) {
            state.jobs.push_back(Job::Reopen);
        }
        drop(state);
        self.0.work.notify_one();
    }

    /// Waits until every line taken so far is written; says whether that was so by `deadline`.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.0.lock();
        while state.busy || !state.jobs.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.0.idle.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: carries lines for ever.
    fn carry(&self, mut out: impl Out) {
        loop {
            let (mut bytes, mut failed) = (0, 0);
            for job in self.next() {
                match job {
                    Job::Line(line) => {
                        bytes += line.len();
                        if let Err(error) = out.line(&line) {
                            failed += 1;
                            self.tell_of_loss(&error.to_string());
                        }
                    }
                    Job::Reopen => self.open_again(&mut out),
                }
            }
            {
                let mut state = self.lock();
                state.bytes -= bytes;
                state.lost += failed;
            }
            self.tell_lost(&mut out);
            let mut state = self.lock();
            state.busy = false;
            if state.jobs.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    /// Waits for something to do.
    fn next(&self) -> VecDeque<Job> {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy = true;
        state.reopens = false;
        std::mem::take(&mut state.jobs)
    }

    fn open_again(&self, out: &mut impl Out) {
        if let Err(error) = out.reopen() {
            let text = format!(
                "cannot open {} again: {error}{}; the old file goes on",
                self.name,
                remedy(&error)
            );
            let _ = out.line(&own_line(&text));
            self.tell_others(&text);
        }
    }

    fn tell_others(&self, text: &str) {
        let line = own_line(text);
        self.others.get().into_iter().flatten().for_each(|other| other.push(&line));
    }

    fn tell_of_loss(&self, why: &str) {
        {
            let mut state = self.lock();
            if state.told_others.is_some_and(|told| told.elapsed() < TELL_EVERY) {
                return;
            }
            state.told_others = Some(Instant::now());
        }
        self.tell_others(&format!("log lines for {} are lost: {why}", self.name));
    }

    /// Says how many lines are missing, once the sink takes lines again.
    fn tell_lost(&self, out: &mut impl Out) {
        let lost = std::mem::take(&mut self.lock().lost);
        if lost == 0 {
            return;
        }
        let text = format!(
            "{lost} log lines before this one were dropped: {} did not take them",
            self.name
        );
        if out.line(&own_line(&text)).is_err() {
            self.lock().lost += lost;
        }
    }
}

/// A line of the log about itself, which cannot go through the log.
fn own_line(text: &str) -> Vec<u8> {
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line.push_str("  WARN ");
    line.push_str(text);
    line.push('\n');
    line.into_bytes()
}

/// Longest that a flush may wait for all sinks together.
pub(super) const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line on its way into the queue; the formatter gives it in one piece.
pub(super) struct Line<'a>(&'a Sink);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::sync::mpsc;

    use longship_rt::blocking::read_some;

    use super::*;

    fn open_file(path: &Path) -> io::Result<LogFile> {
        LogFile::open(path, Box::new(|_| Ok(())))
    }

    struct Pipe(io::PipeWriter);

    impl Out for Pipe {
        fn line(&mut self, line: &[u8]) -> io::Result<()> {
            self.0.write_all(line)
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_never_time() {
        let (mut reader, writer) = pipe().unwrap();
        let sink = Sink::start("the pipe".into(), Pipe(writer)).unwrap();
        let line = [b'x'; 1000];
        let pushed = 10_000;
        for _ in 0..pushed {
            sink.make_writer().write_all(&line).unwrap();
        }
        assert!(!sink.flush(Instant::now()), "nobody reads");
        let lost = sink.0.lock().lost;
        assert!(sink.0.lock().bytes <= QUEUE_BYTES_MAX);
        assert!(lost > 0 && lost < pushed);
        // Once somebody reads, everything that was taken comes, and how much is missing.
        let (send, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = read_some(&mut reader, &mut buffer) {
                let _ = send.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
        });
        // The lines come first that were in hand, then what was dropped meanwhile, then the rest.
        let accounted = |seen: &str| {
            let taken = seen.bytes().filter(|byte| *byte == b'x').count() as u64 / 1000;
            let counts = seen.match_indices(" log lines before this one");
            let told =
                counts.filter_map(|(at, _)| seen[..at].rsplit(' ').next()?.parse::<u64>().ok());
            taken + told.sum::<u64>()
        };
        let mut seen = String::new();
        while accounted(&seen) < pushed {
            seen += &chunks.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        assert_eq!(accounted(&seen), pushed);
        assert!(sink.flush(Instant::now() + Duration::from_secs(20)));
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew_when_asked_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let sink = Sink::start("log".into(), open_file(&path).unwrap()).unwrap();
        let say = |text: &str| sink.make_writer().write_all(text.as_bytes()).unwrap();
        let flushed = || sink.flush(Instant::now() + Duration::from_secs(20));
        say("first\n");
        assert!(flushed());
        std::fs::rename(&path, &moved).unwrap();
        say("second\n");
        assert!(flushed());
        sink.reopen();
        say("third\n");
        assert!(flushed());
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "first\nsecond\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
    }

    #[test]
    fn a_file_that_cannot_be_begun_anew_is_told_everywhere_and_the_old_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, moved) = (folder.path().join("inner"), folder.path().join("moved"));
        std::fs::create_dir(&inner).unwrap();
        let open = |path: &Path| {
            Sink::start(path.display().to_string(), open_file(path).unwrap()).unwrap()
        };
        let other = folder.path().join("other");
        let sinks = [open(&inner.join("log")), open(&other)];
        Sink::introduce(&sinks);
        std::fs::rename(&inner, &moved).unwrap();
        sinks[0].reopen();
        let flush = || sinks.iter().all(|s| s.flush(Instant::now() + Duration::from_secs(20)));
        assert!(flush());
        for path in [moved.join("log"), other] {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains("WARN cannot open") && text.contains("inner/log"), "{text}");
        }
    }

    #[test]
    fn lines_that_a_file_does_not_take_are_told_once_on_the_other_sinks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let full = Path::new("/dev/full");
        let full = Sink::start("/dev/full".into(), open_file(full).unwrap()).unwrap();
        let other = Sink::start("log".into(), open_file(&path).unwrap()).unwrap();
        Sink::introduce(&[full.clone(), other.clone()]);
        for _ in 0..10 {
            full.make_writer().write_all(b"lost\n").unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        assert!(full.flush(deadline) && other.flush(deadline));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("log lines for /dev/full are lost: No space").count(), 1, "{text}");
    }

    #[test]
    fn a_named_pipe_without_a_reader_holds_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let sink = Sink::start("pipe".into(), open_file(&path).unwrap()).unwrap();
        sink.make_writer().write_all(b"kept\n").unwrap();
        assert!(sink.flush(Instant::now() + Duration::from_secs(20)));
        let mut read = [0; 5];
        let mut pipe = File::open(&path).unwrap();
        assert_eq!(read_some(&mut pipe, &mut read).unwrap(), 5);
        assert_eq!(&read, b"kept\n", "for a reader that comes later");
    }

    #[test]
    fn a_line_of_any_length_is_taken_in_bounded_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = Sink::start("log".into(), open_file(&path).unwrap()).unwrap();
        sink.make_writer().write_all(&vec![b'x'; 1 << 20]).unwrap();
        assert!(sink.flush(Instant::now() + Duration::from_secs(20)));
        let written = std::fs::metadata(&path).unwrap().len() as usize;
        assert!((LINE_BYTES_MAX..LINE_BYTES_MAX + 10).contains(&written), "{written}");
    }
}
