//! The machine as hwloc sees it.

use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::{OSDeviceType, ObjectType};
use hwlocality::topology::Topology;
use hwlocality::topology::builder::{BuildFlags, TypeFilter};

use super::{Cpu, Device, DeviceKind, Machine, MemoryNode, TopologyError};

/// This machine. `affinity`: CPUs the process is bound to.
pub(super) fn machine(affinity: &[usize]) -> Result<Machine, TopologyError> {
    let topology = Topology::builder()
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(|error| TopologyError(error.into()))?
        .with_io_type_filter(TypeFilter::KeepImportant)
        .map_err(|error| TopologyError(error.into()))?
        .build()
        .map_err(|error| TopologyError(error.into()))?;
    Ok(from_topology(&topology, affinity))
}

/// Takes the facts from an hwloc topology. `affinity`: CPUs the process is bound to.
fn from_topology(topology: &Topology, affinity: &[usize]) -> Machine {
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
    Machine { cpus, memory_nodes, devices, cpu_quota: None }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hwlocality::bitmap::BitmapIndex;
    use hwlocality::cpu::cpuset::CpuSet;
    use hwlocality::topology::editor::RestrictFlags;
    use hwlocality::topology::export::xml::XMLExportFlags;

    use super::super::sysfs;
    use super::*;
    use crate::affinity::allowed_cpus;

    fn synthetic(description: &str) -> Topology {
        Topology::builder().from_synthetic(description).unwrap().build().unwrap()
    }

    fn everything(topology: &Topology) -> Machine {
        let all: Vec<_> = (0..1024).collect();
        from_topology(topology, &all)
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
    fn a_binding_of_the_process_limits_what_is_allowed() {
        let machine = from_topology(&synthetic("core:4 pu:1"), &[1, 3]);
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
        let xml = include_str!("two_sockets.xml");
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
    fn sys_tells_the_same_of_this_machine() {
        let (seen, told) =
            (machine(&allowed_cpus()), sysfs::machine(Path::new("/"), &allowed_cpus()));
        let (seen, told) = (seen.unwrap(), told.unwrap());
        let together = |machine: &Machine, of: fn(&Cpu) -> u32| {
            let cpus = &machine.cpus;
            let with = |one: &Cpu| {
                cpus.iter().filter(|cpu| of(cpu) == of(one)).map(|cpu| cpu.cpu).collect::<Vec<_>>()
            };
            cpus.iter().map(|cpu| (cpu.cpu, cpu.node, cpu.allowed, with(cpu))).collect::<Vec<_>>()
        };
        for of in [|cpu: &Cpu| cpu.core, |cpu: &Cpu| cpu.cache, |cpu: &Cpu| cpu.package] {
            assert_eq!(together(&told, of), together(&seen, of), "{told} {seen}");
        }
        assert_eq!(told.memory_nodes.len(), seen.memory_nodes.len());
        for device in seen.devices {
            assert!(told.devices.contains(&device), "{device:?} is not among {:?}", told.devices);
        }
    }
}
