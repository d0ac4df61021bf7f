//! What the machine has, as far as placement cares: CPUs, who shares what, memory nodes, devices.
//!
//! hwloc finds it; a [`Machine`] keeps the few facts that matter, so that the planner can be tested
//! on machines nobody here owns. CPUs are numbered as the operating system numbers them, and need
//! not be contiguous: a container sees holes.

use std::fmt;
use std::fs;
use std::path::Path;

use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::{OSDeviceType, ObjectType};
use hwlocality::topology::Topology;
use hwlocality::topology::builder::{BuildFlags, TypeFilter};

use super::shard::allowed_cpus;

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

/// hwloc could not look at the machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the machine's topology: {0}")]
pub struct TopologyError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Machine {
    /// Looks at this machine, as this process may use it.
    ///
    /// # Errors
    ///
    /// hwloc's own, when it finds neither `/sys` nor `/proc`.
    pub fn discover() -> Result<Self, TopologyError> {
        let topology = Topology::builder()
            .with_flags(BuildFlags::INCLUDE_DISALLOWED)
            .map_err(|error| TopologyError(error.into()))?
            .with_io_type_filter(TypeFilter::KeepImportant)
            .map_err(|error| TopologyError(error.into()))?
            .build()
            .map_err(|error| TopologyError(error.into()))?;
        let mut machine = Self::from_topology(&topology, &allowed_cpus());
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        machine.cpu_quota = cpu_quota(&own, Path::new("/sys/fs/cgroup"));
        Ok(machine)
    }

    /// Takes the facts from an hwloc topology. `affinity`: CPUs the process is bound to.
    fn from_topology(topology: &Topology, affinity: &[usize]) -> Self {
        let allowed = topology.allowed_cpuset();
        let mut memory: Vec<_> = topology
            .objects_with_type(ObjectType::NUMANode)
            .filter_map(|node| Some((node.os_index()? as u32, node.total_memory(), node.cpuset()?)))
            .collect();
        // Where hwloc tells no sizes at all, a size of 0 says nothing.
        if memory.iter().any(|(_, bytes, _)| *bytes > 0) {
            memory.retain(|(_, bytes, _)| *bytes > 0);
        }
        // Of several nodes beside a CPU the one that fewest others share is its own; of equal ones
        // the first, which is the processor's, not an accelerator's or an expander's.
        let node_of = |unit: &TopologyObject| {
            let cpuset = unit.cpuset()?;
            let near = memory.iter().filter(|(_, _, cpus)| cpus.includes(cpuset));
            near.min_by_key(|(id, _, cpus)| (cpus.weight(), *id)).map(|(id, ..)| *id)
        };
        let mut cpus: Vec<_> = topology
            .objects_with_type(ObjectType::PU)
            .filter_map(|unit| {
                let cpu = unit.os_index()?;
                let index_of = |ty| unit.first_ancestor_with_type(ty).map(index);
                let core = index_of(ObjectType::Core).unwrap_or_else(|| index(unit));
                let caches = unit.ancestors().filter(|o| o.object_type().is_cpu_data_cache());
                let in_set = unit.cpuset().is_some_and(|set| allowed.includes(set));
                Some(Cpu {
                    cpu,
                    core,
                    cache: caches.last().map_or(core, index),
                    package: index_of(ObjectType::Package).unwrap_or(0),
                    node: node_of(unit),
                    allowed: in_set && affinity.contains(&cpu),
                })
            })
            .collect();
        cpus.sort_by_key(|cpu| cpu.cpu);
        let memory_nodes = memory.iter().map(|&(id, bytes, _)| MemoryNode { id, bytes });
        let mut memory_nodes: Vec<_> = memory_nodes.collect();
        memory_nodes.sort_by_key(|node| node.id);
        let mut devices: Vec<_> =
            topology.os_devices().filter_map(|object| device(object, &cpus)).collect();
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        Self { cpus, memory_nodes, devices, cpu_quota: None }
    }

    /// The CPUs this process may use, ascending.
    pub fn allowed_cpus(&self) -> Vec<usize> {
        self.cpus.iter().filter(|cpu| cpu.allowed).map(|cpu| cpu.cpu).collect()
    }
}

fn index(object: &TopologyObject) -> u32 {
    object.logical_index() as u32
}

fn device(object: &TopologyObject, cpus: &[Cpu]) -> Option<Device> {
    let Some(ObjectAttributes::OSDevice(attributes)) = object.attributes() else { return None };
    let kind = match attributes.device_type() {
        OSDeviceType::Storage => DeviceKind::Block,
        OSDeviceType::Network => DeviceKind::Network,
        _ => return None,
    };
    let name = object.name()?.to_str().ok()?.to_owned();
    // Where the CPUs next to it have their memory, if that is one place.
    let near = object.first_non_io_ancestor().and_then(TopologyObject::cpuset);
    let is_near =
        |cpu: &&Cpu| near.is_some_and(|set| set.iter_set().any(|n| usize::from(n) == cpu.cpu));
    let mut nodes: Vec<_> = cpus.iter().filter(is_near).map(|cpu| cpu.node).collect();
    nodes.dedup();
    let node = if let [node] = nodes[..] { node } else { None };
    Some(Device { name, kind, node })
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
    use hwlocality::bitmap::BitmapIndex;
    use hwlocality::cpu::cpuset::CpuSet;
    use hwlocality::topology::editor::RestrictFlags;
    use hwlocality::topology::export::xml::XMLExportFlags;

    use super::*;

    fn synthetic(description: &str) -> Topology {
        Topology::builder().from_synthetic(description).unwrap().build().unwrap()
    }

    fn everything(topology: &Topology) -> Machine {
        let all: Vec<_> = (0..1024).collect();
        Machine::from_topology(topology, &all)
    }

    /// Package, core, cache, node of every CPU.
    fn layout(machine: &Machine) -> Vec<(u32, u32, u32, Option<u32>)> {
        machine.cpus.iter().map(|cpu| (cpu.package, cpu.core, cpu.cache, cpu.node)).collect()
    }

    #[test]
    fn a_synthetic_machine_keeps_its_shape() {
        let two_sockets = everything(&synthetic("package:2 [numa] l3:2 core:2 pu:2"));
        assert_eq!(two_sockets.cpus.len(), 16);
        assert_eq!(layout(&two_sockets)[0], (0, 0, 0, Some(0)));
        assert_eq!(layout(&two_sockets)[1], (0, 0, 0, Some(0)), "the sibling of the first");
        assert_eq!(layout(&two_sockets)[5], (0, 2, 1, Some(0)), "in the second cache");
        assert_eq!(layout(&two_sockets)[15], (1, 7, 3, Some(1)));
        assert_eq!(two_sockets.memory_nodes.len(), 2);
        assert!(two_sockets.cpus.iter().all(|cpu| cpu.allowed));

        let plain = everything(&synthetic("core:3 pu:1"));
        assert_eq!(layout(&plain)[2], (0, 2, 2, Some(0)), "without caches each core is its own");
    }

    #[test]
    fn of_several_memory_nodes_beside_a_cpu_one_is_its_own() {
        let nodes = |description: &str| {
            let machine = everything(&synthetic(description));
            machine.cpus.iter().map(|cpu| cpu.node).collect::<Vec<_>>()
        };
        let own = |node| Some(node);
        assert_eq!(nodes("package:2 [numa] [numa] core:2 pu:1"), [0, 0, 2, 2].map(own));
        // A large node for each package, and fast ones inside it.
        let inside = nodes("package:1 [numa] l3:2 [numa] core:1 pu:1");
        assert_ne!(inside[0], inside[1]);
        let empty = nodes("package:1 [numa(memory=1GB)] l3:2 [numa(memory=0)] core:1 pu:1");
        assert_eq!(empty[0], empty[1], "a node without memory is nobody's");
    }

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
    fn a_binding_of_the_process_limits_what_is_allowed() {
        let machine = Machine::from_topology(&synthetic("core:4 pu:1"), &[1, 3]);
        assert_eq!(machine.allowed_cpus(), [1, 3]);
        assert_eq!(machine.cpus.len(), 4);
    }

    #[test]
    fn a_restricted_topology_has_holes() {
        let mut topology = synthetic("package:2 [numa] core:2 pu:1");
        let keep: CpuSet = (1..=2).map(|cpu| BitmapIndex::try_from(cpu).unwrap()).collect();
        topology.edit(|editor| editor.restrict(&keep, RestrictFlags::empty()).unwrap());
        let machine = everything(&topology);
        assert_eq!(machine.allowed_cpus(), [1, 2]);
        assert_eq!(
            layout(&machine).iter().map(|cpu| cpu.3).collect::<Vec<_>>(),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn a_machine_read_from_xml_is_the_same() {
        let topology = synthetic("package:2 [numa] l3:1 core:4 pu:2");
        let xml = topology.export_xml(XMLExportFlags::empty()).unwrap();
        let read = Topology::builder().from_xml(xml.as_str()).unwrap().build().unwrap();
        assert_eq!(everything(&read), everything(&topology));
    }

    #[test]
    fn devices_are_near_the_node_of_their_bus() {
        let xml = include_str!("topology_two_sockets.xml");
        let topology = Topology::builder()
            .from_xml(xml)
            .unwrap()
            .with_io_type_filter(TypeFilter::KeepImportant)
            .unwrap()
            .build()
            .unwrap();
        let device = |name: &str, kind, node| Device { name: name.into(), kind, node };
        assert_eq!(
            everything(&topology).devices,
            [
                device("eth0", DeviceKind::Network, Some(0)),
                device("nvme0n1", DeviceKind::Block, Some(1)),
            ]
        );
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
