//! Settings of this machine that cost speed, and where `tuning/` mends them.
//!
//! Only reads `/proc` and `/sys`; what is not there is not complained about.

use std::fmt;
use std::path::PathBuf;

/// A setting that costs speed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The knob, as `tuning/` names it.
    pub(crate) knob: &'static str,
    /// What is set now.
    found: String,
    /// What that costs.
    cost: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { knob, found, cost } = self;
        write!(f, "{knob}: {found}: {cost}")
    }
}

/// The files to look into: `/`, or a folder in tests.
pub(crate) struct System(pub(crate) PathBuf);

impl System {
    /// Looks at every knob; `disks` are the block devices in use.
    pub(crate) fn findings(&self, disks: &[String]) -> Vec<Finding> {
        let mut findings: Vec<_> = [
            self.kernel(),
            self.huge_pages(),
            self.locked_memory(),
            self.open_files(),
            self.governor(),
            self.clock(),
        ]
        .into_iter()
        .flatten()
        .collect();
        findings.extend(disks.iter().flat_map(|disk| self.disk(disk)));
        findings.extend(self.network());
        findings
    }

    fn read(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.0.join(path)).ok()?.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    fn kernel(&self) -> Option<Finding> {
        let release = self.read("proc/sys/kernel/osrelease")?;
        let mut parts = release.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse::<u32>);
        let version = (parts.next()?, parts.next()?);
        let found = format!("kernel {release}");
        let cost = "io_uring had unkillable hangs before 6.12";
        (version < (6, 12)).then_some(Finding { knob: "kernel", found, cost })
    }

    fn huge_pages(&self) -> Option<Finding> {
        let modes = self.read("sys/kernel/mm/transparent_hugepage/enabled")?;
        let reserved = self.number("proc/sys/vm/nr_hugepages").unwrap_or(0);
        let found = "no huge pages".to_owned();
        let cost = "reads and writes of whole blocks take up to twice as long";
        let bad = modes.contains("[never]") && reserved == 0;
        bad.then_some(Finding { knob: "hugepages", found, cost })
    }

    fn locked_memory(&self) -> Option<Finding> {
        const IPC_LOCK: u32 = 14;
        let status = self.read("proc/self/status")?;
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let capabilities = u64::from_str_radix(capabilities.trim(), 16).ok()?;
        let limit = self.limit("Max locked memory")?;
        let bad = capabilities >> IPC_LOCK & 1 == 0 && limit != "unlimited";
        let found = format!("RLIMIT_MEMLOCK is {limit} bytes");
        let cost = "buffers beyond it are not registered, a read costs up to 20 % more";
        bad.then_some(Finding { knob: "memlock", found, cost })
    }

    fn open_files(&self) -> Option<Finding> {
        let limit = self.limit("Max open files")?;
        let found = format!("RLIMIT_NOFILE is {limit}");
        let cost = "connections are refused beyond it";
        let bad = limit.parse::<u64>().is_ok_and(|limit| limit < 65_536);
        bad.then_some(Finding { knob: "nofile", found, cost })
    }

    /// The soft limit of that name.
    fn limit(&self, name: &str) -> Option<String> {
        let limits = self.read("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    fn governor(&self) -> Option<Finding> {
        let governor = self.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?;
        let found = format!("CPU frequency governor is {governor}");
        let cost = "a core that was idle starts slowly";
        (governor != "performance").then_some(Finding { knob: "governor", found, cost })
    }

    fn clock(&self) -> Option<Finding> {
        let source = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let source = self.read(source)?;
        let fast = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
        let found = format!("clock source is {source}");
        let cost = "each reading of the clock is a system call";
        (!fast.contains(&source.as_str())).then_some(Finding { knob: "clocksource", found, cost })
    }

    fn disk(&self, disk: &str) -> Vec<Finding> {
        let queue = |name: &str| self.read(&format!("sys/block/{disk}/queue/{name}"));
        let mut findings = Vec::new();
        let mut note = |bad: bool, knob, found, cost| {
            if bad {
                findings.push(Finding { knob, found, cost });
            }
        };
        if let Some(scheduler) = queue("scheduler") {
            let chosen = scheduler.split(['[', ']']).nth(1).unwrap_or(&scheduler).to_owned();
            let found = format!("{disk} has I/O scheduler {chosen}");
            let cost = "sorting that flash does not need, on every read";
            note(chosen != "none", "io-scheduler", found, cost);
        }
        if let Some(merges) = queue("nomerges") {
            let found = format!("{disk} has nomerges {merges}");
            let cost = "the kernel looks for neighbours that are joined already";
            note(merges != "2", "nomerges", found, cost);
        }
        if let Some(latency) = queue("wbt_lat_usec") {
            let found = format!("{disk} has wbt_lat_usec {latency}");
            let cost = "the kernel throttles log writes by guess";
            note(latency != "0", "write-back-throttle", found, cost);
        }
        findings
    }

    fn network(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut note = |bad: bool, knob, found, cost| {
            if bad {
                findings.push(Finding { knob, found, cost });
            }
        };
        if let Some(max) = self.number("proc/sys/net/core/somaxconn") {
            let cost = "connections are lost when many clients come at once";
            note(max < 4096, "somaxconn", format!("somaxconn is {max}"), cost);
        }
        if let Some(on) = self.number("proc/sys/net/ipv4/tcp_slow_start_after_idle") {
            let found = "TCP starts slowly after a pause".to_owned();
            note(on != 0, "slow-start", found, "the first batches of a burst wait for round trips");
        }
        for (knob, path) in [("tcp-wmem", "tcp_wmem"), ("tcp-rmem", "tcp_rmem")] {
            let sizes = self.read(&format!("proc/sys/net/ipv4/{path}"));
            let last = |sizes: &String| sizes.split_whitespace().last()?.parse::<u64>().ok();
            let Some(max) = sizes.as_ref().and_then(last) else { continue };
            let found = format!("{path} ends at {} KiB", max / 1024);
            let cost = "a long link carries no more than that per round trip and connection";
            note(max < 16 << 20, knob, found, cost);
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("proc/sys/kernel/osrelease", "6.12.3-amd64"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
        ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n"),
        (
            "proc/self/limits",
            "Max open files            1048576   1048576   files\n\
             Max locked memory         unlimited unlimited bytes\n",
        ),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
        ("sys/block/nvme0n1/queue/scheduler", "[none] mq-deadline"),
        ("sys/block/nvme0n1/queue/nomerges", "2"),
        ("sys/block/nvme0n1/queue/wbt_lat_usec", "0"),
        ("proc/sys/net/core/somaxconn", "4096"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 67108864"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096 131072 67108864"),
    ];

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn each_bad_setting_is_found_and_only_that() {
        let disks = ["nvme0n1".to_owned()];
        for (path, bad, knob) in [
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64", "kernel"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]", "hugepages"),
            ("proc/self/limits", "Max locked memory  8388608  8388608  bytes", "memlock"),
            ("proc/self/limits", "Max open files  1024  1048576  files", "nofile"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "governor"),
            (
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
                "hpet",
                "clocksource",
            ),
            ("sys/block/nvme0n1/queue/scheduler", "none [mq-deadline]", "io-scheduler"),
            ("sys/block/nvme0n1/queue/nomerges", "0", "nomerges"),
            ("sys/block/nvme0n1/queue/wbt_lat_usec", "75000", "write-back-throttle"),
            ("proc/sys/net/core/somaxconn", "128", "somaxconn"),
            ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1", "slow-start"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 4194304", "tcp-wmem"),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), GOOD);
            let system = System(root.path().into());
            assert_eq!(system.findings(&disks), []);
            write(root.path(), &[(path, bad)]);
            let findings = system.findings(&disks);
            let knobs: Vec<_> = findings.iter().map(|finding| finding.knob).collect();
            assert_eq!(knobs, [knob], "{path}");
        }
    }

    #[test]
    fn a_system_that_tells_nothing_gets_no_complaints() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(System(root.path().into()).findings(&["sda".into()]), []);
    }
}
