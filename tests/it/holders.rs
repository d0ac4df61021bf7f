//! A destination that comes back with another store than the one that took what was shipped.

use std::path::Path;
use std::process::Command;

use crate::support::ship::{
    Client, configure, dc, one_shard, put, source_of, wait_until_connected, wait_until_equal,
    wait_until_settled,
};
use crate::support::{Node, Settings, info, wait_for};

const RECORDS: u32 = 500;

/// What each port says is wrong.
fn problems(source: &Node) -> Vec<String> {
    let of_port = |port: &u16| {
        let stats = info(*port, "get-stats:context=xdr;dc=destination");
        let problem = stats.split(';').find_map(|pair| pair.strip_prefix("problem="));
        problem.unwrap_or_else(|| panic!("no problem in {stats}")).to_owned()
    };
    source.ports().iter().map(of_port).collect()
}

fn wait_until_all_say(source: &Node, word: &str) {
    wait_for(&format!("every port to say {word}"), || {
        problems(source).iter().all(|problem| problem.contains(word)).then_some(())
    });
}

/// Waits for so many lines of warning with those words, of all the processes of a node so far.
fn wait_until_warned(source: &Node, count: usize, words: &str) {
    wait_for(&format!("{count} warnings of {words}"), || {
        let log = source.log();
        let warned = log.lines().filter(|line| line.contains(" WARN ") && line.contains(words));
        (warned.count() == count).then_some(())
    });
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([&from.join("."), to]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_destination_that_comes_back_empty_is_a_problem_until_it_has_all_again() {
    // What it acknowledges is durable, so that nothing ships again by itself.
    let storage = || Settings { storage: "commit-to-device true".to_owned(), ..one_shard() };
    let destination = Node::start(&storage());
    let there = Settings { port: destination.ports()[0], ..storage() };
    let shipping = source_of(dc("destination", &destination, ""));
    let source = Node::start(&shipping);
    Client::of(&source).done((0..RECORDS).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");

    destination.stop();
    let destination = Node::start(&there);
    wait_until_all_say(&source, "namespace test: the destination answers from another store");
    assert!(problems(&source)[0].contains("until you rewind it (action rewind, rewind all)"));
    // What is new ships all the same.
    Client::of(&source).done((0..10).map(|n| put(n, 2)));
    wait_until_equal(&destination, RECORDS, |n| (n < 10).then_some(2));
    wait_until_warned(&source, 1, "another store");
    let source = Node::start_in(source.stop(), &shipping);
    wait_until_all_say(&source, "another store");
    wait_until_connected(&source, "destination", &destination);
    wait_until_warned(&source, 2, "another store");

    configure(&source, "namespace=test;action=rewind;rewind=all");
    wait_until_equal(&destination, RECORDS, |n| Some(if n < 10 { 2 } else { 1 }));
    wait_until_settled(&source, "destination");
    wait_until_all_say(&source, "none");
    // From now on this one is the store that has it.
    let destination = Node::start_in(destination.stop(), &there);
    let source = Node::start_in(source.stop(), &shipping);
    wait_until_connected(&source, "destination", &destination);
    Client::of(&source).done((0..RECORDS).map(|n| put(n, 3)));
    wait_until_settled(&source, "destination");
    wait_until_all_say(&source, "none");
}

#[test]
fn a_destination_that_comes_back_from_an_older_copy_is_a_problem_even_if_the_source_was_away() {
    for source_restarts in [false, true] {
        let destination = Node::start(&one_shard());
        let there = Settings { port: destination.ports()[0], ..one_shard() };
        let shipping = source_of(dc("destination", &destination, ""));
        let mut source = Node::start(&shipping);
        Client::of(&source).done((0..RECORDS).map(|n| put(n, 1)));
        wait_until_settled(&source, "destination");
        let stopped = destination.stop();
        let older = tempfile::tempdir().unwrap();
        copy(stopped.path(), older.path());
        let destination = Node::start_in(stopped, &there);
        wait_until_connected(&source, "destination", &destination);
        Client::of(&source).done((0..RECORDS).map(|n| put(n, 2)));
        wait_until_settled(&source, "destination");
        assert_eq!(problems(&source), ["none", "none"], "a restart is none");

        destination.stop();
        if source_restarts {
            source = Node::start_in(source.stop(), &shipping);
        }
        let destination = Node::start_in(older, &there);
        wait_until_all_say(&source, "an older copy of its store");
        configure(&source, "namespace=test;action=rewind;rewind=all");
        wait_until_equal(&destination, RECORDS, |_| Some(2));
        wait_until_settled(&source, "destination");
        wait_until_all_say(&source, "none");
    }
}
