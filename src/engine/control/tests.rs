use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use super::super::command::Rewind;
use super::super::files::FileWait;
use super::super::letters::{Letter, LetterState};
use super::*;
use crate::config::DcNamespaceConfig;
use crate::host::{CheckpointStore, Holder, Hole, LettersMark, NoSettings, StoreError, StoreRun};
use crate::model::{Digest, LaneId, PartitionId};

const STORE: StoreFacts =
    StoreFacts { id: 11, is_empty: false, run: 2, last_run: 1, may_have_lost: true };

/// Keeps every set of marks it was given, in the order they became durable, unless it is full.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Marks>>>, Arc<AtomicBool>);

impl CheckpointStore for Shelf {
    fn load(&mut self) -> Result<Option<Marks>, StoreError> {
        Ok(self.0.lock().unwrap().last().cloned())
    }

    fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(StoreError::Io {
                action: "write",
                path: "marks".into(),
                source: io::ErrorKind::StorageFull.into(),
                remedy: "; make room there",
            });
        }
        self.0.lock().unwrap().push(marks.clone());
        Ok(())
    }
}

struct World {
    looped: ControlLoop,
    orders: Vec<mpsc::Receiver<Order>>,
    shelf: Shelf,
    /// Of its letters.
    _folder: tempfile::TempDir,
}

impl World {
    fn new(xdr: XdrConfig, shelf: Shelf) -> Self {
        let (senders, orders): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel()).unzip();
        let senders = Mutex::new(senders);
        let tell = move |shard: ShardIndex, order| {
            senders.lock().unwrap()[usize::from(shard.0)].send(order).unwrap();
        };
        let namespaces = vec!["demo".to_owned()];
        let store = Box::new(shelf.clone());
        let wall = || Lut::from_ms(9000);
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("letters");
        let stores = vec![STORE];
        let lost_start = None;
        let settings = Box::new(NoSettings);
        let seed =
            ControlSeed { xdr, namespaces, settings, stores, lost_start, store, letters, wall };
        let mut looped = ControlLoop::start(seed, 2, Arc::new(tell), &FileWait::default()).unwrap();
        looped.act();
        Self { looped, orders, shelf, _folder: folder }
    }

    /// Shard 0 gave changes up.
    fn bury(&mut self, dc: DcIndex, letters: Vec<(u32, Letter)>) {
        self.looped.bury(vec![Burial { shard: ShardIndex(0), dc, letters }]);
    }

    /// With the DC "west" made and "demo" attached, both shards standing at 100.
    fn attached() -> Self {
        let mut world = Self::new(XdrConfig::default(), Shelf::default());
        for (command, lst) in [(Command::CreateDc { dc: "west".to_owned() }, 0), (attach(), 100)] {
            world.command(command);
            (0..2).for_each(|shard| world.follow(shard, lst));
            world.orders(0);
        }
        world
    }

    /// DC west ships demo, and no shard has followed that yet; with the order's serial.
    fn starting() -> (Self, u64) {
        let mut xdr = XdrConfig::default();
        xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
        let world = Self::new(xdr, Shelf::default());
        let Order::Dc { serial, .. } = world.orders(0).remove(0) else { panic!("no DC") };
        (world, serial)
    }

    fn orders(&self, shard: usize) -> Vec<Order> {
        let orders = self.orders[shard].try_iter();
        let is_asked_for = |order: &Order| match order {
            Order::Serve => false,
            Order::LettersKept { records, .. } => !records.is_empty(),
            _ => true,
        };
        orders.filter(is_asked_for).collect()
    }

    fn command(&mut self, command: Command) {
        self.command_by(ShardIndex(0), 7, command);
    }

    fn command_by(&mut self, shard: ShardIndex, ticket: u64, command: Command) {
        self.looped.control.command((shard, ticket), command, Lut::from_ms(9000));
        self.looped.act();
    }

    fn followed(&mut self, serial: u64, marks: &[Mark], gaps: Vec<DeleteGap>) {
        self.looped.control.followed(serial, marks, gaps, Lut::from_ms(9000));
        self.looped.act();
    }

    /// Shard 0 has made a checkpoint: partition 0 stands at `lst`.
    fn checkpoint(&mut self, lst: u64) {
        let lane =
            LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(0) };
        self.looped.control.checkpoint(ShardIndex(0), 1, &[Mark { lane, lst: Lut::from_ms(lst) }]);
        self.looped.act();
    }

    /// Shard `shard` follows what it is told first, and has no lane that begins.
    fn follow_first(&mut self, shard: usize) {
        let orders = self.orders(shard);
        let serial = orders.iter().find_map(|order| match order {
            Order::Dc { serial, .. } => Some(*serial),
            _ => None,
        });
        self.followed(serial.expect("a DC"), &[], Vec::new());
    }

    /// Shard `shard` follows its one order, its lane of that partition standing at `lst`.
    fn follow(&mut self, shard: usize, lst: u64) {
        let orders = self.orders(shard);
        let [Order::Dc { serial, dc, config: Some(_), starts }] = orders.as_slice() else {
            panic!("{orders:?}");
        };
        let lane = LaneId {
            dc: *dc,
            namespace: NamespaceId(0),
            partition: PartitionId::new(shard as u16),
        };
        let marks = vec![Mark { lane, lst: Lut::from_ms(lst) }];
        let marks = if starts.is_empty() { Vec::new() } else { marks };
        self.followed(*serial, &marks, Vec::new());
    }
}

fn attach() -> Command {
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    Command::AddNamespace { dc, namespace, rewind: Rewind::Now }
}

#[test]
fn ok_comes_after_every_shard_has_followed_and_marks_are_durable() {
    let mut world = World::new(XdrConfig::default(), Shelf::default());
    world.command(Command::CreateDc { dc: "west".to_owned() });
    world.follow(0, 0);
    assert!(world.orders(0).is_empty(), "shard 1 has not followed");
    world.follow(1, 0);
    assert!(matches!(&world.orders(0)[..], [Order::Answer { ticket: 7, result: Ok(_) }]));

    world.command(attach());
    world.follow(0, 100);
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    assert!(stored.lanes.iter().all(|mark| mark.lst == Lut::ZERO), "shard 1 has not followed");
    world.follow(1, 200);
    assert!(matches!(&world.orders(0)[..], [Order::Answer { ticket: 7, result: Ok(_) }]));
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!((stored.dcs, stored.namespaces), (vec!["west".into()], vec!["demo".into()]));
    let positions: Vec<u64> = stored.lanes.iter().map(|mark| mark.lst.ms()).collect();
    assert_eq!(positions, [100, 200]);
}

#[test]
fn marks_know_a_namespace_before_a_shard_does_or_it_is_not_attached() {
    let mut world = World::new(XdrConfig::default(), Shelf::default());
    world.command(Command::CreateDc { dc: "west".to_owned() });
    (0..2).for_each(|shard| world.follow(shard, 0));
    (0..2).for_each(|shard| drop(world.orders(shard)));
    world.shelf.1.store(true, Ordering::Relaxed);
    world.command(attach());
    let [Order::MarksRefused(Some(_)), Order::Answer { result: Err(refusal), .. }] =
        &world.orders(0)[..]
    else {
        panic!("a shard knows of it")
    };
    assert!(refusal.starts_with("not attached") && refusal.contains("make room"), "{refusal}");
    assert!(!world.looped.control.knows("west", "demo"));

    world.shelf.1.store(false, Ordering::Relaxed);
    world.command(attach());
    let stored = |world: &World| world.shelf.0.lock().unwrap().last().cloned().unwrap().lanes;
    let stands = |world: &World, at: u64| stored(world).iter().all(|mark| mark.lst.ms() == at);
    assert_eq!(stored(&world).len(), PARTITION_COUNT);
    assert!(stands(&world, 0), "a crash before the shards begin costs nothing");
    world.orders(1);
    let Order::Dc { serial, .. } = world.orders(0).remove(1) else { panic!("not told") };
    // Positions become durable that another shard tells, and then no more.
    world.checkpoint(100);
    assert_eq!(stored(&world).len(), PARTITION_COUNT);
    world.shelf.1.store(true, Ordering::Relaxed);
    (0..2).for_each(|_| world.followed(serial, &[], Vec::new()));
    let answer = world.orders(0).into_iter().find_map(|order| match order {
        Order::Answer { result, .. } => Some(result),
        _ => None,
    });
    assert!(answer.unwrap().unwrap_err().starts_with("applied, but its marks are not durable"));
    assert_eq!(stored(&world).iter().filter(|mark| mark.lst == Lut::ZERO).count(), 4095);
}

#[test]
fn what_was_left_of_an_earlier_attachment_stays_when_another_is_refused() {
    let mut world = World::attached();
    let mut xdr = XdrConfig::default();
    xdr.create_dc("west").unwrap();
    let shelf = world.shelf.clone();
    let lanes = |shelf: &Shelf| shelf.0.lock().unwrap().last().cloned().unwrap().lanes;
    let left = lanes(&shelf);
    assert!(!left.is_empty());
    // The file does not name it any more, and it comes back by a command.
    world = World::new(xdr, shelf.clone());
    (0..2).for_each(|shard| world.follow_first(shard));
    let attach_while = |world: &mut World, is_full| {
        shelf.1.store(is_full, Ordering::Relaxed);
        world.command(attach());
    };
    attach_while(&mut world, true);
    shelf.1.store(false, Ordering::Relaxed);
    world.looped.control.checkpoint(ShardIndex(0), 1, &[]);
    world.looped.act();
    assert_eq!(lanes(&shelf), left);
    attach_while(&mut world, false);
    assert!(lanes(&shelf).iter().all(|mark| mark.lst == Lut::ZERO), "it begins anew");
}

#[test]
fn a_start_takes_nothing_while_it_cannot_be_kept_where_a_new_dc_begins() {
    let shelf = Shelf::default();
    drop(World::new(XdrConfig::default(), shelf.clone()));
    for is_full in [true, false] {
        shelf.1.store(is_full, Ordering::Relaxed);
        let mut xdr = XdrConfig::default();
        xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
        let mut world = World::new(xdr, shelf.clone());
        let Order::Dc { serial, .. } = world.orders(0).remove(0) else { panic!("no DC") };
        (0..2).for_each(|_| world.followed(serial, &[], Vec::new()));
        let orders: Vec<Order> = world.orders[0].try_iter().collect();
        let has = |is: fn(&Order) -> bool| orders.iter().any(is);
        assert_eq!(has(|order| matches!(order, Order::Stop)), is_full);
        assert_eq!(has(|order| matches!(order, Order::Serve)), !is_full);
    }
}

#[test]
fn a_restart_begins_at_the_marks_and_what_was_never_seen_begins_now() {
    let shelf = Shelf::default();
    let lane = LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(5) };
    let marks = Marks {
        dcs: vec!["west".to_owned()],
        namespaces: vec!["demo".to_owned()],
        stores: vec![StoreRun { id: STORE.id, run: 1 }],
        lanes: vec![Mark { lane, lst: Lut::from_ms(77) }],
        holders: Vec::new(),
        letters: LettersMark::default(),
    };
    shelf.0.lock().unwrap().push(marks);
    let mut xdr = XdrConfig::default();
    for name in ["new", "west"] {
        let dc = xdr.create_dc(name).unwrap();
        dc.namespaces.push(DcNamespaceConfig::named("demo"));
    }
    let world = World::new(xdr, shelf);
    let orders = world.orders(1);
    let starts = |order: &Order| match order {
        Order::Dc { starts, .. } => starts[0].1.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(starts(&orders[0]), Beginning::Now));
    let Beginning::At(lanes) = starts(&orders[1]) else { panic!("marks were there") };
    assert_eq!((lanes[5], lanes[6]), (Some(Lut::from_ms(77)), None));
}

#[test]
fn without_marks_beside_a_store_that_holds_records_everything_ships_again() {
    let mut xdr = XdrConfig::default();
    xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
    let world = World::new(xdr, Shelf::default());
    let orders = world.orders(0);
    let [Order::Dc { starts, .. }] = orders.as_slice() else { panic!("{orders:?}") };
    assert!(matches!(starts[0].1, Beginning::Oldest));
}

#[test]
fn a_node_without_dcs_leaves_marks_that_say_so() {
    let world = World::new(XdrConfig::default(), Shelf::default());
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (stored.stores, stored.lanes),
        (vec![StoreRun { id: STORE.id, run: STORE.run }], vec![])
    );
}

#[test]
fn every_port_is_told_of_which_time_deletes_may_be_missing() {
    let mut world = World::new(XdrConfig::default(), Shelf::default());
    world.command(Command::CreateDc { dc: "west".to_owned() });
    (0..2).for_each(|shard| world.follow(shard, 0));
    (0..2).for_each(|shard| drop(world.orders(shard)));
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let rewind = Command::AddNamespace { dc, namespace, rewind: Rewind::Seconds(3) };
    world.command(rewind.clone());
    for to in [7000, 8000] {
        let (from, to) = (Lut::from_ms(6000), Lut::from_ms(to));
        let gap = DeleteGap { dc: "west".to_owned(), namespace: NamespaceId(0), from, to };
        world.followed(2, &[], vec![gap]);
    }
    world.command(rewind);
    let orders = world.orders(0);
    let answers = orders.into_iter().filter_map(|order| match order {
        Order::Answer { result, .. } => Some(result.unwrap()),
        _ => None,
    });
    let span = "2010-01-01T00h00m06.000s..2010-01-01T00h00m08.000s";
    let expected = format!("ok;deletes-may-be-missing={span}");
    assert_eq!(answers.collect::<Vec<_>>(), [expected.clone(), expected]);
}

#[test]
fn no_port_answers_ok_before_the_marks_are_durable_that_another_could_not_store() {
    let mut world = World::attached();
    let stored = |world: &World| world.shelf.0.lock().unwrap().len();
    let answered = |world: &World| match &world.orders(0)[..] {
        [Order::MarksRefused(_), Order::Answer { result, .. }] | [Order::Answer { result, .. }] => {
            result.clone()
        }
        other => panic!("{other:?}"),
    };
    let pause = || Command::Pause { dc: "west".to_owned(), paused: true };
    world.shelf.1.store(true, Ordering::Relaxed);
    world.command(pause());
    (0..2).for_each(|shard| world.follow(shard, 0));
    assert!(answered(&world).is_err());
    for repeated in [pause(), attach()] {
        world.command(repeated);
        assert!(answered(&world).unwrap_err().contains("not durable"));
    }
    let before = stored(&world);
    world.shelf.1.store(false, Ordering::Relaxed);
    world.command(pause());
    assert_eq!(answered(&world), Ok("ok".to_owned()));
    assert_eq!(stored(&world), before + 1);
    world.command(pause());
    assert_eq!((answered(&world), stored(&world)), (Ok("ok".to_owned()), before + 1));
}

#[test]
fn a_rewind_sent_to_every_port_is_done_once() {
    let mut world = World::attached();
    world.command(attach());
    assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Ok(_), .. }]));
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let rewind = Rewind::Seconds(3);
    world.command(Command::AddNamespace { dc, namespace, rewind });
    assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Err(_), .. }]));
}

#[test]
fn a_rewind_that_comes_by_one_port_twice_is_done_twice() {
    let mut world = World::attached();
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let rewind = Command::RewindNamespace { dc, namespace, rewind: Rewind::All };
    for _ in 0..2 {
        world.command(rewind.clone());
        (0..2).for_each(|shard| world.follow(shard, 0));
        assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Ok(_), .. }]));
    }
    world.command_by(ShardIndex(1), 8, rewind);
    assert!(matches!(&world.orders(1)[..], [Order::Answer { ticket: 8, result: Ok(_) }]));
}

#[test]
fn a_row_of_commands_that_goes_from_port_to_port_is_done_once() {
    let mut world = World::attached();
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let remove = || Command::RemoveNamespace { dc: dc.clone(), namespace: namespace.clone() };
    for row in [
        vec![remove(), attach()],
        vec![
            Command::DeleteDc { dc: dc.clone() },
            Command::CreateDc { dc: dc.clone() },
            attach(),
            remove(),
            attach(),
        ],
    ] {
        for command in &row {
            world.command(command.clone());
            let serial = world.looped.control.serial;
            (0..2).for_each(|_| world.followed(serial, &[], Vec::new()));
        }
        (0..2).for_each(|shard| drop(world.orders(shard)));
        for command in row {
            world.command_by(ShardIndex(1), 8, command.clone());
            let orders = world.orders(1);
            let is_ok = matches!(&orders[..], [Order::Answer { result: Ok(_), .. }]);
            assert!(is_ok, "{command:?}: {orders:?}");
        }
        assert!(world.looped.control.ships("west", "demo"));
    }
    // By the port that has just brought it, it is meant.
    world.command_by(ShardIndex(1), 9, remove());
    assert!(!world.looped.control.ships("west", "demo"));
}

fn letter() -> Letter {
    Letter {
        dc: "west".to_owned(),
        namespace: "demo".to_owned(),
        set: String::new(),
        key: Vec::new(),
        digest: Digest([7; 20]),
        lut: Lut::from_ms(50),
        code: 13,
        at: Lut::from_ms(60),
        state: LetterState::Kept,
    }
}

#[test]
fn letters_of_a_namespace_go_with_its_positions_and_wait_with_them() {
    let mut world = World::attached();
    let west = world.looped.control.index_of("west");
    let count = |world: &World| world.looped.letters.letters().of("west", "demo").count();
    world.bury(west, vec![(3, letter())]);
    // As after a start whose configuration file does not name the namespace.
    let attached = std::mem::take(&mut world.looped.control.xdr.dcs[0].namespaces);
    world.looped.tell_letters(west, "west");
    assert_eq!(count(&world), 1);
    world.looped.control.xdr.dcs[0].namespaces = attached;

    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    world.command(Command::RemoveNamespace { dc, namespace });
    assert_eq!(count(&world), 0);
    // One was on its way; its shard is told that there is nothing more to do.
    world.orders(0);
    world.bury(west, vec![(4, letter())]);
    assert_eq!(count(&world), 0);
    let orders = world.orders(0);
    let [Order::Buried { slots, refusal: None, .. }] = orders.as_slice() else {
        panic!("{orders:?}");
    };
    assert_eq!(slots, &[(4, true)]);
    let later_us = 1 << 60;
    assert_eq!(world.looped.letters_log.pass(later_us), Some(0), "no line tells of it");
}

#[test]
fn letters_that_wait_together_are_one_write_and_a_stop_waits_for_no_more() {
    let mut world = World::attached();
    let dc = world.looped.control.index_of("west");
    let given_up = |n: u8| {
        let letters = vec![(n.into(), Letter { digest: Digest([n; 20]), ..letter() })];
        Notice::Abandoned(Burial { shard: ShardIndex(u16::from(n) % 2), dc, letters })
    };
    let mut waiting: VecDeque<Notice> = (0..9).map(given_up).collect();
    waiting.extend([Notice::Stop, given_up(9)]);
    world.looped.hear_next(&mut waiting, Lut::from_ms(9000));
    assert!(matches!(waiting.make_contiguous(), [Notice::Stop, Notice::Abandoned(_)]));
    assert_eq!(world.looped.letters.letters().of("west", "demo").count(), 9);
    let kept = |order| match order {
        Order::Buried { slots, refusal: None, .. } => slots,
        other => panic!("{other:?}"),
    };
    for shard in 0..2 {
        let told: Vec<_> = world.orders(shard).into_iter().flat_map(kept).collect();
        let expected: Vec<_> = (shard as u32..9).step_by(2).map(|slot| (slot, true)).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_replay_is_answered_with_how_many_letters_were_taken_up_and_how_many_stay() {
    let mut world = World::attached();
    let west = world.looped.control.index_of("west");
    let letters = (0..3).map(|n| (n, Letter { digest: Digest([n as u8; 20]), ..letter() }));
    world.bury(west, letters.collect());
    world.orders(0);
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let replay = || Command::Replay { dc: dc.clone(), namespace: namespace.clone() };
    let mut replayed = |taken: &[u8]| {
        world.command(replay());
        let orders = [world.orders(0), world.orders(1)];
        let [Order::Replay { serial, letters, .. }] = &orders[0][..] else { panic!("{orders:?}") };
        let (dc, namespace) = (dc.clone(), namespace.clone());
        let taken = taken.iter().map(|n| Digest([*n; 20])).collect();
        let now = Lut::from_ms(9000);
        let mut told = VecDeque::from([Notice::Replayed { dc, namespace, taken }]);
        world.looped.hear_next(&mut told, now);
        world.followed(*serial, &[], Vec::new());
        assert!(world.orders(0).is_empty(), "shard 1 may have taken some");
        world.followed(*serial, &[], Vec::new());
        match &world.orders(0)[..] {
            [Order::Answer { result: Ok(answer), .. }] => (letters.len(), answer.clone()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(replayed(&[0, 2]), (3, "ok;replayed=2;kept=1".to_owned()));
    assert_eq!(replayed(&[]), (1, "ok;replayed=0;kept=1".to_owned()));
    assert_eq!(replayed(&[1]), (1, "ok;replayed=1;kept=0".to_owned()));
}

#[test]
fn what_a_deleted_dc_gave_up_leaves_no_letter_for_the_next_of_its_name() {
    let mut world = World::attached();
    let old = world.looped.control.index_of("west");
    let letter = letter();
    world.command(Command::DeleteDc { dc: "west".to_owned() });
    for command in [Command::CreateDc { dc: "west".to_owned() }, attach()] {
        world.orders(0);
        world.orders(1);
        world.looped.control.current = None;
        world.command(command);
    }
    // It was on its way while the DC was deleted.
    world.bury(old, vec![(3, letter.clone())]);
    assert_eq!(world.looped.letters.letters().of("west", "demo").count(), 0);
    let new = world.looped.control.index_of("west");
    world.bury(new, vec![(3, letter)]);
    assert_eq!(world.looped.letters.letters().of("west", "demo").count(), 1);
}

#[test]
fn no_dc_is_ever_taken_for_another_however_many_were_made_and_deleted() {
    let mut world = World::attached();
    let west = world.looped.control.index_of("west");
    for _ in 0..=u16::MAX {
        let passing = world.looped.control.index_of("passing");
        assert_ne!(passing, west);
        world.looped.control.indexes.remove("passing");
    }
}

#[test]
fn the_positions_of_a_paused_dc_are_durable_before_the_answer() {
    let mut world = World::attached();
    world.command(Command::Pause { dc: "west".to_owned(), paused: true });
    let stored = world.shelf.0.lock().unwrap().len();
    world.follow(0, 300);
    assert_eq!(world.shelf.0.lock().unwrap().len(), stored);
    world.follow(1, 300);
    assert_eq!(world.shelf.0.lock().unwrap().len(), stored + 1);
    let orders = world.orders(0);
    assert!(matches!(orders.last(), Some(Order::Answer { result: Ok(_), .. })), "{orders:?}");
}

#[test]
fn a_position_moves_on_only_with_a_checkpoint() {
    let mut world = World::attached();
    world.command(Command::Pause { dc: "west".to_owned(), paused: true });
    (0..2).for_each(|shard| world.follow(shard, 300));
    let positions = |world: &World| -> Vec<u64> {
        let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
        stored.lanes.iter().map(|mark| mark.lst.ms()).collect()
    };
    assert_eq!(positions(&world), [100, 100], "what it relies on may not be on the device");
    world.checkpoint(300);
    assert_eq!(positions(&world), [300, 100]);
}

#[test]
fn a_stop_that_a_device_was_too_slow_for_waits_for_no_disk_again() {
    let check = |durable: [bool; 2], stored_at_end: usize| {
        let World { looped, shelf, orders, _folder } = World::attached();
        let stored = shelf.0.lock().unwrap().len();
        let (notices, inbox) = mpsc::channel();
        for durable in durable {
            notices
                .send(Notice::Stopped { marks: Vec::new(), letters: Vec::new(), durable })
                .unwrap();
        }
        assert_eq!(
            looped.run(&inbox, || Lut::from_ms(9000), || {}).unwrap(),
            durable == [true, true]
        );
        drop(orders);
        assert_eq!(shelf.0.lock().unwrap().len() - stored, stored_at_end, "{durable:?}");
    };
    check([true, true], 1);
    check([true, false], 0);
    check([false, true], 0);
}

#[test]
fn a_detached_namespace_leaves_no_position_behind() {
    let mut world = World::attached();
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    world.command(Command::RemoveNamespace { dc, namespace });
    // A checkpoint that was under way meanwhile.
    world.checkpoint(300);
    assert!(world.shelf.0.lock().unwrap().last().unwrap().lanes.is_empty());
}

#[test]
fn dropped_positions_are_told_where_something_may_have_waited() {
    let mut world = World::attached();
    let mut dropped = |command| {
        world.looped.control.command((ShardIndex(0), 7), command, Lut::from_ms(9000));
        let mut told = Vec::new();
        while let Some(step) = world.looped.control.next_step() {
            match step {
                Step::Remark(remark @ Remark::Dropped { .. }) => {
                    assert!(remark.is_warning());
                    told.push(remark.to_string());
                }
                Step::Store(_, after) => {
                    world.looped.control.stored(after, Ok(()), Lut::from_ms(9000));
                }
                _ => {}
            }
        }
        let serial = world.looped.control.serial;
        (0..2).for_each(|_| {
            world.looped.control.followed(serial, &[], Vec::new(), Lut::from_ms(9000));
        });
        world.looped.act();
        told
    };
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    let gone = dropped(Command::RemoveNamespace { dc: dc.clone(), namespace });
    assert!(gone.len() == 1 && gone[0].contains("no longer ships demo"), "{gone:?}");
    assert!(dropped(Command::DeleteDc { dc: dc.clone() }).is_empty(), "nothing was left to drop");
    dropped(Command::CreateDc { dc: dc.clone() });
    dropped(attach());
    let gone = dropped(Command::DeleteDc { dc });
    assert!(gone.len() == 1 && gone[0].contains("rewind="), "{gone:?}");
}

#[test]
fn every_shard_hears_that_positions_cannot_be_stored_whoever_s_they_are() {
    let mut world = World::attached();
    // What shards are told of it, which a command's answer comes behind.
    let told = |world: &World| {
        let of_shard = |shard| {
            let orders = world.orders(shard).into_iter();
            let before = orders.take_while(|order| !matches!(order, Order::Answer { .. }));
            let refusals = before.filter_map(|order| match order {
                Order::MarksRefused(why) => Some(why.is_some()),
                _ => None,
            });
            refusals.collect::<Vec<bool>>()
        };
        [of_shard(0), of_shard(1)]
    };
    let pause = |world: &mut World, paused| {
        world.command(Command::Pause { dc: "west".to_owned(), paused });
        (0..2).for_each(|shard| world.follow(shard, 0));
    };
    told(&world);
    world.shelf.1.store(true, Ordering::Relaxed);
    pause(&mut world, true);
    assert_eq!(told(&world), [[true], [true]], "a command's");
    world.checkpoint(300);
    assert_eq!(told(&world), [[], []] as [[bool; 0]; 2], "they know");
    world.shelf.1.store(false, Ordering::Relaxed);
    pause(&mut world, false);
    assert_eq!(told(&world), [[false], [false]]);
    world.shelf.1.store(true, Ordering::Relaxed);
    world.checkpoint(300);
    assert_eq!(told(&world), [[true], [true]], "a checkpoint's");
    world.shelf.1.store(false, Ordering::Relaxed);
    world.checkpoint(300);
    let orders = [world.orders(0), world.orders(1)];
    assert!(matches!(&orders[0][..], [Order::MarksRefused(None), Order::MarksStored(_)]));
    assert!(matches!(&orders[1][..], [Order::MarksRefused(None)]));
}

#[test]
fn every_checkpoint_is_answered_however_often_marks_cannot_be_stored() {
    let mut world = World::attached();
    let mut answer = |is_full| {
        world.orders(0);
        world.shelf.1.store(is_full, Ordering::Relaxed);
        world.checkpoint(300);
        world.orders(0).pop()
    };
    for _ in 0..3 {
        assert!(matches!(answer(true), Some(Order::MarksNotStored(1))));
    }
    assert!(matches!(answer(false), Some(Order::MarksStored(1))));
}

#[test]
fn what_is_attached_anew_has_no_position_of_an_earlier_attachment() {
    // The process died between a detachment and its answer: the marks know of it still.
    let shelf = World::attached().shelf;
    let xdr = XdrConfig { dcs: vec![DcConfig::named("west")], ..XdrConfig::default() };
    let mut world = World::new(xdr, shelf);
    (0..2).for_each(|shard| world.follow(shard, 0));
    world.command(attach());
    (0..2).for_each(|shard| world.follow(shard, 500));
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    let positions: Vec<Lut> = stored.lanes.iter().map(|mark| mark.lst).collect();
    assert_eq!(positions, [Lut::from_ms(500); 2]);
}

fn stores_told(world: &mut World, boot: u64, (id, run): (u64, u32), wall: u64) {
    let (namespace, store) = ("demo".to_owned(), StoreRun { id, run });
    let stores = vec![NamespaceStore { namespace, store, is_whole: true }];
    let mut told = VecDeque::from([Notice::Stores { dc: DcIndex(0), boot, stores }]);
    world.looped.hear_next(&mut told, Lut::from_ms(wall));
}

fn holes(orders: &[Order]) -> Vec<Vec<Hole>> {
    let holes = orders.iter().filter_map(|order| match order {
        Order::Holes { holes, .. } => Some(holes.iter().map(|(_, hole)| *hole).collect()),
        _ => None,
    });
    holes.collect()
}

#[test]
fn a_store_that_lacks_what_was_shipped_is_told_to_all_shards_and_known_after_a_restart() {
    let mut world = World::attached();
    stores_told(&mut world, 1, (5, 6), 20_000);
    assert!((0..2).all(|shard| holes(&world.orders(shard)).is_empty()));
    stores_told(&mut world, 2, (7, 1), 30_000);
    for shard in 0..2 {
        assert_eq!(holes(&world.orders(shard)), [[Hole::OtherStore]]);
    }
    stores_told(&mut world, 1, (5, 6), 30_001);
    stores_told(&mut world, 2, (7, 1), 30_002);
    assert!(holes(&world.orders(0)).is_empty(), "from other shards");

    let mut xdr = XdrConfig::default();
    xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
    let mut world = World::new(xdr, world.shelf);
    let orders = world.orders(1);
    let [Order::Dc { .. }, Order::Holes { .. }] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(holes(&orders), [[Hole::OtherStore]]);
    for serial in [1, 1] {
        world.followed(serial, &[], Vec::new());
    }
    world.orders(0);

    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    world.command(Command::RewindNamespace { dc, namespace, rewind: Rewind::All });
    let none: Vec<Hole> = Vec::new();
    assert_eq!(holes(&world.orders(0)), [none]);
    for serial in [2, 2] {
        world.followed(serial, &[], Vec::new());
    }
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    let expected = Holder {
        dc: DcIndex(0),
        namespace: NamespaceId(0),
        store: Some((StoreRun { id: 7, run: 1 }, 2)),
        hole: None,
    };
    assert_eq!(stored.holders, [expected]);
}

#[test]
fn dead_letters_that_are_gone_after_a_restart_are_told_until_a_rewind() {
    let mut world = World::attached();
    let west = world.looped.control.index_of("west");
    world.bury(west, vec![(3, letter())]);
    world.checkpoint(0);
    let mut xdr = XdrConfig::default();
    xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
    // Each process finds a folder without the file.
    for restart in 0..2 {
        world = World::new(xdr.clone(), world.shelf);
        assert_eq!(holes(&world.orders(1)), [[Hole::LettersLost]], "restart {restart}");
        world.orders(0);
        (0..2).for_each(|_| world.followed(1, &[], Vec::new()));
    }
    stores_told(&mut world, 1, (5, 6), 20_000);
    assert!(holes(&world.orders(0)).is_empty(), "whatever the destination tells");
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    world.command(Command::RewindNamespace { dc, namespace, rewind: Rewind::All });
    let none: Vec<Hole> = Vec::new();
    assert_eq!(holes(&world.orders(0)), [none]);
    (0..2).for_each(|_| world.followed(2, &[], Vec::new()));
    let world = World::new(xdr, world.shelf);
    assert!(holes(&world.orders(1)).is_empty());
}

#[test]
fn a_namespace_that_is_detached_takes_its_hole_along() {
    let mut world = World::attached();
    stores_told(&mut world, 1, (5, 6), 20_000);
    stores_told(&mut world, 2, (7, 1), 30_000);
    assert_eq!(holes(&world.orders(0)), [[Hole::OtherStore]]);
    let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
    world.command(Command::RemoveNamespace { dc, namespace });
    let none: Vec<Hole> = Vec::new();
    assert_eq!(holes(&world.orders(0)), [none]);
    for serial in [3, 3] {
        world.followed(serial, &[], Vec::new());
    }
    world.command(attach());
    stores_told(&mut world, 2, (7, 1), 40_000);
    assert!(holes(&world.orders(0)).is_empty(), "it begins anew");
}

#[test]
fn stores_that_are_told_before_the_marks_of_the_start_make_no_marks_by_themselves() {
    let (mut world, serial) = World::starting();
    stores_told(&mut world, 1, (5, 6), 20_000);
    assert!(world.shelf.0.lock().unwrap().is_empty(), "no position is known yet");
    let lane = LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(5) };
    world.followed(serial, &[Mark { lane, lst: Lut::ZERO }], Vec::new());
    world.followed(serial, &[], Vec::new());
    let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!((stored.lanes.len(), stored.holders.len()), (1, 1));
}

#[test]
fn a_dc_may_be_ahead_of_a_store_that_was_not_stopped_in_order_if_it_has_shipped() {
    let lane = LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(5) };
    let remarks = |has_marks: bool, may_have_lost: bool| {
        let mut xdr = XdrConfig::default();
        for name in ["new", "west"] {
            let dc = xdr.create_dc(name).unwrap();
            dc.namespaces.push(DcNamespaceConfig::named("demo"));
        }
        let marks = has_marks.then(|| Marks {
            dcs: vec!["west".to_owned()],
            namespaces: vec!["demo".to_owned()],
            stores: vec![StoreRun { id: STORE.id, run: 1 }],
            lanes: vec![Mark { lane, lst: Lut::from_ms(77) }],
            holders: Vec::new(),
            letters: LettersMark::default(),
        });
        let mut control = Control::start(ControlStart {
            file: xdr.clone(),
            xdr,
            namespaces: vec!["demo".to_owned()],
            settings: Box::new(NoSettings),
            stores: vec![StoreFacts { may_have_lost, ..STORE }],
            lost_start: None,
            marks,
            has_lost_letters: false,
            shard_count: 1,
        });
        let mut dcs = Vec::new();
        while let Some(step) = control.next_step() {
            if let Step::Remark(Remark::Ahead { dcs: ahead, .. }) = step {
                dcs.push(ahead);
            }
        }
        dcs
    };
    assert_eq!(remarks(true, true), [["west"]]);
    assert_eq!(remarks(true, false), [[""; 0]; 0]);
    assert_eq!(remarks(false, true), [[""; 0]; 0]);
}

#[test]
fn namespaces_of_a_dc_that_arrive_in_one_are_named() {
    let remarks = |remote: &str| {
        let mut xdr = XdrConfig::default();
        let dc = xdr.create_dc("west").unwrap();
        dc.namespaces.push(DcNamespaceConfig::named("demo"));
        let remote_namespace = Some(remote.to_owned());
        let orders = DcNamespaceConfig { remote_namespace, ..DcNamespaceConfig::named("orders") };
        dc.namespaces.push(orders);
        let mut control = Control::start(ControlStart {
            file: xdr.clone(),
            xdr,
            namespaces: ["demo", "orders"].map(str::to_owned).into(),
            settings: Box::new(NoSettings),
            stores: vec![STORE; 2],
            lost_start: None,
            marks: None,
            has_lost_letters: false,
            shard_count: 1,
        });
        let mut shared = Vec::new();
        while let Some(step) = control.next_step() {
            if let Step::Remark(Remark::Shared { namespaces, .. }) = step {
                shared.push(namespaces);
            }
        }
        shared
    };
    assert_eq!(remarks("demo"), [["demo", "orders"]]);
    assert_eq!(remarks("other"), [[""; 0]; 0]);
}

#[test]
fn a_checkpoint_before_all_shards_have_followed_the_start_makes_no_marks() {
    let (mut world, serial) = World::starting();
    let lane = LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(5) };
    let mark = Mark { lane, lst: Lut::ZERO };
    world.followed(serial, &[mark], Vec::new());
    world.checkpoint(0);
    assert!(world.shelf.0.lock().unwrap().is_empty(), "the other shard's lanes would look new");
    world.orders(0);
    world.followed(serial, &[], Vec::new());
    assert!(!world.shelf.0.lock().unwrap().is_empty());
    let orders = world.orders(0);
    assert!(orders.iter().any(|order| matches!(order, Order::MarksStored(1))), "{orders:?}");
}
