//! What signals mean to a node. Each that can be caught and would end it otherwise is in one of three
//! lists; those of a fault of its own stay as they are.

use std::error::Error;
use std::time::{Duration, Instant};

use longship_node::process::stop::{Step, Stopper};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::log;

/// Signals by which somebody stops the node: an operator, a terminal, a system that loses power or
/// ends a container. The second ends it at once, but for one within [`SAME`].
const STOPPING: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, libc::SIGPWR];
/// Signals that stop it as well, however often they come: of a limit of CPU time, of timers, and of
/// things it does not use. So do those of [`realtime`], one of which ends a container of systemd.
const STOPPING_ONCE: [i32; 5] =
    [libc::SIGXCPU, libc::SIGVTALRM, libc::SIGPROF, libc::SIGIO, libc::SIGSTKFLT];
/// Signals after which log files are opened again: a log rotation's, and a closing terminal's.
const REOPENING: [i32; 2] = [SIGHUP, SIGUSR1];
/// Signals that would end the process at once, and mean nothing here.
const WITHOUT_MEANING: [i32; 3] = [SIGUSR2, libc::SIGALRM, libc::SIGXFSZ];

/// What comes within it is the first one again: `timeout`, and whoever else stops a process and then
/// its group, sends two.
const SAME: Duration = Duration::from_millis(200);
/// How long a start that was stopped may take to end by itself.
const START_PATIENCE: Duration = Duration::from_millis(900);
/// How often the watch over a stop looks at it.
const WATCH_LOOK: Duration = Duration::from_millis(20);

/// What a signal has the node do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Stop,
    StopOnce,
    Reopen,
    Nothing,
}

fn order(signal: i32) -> Order {
    match signal {
        _ if STOPPING.contains(&signal) => Order::Stop,
        _ if REOPENING.contains(&signal) => Order::Reopen,
        _ if WITHOUT_MEANING.contains(&signal) => Order::Nothing,
        _ => Order::StopOnce,
    }
}

fn realtime() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

fn caught() -> impl Iterator<Item = i32> {
    let listed = STOPPING.into_iter().chain(STOPPING_ONCE);
    listed.chain(REOPENING).chain(WITHOUT_MEANING).chain(realtime())
}

fn name_of(signal: i32) -> String {
    match (signal_name(signal), signal) {
        (Some(name), _) => name.to_owned(),
        (None, libc::SIGPWR) => "SIGPWR".to_owned(),
        (None, libc::SIGSTKFLT) => "SIGSTKFLT".to_owned(),
        (None, _) if realtime().contains(&signal) => {
            format!("SIGRTMIN+{}", signal - libc::SIGRTMIN())
        }
        (None, _) => format!("signal {signal}"),
    }
}

/// The first signal to stop does so cleanly, a second at once; no other signal ends the node. A
/// stop that takes longer than `stop_time` is ended.
pub(crate) fn obey(stopper: Stopper, stop_time: Duration) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new(caught())?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stopping_since: Option<Instant> = None;
        for signal in signals.forever() {
            let (order, name) = (order(signal), name_of(signal));
            match order {
                Order::Reopen => {
                    tracing::info!("{name}: opening the log files again");
                    log::reopen();
                }
                Order::Nothing => tracing::info!("{name} means nothing to a node"),
                Order::StopOnce if stopping_since.is_some() => {}
                Order::Stop if stopping_since.is_some_and(|since| since.elapsed() < SAME) => {}
                Order::Stop | Order::StopOnce => {
                    if stopping_since.replace(Instant::now()).is_some() || !stopper.stop() {
                        tracing::warn!("{name}, a second signal: ending at once");
                        log::flush();
                        std::process::exit(128 + signal);
                    }
                    tracing::info!("{name}: stopping");
                    let stopper = stopper.clone();
                    let watch = move || watch_over(&stopper, stop_time);
                    let _ = std::thread::Builder::new().name("stop-watch".into()).spawn(watch);
                }
            }
        }
    })?;
    Ok(())
}

/// Ends the process when a stop has not by its deadline: whatever holds up its threads, such as a
/// device that hangs, does not hold up this one. Another one would come from outside, a kill, and
/// leave no word.
fn watch_over(stopper: &Stopper, stop_time: Duration) {
    let begun = Instant::now();
    while stopper.step() == Step::Starting {
        if begun.elapsed() >= START_PATIENCE {
            tracing::info!("stopped during the start: nothing was served");
            log::flush();
            std::process::exit(0);
        }
        std::thread::sleep(WATCH_LOOK);
    }
    std::thread::sleep(stop_time.saturating_sub(begun.elapsed()));
    let step = stopper.step();
    tracing::error!(
        "the stop is not over after {:.1} s (stop-deadline-ms): it is {step}; ending at once, as a \
         crash would: what was acknowledged last may not be on its device",
        stop_time.as_secs_f64()
    );
    log::flush();
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signals of a fault of the process, and those whose default is not its end.
    const OTHERS: [i32; 16] = [
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGPIPE,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
    ];

    #[test]
    fn every_signal_that_would_end_the_node_like_a_crash_is_caught() {
        let caught: Vec<i32> = caught().collect();
        for signal in (1..32).chain(realtime()) {
            let is_other = OTHERS.contains(&signal) || signal == libc::SIGWINCH;
            assert!(caught.contains(&signal) != is_other, "{}", name_of(signal));
        }
        assert_eq!(name_of(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!(order(libc::SIGRTMIN() + 3), Order::StopOnce);
        assert_eq!(order(libc::SIGXCPU), Order::StopOnce);
    }
}
