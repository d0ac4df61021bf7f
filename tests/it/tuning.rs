//! The tuning scripts, over a folder that stands for the machine.

use std::path::Path;
use std::process::{Command, Output};

const MACHINE: &[(&str, &str)] = &[
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "hpet tsc"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"),
    ("sys/block/nvme0n1/device/model", "x"),
    ("sys/block/nvme0n1/queue/scheduler", "none [mq-deadline]"),
    ("sys/block/nvme0n1/queue/nomerges", "0"),
    ("sys/block/nvme0n1/queue/wbt_lat_usec", "2000"),
    ("sys/block/loop0/queue/scheduler", "none [mq-deadline]"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/sys/vm/nr_hugepages", "0"),
    ("proc/sys/net/core/somaxconn", "65535"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
];

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap().trim().to_owned()
}

fn tuning(script: &str, root: &Path, arguments: &[&str]) -> (bool, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tuning").join(script);
    let output = Command::new(path).args(arguments).arg("--root").arg(root).output().unwrap();
    let Output { status, stdout, stderr } = output;
    assert_eq!(String::from_utf8_lossy(&stderr), "", "{script} {arguments:?}");
    (status.success(), String::from_utf8(stdout).unwrap())
}

#[test]
fn what_costs_speed_is_found_set_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let contents = || MACHINE.iter().map(|(path, _)| read(root, path)).collect::<Vec<_>>();
    small_machine(root);
    let before = contents();

    let (all_well, said) = tuning("check", root, &["--huge-pages", "64"]);
    assert!(!all_well);
    for knob in ["governor", "clocksource", "hugepages", "io-scheduler", "nomerges"] {
        assert!(said.contains(knob), "{knob}: {said}");
    }
    for fine in ["cpu1", "loop0", "somaxconn"] {
        assert!(!said.contains(fine), "{fine}: {said}");
    }

    let (_, planned) = tuning("apply", root, &["--dry-run", "--huge-pages", "64"]);
    assert_eq!(contents(), before);
    let (_, done) = tuning("apply", root, &["--huge-pages", "64"]);
    assert_eq!(done, planned);
    assert_eq!(read(root, "sys/block/nvme0n1/queue/scheduler"), "none");
    assert_eq!(read(root, "proc/sys/net/core/somaxconn"), "65535", "more is as good");
    assert_eq!(tuning("check", root, &["--huge-pages", "64"]), (true, "all as wanted\n".into()));
    assert_eq!(tuning("apply", root, &[]).1, "", "nothing is left to do");

    // Somebody turns a knob back and applies again: what was there first is what counts.
    std::fs::write(root.join("proc/sys/vm/swappiness"), "30").unwrap();
    assert!(tuning("apply", root, &[]).1.contains("'30' -> '1'"));
    tuning("apply", root, &["--undo", "--dry-run"]);
    assert_eq!(read(root, "proc/sys/vm/swappiness"), "1");
    tuning("apply", root, &["--undo"]);
    // Of a list of choices the one in brackets counts; a plain file keeps only that.
    let set = |text: &str| {
        let chosen = text.split(['[', ']']).nth(1).unwrap_or(text);
        chosen.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for ((path, _), before) in MACHINE.iter().zip(&before) {
        assert_eq!(set(&read(root, path)), set(before), "{path}");
    }
    assert!(tuning("apply", root, &["--undo"]).1.starts_with("nothing was applied"));
}

#[test]
fn this_machine_is_looked_at_and_left_alone() {
    let (_, said) = tuning("check", Path::new("/"), &[]);
    assert!(!said.is_empty());
    tuning("apply", Path::new("/"), &["--dry-run"]);
}

/// Writes the files of `MACHINE`.
fn small_machine(root: &Path) {
    for (path, text) in MACHINE {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    }
}

fn tuning_fails(script: &str, root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tuning").join(script);
    let output = Command::new(path).args(arguments).arg("--root").arg(root).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_setting_that_cannot_be_read_hides_none_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    small_machine(root);
    tuning("apply", root, &[]);
    // A folder in its place is what even root cannot read.
    let governor = root.join("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    std::fs::remove_file(&governor).unwrap();
    std::fs::create_dir(&governor).unwrap();
    std::fs::write(root.join("proc/sys/vm/swappiness"), "60").unwrap();
    let (code, said) = tuning_fails("check", root, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cpu0/cpufreq/scaling_governor cannot be read"), "{said}");
    assert!(said.contains("swappiness is '60', better '1'"), "{said}");
    let (code, said) = tuning_fails("apply", root, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("left alone") && said.contains("'60' -> '1'"), "{said}");
}

#[test]
fn a_device_is_named_with_or_without_its_folder_and_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    small_machine(root);
    let (_, with) = tuning("check", root, &["--device", "/dev/nvme0n1"]);
    assert!(with.contains("nvme0n1/queue/scheduler"), "{with}");
    for script in ["check", "apply"] {
        let (code, said) = tuning_fails(script, root, &["--device", "vda"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--device vda: there is no"), "{said}");
    }
}

#[test]
fn what_is_gone_is_not_taken_back_and_does_not_keep_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    small_machine(root);
    tuning("apply", root, &[]);
    std::fs::remove_dir_all(root.join("sys/block/nvme0n1")).unwrap();
    let (is_well, said) = tuning("apply", root, &["--undo"]);
    assert!(is_well && said.contains("nvme0n1/queue/scheduler is gone"), "{said}");
    assert_eq!(read(root, "proc/sys/vm/swappiness"), "60");
    assert!(tuning("apply", root, &["--undo"]).1.starts_with("nothing was applied"));
}
