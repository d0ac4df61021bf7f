//! Where this node's shards go: the configuration and the machine, put before the planner.

use std::path::Path;

use crate::config::Config;
use crate::rt::placement::{self, PlacementError, PlacementRequest, Plan};
use crate::rt::topology::{Machine, TopologyError, default_interface, devices_under};

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
    let plan = placement::plan(&machine, &request(config))?;
    Ok((machine, plan))
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
