//! The machine as `/sys` tells of it: what hwloc finds too, for builds without its library.

use std::fs;
use std::path::Path;

use super::{Cpu, Device, DeviceKind, Machine, MemoryNode, TopologyError};

/// The machine whose `/sys` is below `root`. `affinity`: CPUs the process is bound to.
pub(super) fn machine(root: &Path, affinity: &[usize]) -> Result<Machine, TopologyError> {
    let system = root.join("sys/devices/system");
    let online = fs::read_to_string(system.join("cpu/online"));
    let online = list(&online.map_err(|error| TopologyError(error.into()))?);
    let nodes = memory_nodes(root, &system.join("node"), &online);
    let node_of = |cpu| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map(|(node, _)| node.id);
    let (mut cores, mut caches, mut packages) = (Groups::new(), Groups::new(), Groups::new());
    let cpu_of = |cpu: usize| {
        let folder = system.join(format!("cpu/cpu{cpu}"));
        let siblings = read(&folder.join("topology/thread_siblings_list"));
        let core = cores.index(siblings.unwrap_or_else(|| cpu.to_string()));
        let shared = last_level_cache(&folder.join("cache"));
        Cpu {
            cpu,
            core,
            cache: caches.index(shared.unwrap_or_else(|| format!("core {core}"))),
            package: packages
                .index(read(&folder.join("topology/physical_package_id")).unwrap_or_default()),
            node: node_of(cpu),
            allowed: affinity.contains(&cpu),
        }
    };
    let cpus = online.iter().copied().map(cpu_of).collect();
    let only = if let [(node, _)] = &nodes[..] { Some(node.id) } else { None };
    let mut devices = devices(&root.join("sys/block"), DeviceKind::Block, only);
    devices.extend(self::devices(&root.join("sys/class/net"), DeviceKind::Network, only));
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let memory_nodes = nodes.into_iter().map(|(node, _)| node).collect();
    Ok(Machine { cpus, memory_nodes, devices, cpu_quota: None })
}

/// What several CPUs have in common, numbered in the order of the first that has it.
struct Groups(Vec<String>);

impl Groups {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn index(&mut self, name: String) -> u32 {
        let index = self.0.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        });
        index as u32
    }
}

/// The memory nodes that have memory, ascending, with the CPUs beside each. A kernel that knows no
/// nodes has one.
fn memory_nodes(root: &Path, folder: &Path, online: &[usize]) -> Vec<(MemoryNode, Vec<usize>)> {
    let ids = read(&folder.join("has_memory")).or_else(|| read(&folder.join("online")));
    let Some(ids) = ids else {
        let bytes = memory_bytes(&root.join("proc/meminfo"));
        return vec![(MemoryNode { id: 0, bytes }, online.to_vec())];
    };
    let node = |id: usize| {
        let folder = folder.join(format!("node{id}"));
        let bytes = memory_bytes(&folder.join("meminfo"));
        let cpus = list(&read(&folder.join("cpulist")).unwrap_or_default());
        (MemoryNode { id: id as u32, bytes }, cpus)
    };
    list(&ids).into_iter().map(node).collect()
}

/// The number in the line `MemTotal`, which is in KiB.
fn memory_bytes(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.split_once("MemTotal:"));
    let kib = line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The CPUs that share a CPU's highest cache for data.
fn last_level_cache(folder: &Path) -> Option<String> {
    let caches = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let data =
        caches.filter(|cache| read(&cache.join("type")).is_some_and(|kind| kind != "Instruction"));
    let level =
        |cache: &Path| read(&cache.join("level")).and_then(|level| level.parse::<u32>().ok());
    let last = data.max_by_key(|cache| level(cache))?;
    read(&last.join("shared_cpu_list"))
}

/// The devices below `folder` that stand for hardware, each with the memory node of its bus; where
/// there is one node only, all are at that one.
fn devices(folder: &Path, kind: DeviceKind, only: Option<u32>) -> Vec<Device> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let hardware = entries.filter_map(|entry| {
        Some((entry.file_name(), fs::canonicalize(entry.path().join("device")).ok()?))
    });
    let device = |(name, path): (std::ffi::OsString, std::path::PathBuf)| {
        let told = path.ancestors().find_map(|above| read(&above.join("numa_node")));
        let node = told.and_then(|node| node.parse().ok());
        Device { name: name.to_string_lossy().into_owned(), kind, node: node.or(only) }
    };
    hardware.map(device).collect()
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// The numbers of `0-3,5`, ascending.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn two_sockets_keep_their_shape() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join("sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        // Two sockets of two cores of two threads; a hole where a CPU is offline.
        write("devices/system/cpu/online", "0-5,7");
        for cpu in [0, 1, 2, 3, 4, 5, 7] {
            let (core, package) = (cpu % 4, cpu % 2);
            let cpu = format!("devices/system/cpu/cpu{cpu}");
            write(&format!("{cpu}/topology/physical_package_id"), &package.to_string());
            write(&format!("{cpu}/topology/thread_siblings_list"), &format!("{core},{}", core + 4));
            for (index, kind, level, shared) in [
                (0, "Data", 1, core.to_string()),
                (1, "Instruction", 1, core.to_string()),
                (2, "Unified", 3, format!("package {package}")),
            ] {
                write(&format!("{cpu}/cache/index{index}/type"), kind);
                write(&format!("{cpu}/cache/index{index}/level"), &level.to_string());
                write(&format!("{cpu}/cache/index{index}/shared_cpu_list"), &shared);
            }
        }
        write("devices/system/node/has_memory", "0-1");
        for (node, cpus) in [(0, "0,2,4"), (1, "1,3,5,7")] {
            let node = format!("devices/system/node/node{node}");
            write(&format!("{node}/cpulist"), cpus);
            write(&format!("{node}/meminfo"), "Node 0 MemTotal:       2048 kB");
        }
        for (bus, node) in [("a", "1"), ("b", "-1")] {
            write(&format!("devices/{bus}/numa_node"), node);
            write(&format!("devices/{bus}/nvme/serial"), "7");
        }
        for (path, bus) in [("block/nvme0n1", "a"), ("class/net/eth0", "b")] {
            write(&format!("{path}/size"), "1");
            symlink(
                root.join(format!("sys/devices/{bus}/nvme")),
                root.join("sys").join(path).join("device"),
            )
            .unwrap();
        }
        write("block/loop0/size", "1");

        let machine = machine(root, &[0, 1, 4]).unwrap();
        let layout: Vec<_> = machine
            .cpus
            .iter()
            .map(|cpu| (cpu.cpu, cpu.core, cpu.cache, cpu.package, cpu.node))
            .collect();
        assert_eq!(
            layout,
            [
                (0, 0, 0, 0, Some(0)),
                (1, 1, 1, 1, Some(1)),
                (2, 2, 0, 0, Some(0)),
                (3, 3, 1, 1, Some(1)),
                (4, 0, 0, 0, Some(0)),
                (5, 1, 1, 1, Some(1)),
                (7, 3, 1, 1, Some(1)),
            ]
        );
        assert_eq!(machine.allowed_cpus(), [0, 1, 4]);
        assert_eq!(machine.memory_nodes, [0, 1].map(|id| MemoryNode { id, bytes: 2 << 20 }));
        let device = |name: &str, kind, node| Device { name: name.into(), kind, node };
        assert_eq!(
            machine.devices,
            [
                device("eth0", DeviceKind::Network, None),
                device("nvme0n1", DeviceKind::Block, Some(1)),
            ]
        );
    }

    #[test]
    fn a_machine_without_sys_is_an_error_and_one_that_says_little_has_cores_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        assert!(machine(folder.path(), &[0]).is_err());
        fs::create_dir_all(folder.path().join("sys/devices/system/cpu")).unwrap();
        fs::write(folder.path().join("sys/devices/system/cpu/online"), "0-1\n").unwrap();
        let machine = machine(folder.path(), &[0, 1]).unwrap();
        let layout: Vec<_> =
            machine.cpus.iter().map(|cpu| (cpu.core, cpu.cache, cpu.node)).collect();
        assert_eq!(layout, [(0, 0, Some(0)), (1, 1, Some(0))]);
    }
}
