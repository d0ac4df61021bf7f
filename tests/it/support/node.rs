//! One node: a process of its own in a folder of its own, on ports the system picks.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::wait_for;

/// What a test wants of a node; the rest is the same for all.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Shards.
    pub(crate) shards: u16,
    /// First port; 0 takes free ones. For a node that comes back where it was.
    pub(crate) port: u16,
    /// Address it listens at.
    pub(crate) address: &'static str,
    /// Lines inside `service { }`.
    pub(crate) service: String,
    /// Lines inside `namespace test { }`.
    pub(crate) namespace: String,
    /// Size of its file.
    pub(crate) filesize: &'static str,
    /// Lines inside its `storage-engine device { }`.
    pub(crate) storage: String,
    /// Lines inside `xdr { }`.
    pub(crate) xdr: String,
    /// Lines inside `logging { }`; `@DIR@` is the node's folder.
    pub(crate) logging: String,
    /// Whole contexts beside these.
    pub(crate) more: String,
}

impl Default for Settings {
    fn default() -> Self {
        let namespace = "allow-ttl-without-nsup true".to_owned();
        Self {
            shards: 2,
            port: 0,
            address: "127.0.0.1",
            service: String::new(),
            namespace,
            filesize: "256M",
            storage: String::new(),
            xdr: String::new(),
            logging: "console { context any info }".to_owned(),
            more: String::new(),
        }
    }
}

impl Settings {
    /// Ships namespace `test` to that node, a DC named `destination`.
    pub(crate) fn shipping_to(mut self, destination: &Node) -> Self {
        self.xdr.push_str("dc destination {\n");
        for port in destination.ports() {
            writeln!(self.xdr, "node-address-port 127.0.0.1 {port}").unwrap();
        }
        self.xdr.push_str("namespace test { }\n}\n");
        self
    }

    /// The configuration of a node in that folder.
    pub(crate) fn text(&self, directory: &Path) -> String {
        let Self {
            shards,
            port,
            address,
            service,
            namespace,
            filesize,
            storage,
            xdr,
            logging,
            more,
        } = self;
        let logging = logging.replace("@DIR@", &directory.display().to_string());
        let work = directory.join("work");
        let (work, file) = (work.display(), directory.join("test.dat"));
        let file = file.display();
        format!(
            "service {{\n work-directory {work}\n shards {shards}\n {service}\n}}\n\
             network {{ service {{\n address {address}\n port {port}\n}} }}\n\
             logging {{\n{logging}\n}}\n\
             namespace test {{\n {namespace}\n storage-engine device {{\n file {file}\n\
             filesize {filesize}\n post-write-cache 32M\n {storage}\n}}\n}}\n\
             xdr {{\n{xdr}}}\n{more}\n"
        )
    }
}

/// A running node. Dropping it kills it; of a failing test it shows the log.
pub(crate) struct Node {
    process: Child,
    directory: tempfile::TempDir,
    ports: Vec<u16>,
}

impl Node {
    /// Starts a node on an empty folder and waits until it serves clients.
    pub(crate) fn start(settings: &Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self::start_in(directory, settings)
    }

    /// Starts a node on the folder of an earlier one.
    pub(crate) fn start_in(directory: tempfile::TempDir, settings: &Settings) -> Self {
        let text = settings.text(directory.path());
        Self::launch(directory, &text, settings.shards)
    }

    /// Starts a node whose configuration is that text and says `shards`; its work directory is
    /// `work` in `directory`.
    pub(crate) fn launch(directory: tempfile::TempDir, text: &str, shards: u16) -> Self {
        let config = directory.path().join("longship.conf");
        fs::write(&config, text).unwrap();
        let ports_file = directory.path().join("work/ports");
        // That of an earlier run on this folder is no longer true.
        let _ = fs::remove_file(&ports_file);
        let log = File::options().append(true).create(true).open(log_in(directory.path())).unwrap();
        Self::launch_saying(directory, &config, shards, log.into())
    }

    /// The same for a configuration file that is there, with a standard error of its own.
    pub(crate) fn launch_saying(
        directory: tempfile::TempDir,
        config: &Path,
        shards: u16,
        stderr: Stdio,
    ) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_longship"));
        Self::launch_by(command, directory, (config, shards), stderr)
    }

    /// Starts a node that may open so many files, on an empty folder.
    pub(crate) fn start_with_open_files(settings: &Settings, limit: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        let config = directory.path().join("longship.conf");
        fs::write(&config, settings.text(directory.path())).unwrap();
        let log = File::create(log_in(directory.path())).unwrap();
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_longship")]);
        Self::launch_by(command, directory, (&config, settings.shards), log.into())
    }

    fn launch_by(
        mut command: Command,
        directory: tempfile::TempDir,
        (config, shards): (&Path, u16),
        stderr: Stdio,
    ) -> Self {
        let ports_file = directory.path().join("work/ports");
        let process = command
            .args([Path::new("node"), Path::new("--config"), config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut node = Self { process, directory, ports: Vec::new() };
        node.ports = wait_for("the node to write its ports", || {
            let ended = node.process.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended at its start: {ended:?}");
            read_ports(&ports_file, shards)
        });
        node
    }

    /// The port of each shard.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Where clients begin.
    pub(crate) fn seed(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_in(self.directory.path())).unwrap_or_default()
    }

    /// Its folder.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends a signal, by name as in `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "cannot signal the node");
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("the node to end", || self.process.try_wait().unwrap())
    }

    /// Stops the node as an operator would, checks that it ended well, and gives its folder back.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        self.signal("TERM");
        let status = self.ended();
        assert!(status.success(), "the node ended with {status}");
        assert!(!self.log().contains("panicked"), "the node has panicked");
        self.into_directory()
    }

    /// Gives its folder to a node to come. Ends it, if it has not ended.
    pub(crate) fn into_directory(mut self) -> tempfile::TempDir {
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.directory, empty)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let directory = self.directory.path().display();
            eprintln!("---- log of the node in {directory}\n{}----", self.log());
        }
    }
}

fn log_in(directory: &Path) -> PathBuf {
    directory.join("node.log")
}

/// The ports, once all are there.
fn read_ports(file: &Path, shards: u16) -> Option<Vec<u16>> {
    let text = fs::read_to_string(file).ok()?;
    let ports: Vec<u16> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    (ports.len() == usize::from(shards)).then_some(ports)
}
