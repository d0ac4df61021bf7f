//! A node on a raw block device: a loop device over a file, where the machine lets us make one.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::Node;
use crate::support::ship::{Client, present, put};

const RECORDS: u32 = 500;

/// Freed when dropped; the system waits for the last who has it open.
struct LoopDevice(String);

impl LoopDevice {
    /// `None`, with a word why, where none can be had.
    fn over(file: &Path) -> Option<Self> {
        let made =
            Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(file).output();
        match made {
            Ok(Output { status, stdout, .. }) if status.success() => {
                Some(Self(String::from_utf8(stdout).unwrap().trim().to_owned()))
            }
            Ok(Output { stderr, .. }) => {
                let why = String::from_utf8_lossy(&stderr);
                eprintln!("skipped: no loop device can be made: {}", why.trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: no loop device can be made: losetup: {error}");
                None
            }
        }
    }

    fn configuration(&self, work: &Path) -> String {
        let (Self(device), work) = (self, work.display());
        format!(
            "service {{\n work-directory {work}\n shards 2\n}}\n\
             network {{ service {{\n address 127.0.0.1\n port 0\n}} }}\n\
             logging {{ console {{ context any info }} }}\n\
             namespace test {{\n storage-engine device {{\n device {device}\n\
             post-write-cache 32M\n}}\n}}\n"
        )
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// What a node says that cannot start.
fn refusal(directory: &Path, text: &str) -> String {
    let config = directory.join("refused.conf");
    fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_longship");
    let ended = Command::new(program).args(["node", "--config"]).arg(config).output().unwrap();
    assert!(!ended.status.success(), "it has started");
    String::from_utf8(ended.stderr).unwrap()
}

/// A folder with an empty work directory, and a device over a file in it.
fn bed() -> Option<(tempfile::TempDir, LoopDevice)> {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("work")).unwrap();
    let file = directory.path().join("device");
    File::create(&file).unwrap().set_len(64 << 20).unwrap();
    let device = LoopDevice::over(&file)?;
    Some((directory, device))
}

#[test]
fn a_raw_device_is_formatted_written_and_started_from() {
    let Some((directory, device)) = bed() else { return };
    let text = device.configuration(&directory.path().join("work"));
    let all: Vec<u32> = (0..RECORDS).collect();

    let node = Node::launch(directory, &text, 2);
    Client::of(&node).done((0..RECORDS).map(|record| put(record, record.into())));
    assert_eq!(present(&node, 0..RECORDS), all);
    let other = tempfile::tempdir().unwrap();
    let said = refusal(other.path(), &device.configuration(other.path()));
    assert!(said.contains("is in use"), "{said}");

    let mut node = Node::launch(node.stop(), &text, 2);
    assert!(node.log().contains("from its checkpoint: "));
    assert_eq!(present(&node, 0..RECORDS), all, "after a clean stop");
    node.signal("KILL");
    node.ended();

    let directory = node.into_directory();
    fs::remove_file(directory.path().join("node.log")).unwrap();
    let node = Node::launch(directory, &text, 2);
    assert!(node.log().contains("from the log: "));
    assert_eq!(present(&node, 0..RECORDS), all, "after a kill");
    node.stop();
}

#[test]
fn a_raw_device_that_holds_something_else_is_refused_and_left_alone() {
    let Some((directory, device)) = bed() else { return };
    let superblock = [b"somebody's".repeat(100), vec![0; 24]].concat();
    let raw = File::options().read(true).write(true).open(&device.0).unwrap();
    raw.write_all_at(&superblock, 65_536).unwrap();
    raw.sync_all().unwrap();
    drop(raw);
    let text = device.configuration(&directory.path().join("work"));
    let said = refusal(directory.path(), &text);
    assert!(said.contains("holds data that is not known here"), "{said}");
    let mut found = vec![0; superblock.len()];
    File::open(&device.0).unwrap().read_exact_at(&mut found, 65_536).unwrap();
    assert_eq!(found, superblock);
}

#[test]
fn a_block_device_is_told_from_a_file_and_its_size_is_remembered() {
    let Some((directory, device)) = bed() else { return };
    let text = device.configuration(&directory.path().join("work"));
    let as_file =
        text.replace(&format!("device {}", device.0), &format!("file {}\nfilesize 64M", device.0));
    let said = refusal(directory.path(), &as_file);
    assert!(said.contains("is a block device: write `device` in place of `file`"), "{said}");

    let node = Node::launch(directory, &text, 2);
    Client::of(&node).done((0..RECORDS).map(|record| put(record, record.into())));
    let directory = node.stop();
    drop(device);
    let file = directory.path().join("device");
    File::options().write(true).open(&file).unwrap().set_len(32 << 20).unwrap();
    let device = LoopDevice::over(&file).unwrap();
    let said = refusal(directory.path(), &device.configuration(&directory.path().join("work")));
    assert!(said.contains("has been cut short: 33554432 bytes are left of 67108864"), "{said}");
}
