//! The log of a node: every sink of the configuration, each with its own levels, none of which can
//! hold up whoever logs.

mod sink;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use longship_node::config::{ANY, Config, LogLevel, LogSink, log_targets};
use longship_node::process::log_files;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use sink::{Console, FLUSH_PATIENCE, LogFile, Sink};

/// The sinks of this process, once [`start`] has made them.
static SINKS: OnceLock<Vec<Sink>> = OnceLock::new();

/// What is said directly on standard error waits no longer than this for it.
const COMPLAINT_PATIENCE: Duration = Duration::from_secs(1);

/// Starts every sink of the configuration; without one, the console at `info`.
pub(crate) fn start(config: &Config) -> Result<(), Box<dyn Error>> {
    let console = [LogSink { file: None, contexts: Vec::new() }];
    let configured = match &config.logging.sinks[..] {
        [] => &console[..],
        configured => configured,
    };
    let mut sinks = Vec::new();
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    for one in configured {
        let is_terminal = one.file.is_none() && io::stderr().is_terminal();
        let sink = match &one.file {
            None => Sink::start("the console".into(), Console { is_terminal }),
            Some(path) => {
                let name = path.display().to_string();
                let config = config.clone();
                let is_free = move |path: &Path| {
                    log_files::refuse_one(path, &config).map_err(io::Error::other)
                };
                let file = LogFile::open(path, Box::new(is_free)).map_err(|error| {
                    format!(
                        "cannot open the log file {name}: {error}{}",
                        longship_rt::remedy::remedy(&error)
                    )
                })?;
                Sink::start(name, file)
            }
        };
        let sink = sink.map_err(|error| format!("no thread for the log: {error}"))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(is_terminal)
            .with_writer(sink.clone());
        layers.push(lines.with_filter(levels(one)).boxed());
        sinks.push(sink);
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    Sink::introduce(&sinks);
    let _ = SINKS.set(sinks);
    panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// The least level of each module's lines.
fn levels(sink: &LogSink) -> Targets {
    let level_of = |name: &str| {
        let given = sink.contexts.iter().rev().find(|(known, _)| known == name);
        given.map(|(_, level)| filter(*level))
    };
    let rest = level_of(ANY).unwrap_or(LevelFilter::INFO);
    let targets = sink.contexts.iter().flat_map(|(name, level)| {
        let targets = log_targets(name).unwrap_or_default();
        targets.into_iter().map(|target| (target, filter(*level)))
    });
    Targets::new().with_default(rest).with_targets(targets)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Critical => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Detail => LevelFilter::TRACE,
    }
}

/// Has every log file opened again under its name, as after a rotation.
pub(crate) fn reopen() {
    SINKS.get().into_iter().flatten().for_each(Sink::reopen);
}

/// Waits until what was logged is written, but not long: a sink may stand still.
pub(crate) fn flush() {
    let deadline = Instant::now() + FLUSH_PATIENCE;
    for sink in SINKS.get().into_iter().flatten() {
        let _ = sink.flush(deadline);
    }
}

/// Says something on standard error that is no log line: why the process ends. Waits no longer than
/// a second for whoever should read it.
pub(crate) fn complain(text: &str) {
    let line = format!("longship: {text}\n");
    let (done, is_done) = mpsc::channel();
    let write = move || {
        let _ = io::stderr().lock().write_all(line.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_done.recv_timeout(COMPLAINT_PATIENCE);
    }
}

/// A panic ends the process, whatever its log does meanwhile.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let trace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    tracing::error!("thread {name} {panic}{trace}");
    flush();
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn each_module_has_the_level_of_its_line_and_the_rest_that_of_any() {
        let check = |contexts: &[(&str, LogLevel)], target: &str, level: Level, expected: bool| {
            let contexts = contexts.iter().map(|(name, level)| ((*name).to_owned(), *level));
            let levels = levels(&LogSink { file: None, contexts: contexts.collect() });
            let found = levels.would_enable(target, &level);
            assert_eq!(found, expected, "{target} at {level}");
        };
        let usual = &[("any", LogLevel::Warning), ("xdr", LogLevel::Debug)];
        check(usual, "longship::dest::tasks", Level::DEBUG, true);
        check(usual, "longship::engine::shard", Level::INFO, true);
        check(usual, "longship::engine::shard", Level::TRACE, false);
        check(usual, "longship_node::storage::flush", Level::INFO, false);
        check(usual, "longship_node::storage::flush", Level::WARN, true);
        let quiet = &[("xdr", LogLevel::Critical), ("any", LogLevel::Detail)];
        check(quiet, "longship::ship", Level::WARN, false);
        check(quiet, "longship_node::process::start", Level::TRACE, true);
        check(&[("audit", LogLevel::Warning)], "longship_node::server::guard", Level::INFO, false);
        check(&[], "longship_node::process::start", Level::INFO, true);
        check(&[], "longship_node::process::start", Level::DEBUG, false);
    }
}
