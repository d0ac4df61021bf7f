//! What the machine has, as far as placement cares: CPUs, who shares what, memory nodes, devices.
//!
//! hwloc finds it, or `/sys` tells the most of it; a [`Machine`] keeps the few facts that matter,
//! so that the planner can be tested on machines nobody here owns. CPUs are numbered as the
//! operating system numbers them, and need not be contiguous: a container sees holes.

use std::fmt;
use std::fs;
use std::path::Path;

#[cfg(feature = "hwlocality")]
mod hwloc;
#[cfg(any(test, not(feature = "hwlocality")))]
mod sysfs;

use crate::affinity::allowed_cpus;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Every online CPU (hardware thread), ascending.
    pub cpus: Vec<Cpu>,
    /// Memory nodes, ascending.
    pub memory_nodes: Vec<MemoryNode>,
    /// Block and network devices.
    pub devices: Vec<Device>,
    /// Processor time this process may use, in thousandths of a CPU; `None` for all of it.
    pub cpu_quota: Option<u64>,
}

/// A hardware thread. The indexes of core, cache and package count from zero over the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number in the operating system.
    pub cpu: usize,
    /// Its core: CPUs of one core are hardware threads (SMT siblings).
    pub core: u32,
    /// Its last-level cache.
    pub cache: u32,
    /// Its socket.
    pub package: u32,
    /// The node of the memory nearest to it, in the operating system's numbering; `None` when no
    /// memory is its own.
    pub node: Option<u32>,
    /// Whether this process may run there (cgroup cpuset and affinity).
    pub allowed: bool,
}

/// A NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNode {
    /// Its number in the operating system.
    pub id: u32,
    /// Its memory.
    pub bytes: u64,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Disks.
    Block,
    /// Network interfaces.
    Network,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in the operating system: "nvme0n1", "eth0".
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The memory node it is attached to; `None` when it is the same for all or unknown.
    pub node: Option<u32>,
}

/// The machine could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the machine's topology: {0}")]
pub struct TopologyError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Machine {
    /// Looks at this machine, as this process may use it: through hwloc, or, without the feature
    /// `hwlocality`, at what `/sys` says of CPUs, caches, memory nodes and devices.
    ///
    /// # Errors
    ///
    /// hwloc's own, or that of reading `/sys`, when there is nothing to see.
    pub fn discover() -> Result<Self, TopologyError> {
        #[cfg(feature = "hwlocality")]
        let mut machine = hwloc::machine(&allowed_cpus())?;
        #[cfg(not(feature = "hwlocality"))]
        let mut machine = sysfs::machine(Path::new("/"), &allowed_cpus())?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        machine.cpu_quota = cpu_quota(&own, Path::new("/sys/fs/cgroup"));
        Ok(machine)
    }

    /// The CPUs this process may use, ascending.
    pub fn allowed_cpus(&self) -> Vec<usize> {
        self.cpus.iter().filter(|cpu| cpu.allowed).map(|cpu| cpu.cpu).collect()
    }
}

/// The tightest limit on processor time of the cgroups this process is in, in thousandths of a CPU.
/// `own` is `/proc/self/cgroup`; `root` is where cgroups are mounted. Both versions of them.
fn cpu_quota(own: &str, root: &Path) -> Option<u64> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_folder = |folder: &Path| {
        let (quota, period) = match fs::read_to_string(folder.join("cpu.max")) {
            Ok(text) => {
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            Err(_) => (
                number(&folder.join("cpu.cfs_quota_us"))?,
                number(&folder.join("cpu.cfs_period_us"))?,
            ),
        };
        (quota * 1000_u64).checked_div(period)
    };
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let mount = match controllers {
            "" => root.to_owned(),
            _ if controllers.split(',').any(|name| name == "cpu") => root.join("cpu"),
            _ => return None,
        };
        // Inside a container the path may be the host's, and what is mounted our own.
        let folder = mount.join(path);
        folder.ancestors().take_while(|above| above.starts_with(&mount)).filter_map(of_folder).min()
    };
    own.lines().filter_map(of_line).min()
}

/// The whole devices ("nvme0n1") under a file or block device, through partitions and what is
/// stacked on them. Empty when the system does not tell.
pub fn devices_under(path: &Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(meta) = path.metadata() else { return Vec::new() };
    let device = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
    let numbers = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    let mut found = Vec::new();
    collect_devices(Path::new(&numbers), &mut found);
    found
}

fn collect_devices(folder: &Path, found: &mut Vec<String>) {
    let Ok(folder) = fs::canonicalize(folder) else { return };
    let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
    let slaves: Vec<_> = slaves.map(|entry| entry.path()).collect();
    if !slaves.is_empty() {
        return slaves.iter().for_each(|slave| collect_devices(slave, found));
    }
    let whole = match folder.join("partition").exists() {
        true => folder.parent().unwrap_or(&folder),
        false => &folder,
    };
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
    found.extend(name.filter(|name| !found.contains(name)));
}

/// The interface of the default route, if there is one.
pub fn default_interface() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    default_route(&routes).map(str::to_owned)
}

fn default_route(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then_some(interface)
    })
}

/// Thousandths of a CPU, for people.
pub(crate) struct Cpus(pub(crate) u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (1, 0) => write!(f, "1 CPU"),
            (whole, 0) => write!(f, "{whole} CPUs"),
            (whole, part) => write!(f, "{whole}.{:02} CPUs", part / 10),
        }
    }
}

/// CPU numbers as ranges: `0-3,5`.
pub(crate) struct CpuList<'a>(pub(crate) &'a [usize]);

impl fmt::Display for CpuList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                one => write!(f, "{comma}{}", one[0])?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distinct = |key: fn(&Cpu) -> u32| {
            let mut keys: Vec<_> = self.cpus.iter().map(key).collect();
            keys.sort_unstable();
            keys.dedup();
            keys.len()
        };
        writeln!(
            f,
            "packages {}, cores {}, CPUs {}, last-level caches {}, memory nodes {}; \
             this process may use CPUs {}{}",
            distinct(|cpu| cpu.package),
            distinct(|cpu| cpu.core),
            self.cpus.len(),
            distinct(|cpu| cpu.cache),
            self.memory_nodes.len(),
            CpuList(&self.allowed_cpus()),
            match self.cpu_quota {
                Some(quota) => format!(" and the time of {}", Cpus(quota)),
                None => String::new(),
            }
        )?;
        for node in &self.memory_nodes {
            let cpus = self.cpus.iter().filter(|cpu| cpu.node == Some(node.id));
            let cpus: Vec<_> = cpus.map(|cpu| cpu.cpu).collect();
            let gib = node.bytes as f64 / (1u64 << 30) as f64;
            write!(f, "  node {:<3} {gib:>7.1} GiB  CPUs {}", node.id, CpuList(&cpus))?;
            self.write_devices(f, Some(node.id))?;
        }
        if self.devices.iter().any(|device| device.node.is_none()) {
            write!(f, "  devices with no node of their own")?;
            self.write_devices(f, None)?;
        }
        Ok(())
    }
}

impl Machine {
    fn write_devices(&self, f: &mut fmt::Formatter<'_>, node: Option<u32>) -> fmt::Result {
        let here = self.devices.iter().filter(|device| device.node == node);
        let names: Vec<_> = here.map(|device| device.name.as_str()).collect();
        match names.as_slice() {
            [] => writeln!(f),
            names => writeln!(f, "  {}", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_quota_above_a_process_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let quota = |own: &str| cpu_quota(own, folder.path());
        assert_eq!(quota("0::/a/b\n"), None);
        write("a/cpu.max", "150000 100000\n");
        write("a/b/cpu.max", "max 100000\n");
        assert_eq!(quota("0::/a/b\n"), Some(1500));
        write("cpu.max", "50000 100000\n");
        assert_eq!(quota("0::/a/b\n"), Some(500));
        assert_eq!(quota("0::/not/ours\n"), Some(500), "a container sees its own at the top");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("cpu/cpu.cfs_period_us", "100000\n");
        write("cpu/x/cpu.cfs_quota_us", "200000\n");
        write("cpu/x/cpu.cfs_period_us", "100000\n");
        assert_eq!(quota("4:memory:/x\n3:cpu,cpuacct:/x\n"), Some(2000));
        assert_eq!(Cpus(1500).to_string(), "1.50 CPUs");
    }

    #[test]
    fn this_machine_has_what_the_process_may_use() {
        let machine = Machine::discover().unwrap();
        let mut allowed = allowed_cpus();
        allowed.sort_unstable();
        assert_eq!(machine.allowed_cpus(), allowed);
        assert!(!machine.memory_nodes.is_empty());
        assert!(machine.to_string().contains("this process may use CPUs"));
    }

    #[test]
    fn the_default_route_names_its_interface() {
        let header = "Iface\tDestination\tGateway\n";
        let routes = format!("{header}eth1\t0000A8C0\t0\neth0\t00000000\t0101A8C0\n");
        assert_eq!(default_route(&routes), Some("eth0"));
        assert_eq!(default_route(header), None);
    }

    #[test]
    fn stacked_devices_and_partitions_lead_to_whole_ones() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(folder.path().join(path)).unwrap();
        make("nvme0n1/nvme0n1p1");
        fs::write(folder.path().join("nvme0n1/nvme0n1p1/partition"), "1").unwrap();
        make("dm-0/slaves");
        std::os::unix::fs::symlink(
            folder.path().join("nvme0n1/nvme0n1p1"),
            folder.path().join("dm-0/slaves/nvme0n1p1"),
        )
        .unwrap();
        for start in ["dm-0", "nvme0n1", "nvme0n1/nvme0n1p1"] {
            let mut found = Vec::new();
            collect_devices(&folder.path().join(start), &mut found);
            assert_eq!(found, ["nvme0n1"], "{start}");
        }
    }
}
