//! Nodes as child processes in a temporary folder, and the promise to leave neither behind.
//!
//! Whatever ends this process in an orderly way (return, error, panic, SIGHUP, SIGINT, SIGTERM)
//! first kills the children and removes the folder. Children form process groups of their own, so
//! that a ctrl-c at the terminal reaches only this process, which then ends them.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a node may take until it accepts clients: it writes its log file once over.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(5);
/// How much of a node's log an error quotes.
const LOG_LINES: usize = 10;

/// Why a node is not running.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start {program}")]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot take over signals")]
    Signals { source: io::Error },
    #[error("the {name} node ended with {status} before it accepted clients:\n{log}")]
    Ended { name: String, status: ExitStatus, log: String },
    #[error("the {name} node accepts no clients after {START_PATIENCE:?}:\n{log}")]
    Late { name: String, log: String },
    #[error("there is no {name} node to end")]
    NotRunning { name: String },
    #[error("cannot send SIG{signal} to {name}")]
    Signal { name: String, signal: &'static str, source: io::Error },
    #[error("the {name} node, told to stop, ended with {status}:\n{log}")]
    Stopped { name: String, status: ExitStatus, log: String },
}

/// A folder and the nodes that work in it.
pub(crate) struct Stage {
    program: PathBuf,
    folder: PathBuf,
    belongings: Arc<Mutex<Belongings>>,
}

/// What has to go in the end.
struct Belongings {
    /// With the name of the node.
    children: Vec<(String, Child)>,
    folder: Option<PathBuf>,
}

impl Belongings {
    fn find(&self, name: &str) -> Result<usize, StageError> {
        let found = self.children.iter().position(|(known, _)| known == name);
        found.ok_or_else(|| StageError::NotRunning { name: name.to_owned() })
    }

    fn take(&mut self, name: &str) -> Result<Child, StageError> {
        let at = self.find(name)?;
        Ok(self.children.swap_remove(at).1)
    }

    fn clear(&mut self) {
        for (_, child) in &mut self.children {
            // Both fail only when the child has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
        if let Some(folder) = self.folder.take()
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            eprintln!("longship: cannot remove {}: {error}", folder.display());
        }
    }
}

fn lock(belongings: &Mutex<Belongings>) -> MutexGuard<'_, Belongings> {
    belongings.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// Makes a temporary folder for nodes run by `program`. With `keep` the folder stays.
    pub(crate) fn open(program: PathBuf, keep: bool) -> Result<Self, StageError> {
        let folder = make_folder()?;
        let removed = (!keep).then(|| folder.clone());
        let belongings = Belongings { children: Vec::new(), folder: removed };
        Ok(Self { program, folder, belongings: Arc::new(Mutex::new(belongings)) })
    }

    /// Also clears up when a signal or a panic ends this process. Once per process.
    pub(crate) fn guard(&self) -> Result<(), StageError> {
        let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]);
        let mut signals = signals.map_err(|source| StageError::Signals { source })?;
        let belongings = Arc::clone(&self.belongings);
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held until the end, so that the main thread, which now loses its nodes, gets no
                // further than its own clearing up.
                let mut belongings = lock(&belongings);
                belongings.clear();
                process::exit(128 + signal);
            }
        });
        let belongings = Arc::clone(&self.belongings);
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            // Not `lock`: the panicking thread may hold it.
            if let Ok(mut belongings) = belongings.try_lock() {
                belongings.clear();
            }
        }));
        Ok(())
    }

    /// Where everything is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A node's own folder, its work directory.
    pub(crate) fn work_directory(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a node and waits until it accepts clients; gives the port of each shard. A node that
    /// was ended may be started again: it finds its files as they are, and begins a new log.
    pub(crate) fn start(&self, name: &str, config: &str) -> Result<Vec<u16>, StageError> {
        let work = self.work_directory(name);
        let config_path = work.join("longship.conf");
        let file_error = |action, path: &Path, source| StageError::File {
            action,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(&work).map_err(|error| file_error("create", &work, error))?;
        fs::write(&config_path, config)
            .map_err(|error| file_error("write", &config_path, error))?;
        // A node that was killed has left it.
        match fs::remove_file(work.join("ports")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &work.join("ports"), error));
            }
            _ => {}
        }
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--config").arg(&config_path);
        let id = self.run(name, &mut command)?;
        self.await_ports(name, id, &work)
    }

    /// Starts a program that is to live no longer than the stage, in a folder of its own, which
    /// also gets its output. Gives its process id.
    pub(crate) fn run(&self, name: &str, command: &mut Command) -> Result<u32, StageError> {
        let work = self.work_directory(name);
        let file_error = |action, path: &Path, source| StageError::File {
            action,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(&work).map_err(|error| file_error("create", &work, error))?;
        let log_path = self.log_path(name);
        let log = File::create(&log_path)
            .and_then(|out| Ok((out.try_clone()?, out)))
            .map_err(|error| file_error("write", &log_path, error))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.0)
            .stderr(log.1)
            .process_group(0)
            .spawn()
            .map_err(|source| StageError::Start {
                program: command.get_program().into(),
                source,
            })?;
        let id = child.id();
        lock(&self.belongings).children.push((name.to_owned(), child));
        Ok(id)
    }

    fn await_ports(&self, name: &str, id: u32, work: &Path) -> Result<Vec<u16>, StageError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let text = fs::read_to_string(work.join("ports")).unwrap_or_default();
            if let Some(ports) = parse_ports(&text) {
                return Ok(ports);
            }
            let name = name.to_owned();
            if let Some(status) = self.ended(id) {
                return Err(StageError::Ended { name, status, log: tail(&work.join("log")) });
            }
            if Instant::now() > deadline {
                return Err(StageError::Late { name, log: tail(&work.join("log")) });
            }
            thread::sleep(START_POLL);
        }
    }

    fn ended(&self, id: u32) -> Option<ExitStatus> {
        let mut belongings = lock(&self.belongings);
        let (_, child) = belongings.children.iter_mut().find(|(_, child)| child.id() == id)?;
        child.try_wait().ok().flatten()
    }

    /// Ends a node as a crash does, with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&self, name: &str) -> Result<(), StageError> {
        let mut belongings = lock(&self.belongings);
        let mut child = belongings.take(name)?;
        // Both fail only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        Ok(())
    }

    /// The process id of what runs under that name.
    pub(crate) fn id(&self, name: &str) -> Result<u32, StageError> {
        let belongings = lock(&self.belongings);
        Ok(belongings.children[belongings.find(name)?].1.id())
    }

    /// Time that all threads of what runs under that name have spent on CPUs. Threads that have
    /// ended are not counted.
    pub(crate) fn cpu_time(&self, name: &str) -> Result<Duration, StageError> {
        let path = PathBuf::from(format!("/proc/{}/task", self.id(name)?));
        let tasks = fs::read_dir(&path);
        let tasks =
            tasks.map_err(|source| StageError::File { action: "read", path, source })?.flatten();
        let nanoseconds = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Ok(Duration::from_nanos(nanoseconds.sum()))
    }

    /// Bytes that what runs under that name has had read from devices.
    pub(crate) fn bytes_read(&self, name: &str) -> Result<u64, StageError> {
        let path = PathBuf::from(format!("/proc/{}/io", self.id(name)?));
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| StageError::File { action: "read", path, source })?;
        let found = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        Ok(found.and_then(|bytes| bytes.parse().ok()).unwrap_or_default())
    }

    /// Sends a signal, named without SIG.
    pub(crate) fn signal(&self, name: &str, signal: &'static str) -> Result<(), StageError> {
        let id = self.id(name)?.to_string();
        let told = Command::new("kill").args([&format!("-{signal}"), &id]).status();
        told.map_err(|source| StageError::Signal { name: name.to_owned(), signal, source })?;
        Ok(())
    }

    /// Ends what runs under that name, and removes its folder: started again, it begins anew.
    pub(crate) fn forget(&self, name: &str) -> Result<(), StageError> {
        self.kill(name)?;
        let path = self.work_directory(name);
        let removed = fs::remove_dir_all(&path);
        removed.map_err(|source| StageError::File { action: "remove", path, source })
    }

    /// Has a node stop as an operator does, with SIGTERM, and waits until it has.
    pub(crate) fn stop(&self, name: &str) -> Result<(), StageError> {
        self.signal(name, "TERM")?;
        let id = self.id(name)?;
        let status = loop {
            if let Some(status) = self.ended(id) {
                break status;
            }
            thread::sleep(START_POLL);
        };
        lock(&self.belongings).take(name)?;
        if status.success() {
            return Ok(());
        }
        Err(StageError::Stopped { name: name.to_owned(), status, log: tail(&self.log_path(name)) })
    }

    /// Where a node's output goes.
    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.work_directory(name).join("log")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        lock(&self.belongings).clear();
    }
}

/// Makes a folder nobody else has.
fn make_folder() -> Result<PathBuf, StageError> {
    let mut attempt = 0;
    loop {
        let path = std::env::temp_dir().join(format!("longship-{}-{attempt}", process::id()));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
            Err(source) => return Err(StageError::File { action: "create", path, source }),
        }
    }
}

/// Reads the `ports` file: one line, complete once it has its line end.
fn parse_ports(text: &str) -> Option<Vec<u16>> {
    let line = text.strip_suffix('\n')?;
    let ports: Vec<u16> = line.split(' ').map(|port| port.parse().ok()).collect::<Option<_>>()?;
    (!ports.is_empty()).then_some(ports)
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that takes a node's place: a shell script with `$dir` set to the work directory.
    fn program(body: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, format!("#!/bin/sh\ndir=$(dirname \"$3\")\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    fn is_running(pid: &str) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    }

    const NODE: &str =
        "echo $$ > $dir/pid; echo 3000 3001 > $dir/p; mv $dir/p $dir/ports; exec sleep 600";

    #[test]
    fn nothing_is_left_behind() {
        let (_folder, program) = program(NODE);
        let stage = Stage::open(program, false).unwrap();
        assert_eq!(stage.start("one", "config").unwrap(), [3000, 3001]);
        let work = stage.work_directory("one");
        assert_eq!(fs::read_to_string(work.join("longship.conf")).unwrap(), "config");
        let (pid, folder) =
            (fs::read_to_string(work.join("pid")).unwrap(), stage.folder().to_owned());
        assert!(is_running(&pid));
        drop(stage);
        assert!(!is_running(&pid) && !folder.exists());
    }

    /// Not a test by itself: the process that the next test sends signals to.
    #[test]
    fn process_with_a_node() {
        let (Some(program), Some(told)) = (env::var_os("STAGE_NODE"), env::var_os("STAGE_TOLD"))
        else {
            return;
        };
        let stage = Stage::open(program.into(), false).unwrap();
        stage.guard().unwrap();
        stage.start("one", "").unwrap();
        let pid = fs::read_to_string(stage.work_directory("one").join("pid")).unwrap();
        fs::write(told, format!("{pid}{}\n", stage.folder().display())).unwrap();
        while is_running(&pid) {
            thread::sleep(START_POLL);
        }
        drop(stage);
        process::exit(2); // as a command does that lost its nodes
    }

    #[test]
    fn signals_leave_nothing_behind_either() {
        for (signal, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
            let (folder, program) = program(NODE);
            let told = folder.path().join("told");
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "stage::tests::process_with_a_node"])
                .env("STAGE_NODE", program)
                .env("STAGE_TOLD", &told)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let text = loop {
                let text = fs::read_to_string(&told).unwrap_or_default();
                if text.lines().count() == 2 {
                    break text;
                }
                assert!(child.try_wait().unwrap().is_none(), "ended before it was told to");
                thread::sleep(START_POLL);
            };
            let (pid, folder) = text.trim_end().split_once('\n').unwrap();
            let arguments = [format!("-{signal}"), child.id().to_string()];
            assert!(Command::new("kill").args(arguments).status().unwrap().success());
            assert_eq!(child.wait().unwrap().code(), Some(code));
            assert!(!is_running(pid) && !Path::new(folder).exists(), "{signal}");
        }
    }

    #[test]
    fn a_node_that_ends_is_reported_with_its_last_words() {
        let (_folder, program) = program("echo line 1; echo no such file >&2; exit 3");
        let stage = Stage::open(program, false).unwrap();
        let error = stage.start("source", "").unwrap_err().to_string();
        assert!(error.starts_with("the source node ended with exit status: 3 before"), "{error}");
        assert!(error.ends_with("\n  line 1\n  no such file"), "{error}");
        let none = Stage::open("/nonexistent/program".into(), false).unwrap();
        let error = none.start("source", "").unwrap_err().to_string();
        assert_eq!(error, "cannot start /nonexistent/program");
    }

    #[test]
    fn ports_count_once_their_line_is_whole() {
        let check = |text: &str, expected: Option<Vec<u16>>| {
            assert_eq!(parse_ports(text), expected, "{text:?}");
        };
        check("3000\n", Some(vec![3000]));
        check("3000 3001\n", Some(vec![3000, 3001]));
        check("3000 30", None);
        check("\n", None);
        check("", None);
        check("x\n", None);
    }
}
