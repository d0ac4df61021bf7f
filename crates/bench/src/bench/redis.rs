//! What others do: Redis, a server and its replica, and a pipelined client for it.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::content::Content;
use crate::cores;
use crate::stage::{Stage, StageError};

const SERVER: &str = "redis-server";
const PATIENCE: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(5);
/// Commands leave in pieces of this size, as the tool's other client sends requests.
const SEND_BYTES: usize = 32 << 10;

/// How both servers are set up, besides their addresses.
const SETTINGS: [(&str, &str); 9] = [
    ("save", ""),
    ("appendonly", "no"),
    ("client-output-buffer-limit", "replica 0 0 0"),
    ("repl-backlog-size", "1gb"),
    ("repl-diskless-sync", "yes"),
    ("repl-diskless-sync-delay", "0"),
    ("repl-timeout", "3600"),
    ("repl-disable-tcp-nodelay", "no"),
    ("protected-mode", "no"),
];

/// Why Redis could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("cannot run redis-server (Debian: apt-get install redis-server)")]
    Start(#[source] StageError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Core(#[from] cores::NotAllowed),
    #[error("Redis: cannot {action}")]
    Io { action: &'static str, source: io::Error },
    #[error("Redis answered {0:?}")]
    Answer(String),
    #[error("Redis is not ready after {PATIENCE:?}")]
    Late,
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> RedisError {
    move |source| RedisError::Io { action, source }
}

/// Settings and version, for people.
pub(super) fn settings() -> String {
    let version = Command::new(SERVER).arg("--version").output().map(|output| output.stdout);
    let version = String::from_utf8(version.unwrap_or_default()).unwrap_or_default();
    let version = version.split("v=").nth(1).and_then(|rest| rest.split(' ').next());
    let mut text = format!("Redis {}", version.unwrap_or("not found"));
    for (name, value) in SETTINGS {
        let value = if value.is_empty() { "\"\"" } else { value };
        let _ = write!(text, ", {name} {value}");
    }
    text
}

/// A server and its replica.
pub(super) struct Pair {
    server: u16,
    replica: u16,
}

pub(super) const SERVER_NAME: &str = "redis";
pub(super) const REPLICA_NAME: &str = "redis-replica";

impl Pair {
    /// Starts both, bound to a CPU each, and waits until the replica follows.
    pub(super) fn start(stage: &Stage, cpus: [usize; 2]) -> Result<Self, RedisError> {
        let server = start(stage, SERVER_NAME, cpus[0], None)?;
        let pair = Self { server, replica: start(stage, REPLICA_NAME, cpus[1], Some(server))? };
        let deadline = Instant::now() + PATIENCE;
        while !pair.follows()? {
            if Instant::now() > deadline {
                return Err(RedisError::Late);
            }
            thread::sleep(START_POLL);
        }
        Ok(pair)
    }

    fn follows(&self) -> Result<bool, RedisError> {
        let replica = self.replica()?.replication()?;
        Ok(replica.contains("master_link_status:up"))
    }

    /// A connection to the server.
    pub(super) fn server(&self) -> Result<Client, RedisError> {
        Client::connect(self.server)
    }

    /// A connection to the replica.
    pub(super) fn replica(&self) -> Result<Client, RedisError> {
        Client::connect(self.replica)
    }

    /// Ends both; the replica has to have so many keys.
    pub(super) fn end_with(self, stage: &Stage, records: u64) -> Result<(), RedisError> {
        let keys = self.replica()?.ask("DBSIZE")?;
        if keys != records.to_string() {
            return Err(RedisError::Answer(format!("{keys} keys at the replica, not {records}")));
        }
        stage.kill(REPLICA_NAME)?;
        Ok(stage.kill(SERVER_NAME)?)
    }
}

fn start(
    stage: &Stage,
    name: &str,
    cpu: usize,
    replica_of: Option<u16>,
) -> Result<u16, RedisError> {
    // Redis takes no listener over and tells no port it picked: take one that was free just now.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let port = free.map_err(failed("find a free port"))?.port();
    let mut command = Command::new(SERVER);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    for (name, value) in SETTINGS {
        command.arg(format!("--{name}"));
        match value {
            "" => drop(command.arg("")),
            _ => drop(command.args(value.split(' '))),
        }
    }
    command.arg("--dir").arg(stage.folder());
    if let Some(port) = replica_of {
        command.args(["--replicaof", "127.0.0.1", &port.to_string()]);
    }
    let started = cores::on(cpu, || stage.run(name, &mut command))?;
    started.map_err(RedisError::Start)?;
    let deadline = Instant::now() + PATIENCE;
    while Client::connect(port).and_then(|mut client| client.ask("PING")).is_err() {
        if Instant::now() > deadline {
            return Err(RedisError::Late);
        }
        thread::sleep(START_POLL);
    }
    Ok(port)
}

/// Bytes of a SET of a record of that content, about.
pub(super) fn set_bytes(content: &Content) -> u64 {
    let mut key = Vec::new();
    content.key(content.records / 2, &mut key);
    (key.len() + content.value_bytes + 32) as u64
}

/// A connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    unsent: Vec<u8>,
    unanswered: usize,
}

impl Client {
    fn connect(port: u16) -> Result<Self, RedisError> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed("connect"))?;
        stream.set_nodelay(true).map_err(failed("connect"))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed("connect"))?;
        Ok(Self { stream: BufReader::new(stream), unsent: Vec::new(), unanswered: 0 })
    }

    /// SETs the value of each record of that content under its key, `window` unanswered at a time,
    /// and calls `before` each.
    pub(super) fn set_all(
        &mut self,
        content: &Content,
        records: std::ops::Range<u64>,
        window: usize,
        before: impl Fn(),
    ) -> Result<(), RedisError> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for record in records {
            before();
            content.key(record, &mut key);
            value.clear();
            content.push_value(record, 0, &mut value);
            self.set(&key[1..], &value).map_err(failed("write"))?;
            if self.unanswered >= window {
                self.settle(window / 2)?;
            }
        }
        self.settle(0)
    }

    /// Queues one SET.
    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        for argument in [key, value] {
            write!(self.unsent, "${}\r\n", argument.len())?;
            self.unsent.extend_from_slice(argument);
            self.unsent.extend_from_slice(b"\r\n");
        }
        self.unanswered += 1;
        if self.unsent.len() >= SEND_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Sends everything, and reads until at most `rest` SETs are unanswered.
    fn settle(&mut self, rest: usize) -> Result<(), RedisError> {
        self.send().map_err(failed("write"))?;
        while self.unanswered > rest {
            let mut answer = [0; 5];
            self.stream.read_exact(&mut answer).map_err(failed("read"))?;
            if answer != *b"+OK\r\n" {
                return Err(RedisError::Answer(String::from_utf8_lossy(&answer).into_owned()));
            }
            self.unanswered -= 1;
        }
        Ok(())
    }

    /// Sends a command without spaces in its words; gives the text it is answered with.
    pub(super) fn ask(&mut self, command: &str) -> Result<String, RedisError> {
        self.unsent.extend_from_slice(command.as_bytes());
        self.unsent.extend_from_slice(b"\r\n");
        self.send().map_err(failed("write"))?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(failed("read"))?;
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(line[1..].trim_end().to_owned()),
            Some(b'$') => {
                let length = line[1..].trim_end().parse::<usize>();
                let mut text = vec![0; length.map_err(|_| RedisError::Answer(line))? + 2];
                self.stream.read_exact(&mut text).map_err(failed("read"))?;
                Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
            }
            _ => Err(RedisError::Answer(line)),
        }
    }

    fn replication(&mut self) -> Result<String, RedisError> {
        self.ask("INFO replication")
    }

    /// How many bytes of the stream of changes the server has written, or the replica has applied.
    pub(super) fn offset(&mut self) -> Result<u64, RedisError> {
        let text = self.replication()?;
        // On a replica both are there, and the second is what it forwards: the same.
        let key =
            if text.contains("role:master") { "master_repl_offset:" } else { "slave_repl_offset:" };
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found.and_then(|offset| offset.parse().ok()).ok_or(RedisError::Answer(text))
    }
}
