//! Where this node's shards go: the configuration and the machine, put before the planner.

use std::path::Path;

use longship_rt::placement::{self, PlacementError, PlacementRequest, Plan, PlanWarning};
use longship_rt::topology::{Machine, TopologyError, default_interface, devices_under};

use crate::config::Config;

/// Why shards could not be placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The machine cannot be looked at.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The configuration asks for what the machine does not have.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// Looks at the machine and plans the shards of `config` on it.
///
/// # Errors
/// [`PlaceError`].
pub fn place(config: &Config) -> Result<(Machine, Plan), PlaceError> {
    let machine = Machine::discover()?;
    let taken = taken_cpus();
    let mut request = request(config);
    // Without a choice of the operator's, away from shards of other nodes, while that is possible.
    let free: Vec<usize> =
        machine.allowed_cpus().into_iter().filter(|cpu| !taken.contains(cpu)).collect();
    let wanted = usize::from(request.shards).max(1) + usize::from(request.leave_cores);
    if request.cpu_set.is_empty() && !taken.is_empty() && free.len() >= wanted {
        request.cpu_set = free;
    }
    let mut plan = placement::plan(&machine, &request)?;
    let mut cpus: Vec<usize> = plan.shards.iter().map(|shard| shard.cpu).collect();
    cpus.retain(|cpu| taken.contains(cpu));
    if !cpus.is_empty() {
        plan.warnings.push(PlanWarning::Taken { cpus });
    }
    Ok((machine, plan))
}

/// CPUs that shards of other nodes on this machine are pinned to, as far as this process can see.
fn taken_cpus() -> Vec<usize> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = processes.filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let is_node = read(&entry.path().join("comm")).trim() == "longship";
        (number != own && is_node).then(|| entry.path().join("task"))
    });
    let threads = others.flat_map(|tasks| std::fs::read_dir(tasks).into_iter().flatten().flatten());
    let mut cpus: Vec<usize> = threads
        .filter(|thread| read(&thread.path().join("comm")).starts_with("shard-"))
        .filter_map(|thread| pinned_to(&read(&thread.path().join("status"))))
        .collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The only CPU a thread may run on, by its status; `None` when there are several.
fn pinned_to(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

/// Empty for what cannot be read: the process may just have ended.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the configuration asks of the planner: shards near the disks of its storage and the
/// interface of the default route.
fn request(config: &Config) -> PlacementRequest {
    let service = &config.service;
    let storage = config.namespaces.iter().map(|namespace| &namespace.storage);
    let paths = storage.flat_map(|storage| storage.devices.iter().chain(&storage.files));
    let mut devices: Vec<_> = paths.flat_map(|path| devices_under(existing(path))).collect();
    devices.extend(default_interface());
    devices.sort_unstable();
    devices.dedup();
    PlacementRequest {
        shards: service.shards,
        cpu_set: service.cpu_set.0.clone(),
        smt: service.smt,
        leave_cores: service.leave_cores,
        devices,
    }
}

/// The path, or the folder a file that is not there yet will be made in.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::NamespaceConfig;

    #[test]
    fn a_pinned_thread_is_told_from_one_that_roams() {
        assert_eq!(pinned_to("Name:\tshard-0\nCpus_allowed_list:\t3\n"), Some(3));
        assert_eq!(pinned_to("Cpus_allowed_list:\t0-3\n"), None);
        assert_eq!(pinned_to(""), None);
    }

    #[test]
    fn the_request_names_the_disk_of_a_file_that_is_not_there_yet() {
        let folder = std::env::current_dir().unwrap();
        let mut config = Config::default();
        let mut namespace = NamespaceConfig::named("test");
        namespace.storage.files = vec![folder.join("not/there/yet.dat")];
        config.namespaces.push(namespace);
        config.service.leave_cores = 1;
        let request = request(&config);
        assert_eq!(request.leave_cores, 1);
        for device in devices_under(&folder) {
            assert!(request.devices.contains(&device), "{device} of {:?}", request.devices);
        }
        assert_eq!(existing(&PathBuf::from("/no/such")), Path::new("/"));
    }
}
