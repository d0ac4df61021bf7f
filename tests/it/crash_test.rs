//! A node that is killed under load keeps what it has to: three rounds, both durability modes.

use std::process::Command;

#[test]
fn a_node_killed_under_load_loses_nothing_it_promised_to_keep() {
    let output = Command::new(env!("CARGO_BIN_EXE_longship"))
        .args(["crash-test", "--rounds", "3", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let cause = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{cause}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["rounds"], &report["lost"]), (&3.into(), &0.into()), "{text}");
    assert_eq!(report["back_from_the_dead"], 0, "{text}");
    assert!(report["acknowledged"].as_u64().unwrap() > 100, "{text}");
    assert!(report["torn_met"].as_u64().unwrap() > 0, "open blocks were torn: {text}");
    assert!(report["blocks_read"].as_u64().unwrap() > 0, "the log is understood: {text}");
}
