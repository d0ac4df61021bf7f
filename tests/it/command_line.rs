//! Starting and stopping, as an operator does.

use std::process::Command;

use crate::support::{Node, Settings, info};

#[test]
fn a_wrong_configuration_stops_the_start_and_every_error_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("wrong.conf");
    std::fs::write(
        &config,
        "service {\n shards many\n}\nnamespace test {\n storage-engine device {\n \
         write-block-sice 1M\n }\n}\nxdr {\n dc far {\n max-throughput 5\n }\n}\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_longship"))
        .args(["node".as_ref(), "--config".as_ref(), config.as_os_str()])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    for part in [
        "wrong.conf:1: service: `work-directory`: must be given",
        "wrong.conf:2: service: `shards many`",
        "wrong.conf:6: namespace test/storage-engine device: `write-block-sice 1M`: unknown; did \
         you mean `write-block-size`?",
        "wrong.conf:11: xdr/dc far: `max-throughput 5`",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn a_missing_configuration_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_longship"))
        .args(["node", "--config", "/nonexistent/longship.conf"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("/nonexistent/longship.conf"), "{told}");
}

#[test]
fn a_start_with_little_locked_memory_says_how_to_get_more() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("longship.conf");
    std::fs::write(&config, Settings::default().text(directory.path())).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_longship")])
        .args(["node".as_ref(), "--config".as_ref(), config.as_os_str()])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    for part in ["the limit of locked memory is 64 KiB, and must be 512 KiB", "LimitMEMLOCK="] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn signals_that_would_end_a_node_stop_it_well() {
    // 37 ends a container of systemd.
    for signal in ["TERM", "INT", "XCPU", "37"] {
        let mut node = Node::start(&Settings { shards: 1, ..Settings::default() });
        node.signal(signal);
        let status = node.ended();
        assert!(status.success(), "after SIG{signal}: {status}");
        assert!(node.log().trim_end().ends_with("stopped"), "{}", node.log());
    }
}

#[test]
fn each_shard_shows_itself_as_a_node_with_its_siblings_as_peers() {
    let node = Node::start(&Settings { shards: 3, ..Settings::default() });
    let ports = node.ports();
    assert_eq!(ports.len(), 3);
    let ids: Vec<String> = ports.iter().map(|port| info(*port, "node")).collect();
    for (index, port) in ports.iter().enumerate() {
        let peers = info(*port, "peers-clear-std");
        for (other, id) in ids.iter().enumerate() {
            assert_eq!(peers.contains(id), other != index, "{id} in {peers}");
            let listed = peers.contains(&format!(":{}", ports[other]));
            assert_eq!(listed, other != index, "{} in {peers}", ports[other]);
        }
    }
    node.stop();
}

#[test]
fn a_reader_that_goes_away_ends_a_command_in_silence() {
    use std::process::{Command, Stdio};
    let node = Node::start(&Settings::default());
    let host = node.seed();
    for command in [
        &["info", "--host", &host, "namespaces", "build"][..],
        &["load", "--host", &host, "--namespace", "test", "--records", "100"],
        &["load", "--host", &host, "--namespace", "test", "--records", "100", "--json"],
    ] {
        let mut longship = Command::new(env!("CARGO_BIN_EXE_longship"));
        longship.args(command).stdin(Stdio::null());
        let mut child = longship.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "", "{command:?}");
        assert!(output.status.success(), "{command:?}: {:?}", output.status);
    }
    node.stop();
}
