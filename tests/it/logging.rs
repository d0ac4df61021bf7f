//! What a node logs, where, and what happens when nobody takes it.

use std::fs;
use std::io::{Write, pipe};

use crate::support::{Node, Settings, info, wait_for};

/// Bytes a fresh pipe takes before a writer waits.
const PIPE_BYTES: usize = 64 << 10;

#[test]
fn a_hangup_opens_the_log_files_again_and_the_node_goes_on() {
    let logging = "file @DIR@/own.log { context any info }".to_owned();
    let mut node = Node::start(&Settings { shards: 1, logging, ..Settings::default() });
    let (path, moved) = (node.directory().join("own.log"), node.directory().join("own.log.1"));
    let said = |path: &std::path::Path, text: &str| {
        fs::read_to_string(path).unwrap_or_default().contains(text)
    };
    wait_for("the first lines", || said(&path, "serving clients").then_some(()));
    fs::rename(&path, &moved).unwrap();
    node.signal("HUP");
    wait_for("the new file", || path.exists().then_some(()));
    assert!(said(&moved, "SIGHUP"), "the old file says why it ends");
    // None of these ends a node either.
    ["USR1", "USR2", "ALRM"].into_iter().for_each(|name| node.signal(name));
    wait_for("a line about each", || said(&path, "SIGALRM means nothing").then_some(()));
    assert_eq!(info(node.ports()[0], "node").len(), 16, "it serves");
    node.signal("TERM");
    assert!(node.ended().success());
    assert!(said(&path, "stopped"), "the new file has the end");
}

#[test]
fn a_log_file_whose_path_has_come_to_lead_to_data_is_not_opened_again() {
    let logging = "file @DIR@/own.log { context any info }".to_owned();
    let settings = Settings { shards: 1, filesize: "16M", logging, ..Settings::default() };
    let mut node = Node::start(&settings);
    let (path, moved) = (node.directory().join("own.log"), node.directory().join("own.log.1"));
    let data = node.directory().join("test.dat");
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&data, &path).unwrap();
    node.signal("HUP");
    let said = || fs::read_to_string(&moved).unwrap_or_default();
    let words = "is also where namespace test keeps its data";
    wait_for("the old file to say it", || said().contains(words).then_some(()));
    node.signal("TERM");
    assert!(node.ended().success());
    assert!(said().contains("stopped"), "the old file goes on");
    let length = |path| fs::metadata(path).unwrap().len();
    assert_eq!(length(&data), 16 << 20, "not a line behind the data");
}

#[test]
fn each_sink_has_the_lines_that_its_own_contexts_ask_for() {
    let logging = "file @DIR@/own.log { context any warning\n context xdr debug }\n\
                   console { context any info }"
        .to_owned();
    let xdr = "dc west {\n node-address-port 127.0.0.1 1\n namespace test { }\n}\n\
               dc lone {\n namespace test { }\n}\n"
        .to_owned();
    let node = Node::start(&Settings { shards: 1, logging, xdr, ..Settings::default() });
    let own = node.directory().join("own.log");
    let file = || fs::read_to_string(&own).unwrap_or_default();
    wait_for("a line about shipping", || file().contains("it starts now").then_some(()));
    wait_for("the console's line", || node.log().contains("serving clients").then_some(()));
    assert!(node.log().contains("it starts now"), "the console has everything at info");
    wait_for("a line about a DC without a seed", || {
        let lines = file();
        let told = lines.lines().any(|line| line.contains("lone") && line.contains("WARN"));
        (told && lines.contains("it has no node-address-port")).then_some(())
    });
    assert!(!file().contains("serving clients"), "the file has only xdr at info: {}", file());
    node.stop();
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_node_nor_its_stop() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("work")).unwrap();
    let config = directory.path().join("longship.conf");
    fs::write(&config, Settings::default().text(directory.path())).unwrap();
    let (_reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'x'; PIPE_BYTES]).unwrap();
    let mut node = Node::launch_saying(directory, &config, 2, writer.into());
    for port in node.ports().to_vec() {
        assert_eq!(info(port, "node").len(), 16, "every shard answers");
    }
    node.signal("TERM");
    assert!(node.ended().success());
}
