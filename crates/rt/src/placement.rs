//! Which shard goes on which CPU, with memory from which NUMA node, and why.
//!
//! The planner is pure: a [`Machine`], a [`PlacementRequest`], a [`Plan`]. It follows three rules:
//!
//! 1. A shard gets a core of its own. The second hardware thread of a core carries one only when
//!    asked for (`smt`), and only after every core has one.
//! 2. Shards fill the NUMA node next to the devices in use first, else the node with most cores:
//!    memory, device and interrupts then sit together.
//! 3. On a node they spread over the last-level caches: shards share nothing, so company in a cache
//!    only takes room.
//!
//! More shards than places is allowed, since a log may have to be opened so, and is warned of.

use std::cmp::Reverse;
use std::fmt;

use super::affinity::bind_to;
use super::topology::{CpuList, Cpus, Machine};

/// What the configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementRequest {
    /// How many shards; 0 takes one per core (per hardware thread with `smt`) that is left.
    pub shards: u16,
    /// CPUs to choose from; empty for all this process may use.
    pub cpu_set: Vec<usize>,
    /// Whether the second hardware thread of a core may carry a shard.
    pub smt: bool,
    /// Cores left to the operating system, interrupts and threads outside shards.
    pub leave_cores: u16,
    /// Names of the devices in use ("nvme0n1", "eth0"), to be near them.
    pub devices: Vec<String>,
}

/// A plan for every shard, by shard index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where each shard goes.
    pub shards: Vec<ShardPlace>,
    /// CPUs for threads outside shards: free of shards if any are.
    pub others: Vec<usize>,
    /// What in this plan costs speed.
    pub warnings: Vec<PlanWarning>,
}

/// The place of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The CPU, as the operating system numbers it.
    pub cpu: usize,
    /// NUMA node of its memory; `None` where there is only one.
    pub memory_node: Option<u32>,
    /// Why this CPU.
    pub cpu_reason: CpuReason,
    /// Why this node.
    pub node_reason: NodeReason,
}

/// Why a shard got its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuReason {
    /// It has a core to itself.
    OwnCore,
    /// The other hardware thread of that shard's core.
    SecondThread {
        /// The shard on the first thread.
        of: u16,
    },
    /// There are more shards than places: it runs where that shard runs.
    Shared {
        /// The first shard there.
        with: u16,
    },
}

/// Why a shard is on its NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeReason {
    /// There is no other.
    OnlyOne,
    /// These devices are attached to it.
    NearDevices(Vec<String>),
    /// No device in use has a known node: the node with most usable cores came first.
    MostCores,
    /// The better nodes are full.
    OthersFull,
}

/// Something about a plan that costs speed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanWarning {
    /// Shards sit on another node than a device they use.
    FarFromDevice {
        /// The device.
        device: String,
        /// Its node.
        node: u32,
        /// How many shards are elsewhere.
        shards: usize,
    },
    /// More shards than places.
    Crowded {
        /// Shards asked for.
        shards: u16,
        /// Places there are.
        places: usize,
    },
    /// The time of fewer CPUs than there are shards is given to the process.
    Quota {
        /// Shards asked for.
        shards: u16,
        /// Thousandths of a CPU.
        quota: u64,
    },
    /// Shards of other processes are pinned to CPUs of this plan.
    Taken {
        /// The CPUs.
        cpus: Vec<usize>,
    },
    /// Every core carries a shard: other threads and interrupts take their time from one.
    NothingLeft,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// `cpu-set` names CPUs that do not exist or that this process may not use.
    #[error("cpu-set names CPUs {} which this process may not use; it may use {}",
            CpuList(.unusable), CpuList(.allowed))]
    NotAllowed {
        /// The offenders.
        unusable: Vec<usize>,
        /// What is allowed.
        allowed: Vec<usize>,
    },
    /// `leave-cores` leaves no core for a shard.
    #[error("leave-cores {leave} leaves none of the {cores} usable cores for a shard")]
    NoCoreLeft {
        /// Cores to leave.
        leave: u16,
        /// Usable cores.
        cores: usize,
    },
}

/// Plans the shards of `request` on `machine`.
///
/// # Errors
///
/// [`PlacementError`] when the request names CPUs that cannot be used or leaves none.
pub fn plan(machine: &Machine, request: &PlacementRequest) -> Result<Plan, PlacementError> {
    let nodes = ranked_nodes(machine, request)?;
    let (kept, nodes) = leave(nodes, request.leave_cores)?;
    let places = places(&nodes, request.smt);
    let wanted = match request.shards {
        0 => machine
            .cpu_quota
            .map_or(places.len(), |quota| places.len().min(quota.div_ceil(1000).max(1) as usize)),
        shards => usize::from(shards),
    };
    let chosen = choose(places, wanted);
    let one_node = machine.memory_nodes.len() < 2;
    let mut shards = Vec::with_capacity(wanted);
    for index in 0..wanted {
        let place = &chosen[index % chosen.len()];
        let node = &nodes[place.rank];
        let first = chosen.iter().position(|other| other.core == place.core).unwrap_or_default();
        shards.push(ShardPlace {
            cpu: place.cpu,
            memory_node: node.id.filter(|_| !one_node),
            cpu_reason: match place.thread {
                _ if index >= chosen.len() => {
                    CpuReason::Shared { with: (index % chosen.len()) as u16 }
                }
                0 => CpuReason::OwnCore,
                _ => CpuReason::SecondThread { of: first as u16 },
            },
            node_reason: node_reason(&nodes, place.rank, one_node),
        });
    }
    let others = others(machine, &kept, &chosen);
    let warnings = warnings(machine, request, &shards, chosen.len(), &others);
    Ok(Plan { shards, others, warnings })
}

/// A NUMA node with the cores that may be used, best node first.
struct Node {
    id: Option<u32>,
    /// Devices in use that are attached to it.
    devices: Vec<String>,
    cores: Vec<Core>,
}

/// A core with the hardware threads of it that may be used.
struct Core {
    index: u32,
    cache: u32,
    cpus: Vec<usize>,
}

/// A hardware thread a shard may go on.
struct HardwareThread {
    rank: usize,
    core: u32,
    thread: usize,
    cpu: usize,
}

fn ranked_nodes(
    machine: &Machine,
    request: &PlacementRequest,
) -> Result<Vec<Node>, PlacementError> {
    let allowed = machine.allowed_cpus();
    let unusable: Vec<_> =
        request.cpu_set.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if !unusable.is_empty() {
        return Err(PlacementError::NotAllowed { unusable, allowed });
    }
    let usable = |cpu: usize| {
        allowed.contains(&cpu) && (request.cpu_set.is_empty() || request.cpu_set.contains(&cpu))
    };
    let mut nodes: Vec<Node> = Vec::new();
    for pu in machine.cpus.iter().filter(|pu| usable(pu.cpu)) {
        let at = nodes.iter().position(|node| node.id == pu.node).unwrap_or_else(|| {
            let near = |name: &&String| {
                machine.devices.iter().any(|d| d.name == **name && d.node == pu.node)
            };
            let devices = match pu.node {
                Some(_) => request.devices.iter().filter(near).cloned().collect(),
                None => Vec::new(),
            };
            nodes.push(Node { id: pu.node, devices, cores: Vec::new() });
            nodes.len() - 1
        });
        let cores = &mut nodes[at].cores;
        match cores.iter_mut().find(|core| core.index == pu.core) {
            Some(core) => core.cpus.push(pu.cpu),
            None => cores.push(Core { index: pu.core, cache: pu.cache, cpus: vec![pu.cpu] }),
        }
    }
    // CPUs without memory of their own come last: all of it is far from them.
    nodes.sort_by_key(|node| {
        (node.id.is_none(), Reverse(node.devices.len()), Reverse(node.cores.len()), node.id)
    });
    Ok(nodes)
}

/// Takes out the cores that carry no shard: the first of each node in turn, beginning with the best
/// node, since interrupts of its devices land there. Gives their CPUs.
fn leave(mut nodes: Vec<Node>, count: u16) -> Result<(Vec<usize>, Vec<Node>), PlacementError> {
    let cores = nodes.iter().map(|node| node.cores.len()).sum();
    if usize::from(count) >= cores {
        return Err(PlacementError::NoCoreLeft { leave: count, cores });
    }
    let mut kept = Vec::new();
    let mut rank = 0;
    for _ in 0..count {
        while nodes[rank % nodes.len()].cores.is_empty() {
            rank += 1;
        }
        let at = rank % nodes.len();
        kept.extend(nodes[at].cores.remove(0).cpus);
        rank += 1;
    }
    Ok((kept, nodes))
}

/// Every place in order of preference: first threads of all cores before second ones, better nodes
/// before others, caches in turn.
fn places(nodes: &[Node], smt: bool) -> Vec<HardwareThread> {
    let most = nodes.iter().flat_map(|node| &node.cores).map(|core| core.cpus.len()).max();
    let threads = if smt { most.unwrap_or(0) } else { 1 };
    let mut places = Vec::new();
    for thread in 0..threads {
        for (rank, node) in nodes.iter().enumerate() {
            for core in caches_in_turn(&node.cores) {
                if let Some(&cpu) = core.cpus.get(thread) {
                    places.push(HardwareThread { rank, core: core.index, thread, cpu });
                }
            }
        }
    }
    places
}

/// The first core of each cache, then the second of each, and so on.
fn caches_in_turn(cores: &[Core]) -> Vec<&Core> {
    let mut turns: Vec<(usize, &Core)> = Vec::new();
    for core in cores {
        let turn = turns.iter().filter(|(_, other)| other.cache == core.cache).count();
        turns.push((turn, core));
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, core)| core).collect()
}

/// The best places, numbered so that neighbouring shards are neighbours.
fn choose(mut places: Vec<HardwareThread>, wanted: usize) -> Vec<HardwareThread> {
    places.truncate(wanted.max(1));
    places.sort_by_key(|place| (place.thread, place.rank, place.cpu));
    places
}

fn node_reason(nodes: &[Node], rank: usize, one_node: bool) -> NodeReason {
    match nodes[rank].devices.as_slice() {
        _ if one_node => NodeReason::OnlyOne,
        [] if rank == 0 => NodeReason::MostCores,
        [] => NodeReason::OthersFull,
        devices => NodeReason::NearDevices(devices.to_vec()),
    }
}

/// CPUs of whole cores without a shard, in the `cpu-set` or outside it; else those left out on
/// purpose or idle second threads; else all.
fn others(machine: &Machine, kept: &[usize], chosen: &[HardwareThread]) -> Vec<usize> {
    let allowed = || machine.cpus.iter().filter(|cpu| cpu.allowed);
    let has_shard = |core: u32| chosen.iter().any(|place| place.core == core);
    let is_taken = |cpu: usize| chosen.iter().any(|place| place.cpu == cpu);
    let idle = allowed().filter(|cpu| !has_shard(cpu.core)).map(|cpu| cpu.cpu);
    let mut cpus: Vec<_> = idle.chain(kept.iter().copied()).collect();
    if cpus.is_empty() {
        cpus = allowed().map(|cpu| cpu.cpu).filter(|cpu| !is_taken(*cpu)).collect();
    }
    if cpus.is_empty() {
        cpus = machine.allowed_cpus();
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

fn warnings(
    machine: &Machine,
    request: &PlacementRequest,
    shards: &[ShardPlace],
    places: usize,
    others: &[usize],
) -> Vec<PlanWarning> {
    let mut warnings = Vec::new();
    for device in machine.devices.iter().filter(|d| request.devices.contains(&d.name)) {
        let Some(node) = device.node else { continue };
        let elsewhere = |shard: &&ShardPlace| shard.memory_node.is_some_and(|own| own != node);
        let count = shards.iter().filter(elsewhere).count();
        if count > 0 {
            let device = device.name.clone();
            warnings.push(PlanWarning::FarFromDevice { device, node, shards: count });
        }
    }
    if let Some(quota) = machine.cpu_quota
        && quota < shards.len() as u64 * 1000
    {
        warnings.push(PlanWarning::Quota { shards: shards.len() as u16, quota });
    }
    if shards.len() > places {
        warnings.push(PlanWarning::Crowded { shards: shards.len() as u16, places });
    } else if others.iter().any(|cpu| shards.iter().any(|shard| shard.cpu == *cpu)) {
        warnings.push(PlanWarning::NothingLeft);
    }
    warnings
}

/// Binds the calling thread, one outside the shards, to a CPU. False when the system refuses.
#[must_use]
pub fn pin_current_thread(cpu: usize) -> bool {
    bind_to(cpu)
}

impl Plan {
    /// Binds the calling thread, and those it starts from now on, to a CPU without a shard. False
    /// when there is none: then the scheduler knows better.
    pub fn keep_off_shards(&self) -> bool {
        let has_shard = |cpu: usize| self.shards.iter().any(|shard| shard.cpu == cpu);
        let free = self.others.iter().find(|cpu| !has_shard(**cpu));
        free.is_some_and(|cpu| pin_current_thread(*cpu))
    }
}

impl fmt::Display for CpuReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnCore => f.write_str("a core of its own"),
            Self::SecondThread { of } => write!(f, "second thread of the core of shard {of}"),
            Self::Shared { with } => write!(f, "shares the CPU of shard {with}: no other is left"),
        }
    }
}

impl fmt::Display for NodeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyOne => f.write_str("the only memory node"),
            Self::NearDevices(devices) => write!(f, "next to {}", devices.join(", ")),
            Self::MostCores => f.write_str("the node with most usable cores"),
            Self::OthersFull => f.write_str("the better nodes are full"),
        }
    }
}

impl fmt::Display for PlanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FarFromDevice { device, node, shards } => write!(
                f,
                "{device} is on NUMA node {node}, shards elsewhere: {shards}; what they read or send \
                 crosses sockets; fewer `shards` or a `cpu-set` on that node keeps them near"
            ),
            Self::Crowded { shards, places } => write!(
                f,
                "{shards} shards share {places} places: lower `shards`, or allow more CPUs"
            ),
            Self::Quota { shards, quota } => write!(
                f,
                "the cgroup of this process gives it the time of {}, for {shards} shards: each stands \
                 still until the next period once it is used up; raise the quota or lower `shards`",
                Cpus(*quota)
            ),
            Self::Taken { cpus } => write!(
                f,
                "shards of other nodes on this machine are pinned to CPUs {} too: each gets a part of \
                 them; fewer `shards`, or a `cpu-set` for each node, keeps them apart",
                CpuList(cpus)
            ),
            Self::NothingLeft => f.write_str(
                "every usable core carries a shard: clients, interrupts and the admin thread take \
                 time from them; `leave-cores 1` gives them a core",
            ),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shards, others) = (self.shards.len(), CpuList(&self.others));
        writeln!(f, "{shards} shards; threads outside shards: CPUs {others}")?;
        for (index, shard) in self.shards.iter().enumerate() {
            let node = shard.memory_node.map_or("-".into(), |node| node.to_string());
            writeln!(
                f,
                "  shard {index:<4} CPU {:<4} node {node:<3} {}; {}",
                shard.cpu, shard.cpu_reason, shard.node_reason
            )?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::{Cpu, Device, DeviceKind, MemoryNode};
    use super::*;

    /// Cores per node; `threads` per core, numbered as Linux does: first threads first. Two cores
    /// share a cache.
    fn machine(cores: &[usize], threads: usize, devices: &[(&str, u32)]) -> Machine {
        let total: usize = cores.iter().sum();
        let mut cpus = Vec::new();
        for thread in 0..threads {
            let mut core = 0;
            for (node, count) in cores.iter().enumerate() {
                for _ in 0..*count {
                    cpus.push(Cpu {
                        cpu: thread * total + core,
                        core: core as u32,
                        cache: core as u32 / 2,
                        package: node as u32,
                        node: Some(node as u32),
                        allowed: true,
                    });
                    core += 1;
                }
            }
        }
        let memory_nodes = (0..cores.len() as u32).map(|id| MemoryNode { id, bytes: 1 << 30 });
        let devices = devices.iter().map(|(name, node)| Device {
            name: (*name).into(),
            kind: DeviceKind::Block,
            node: Some(*node),
        });
        Machine {
            cpus,
            memory_nodes: memory_nodes.collect(),
            devices: devices.collect(),
            cpu_quota: None,
        }
    }

    fn request(shards: u16) -> PlacementRequest {
        PlacementRequest { shards, ..PlacementRequest::default() }
    }

    fn near(shards: u16, device: &str) -> PlacementRequest {
        PlacementRequest { devices: vec![device.into()], ..request(shards) }
    }

    fn cpus(plan: &Plan) -> Vec<usize> {
        plan.shards.iter().map(|shard| shard.cpu).collect()
    }

    fn check(machine: &Machine, request: &PlacementRequest, expected: &[usize], others: &[usize]) {
        let plan = plan(machine, request).unwrap();
        assert_eq!(cpus(&plan), expected, "{request:?}");
        assert_eq!(plan.others, others, "{request:?}");
    }

    #[test]
    fn small_machines() {
        check(&machine(&[1], 1, &[]), &request(0), &[0], &[0]);
        check(&machine(&[1], 2, &[]), &request(0), &[0], &[1]);
        check(&machine(&[2], 1, &[]), &request(0), &[0, 1], &[0, 1]);
        check(&machine(&[2], 1, &[]), &request(1), &[0], &[1]);
        let leave = PlacementRequest { leave_cores: 1, ..request(0) };
        check(&machine(&[2], 1, &[]), &leave, &[1], &[0]);
        let smt = PlacementRequest { smt: true, ..request(0) };
        check(&machine(&[2], 2, &[]), &smt, &[0, 1, 2, 3], &[0, 1, 2, 3]);
        check(&machine(&[2], 2, &[]), &PlacementRequest { shards: 3, ..smt }, &[0, 1, 2], &[3]);
    }

    #[test]
    fn two_sockets_fill_the_node_of_the_device_first() {
        let big = machine(&[32, 32], 2, &[("nvme0n1", 1), ("eth0", 0)]);
        let plan_of = |request: &PlacementRequest| plan(&big, request).unwrap();
        let all = plan_of(&near(0, "nvme0n1"));
        let expected: Vec<_> = (32..64).chain(0..32).collect();
        assert_eq!(cpus(&all), expected);
        assert_eq!(all.others, (64..128).collect::<Vec<_>>());
        assert_eq!(all.shards[0].memory_node, Some(1));
        assert_eq!(all.shards[0].node_reason, NodeReason::NearDevices(vec!["nvme0n1".into()]));
        assert_eq!(all.shards[32].node_reason, NodeReason::OthersFull);
        let far = PlanWarning::FarFromDevice { device: "nvme0n1".into(), node: 1, shards: 32 };
        assert_eq!(all.warnings, [far]);

        let few = plan_of(&near(4, "nvme0n1"));
        assert_eq!(cpus(&few), [32, 34, 36, 38], "one per cache");
        assert_eq!(few.warnings, []);
        let leave = PlacementRequest { leave_cores: 3, ..near(0, "nvme0n1") };
        let leave = plan_of(&leave);
        assert_eq!(leave.others, [0, 32, 33, 64, 96, 97]);
        assert_eq!(leave.shards.len(), 61);

        let smt = plan_of(&PlacementRequest { smt: true, ..near(0, "eth0") });
        assert_eq!(smt.shards.len(), 128);
        assert_eq!(smt.shards[64].cpu, 64);
        assert_eq!(smt.shards[64].cpu_reason, CpuReason::SecondThread { of: 0 });
        assert_eq!(smt.warnings.last(), Some(&PlanWarning::NothingLeft));
    }

    #[test]
    fn uneven_nodes_without_a_known_device_begin_with_the_larger() {
        let uneven = machine(&[2, 6], 1, &[]);
        let plan = plan(&uneven, &request(7)).unwrap();
        assert_eq!(cpus(&plan), [2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(plan.shards[0].node_reason, NodeReason::MostCores);
        assert_eq!(plan.shards[6].memory_node, Some(0));
        assert_eq!(plan.others, [1]);
    }

    #[test]
    fn a_device_with_an_unknown_node_decides_nothing() {
        let mut two = machine(&[2, 4], 1, &[("vda", 0)]);
        two.devices[0].node = None;
        assert_eq!(cpus(&plan(&two, &near(2, "vda")).unwrap()), [2, 4]);
    }

    #[test]
    fn a_cgroup_cpuset_is_respected() {
        let mut inside = machine(&[8, 8], 2, &[("nvme0n1", 1)]);
        for cpu in &mut inside.cpus {
            cpu.allowed = [3, 4, 19, 10].contains(&cpu.cpu);
        }
        // 19 is the second thread of 3.
        check(&inside, &request(0), &[3, 4, 10], &[19]);
        check(&inside, &near(1, "nvme0n1"), &[10], &[3, 4, 19]);
        let outside = PlacementRequest { cpu_set: vec![3, 5], ..request(0) };
        let error = plan(&inside, &outside).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cpu-set names CPUs 5 which this process may not use; it may use 3-4,10,19"
        );
    }

    #[test]
    fn a_cpu_set_may_name_the_second_thread_alone() {
        let two = machine(&[2], 2, &[]);
        check(&two, &PlacementRequest { cpu_set: vec![2, 3], ..request(0) }, &[2, 3], &[0, 1]);
        check(&two, &PlacementRequest { cpu_set: vec![0, 2], ..request(0) }, &[0], &[1, 3]);
    }

    #[test]
    fn threads_outside_shards_go_outside_a_cpu_set() {
        let set = PlacementRequest { cpu_set: vec![0, 1], ..request(0) };
        check(&machine(&[4], 1, &[]), &set, &[0, 1], &[2, 3]);
        assert_eq!(plan(&machine(&[4], 1, &[]), &set).unwrap().warnings, []);
    }

    #[test]
    fn a_node_without_memory_comes_last() {
        let mut odd = machine(&[2, 6], 1, &[]);
        odd.cpus.iter_mut().filter(|cpu| cpu.node == Some(1)).for_each(|cpu| cpu.node = None);
        odd.memory_nodes.pop();
        assert_eq!(cpus(&plan(&odd, &request(3)).unwrap()), [0, 1, 2]);
    }

    #[test]
    fn a_quota_bounds_the_shards_and_is_told_when_they_exceed_it() {
        let mut bounded = machine(&[8], 1, &[]);
        bounded.cpu_quota = Some(1500);
        assert_eq!(cpus(&plan(&bounded, &request(0)).unwrap()).len(), 2);
        let warnings = plan(&bounded, &request(4)).unwrap().warnings;
        assert_eq!(warnings, [PlanWarning::Quota { shards: 4, quota: 1500 }]);
        bounded.cpu_quota = Some(300);
        assert_eq!(cpus(&plan(&bounded, &request(0)).unwrap()).len(), 1);
    }

    #[test]
    fn more_shards_than_places_share_and_say_so() {
        let plan = plan(&machine(&[2], 1, &[]), &request(3)).unwrap();
        assert_eq!(cpus(&plan), [0, 1, 0]);
        assert_eq!(plan.shards[2].cpu_reason, CpuReason::Shared { with: 0 });
        assert_eq!(plan.warnings, [PlanWarning::Crowded { shards: 3, places: 2 }]);
    }

    #[test]
    fn leaving_every_core_is_an_error() {
        for leave_cores in [2, 9] {
            let request = PlacementRequest { leave_cores, ..request(0) };
            let error = plan(&machine(&[2], 2, &[]), &request).unwrap_err();
            assert_eq!(error, PlacementError::NoCoreLeft { leave: leave_cores, cores: 2 });
        }
    }

    #[test]
    fn a_plan_explains_itself() {
        let text = plan(&machine(&[2, 2], 1, &[("nvme0n1", 1)]), &near(3, "nvme0n1")).unwrap();
        let expected = "\
3 shards; threads outside shards: CPUs 1
  shard 0    CPU 2    node 1   a core of its own; next to nvme0n1
  shard 1    CPU 3    node 1   a core of its own; next to nvme0n1
  shard 2    CPU 0    node 0   a core of its own; the better nodes are full
  warning: nvme0n1 is on NUMA node 1, shards elsewhere: 1; what they read or send crosses sockets; \
fewer `shards` or a `cpu-set` on that node keeps them near
";
        assert_eq!(text.to_string(), expected);
    }
}
