//! The mailbox's ring in every interleaving, as far as the models reach.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p longship-rt --test loom`.
#![cfg(loom)]

use std::sync::Arc as Counted;

use longship_rt::mpsc::{Consumer, Producer, Wake, ring};
use loom::sync::{Arc, Notify};
use loom::thread;

/// Stands for the eventfd of a sleeping consumer.
type Bell = Arc<Notify>;

type Item = (u8, Counted<()>);

/// Explores every run with at most so many forced switches between threads. Bugs in queues show
/// with two; three threads with more take hours.
fn model(forced_switches: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(forced_switches);
    builder.check(body);
}

/// Pushes; rings if told to. False when the ring refused.
fn push(producer: &Producer<Item>, bell: &Bell, item: Item) -> bool {
    let result = producer.push(item);
    if matches!(result, Ok(Wake::Needed)) {
        bell.notify();
    }
    result.is_ok()
}

/// What dropping a sender does.
fn leave(producer: Producer<Item>, bell: &Bell) {
    if producer.leave() == Wake::Needed {
        bell.notify();
    }
}

/// Reads `count` values, or to the end, sleeping whenever it may: a lost wake-up is a deadlock,
/// which loom reports.
fn read(consumer: &mut Consumer<Item>, bell: &Bell, count: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < count {
        let abandoned = consumer.is_abandoned();
        match consumer.pop() {
            Some((value, _)) => read.push(value),
            None if abandoned => break,
            None if consumer.fall_asleep() => {
                bell.wait();
                consumer.wake_up();
            }
            None => {}
        }
    }
    read
}

#[test]
fn every_value_is_read_once_and_no_wake_is_lost() {
    model(2, || {
        let owned = Counted::new(());
        let (producer, mut consumer) = ring(2);
        let bell = Bell::new(Notify::new());
        let other = producer.clone();
        let threads = [(producer, 1), (other, 2)].map(|(producer, value)| {
            let (bell, owned) = (Arc::clone(&bell), Counted::clone(&owned));
            thread::spawn(move || assert!(push(&producer, &bell, (value, owned))))
        });
        let mut read = read(&mut consumer, &bell, 2);
        read.sort_unstable();
        assert_eq!(read, [1, 2]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(Counted::strong_count(&owned), 1);
    });
}

#[test]
fn one_producer_keeps_its_order_across_laps() {
    model(3, || {
        let owned = Counted::new(());
        let (producer, mut consumer) = ring(2);
        let bell = Bell::new(Notify::new());
        let (theirs, ring_theirs) = (Counted::clone(&owned), Arc::clone(&bell));
        let thread = thread::spawn(move || {
            let pushed: Vec<u8> = (1..=3)
                .filter(|value| push(&producer, &ring_theirs, (*value, Counted::clone(&theirs))))
                .collect();
            leave(producer, &ring_theirs);
            pushed
        });
        let read = read(&mut consumer, &bell, usize::MAX);
        assert_eq!(read, thread.join().unwrap(), "what was accepted, in order");
        assert!(read.starts_with(&[1, 2]), "two fit in any case");
        assert_eq!(Counted::strong_count(&owned), 1);
    });
}

#[test]
fn producers_that_race_for_the_last_slot_fill_it_once() {
    model(3, || {
        let owned = Counted::new(());
        let (producer, mut consumer) = ring(2);
        let bell = Bell::new(Notify::new());
        assert!(push(&producer, &bell, (0, Counted::clone(&owned))));
        let other = producer.clone();
        let threads = [(producer, 1), (other, 2)].map(|(producer, value)| {
            let (bell, owned) = (Arc::clone(&bell), Counted::clone(&owned));
            thread::spawn(move || push(&producer, &bell, (value, owned)))
        });
        let accepted = threads.map(|thread| thread.join().unwrap());
        assert_eq!(accepted.into_iter().filter(|accepted| *accepted).count(), 1);
        assert_eq!(consumer.pop().map(|(value, _)| value), Some(0));
        let second = consumer.pop().map(|(value, _)| value);
        assert_eq!(second, Some(if accepted[0] { 1 } else { 2 }));
        assert!(consumer.pop().is_none());
        assert_eq!(Counted::strong_count(&owned), 1);
    });
}

#[test]
fn a_pop_that_races_a_push_takes_the_value_or_finds_nothing() {
    model(4, || {
        let (producer, mut consumer) = ring(2);
        let bell = Bell::new(Notify::new());
        let pushing = thread::spawn(move || push(&producer, &bell, (7, Counted::new(()))));
        let first = consumer.pop().map(|(value, _)| value);
        assert!(matches!(first, None | Some(7)));
        assert!(pushing.join().unwrap());
        let rest = consumer.pop().map(|(value, _)| value);
        assert_eq!(first.or(rest), Some(7));
        assert!(first.is_none() || rest.is_none());
    });
}

#[test]
fn values_left_behind_are_dropped_once_whoever_goes_last() {
    model(4, || {
        let owned = Counted::new(());
        let (producer, consumer) = ring(2);
        let bell = Bell::new(Notify::new());
        let (theirs, ring_theirs) = (Counted::clone(&owned), Arc::clone(&bell));
        let thread = thread::spawn(move || {
            for value in 0..3 {
                push(&producer, &ring_theirs, (value, Counted::clone(&theirs)));
            }
            leave(producer, &ring_theirs);
        });
        drop(consumer);
        thread.join().unwrap();
        assert_eq!(Counted::strong_count(&owned), 1);
    });
}

#[test]
fn a_sleep_is_ended_by_exactly_one_push() {
    model(3, || {
        let (producer, mut consumer) = ring(2);
        let other = producer.clone();
        assert!(consumer.fall_asleep());
        let threads = [producer, other].map(|producer| {
            thread::spawn(move || {
                let wake = producer.push((0, Counted::new(())));
                usize::from(matches!(wake, Ok(Wake::Needed)))
            })
        });
        let wakes: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(wakes, 1);
    });
}
