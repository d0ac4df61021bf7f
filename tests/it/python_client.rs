//! The unmodified Python client (the C client inside), driven by `tests/python/client.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Node, Settings};

/// The version whose traffic `docs/wire.md` records.
const CLIENT: &str = "aerospike==19.3.0";

/// A Python with the client, made once and kept under `target/`.
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = environment.join("bin/python");
    let ready = environment.join("ready");
    if fs::read_to_string(&ready).is_ok_and(|client| client == CLIENT) {
        return python;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", CLIENT]));
    fs::write(ready, CLIENT).unwrap();
    python
}

/// Runs a command to its end and shows what it said if it fails.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, erred) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{erred}", output.status);
}

#[test]
fn every_call_works_and_what_is_written_is_read_at_the_destination() {
    let python = python();
    let destination = Node::start(&Settings::default());
    let source = Node::start(&Settings::default().shipping_to(&destination));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/python/client.py");
    run(Command::new(python).arg(script).args([source.seed(), destination.seed()]));
    source.stop();
    destination.stop();
}
