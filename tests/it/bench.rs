//! The benches run, at their smallest.

use std::process::Command;

fn bench(arguments: &[&str]) -> Option<serde_json::Value> {
    if Command::new("fio").arg("--version").output().is_err() {
        eprintln!("skipped: fio is not installed");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_longship");
    let output = Command::new(program).arg("bench").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn is_positive(report: &serde_json::Value, figure: &str) -> bool {
    report[figure].as_f64().unwrap() > 0.0
}

#[test]
fn log_writes_are_measured() {
    let arguments = ["write", "--mib", "8", "--runs", "1", "--puts", "1000"];
    let Some(report) = bench(&arguments) else { return };
    assert!(is_positive(&report, "write_vs_fio"), "{report}");
    assert!(is_positive(&report, "puts_per_second"), "{report}");
}

#[test]
fn a_cold_start_is_measured() {
    let arguments = ["cold-start", "--records", "5000", "--runs", "1"];
    let Some(report) = bench(&arguments) else { return };
    assert!(is_positive(&report, "device_read_vs_fio"), "{report}");
    assert!(is_positive(&report, "records_per_second"), "{report}");
}
