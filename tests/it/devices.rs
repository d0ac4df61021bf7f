//! Devices that are lost, replaced, cut short or restored, and a work directory that is lost: a node
//! says which, and goes on only with the operator's word.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::ship::{
    Client, dc, one_shard, present, put, source_of, stat, wait_until_connected, wait_until_settled,
};
use crate::support::{Node, Request, Settings, info, wait_for};

/// A node with two files.
struct Bed {
    directory: tempfile::TempDir,
    settings: Settings,
}

impl Bed {
    /// After a first run that left `records` on both files.
    fn filled(records: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        let second = directory.path().join("second.dat");
        let storage = format!("file {}\nwrite-block-size 128K", second.display());
        let settings = Settings { storage, filesize: "64M", ..one_shard() };
        let mut bed = Self { directory, settings };
        bed.run(|node| {
            // Large enough to reach the second file.
            Client::of(node).done((0..records).map(large));
        });
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it, lets something be done, and stops it.
    fn run(&mut self, body: impl FnOnce(&Node)) -> String {
        let empty = tempfile::tempdir().unwrap();
        let directory = std::mem::replace(&mut self.directory, empty);
        let node = Node::start_in(directory, &self.settings);
        body(&node);
        let log = node.log();
        self.directory = node.stop();
        log
    }

    /// The same, and it dies.
    fn crash(&mut self, body: impl FnOnce(&Node)) {
        let empty = tempfile::tempdir().unwrap();
        let directory = std::mem::replace(&mut self.directory, empty);
        let node = Node::start_in(directory, &self.settings);
        body(&node);
        self.directory = node.into_directory();
    }

    fn wipe(&self, file: &str, block: u64) {
        let file = File::options().write(true).open(self.path(file)).unwrap();
        file.write_all_at(&[0; BLOCK_BYTES as usize], block * BLOCK_BYTES).unwrap();
    }

    /// Starts and stops it, with the word for whatever a start finds beside what headers tell: the
    /// number of blank blocks does not say on which device those are that should not be.
    fn accept_the_rest(&self) {
        let (config, ports) = (self.path("longship.conf"), self.path("work/ports"));
        loop {
            let mut node = Command::new(env!("CARGO_BIN_EXE_longship"));
            node.args(["node", "--config"]).arg(&config).stderr(Stdio::piped());
            let mut node = node.spawn().unwrap();
            let is_up = wait_for("a start or a refusal", || {
                let is_over = node.try_wait().unwrap().is_some();
                (is_over || ports.exists()).then_some(!is_over)
            });
            if is_up {
                let stop = ["-s", "TERM", &node.id().to_string()];
                assert!(Command::new("kill").args(stop).status().unwrap().success());
            }
            let said = String::from_utf8(node.wait_with_output().unwrap().stderr).unwrap();
            if is_up {
                return;
            }
            assert!(said.contains("accept --config FILE damage-"), "{said}");
            assert!(self.say("accept", &word_in(&said)).status.success());
        }
    }

    /// What a start says that is refused.
    fn refusal(&self) -> String {
        let config = self.path("longship.conf");
        let ended = longship(&["node", "--config"], &[&config]);
        assert!(!ended.status.success(), "it has started");
        let said = String::from_utf8(ended.stderr).unwrap();
        said.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>().join("\n")
    }

    fn say(&self, command: &str, word: &Path) -> Output {
        longship(&[command, "--config"], &[&self.path("longship.conf"), word])
    }
}

fn longship(words: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longship")).args(words).args(paths).output().unwrap()
}

fn large(record: u32) -> Request {
    let mut request = put(record, 1);
    request.ops[0].3 = vec![7; 20_000];
    request.ops[0].1 = 4;
    request
}

/// The word a refusal tells after `longship accept --config FILE`.
fn word_in(said: &str) -> PathBuf {
    let (_, rest) = said.split_once("accept --config FILE ").expect("it tells a word");
    rest.split([':', '`']).next().unwrap().into()
}

const RECORDS: u32 = 500;
const BLOCK_BYTES: u64 = 128 << 10;

#[test]
fn accepted_damage_says_nothing_of_what_fills_the_block_next() {
    let mut bed = Bed::filled(RECORDS);
    bed.settings.storage += "\ncommit-to-device true";
    bed.crash(|_| {});
    bed.wipe("test.dat", 1);
    let said = bed.refusal();
    assert!(said.contains("what was written is not there"), "{said}");
    assert!(bed.say("accept", &word_in(&said)).status.success());
    let file = File::open(bed.path("test.dat")).unwrap();
    bed.crash(|node| {
        let mut client = Client::of(node);
        let mut records = RECORDS..;
        let is_filled = || {
            let mut record = [0; 64];
            file.read_exact_at(&mut record, BLOCK_BYTES + 64).unwrap();
            record != [0; 64]
        };
        while !is_filled() {
            client.done(records.by_ref().take(10).map(large));
        }
        // Closed, with others behind it.
        client.done(records.by_ref().take(100).map(large));
    });
    bed.wipe("test.dat", 1);
    assert!(bed.refusal().contains("what was written is not there"));
}

#[test]
fn the_word_for_an_older_device_covers_no_damage_of_another() {
    let mut bed = Bed::filled(RECORDS);
    let second = bed.path("second.dat");
    let copy = fs::read(&second).unwrap();
    bed.crash(|node| Client::of(node).done((RECORDS..2 * RECORDS).map(large)));
    fs::write(&second, copy).unwrap();
    bed.wipe("test.dat", 3);
    let said = bed.refusal();
    assert!(said.contains("second.dat is older than what was in use last"), "{said}");
    assert!(bed.say("accept", &word_in(&said)).status.success());
    for _ in 0..2 {
        let said = bed.refusal();
        assert!(said.contains("test.dat at byte 393216, 131072 bytes: what was written"), "{said}");
    }
    bed.accept_the_rest();
    bed.run(|node| assert!(!present(node, 0..RECORDS).is_empty()));
}

#[test]
fn a_lost_file_stops_the_start_until_it_is_back_or_given_up() {
    let mut bed = Bed::filled(RECORDS);
    let second = bed.path("second.dat");
    fs::rename(&second, bed.path("away")).unwrap();
    let said = bed.refusal();
    let place = second.display().to_string();
    assert!(said.contains(&format!("{place} is missing: it was device 2 of 2")), "{said}");
    assert!(said.contains(&format!("longship format --config FILE {place}")), "{said}");
    assert!(!second.exists(), "nothing was made in its place");

    fs::rename(bed.path("away"), &second).unwrap();
    bed.run(|node| assert_eq!(present(node, 0..RECORDS).len() as u32, RECORDS));

    fs::remove_file(&second).unwrap();
    let said = bed.say("format", &bed.path("nothing"));
    assert!(!said.status.success(), "it is none of the devices");
    let said = bed.say("format", &second);
    assert!(said.status.success(), "{said:?}");
    assert!(
        String::from_utf8_lossy(&said.stdout).contains("what only it held is lost"),
        "{said:?}"
    );
    let log = bed.run(|node| {
        let left = present(node, 0..RECORDS).len() as u32;
        assert!(left > 0 && left < RECORDS, "{left}");
    });
    assert!(log.contains("accepted by the operator"), "{log}");
    fs::remove_file(&second).unwrap();
    assert!(bed.refusal().contains("is missing"), "a word counts once");
}

#[test]
fn a_destination_that_gives_up_a_device_is_a_problem_of_its_source() {
    let mut bed = Bed::filled(0);
    let mut source = None;
    bed.settings.port = {
        let mut port = 0;
        bed.run(|node| {
            port = node.ports()[0];
            let started = Node::start(&source_of(dc("destination", node, "")));
            Client::of(&started).done((0..50).map(|n| put(n, 1)));
            wait_until_settled(&started, "destination");
            source = Some(started);
        });
        port
    };
    let source = source.unwrap();
    let says = |node: &Node, word: &str| {
        wait_until_connected(&source, "destination", node);
        wait_for(word, || {
            let stats = info(source.ports()[0], "get-stats:context=xdr;dc=destination");
            stats.contains(word).then_some(())
        });
    };
    // One that is added takes a word, and costs nothing.
    let third = bed.path("third.dat");
    bed.settings.storage += &format!("\nfile {}", third.display());
    let config = bed.path("longship.conf");
    fs::write(&config, bed.settings.text(bed.directory.path())).unwrap();
    assert!(bed.say("format", &third).status.success());
    bed.run(|node| says(node, "problem=none"));

    fs::remove_file(bed.path("second.dat")).unwrap();
    assert!(bed.say("format", &bed.path("second.dat")).status.success());
    bed.run(|node| says(node, "was allowed to start without a part of what its store had"));
    bed.run(|node| says(node, "was allowed to start without a part"));
}

#[test]
fn a_file_cut_short_or_restored_from_a_copy_takes_the_word_of_the_refusal() {
    let mut bed = Bed::filled(RECORDS);
    let second = bed.path("second.dat");
    let copy = fs::read(&second).unwrap();
    bed.run(|_| {});
    fs::write(&second, copy).unwrap();
    let said = bed.refusal();
    assert!(said.contains("second.dat is older than what was in use last"), "{said}");
    let wrong = bed.say("accept", Path::new("older-00000000"));
    assert!(!wrong.status.success());
    let taken = bed.say("accept", &word_in(&said));
    assert!(taken.status.success(), "{taken:?}");
    bed.run(|node| assert_eq!(present(node, 0..RECORDS).len() as u32, RECORDS));

    File::options().write(true).open(&second).unwrap().set_len(4 << 20).unwrap();
    let said = bed.refusal();
    assert!(said.contains("has been cut short: 4194304 bytes are left of 67108864"), "{said}");
    assert_eq!(second.metadata().unwrap().len(), 4 << 20, "it is not extended");
    let taken = bed.say("accept", &word_in(&said));
    assert!(taken.status.success(), "{taken:?}");
    bed.accept_the_rest();
    bed.run(|node| assert!(!present(node, 0..RECORDS).is_empty()));
}

#[test]
fn a_wiped_beginning_does_not_make_a_full_file_blank() {
    let mut bed = Bed::filled(RECORDS);
    let first = bed.path("test.dat");
    let file = File::options().write(true).open(&first).unwrap();
    file.write_all_at(&vec![0; 128 << 10], 0).unwrap();
    let said = bed.refusal();
    assert!(said.contains("test.dat has lost its header"), "{said}");
    let taken = bed.say("accept", &word_in(&said));
    assert!(taken.status.success(), "{taken:?}");
    bed.run(|node| assert_eq!(present(node, 0..RECORDS).len() as u32, RECORDS, "all are back"));
}

#[test]
fn one_device_twice_and_two_nodes_on_one_are_told() {
    let bed = Bed::filled(1);
    fs::remove_file(bed.path("second.dat")).unwrap();
    fs::hard_link(bed.path("test.dat"), bed.path("second.dat")).unwrap();
    let said = bed.refusal();
    assert!(said.contains("second.dat is given twice, also as"), "{said}");

    let node = Node::start(&one_shard());
    let other = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(node.directory().join("longship.conf")).unwrap();
    let refused = |text: &str| {
        let path = other.path().join("other.conf");
        fs::write(&path, text).unwrap();
        let said = longship(&["node", "--config"], &[&path]).stderr;
        String::from_utf8(said).unwrap()
    };
    let said = refused(&config);
    assert!(said.contains("belongs to a node that is running"), "{said}");
    let work = node.directory().join("work").display().to_string();
    let said = refused(&config.replace(&work, &other.path().join("work").display().to_string()));
    assert!(said.contains("test.dat is in use"), "{said}");
}

#[test]
fn a_lost_work_directory_ships_everything_again_and_says_so() {
    let destination = Node::start(&one_shard());
    let port = destination.ports()[0];
    let shipping = source_of(dc("destination", &destination, ""));
    let source = Node::start(&shipping);
    Client::of(&source).done((0..50).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    let away = destination.stop();
    Client::of(&source).done((50..100).map(|n| put(n, 1)));
    let directory = source.stop();
    fs::remove_dir_all(directory.path().join("work")).unwrap();
    fs::create_dir(directory.path().join("work")).unwrap();

    let source = Node::start_in(directory, &shipping);
    let line = "the positions of namespace test are lost, and its store holds records";
    assert!(source.log().contains(line), "{}", source.log());
    let said = crate::support::info(source.ports()[0], "get-stats:context=xdr;dc=destination");
    assert!(!said.contains("problem=none"), "{said}");
    let destination = Node::start_in(away, &Settings { port, ..one_shard() });
    wait_for("what was never shipped", || {
        (present(&destination, 0..100).len() == 100).then_some(())
    });
    wait_until_settled(&source, "destination");
    assert!(stat(&source, "destination", "success") >= 100);

    // A DC that comes later is new, not lost: there are marks now.
    let more = dc("destination", &destination, "") + &dc("later", &destination, "");
    let source = Node::start_in(source.stop(), &source_of(more));
    let told = "DC later has no position in namespace test, being new there or detached since: it \
                starts now";
    assert!(source.log().contains(told));
}

#[test]
fn the_operator_says_where_lost_positions_begin() {
    let destination = Node::start(&one_shard());
    let shipping = source_of(dc("destination", &destination, ""));
    let quiet = source_of(String::new());
    let source = Node::start(&quiet);
    Client::of(&source).done((0..20).map(|n| put(n, 1)));
    let directory = source.stop();
    fs::remove_file(directory.path().join("work/marks")).unwrap();
    let config = directory.path().join("longship.conf");
    let said = longship(&["accept", "--config"], &[&config, Path::new("positions-now")]);
    assert!(said.status.success(), "{said:?}");
    let source = Node::start_in(directory, &shipping);
    Client::of(&source).done((20..30).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    wait_for("what came later", || (present(&destination, 20..30).len() == 10).then_some(()));
    assert!(present(&destination, 0..20).is_empty(), "they were not wanted");
}

#[test]
fn a_filesize_over_the_free_space_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.dat");
    let config = directory.path().join("node.conf");
    let text = format!(
        "service {{\n work-directory {0}/work\n shards 1\n}}\n\
         network {{ service {{\n address 127.0.0.1\n port 0\n}} }}\n\
         namespace test {{\n storage-engine device {{\n file {0}/test.dat\n file {0}/b.dat\n\
         filesize 2T\n}}\n}}\n",
        directory.path().display()
    );
    fs::write(&config, text).unwrap();
    let said = longship(&["node", "--config"], &[&config]).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("wants 4398046511104 bytes more, and"), "{said}");
    assert!(!file.exists());
}

#[test]
fn damage_that_could_bring_older_versions_back_is_served_with_a_word_only() {
    let mut bed = Bed::filled(RECORDS);
    let file = File::options().read(true).write(true).open(bed.path("test.dat")).unwrap();
    let inside_a_record = (128 << 10) + 5000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, inside_a_record).unwrap();
    file.write_all_at(&[byte[0] ^ 1], inside_a_record).unwrap();
    // As after a crash: the log is read.
    let forget_index = |bed: &Bed| fs::remove_file(bed.path("work/index-test-0")).unwrap();
    forget_index(&bed);
    let said = bed.refusal();
    assert!(said.contains("1 records are missing or old"), "{said}");
    assert!(said.contains("test.dat at byte 131072"), "{said}");
    assert!(bed.refusal().contains("missing or old"), "and again");
    // Without a word, the command shows what only a start has found.
    let shown = |bed: &Bed| {
        let shown = longship(&["accept", "--config"], &[&bed.path("longship.conf")]);
        (shown.status.code(), String::from_utf8(shown.stdout).unwrap())
    };
    let (code, text) = shown(&bed);
    assert_eq!((code, word_in(&text)), (Some(2), word_in(&said)), "{text}");
    assert!(text.contains("1 records are missing or old"), "{text}");
    assert!(!bed.say("accept", Path::new("damage-00000000")).status.success(), "no such word");
    let taken = bed.say("accept", &word_in(&said));
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(shown(&bed).0, Some(0), "the word is left");
    let left = |node: &Node| assert_eq!(present(node, 0..RECORDS).len() as u32, RECORDS - 1);
    assert!(bed.run(left).contains("accepted by the operator"));
    assert_eq!(shown(&bed).0, Some(0), "a start has succeeded");
    // The same damage is not asked for again, whether its block is emptied by now or not; more is.
    forget_index(&bed);
    bed.run(left);
    forget_index(&bed);
    let elsewhere = inside_a_record + (128 << 10);
    file.read_exact_at(&mut byte, elsewhere).unwrap();
    file.write_all_at(&[byte[0] ^ 1], elsewhere).unwrap();
    assert!(bed.refusal().contains("records are missing or old"));
}

#[test]
fn a_dc_that_marks_from_a_copy_do_not_know_is_lost_and_not_new() {
    let destination = Node::start(&one_shard());
    let port = destination.ports()[0];
    let source = Node::start(&source_of(String::new()));
    Client::of(&source).done((0..10).map(|n| put(n, 1)));
    let directory = source.stop();
    let marks = directory.path().join("work/marks");
    let copy = fs::read(&marks).unwrap();

    let shipping = source_of(dc("destination", &destination, ""));
    let source = Node::start_in(directory, &shipping);
    Client::of(&source).done((10..20).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    let away = destination.stop();
    Client::of(&source).done((20..30).map(|n| put(n, 1)));
    let directory = source.stop();
    fs::write(&marks, copy).unwrap();

    let source = Node::start_in(directory, &shipping);
    let line = "the positions of namespace test are not in the marks, which are of an earlier run";
    assert!(source.log().contains(line), "{}", source.log());
    let destination = Node::start_in(away, &Settings { port, ..one_shard() });
    wait_for("what was owed", || (present(&destination, 0..30).len() == 30).then_some(()));
}
