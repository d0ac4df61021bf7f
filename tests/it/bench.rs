//! The benches run, at their smallest.

use std::process::Command;

fn beside_fio(arguments: &[&str]) -> Option<serde_json::Value> {
    if Command::new("fio").arg("--version").output().is_err() {
        eprintln!("skipped: fio is not installed");
        return None;
    }
    Some(bench(arguments))
}

fn bench(arguments: &[&str]) -> serde_json::Value {
    let program = env!("CARGO_BIN_EXE_longship");
    let output = Command::new(program).arg("bench").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_positive(report: &serde_json::Value, figure: &str) -> bool {
    report[figure].as_f64().unwrap() > 0.0
}

#[test]
fn log_writes_are_measured() {
    let arguments = ["write", "--mib", "8", "--runs", "1", "--puts", "1000"];
    let Some(report) = beside_fio(&arguments) else { return };
    assert!(is_positive(&report, "write_vs_fio"), "{report}");
    assert!(is_positive(&report, "puts_per_second"), "{report}");
}

#[test]
fn a_cold_start_is_measured() {
    let arguments = ["cold-start", "--records", "5000", "--runs", "1"];
    let Some(report) = beside_fio(&arguments) else { return };
    assert!(is_positive(&report, "device_read_vs_fio"), "{report}");
    assert!(is_positive(&report, "records_per_second"), "{report}");
}

#[test]
fn queues_lanes_and_changes_in_flight_stay_within_their_bytes() {
    let report = bench(&["memory", "--entries", "128"]);
    let figure = |name: &str| report[name].as_f64().unwrap();
    assert!((25.0..=28.0).contains(&figure("bytes_per_queued_entry")), "{report}");
    assert!((25.0..=28.0).contains(&figure("bytes_per_queued_entry_16_a_lane")), "{report}");
    assert!((1.0..=64.0).contains(&figure("bytes_per_empty_lane")), "{report}");
    for part in ["in_flight", "hot_keys"] {
        let each = report[part]["bytes_each"].as_f64().unwrap();
        assert!((64.0..=96.0).contains(&each), "{part}: {report}");
    }
}

#[test]
fn reads_are_measured() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path().to_str().unwrap();
    let arguments = ["read", "--folder", folder, "--file-mib", "8", "--run-ms", "20"];
    let Some(report) = beside_fio(&[&arguments[..], &["--rounds", "1"]].concat()) else { return };
    for figure in ["qd1_vs_fio", "qd128_vs_fio", "qd32_vs_glommio", "socket_p99_us_busy_disk"] {
        assert!(is_positive(&report, figure), "{report}");
    }
}
