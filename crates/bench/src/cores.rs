//! Which CPU this process runs on, and which shards of running nodes it shares it with.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;

/// The CPUs this process may use, ascending.
pub(crate) fn allowed() -> Vec<usize> {
    let mut cpus: Vec<_> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// The first two CPUs this process may use; the same one twice if there is no other.
pub(crate) fn two() -> [usize; 2] {
    let cpus = allowed();
    let at = |wanted: usize| {
        cpus.get(wanted.min(cpus.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    [at(0), at(1)]
}

/// The CPU asked for is not one this process may use.
#[derive(Debug, thiserror::Error)]
#[error("cannot run on CPU {cpu}; allowed are {allowed:?}")]
pub(crate) struct NotAllowed {
    cpu: usize,
    allowed: Vec<usize>,
}

/// Where this thread runs.
#[derive(Debug)]
pub(crate) struct Place {
    /// The CPU it is bound to, if it is.
    cpu: Option<usize>,
    /// Pinned shard threads on the CPUs it may use.
    shared_with: Vec<String>,
}

/// Binds this thread to a CPU, if one is given.
pub(crate) fn settle_on(cpu: Option<usize>) -> Result<Place, NotAllowed> {
    let allowed = allowed();
    let cpus = match cpu {
        None => allowed,
        Some(cpu) if allowed.contains(&cpu) && bind(cpu) => vec![cpu],
        Some(cpu) => return Err(NotAllowed { cpu, allowed }),
    };
    Ok(Place { cpu, shared_with: shards_on(&cpus) })
}

/// What it would be to be bound to that CPU now.
pub(crate) fn look_at(cpu: usize) -> Place {
    Place { cpu: Some(cpu), shared_with: shards_on(&[cpu]) }
}

fn shards_on(cpus: &[usize]) -> Vec<String> {
    let mut found = shards(Path::new("/proc"));
    found.retain(|(pinned_to, _)| cpus.contains(pinned_to));
    let mut names: Vec<_> = found.into_iter().map(|(_, name)| name).collect();
    names.dedup(); // a shard's helper threads bear its name
    names
}

/// Runs `body` on a thread bound to that CPU; processes it starts are bound likewise.
pub(crate) fn on<T: Send>(cpu: usize, body: impl FnOnce() -> T + Send) -> Result<T, NotAllowed> {
    let bound = || settle_on(Some(cpu)).map(|_| body());
    thread::scope(|scope| {
        let ended = scope.spawn(bound).join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn bind(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Every thread of the machine that is named like a shard and bound to one CPU: (CPU, description).
fn shards(proc: &Path) -> Vec<(usize, String)> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut found = Vec::new();
    for process in entries(proc).filter(|entry| is_number(&entry.file_name())) {
        for thread in entries(&process.path().join("task")) {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            if let Some((cpu, name)) = pinned_shard(&status) {
                let process = process.file_name();
                found.push((cpu, format!("{name} of process {}", process.to_string_lossy())));
            }
        }
    }
    found
}

fn is_number(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// Reads `/proc/PID/task/TID/status`: CPU and name of a shard thread bound to exactly one CPU.
fn pinned_shard(status: &str) -> Option<(usize, &str)> {
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches(':').trim())
    };
    let name = field("Name").filter(|name| name.starts_with("shard-"))?;
    Some((field("Cpus_allowed_list")?.parse().ok()?, name))
}

impl Place {
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "cpu": self.cpu, "shared_with": self.shared_with })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cpu {
            Some(cpu) => write!(f, "CPU {cpu}")?,
            None => write!(f, "not bound")?,
        }
        match &self.shared_with[..] {
            [] => write!(f, ", shared with no shard"),
            shards => write!(f, ", shared with {}", shards.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shards_bound_to_one_cpu_count() {
        let status = |name: &str, cpus: &str| {
            format!("Name:\t{name}\nState:\tS\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\n")
        };
        let check = |name: &str, cpus: &str, expected: Option<usize>| {
            let text = status(name, cpus);
            assert_eq!(pinned_shard(&text), expected.map(|cpu| (cpu, name)), "{name} {cpus}");
        };
        check("shard-0", "1", Some(1));
        check("shard-12", "31", Some(31));
        check("shard-0", "0-1", None);
        check("bash", "1", None);
        assert_eq!(pinned_shard(""), None);
    }

    #[test]
    fn a_thread_settles_where_it_is_told() {
        let cpu = allowed()[0];
        let place = settle_on(Some(cpu)).unwrap();
        assert!(place.to_string().starts_with(&format!("CPU {cpu}, shared with ")), "{place}");
        assert_eq!(place.to_json()["cpu"], cpu);
        let error = settle_on(Some(99_999)).unwrap_err().to_string();
        assert!(error.starts_with("cannot run on CPU 99999; allowed are ["), "{error}");
    }
}
