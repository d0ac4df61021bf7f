//! Steps of a DC over a host and a destination that only note what is asked of them.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::{Budget, DcEngine, DcSeed, Served};
use crate::config::{DcConfig, DcNamespaceConfig};
use crate::dest::{
    Destination, Fault, NamespaceFacts, NodeEvent, NodeIndex, Outgoing, Reboot, Reply, Route,
    Unanswered,
};
use crate::engine::checkpoint::Checkpoints;
use crate::engine::control::Notice;
use crate::engine::follow::Hold;
use crate::engine::letters::Letter;
use crate::engine::positions::Beginning;
use crate::engine::testing::{CLOCK, Tombstones};
use crate::engine::trouble::Trouble;
use crate::model::{
    Change, ChangeKind, DcIndex, Digest, Lut, NamespaceId, PARTITION_COUNT, PartitionId, SetId,
    ShardIndex, SrcId, Tick, Version,
};
use crate::ship::{Dispatch, Limits, Now};
use crate::wire::ResultCode;
use crate::wire::hello::HelloAnswer;

const NS: NamespaceId = NamespaceId(0);
const NOW: Now = Now { tick: Tick(0), wall: CLOCK };

/// One node that takes everything, unless it is busy, of partitions it has.
#[derive(Default)]
struct OneNode {
    /// Partitions it does not have.
    lacks: Option<fn(NamespaceId, PartitionId) -> bool>,
    /// Number of its connection.
    connection: u64,
    busy: bool,
    /// Of what was sent and is neither answered nor lost.
    tags: Vec<u32>,
    /// The last batch that was sent.
    batch: Vec<u8>,
    replies: Vec<Reply>,
    notices: Vec<NodeEvent>,
    poked: u32,
}

impl OneNode {
    /// A connection is open, and the next [`DcEngine::decide`] hears of it.
    fn open(&mut self, hello: Option<SrcId>) {
        self.connection += 1;
        let answer =
            |src_id| HelloAnswer { boot: 1, loss_window_ms: 0, src_id, stores: Vec::new() };
        let hello = hello.map(answer);
        let (node, connection) = (NodeIndex(0), self.connection);
        self.notices.push(NodeEvent::Up { node, connection, hello });
    }

    /// A connection is lost with the last `count` of what was sent.
    fn lose(&mut self, count: usize) {
        let tags = self.tags.split_off(self.tags.len() - count);
        let unanswered = Unanswered { in_doubt: tags.len(), tags };
        let (node, fault) = (NodeIndex(0), Fault::ClosedByPeer);
        self.notices.push(NodeEvent::Down { node, fault, unanswered });
    }
}

impl Destination for OneNode {
    type Buffer = Vec<u8>;

    fn route(&self, namespace: NamespaceId, partition: PartitionId) -> Route {
        let is_lacking = self.lacks.is_some_and(|lacks| lacks(namespace, partition));
        if is_lacking { Route::NoNode } else { Route::Open(NodeIndex(0)) }
    }

    fn is_full(&self, _: NodeIndex) -> bool {
        false
    }

    fn connection(&self, _: NodeIndex) -> Option<u64> {
        Some(self.connection)
    }

    fn is_free(&self, _: NodeIndex) -> bool {
        !self.busy
    }

    fn send(
        &mut self,
        _: NodeIndex,
        batch: Outgoing<Vec<u8>>,
        tags: &[u32],
    ) -> Result<(), Outgoing<Vec<u8>>> {
        if self.busy {
            return Err(batch);
        }
        self.tags.extend(tags);
        self.batch = batch.buffer[..batch.bytes].to_vec();
        Ok(())
    }

    fn drain(&mut self, replies: &mut Vec<Reply>, notices: &mut Vec<NodeEvent>) {
        replies.append(&mut self.replies);
        notices.append(&mut self.notices);
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn poke(&mut self) {
        self.poked += 1;
    }

    fn look(&mut self, _: Tick) {}

    fn facts(&self, _: NamespaceId) -> NamespaceFacts {
        NamespaceFacts::default()
    }

    fn nodes(&self) -> usize {
        1
    }

    fn name(&self, _: NodeIndex) -> Option<String> {
        None
    }

    fn knows(&self, _: &str) -> bool {
        false
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn replies(&self) -> u64 {
        0
    }

    fn begin_stream(&mut self) {}

    fn set_src_id(&mut self, _: SrcId) {}
}

type Engine = DcEngine<Tombstones, OneNode>;

fn config() -> DcConfig {
    let namespace =
        DcNamespaceConfig { max_throughput: 1_000_000, ..DcNamespaceConfig::named("test") };
    DcConfig { namespaces: vec![namespace], ..DcConfig::named("west") }
}

fn engine(host: &Tombstones, starts: &[(NamespaceId, Beginning)]) -> Engine {
    let mut engine = bare(["test"].into_iter());
    engine.configure(host, &config(), starts, NOW);
    engine.destination_mut().open(None);
    engine
}

/// One that ships nothing yet, beside these namespaces.
fn bare<'n>(namespaces: impl Iterator<Item = &'n str>) -> Engine {
    DcEngine::new(DcSeed {
        index: DcIndex(0),
        name: "west".to_owned(),
        namespaces: namespaces.map(str::to_owned).collect(),
        shard: 0,
        shard_count: 1,
        limits: Limits::default(),
        src_id: SrcId::NONE,
        hold: Hold { until: Tick(0), anyway_until: Tick(0) },
        shippers: Default::default(),
        destination: OneNode::default(),
    })
}

/// Submits so many changes, each of a record of its own.
fn submit(engine: &mut Engine, count: u32) {
    submit_some(engine, NS, 0..count, NOW);
}

/// A change of a record of a namespace.
fn change_of(namespace: NamespaceId, record: u32) -> Change {
    let mut digest = [0; 20];
    digest[..4].copy_from_slice(&record.to_le_bytes());
    digest[8..12].copy_from_slice(&record.wrapping_mul(0x9E37_79B9).to_le_bytes());
    Change {
        namespace,
        digest: Digest(digest),
        version: Version::first_of(CLOCK),
        previous_lut: None,
        set: SetId::NONE,
        kind: ChangeKind::DurableDelete,
        shipped: false,
        src_id: SrcId::NONE,
    }
}

/// Submits a change of each of these records of a namespace.
fn submit_some(engine: &mut Engine, namespace: NamespaceId, records: Range<u32>, now: Now) {
    for record in records {
        engine.submit(&change_of(namespace, record), "", now, || now.tick);
    }
}

/// The same, sent.
fn send(engine: &mut Engine, host: &mut Tombstones, count: u32) {
    submit(engine, count);
    for _ in 0..100 {
        engine.decide(host, NOW, &Budget::default());
        engine.serve(host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
    }
    assert_eq!(engine.destination().tags.len(), count as usize, "all was sent");
}

#[test]
fn connections_lost_together_share_the_budget_of_a_turn() {
    let mut host = Tombstones::default();
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    send(&mut engine, &mut host, 100);
    let owed = |engine: &Engine| engine.rules().dc_stats().gauges.in_progress;
    for count in [30, 30, 20, 5] {
        engine.destination_mut().lose(count);
    }
    let answered = engine.destination_mut().tags.split_off(5);
    let replies = answered.into_iter().map(|tag| Reply { tag, code: ResultCode::OK });
    engine.destination_mut().replies.extend(replies);
    // Nothing is sent again meanwhile.
    let budget = Budget { settled: 20, dispatched: 0, ..Budget::default() };
    let left: Vec<_> = (0..6)
        .map(|_| {
            engine.decide(&host, NOW, &budget);
            owed(&engine)
        })
        .collect();
    assert_eq!(left, [80, 60, 40, 20, 5, 5], "replies and losses alike");
}

#[test]
fn what_is_encoded_for_one_connection_does_not_leave_by_the_next() {
    let mut host = Tombstones { origin: SrcId(5), ..Tombstones::default() };
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    let decide = |engine: &mut Engine, host: &Tombstones| {
        engine.decide(host, NOW, &Budget::default());
    };
    let serve = |engine: &mut Engine, host: &mut Tombstones| {
        engine.serve(host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
    };
    engine.destination_mut().busy = true;
    submit(&mut engine, 10);
    decide(&mut engine, &host);
    serve(&mut engine, &mut host);
    // The connection is lost and found again, and now a hello is said.
    let destination = engine.destination_mut();
    destination.busy = false;
    destination.lose(0);
    destination.open(Some(SrcId(7)));
    serve(&mut engine, &mut host);
    assert!(engine.destination().tags.is_empty(), "of the new connection nothing is known yet");
    decide(&mut engine, &host);
    serve(&mut engine, &mut host);
    assert_eq!(engine.destination().tags.len(), 10, "it was encoded anew");
    let after_hello = std::mem::take(&mut engine.destination_mut().batch);
    // And the other way round, where the engine hears of it before it serves.
    engine.destination_mut().lose(10);
    engine.destination_mut().busy = true;
    for _ in 0..3 {
        decide(&mut engine, &host);
        serve(&mut engine, &mut host);
    }
    engine.destination_mut().busy = false;
    engine.destination_mut().open(None);
    decide(&mut engine, &host);
    serve(&mut engine, &mut host);
    decide(&mut engine, &host);
    serve(&mut engine, &mut host);
    let destination = engine.destination();
    assert_eq!(destination.tags.len(), 10);
    assert!(destination.batch.len() < after_hello.len(), "who says no hello takes no origin");
}

/// What is to be sent is, and the last of it is answered.
fn answer(engine: &mut Engine, host: &mut Tombstones, code: ResultCode) {
    for _ in 0..100 {
        engine.decide(host, NOW, &Budget::default());
        engine.serve(host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
    }
    let tag = engine.destination_mut().tags.pop().unwrap();
    engine.destination_mut().replies.push(Reply { tag, code });
    engine.decide(host, NOW, &Budget::default());
}

/// The same with a refusal, whose letter is kept.
fn refuse(engine: &mut Engine, host: &mut Tombstones) -> Letter {
    answer(engine, host, ResultCode::PARAMETER);
    let news = engine.take_news();
    let letter = news.iter().find_map(|news| match news {
        Notice::Abandoned(burial) => Some(burial.letters[0].clone()),
        _ => None,
    });
    let (slot, letter) = letter.unwrap();
    engine.buried(&[(slot, true)], None, NOW);
    letter
}

/// A change was refused, and its letter is replayed.
fn replaying(host: &mut Tombstones) -> (Engine, Letter) {
    let mut engine = engine(host, &[(NS, Beginning::Now)]);
    submit(&mut engine, 1);
    let letter = refuse(&mut engine, host);
    engine.replay(host, NS, std::slice::from_ref(&letter), NOW);
    (engine, letter)
}

#[test]
fn a_replay_that_its_destination_may_have_lost_leaves_its_letter() {
    let mut host = Tombstones::default();
    let (mut engine, _) = replaying(&mut host);
    answer(&mut engine, &mut host, ResultCode::OK);
    engine.take_news();
    let (node, src_id, loss_window_ms) = (NodeIndex(0), SrcId::NONE, 1000);
    let (previous_boot, boot, last_answer) = (1, 2, None);
    let reboot = Reboot { node, previous_boot, boot, last_answer, loss_window_ms, src_id };
    engine.destination_mut().notices.push(NodeEvent::Rebooted(reboot));
    engine.decide(&host, NOW, &Budget::default());
    let news = engine.take_news();
    assert!(matches!(&news[..], [Notice::ReplayDropped { .. }]), "{news:?}");
    assert_eq!(engine.rules().dc_stats().dead_letters, 1);
}

#[test]
fn a_replay_that_is_refused_again_leaves_its_letter_for_all_who_count_it() {
    let mut host = Tombstones::default();
    let (mut engine, letter) = replaying(&mut host);
    refuse(&mut engine, &mut host);
    engine.note_settled_replays();
    let news = engine.take_news();
    assert!(
        matches!(&news[..], [Notice::ReplayDropped { letters, .. }] if *letters == [letter.digest]),
        "{news:?}"
    );
    assert_eq!(engine.rules().dc_stats().dead_letters, 1);
}

#[test]
fn a_replay_is_not_settled_while_it_waits_though_the_clock_is_behind_its_letter() {
    let mut host = Tombstones::default();
    let (_, letter) = replaying(&mut host);
    let letter = Letter { lut: CLOCK.minus_ms(200), ..letter };
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    host.late_ms = 500;
    engine.replay(&host, NS, &[letter], NOW);
    engine.sweep_now(&host);
    let is_settled = |news: &Notice| matches!(news, Notice::ReplaySettled { .. });
    assert!(!engine.take_news().iter().any(is_settled));
    assert_eq!(engine.rules().dc_stats().gauges.in_queue, 1);
}

#[test]
fn a_replay_that_joins_a_newer_change_is_settled_with_it_though_the_clock_is_behind() {
    let mut host = Tombstones::default();
    let (_, letter) = replaying(&mut host);
    let letter = Letter { lut: CLOCK.minus_ms(700), ..letter };
    host.late_ms = 500;
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    let newer = Version::first_of(CLOCK.minus_ms(100));
    engine.submit(&Change { version: newer, ..change_of(NS, 0) }, "", NOW, || NOW.tick);
    let budget = Budget::default();
    while engine.destination().tags.is_empty() {
        engine.decide(&host, NOW, &budget);
        engine.serve(&mut host, &|bytes| Some(vec![0; bytes]), NOW, &budget);
    }
    engine.replay(&host, NS, &[letter], NOW);
    answer(&mut engine, &mut host, ResultCode::OK);
    let mut is_settled_at = |late_ms| {
        host.late_ms = late_ms;
        engine.sweep_now(&host);
        let is_settled = |news: &Notice| matches!(news, Notice::ReplaySettled { .. });
        engine.take_news().iter().any(is_settled)
    };
    assert!(!is_settled_at(200), "a crash may still take the newer change back");
    assert!(is_settled_at(0));
}

#[test]
fn letters_leave_for_good_with_positions_that_are_taken_after_what_they_left_for() {
    let mut host = Tombstones::default();
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    engine.decide(&host, NOW, &Budget::default());
    engine.letters_kept(NS, &[(Digest([0; 20]), Lut::from_ms(1))]);
    let left = |engine: &Engine| engine.left(NS).map(|left| left.upto.number);
    assert_eq!(left(&engine), None, "no positions were taken");
    engine.take_left(NS);
    host.is_empty = true;
    engine.note_outdated_letters(&host);
    let news = engine.take_news();
    let [.., Notice::LettersOutdated { leaving, .. }] = &news[..] else { panic!("{news:?}") };
    assert!(left(&engine) < Some(leaving.number), "it was taken before");
    engine.take_left(NS);
    assert_eq!(left(&engine), Some(leaving.number));
}

#[test]
fn an_answer_of_a_node_that_is_the_wrong_one_has_the_map_asked_for_again() {
    let mut host = Tombstones::default();
    let mut engine = engine(&host, &[(NS, Beginning::Now)]);
    let mut poked_by = |code| {
        send(&mut engine, &mut host, 1);
        let tag = engine.destination_mut().tags.pop().unwrap();
        let before = engine.destination().poked;
        engine.destination_mut().replies.push(Reply { tag, code });
        engine.decide(&host, NOW, &Budget { dispatched: 0, ..Budget::default() });
        engine.destination().poked - before
    };
    assert_eq!(poked_by(ResultCode::OK), 0);
    assert_eq!(poked_by(ResultCode::UNAVAILABLE), 1);
}

#[test]
fn a_dc_that_is_attached_or_rewound_pins_tombstones_before_it_is_answered() {
    let mut host = Tombstones::default();
    let mut checkpoints = Checkpoints::new(ShardIndex(0), 1, 1);
    // Nobody needs any: a raid may take all.
    checkpoints.take(&[], &mut host);
    checkpoints.flushed(&host, false);
    checkpoints.stored(1, &mut host);
    assert!(host.settled.iter().all(|(_, lst)| lst.is_none()));

    let from = |ms| Beginning::At(Arc::from(vec![Some(Lut::from_ms(ms)); PARTITION_COUNT]));
    let mut engine = engine(&host, &[(NS, from(700_000))]);
    let begin = |engine: &Engine, checkpoints: &mut Checkpoints, host: &mut Tombstones| {
        let mut marks = Vec::new();
        engine.marks(&mut marks);
        host.needed.clear();
        checkpoints.begin(&marks, host);
    };
    begin(&engine, &mut checkpoints, &mut host);
    let is_pinned = |host: &Tombstones, at: Lut| {
        host.needed.len() == PARTITION_COUNT
            && host.needed.iter().all(|(_, from)| *from <= at)
            && host.settled.iter().all(|(_, lst)| lst.is_some_and(|lst| lst <= at))
    };
    assert!(is_pinned(&host, Lut::from_ms(700_000)), "attached");

    // Positions that were taken before say nothing of lanes that were moved since.
    let mut marks = Vec::new();
    engine.marks(&mut marks);
    checkpoints.take(&marks, &mut host);
    checkpoints.flushed(&host, false);
    engine.configure(&host, &config(), &[(NS, from(300_000))], NOW);
    begin(&engine, &mut checkpoints, &mut host);
    assert!(is_pinned(&host, Lut::from_ms(300_000)), "rewound");
    checkpoints.stored(1, &mut host);
    assert!(is_pinned(&host, Lut::from_ms(300_000)), "an older checkpoint is stored afterwards");
}

/// Seconds of a DC of two namespaces: every second another change of the first is made, sent and
/// answered, and of the second nothing is answered that was sent before. Gives what figures tell.
fn problem_at(engine: &mut Engine, host: &mut Tombstones, seconds: Range<u32>) -> Option<String> {
    let mut problem = None;
    for second in seconds {
        let now = Now { tick: NOW.tick.plus_ms(u64::from(second) * 1000), wall: CLOCK };
        let unanswered = engine.destination().tags.len();
        submit_some(engine, NS, 100 * second..100 * second + 20, now);
        for _ in 0..20 {
            engine.decide(host, now, &Budget::default());
            engine.serve(host, &|bytes| Some(vec![0; bytes]), now, &Budget::default());
        }
        let destination = engine.destination_mut();
        let answered = destination.tags.split_off(unanswered);
        let replies = answered.into_iter().map(|tag| Reply { tag, code: ResultCode::OK });
        destination.replies.extend(replies);
        engine.decide(host, now, &Budget::default());
        problem = engine.report(host, now, CLOCK, &None).problem;
    }
    problem
}

/// One that ships these of two namespaces.
fn config_of(settings: &[(&str, u32)]) -> DcConfig {
    let namespaces = settings.iter().map(|&(name, max_throughput)| DcNamespaceConfig {
        max_throughput,
        ..DcNamespaceConfig::named(name)
    });
    let seeds = vec![("there".to_owned(), 3000)];
    DcConfig { namespaces: namespaces.collect(), seeds, ..DcConfig::named("west") }
}

fn two_namespaces(host: &Tombstones, settings: [u32; 2]) -> Engine {
    let mut engine = bare(["first", "second"].into_iter());
    let [first, second] = settings;
    engine.configure(host, &config_of(&[("first", first), ("second", second)]), &[], NOW);
    engine.destination_mut().open(None);
    engine
}

#[test]
fn partitions_without_a_node_are_told_of_whatever_else_ships() {
    let mut host = Tombstones::default();
    let mut engine = two_namespaces(&host, [100, 1_000_000]);
    let second = NamespaceId(1);
    engine.destination_mut().lacks = Some(|namespace, _| namespace == NamespaceId(1));
    submit_some(&mut engine, second, 0..5, NOW);
    // The first is throttled, with a backlog.
    submit_some(&mut engine, NS, 50_000..60_000, NOW);
    assert_eq!(problem_at(&mut engine, &mut host, 0..3), None, "a map that changes has such");
    let words = "5 partitions of namespace second have no node at the destination: look at its";
    let problem = problem_at(&mut engine, &mut host, 3..6).unwrap();
    assert!(problem.starts_with(words), "{problem}");
    submit_some(&mut engine, second, 5..7, NOW);
    let problem = problem_at(&mut engine, &mut host, 6..9).unwrap();
    assert!(problem.starts_with("7 partitions of namespace second"), "{problem}");
    let told = |engine: &mut Engine| {
        let news = engine.take_news().into_iter().filter_map(|news| match news {
            Notice::Troubles { troubles, .. } => Some(troubles),
            _ => None,
        });
        news.collect::<Vec<_>>()
    };
    let namespace = "second".to_owned();
    assert_eq!(told(&mut engine), [[Trouble::NoNode { namespace }]], "once");
    engine.destination_mut().lacks = None;
    let now = Now { tick: NOW.tick.plus_ms(8500), wall: CLOCK };
    let problem = engine.report(&host, now, CLOCK, &None).problem.unwrap();
    assert!(problem.starts_with("nothing of namespace second"), "they have one at once: {problem}");
    engine.destination_mut().notices.push(NodeEvent::MapChanged);
    assert_eq!(problem_at(&mut engine, &mut host, 9..12), None);
    assert_eq!(told(&mut engine), [[]]);
}

#[test]
fn a_namespace_that_stands_still_is_told_of_whatever_its_neighbours_do() {
    let mut host = Tombstones::default();
    let mut engine = two_namespaces(&host, [100, 1_000_000]);
    submit_some(&mut engine, NamespaceId(1), 0..5, NOW);
    for _ in 0..20 {
        engine.decide(&host, NOW, &Budget::default());
        engine.serve(&mut host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
    }
    assert_eq!(engine.destination().tags.len(), 5, "sent, and never answered");
    submit_some(&mut engine, NS, 50_000..60_000, NOW);
    assert_eq!(problem_at(&mut engine, &mut host, 0..3), None);
    let problem = problem_at(&mut engine, &mut host, 3..6).unwrap();
    assert!(problem.starts_with("nothing of namespace second was settled for"), "{problem}");
}

#[test]
fn a_namespace_that_comes_back_waits_for_no_read_of_before_and_sends_none() {
    let mut host = Tombstones { on_device: vec![NS], ..Tombstones::default() };
    let mut engine = two_namespaces(&host, [1_000_000; 2]);
    let go = |engine: &mut Engine, host: &mut Tombstones| {
        for _ in 0..3 {
            let _ = engine.poll_reads(host, &mut Context::from_waker(Waker::noop()));
            engine.serve(host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
            engine.decide(host, NOW, &Budget::default());
        }
    };
    submit_some(&mut engine, NS, 0..5, NOW);
    go(&mut engine, &mut host);
    assert_eq!(host.reading.len(), 2, "and others wait for them");
    engine.configure(&host, &config_of(&[("second", 1_000_000)]), &[], NOW);
    let both = config_of(&[("first", 1_000_000), ("second", 1_000_000)]);
    engine.configure(&host, &both, &[(NS, Beginning::Now)], NOW);
    host.on_device.clear();
    submit_some(&mut engine, NS, 0..3, NOW);
    submit_some(&mut engine, NamespaceId(1), 0..4, NOW);
    go(&mut engine, &mut host);
    assert_eq!(engine.destination().tags.len(), 7, "though the device has not answered");
    host.finish_reads();
    go(&mut engine, &mut host);
    assert_eq!(engine.destination().tags.len(), 7, "what was read is not sent beside them");
    assert_eq!(engine.rules().dc_stats().gauges.in_progress, 7);
}

#[test]
fn a_namespace_that_waits_for_what_it_left_is_told_of_and_its_neighbour_ships() {
    let mut host = Tombstones::default();
    let mut engine = two_namespaces(&host, [1_000_000; 2]);
    submit_some(&mut engine, NS, 0..5, NOW);
    let go = |engine: &mut Engine, host: &mut Tombstones| {
        for _ in 0..3 {
            engine.decide(host, NOW, &Budget::default());
            engine.serve(host, &|bytes| Some(vec![0; bytes]), NOW, &Budget::default());
        }
        engine.destination().tags.len()
    };
    assert_eq!(go(&mut engine, &mut host), 5);
    engine.configure(&host, &config_of(&[("second", 1_000_000)]), &[], NOW);
    let both = config_of(&[("first", 1_000_000), ("second", 1_000_000)]);
    engine.configure(&host, &both, &[(NS, Beginning::Now)], NOW);
    submit_some(&mut engine, NS, 5..8, NOW);
    submit_some(&mut engine, NamespaceId(1), 0..4, NOW);
    assert_eq!(go(&mut engine, &mut host), 5 + 4);
    let problem = |engine: &Engine, host: &Tombstones, at_ms: u64| {
        let now = Now { tick: Tick(at_ms * 1000), ..NOW };
        engine.report(host, now, CLOCK, &None).problem
    };
    let told = "namespace first ships nothing yet: what was sent of it before it was removed is \
                not answered";
    assert_eq!(problem(&engine, &host, 0).as_deref(), Some(told));
    engine.destination_mut().lose(9);
    assert_eq!(go(&mut engine, &mut host), 4, "the neighbour's are sent again");
    let told = "namespace first ships nothing for 5 s: what was sent of it before it was removed \
                may still arrive";
    assert_eq!(problem(&engine, &host, 10_000).as_deref(), Some(told));
}

/// Decides and serves all there is, with memory for so many batches. Gives how many it took.
fn serve_with(engine: &mut Engine, host: &mut Tombstones, batches: usize) -> (Served, usize) {
    let left = Cell::new(batches);
    let memory = |bytes: usize| {
        left.set(left.get().checked_sub(1)?);
        Some(vec![0; bytes])
    };
    let all = 1 << 17;
    let budget = Budget {
        dispatched: all,
        waiting: all as usize,
        served: all as usize,
        ..Budget::default()
    };
    engine.decide(host, NOW, &budget);
    (engine.serve(host, &memory, NOW, &budget), batches - left.get())
}

/// Positions among what was sent at which changes of a namespace went.
fn positions_of(engine: &Engine, namespace: NamespaceId, all: &[Dispatch]) -> Vec<usize> {
    let slots: Vec<u32> =
        all.iter().filter(|of| of.namespace == namespace).map(|of| of.slot).collect();
    let tags = engine.destination().tags.iter().enumerate();
    tags.filter(|(_, tag)| slots.contains(tag)).map(|(at, _)| at).collect()
}

#[test]
fn what_waits_for_a_connection_has_a_bound_and_others_come_next_when_some_has_left() {
    let (mut host, second) = (Tombstones::default(), NamespaceId(1));
    let mut engine = two_namespaces(&host, [1_000_000; 2]);
    engine.destination_mut().busy = true;
    submit_some(&mut engine, NS, 0..90_000, NOW);
    submit_some(&mut engine, second, 0..10, NOW);
    let (served, batches) = serve_with(&mut engine, &mut host, 1000);
    assert!((64..=66).contains(&batches), "{batches} of 64 KiB");
    let all = engine.dispatched().to_vec();
    assert_eq!(all.len(), 90_010, "decided at once");
    assert!(!served.more, "until the connection takes something");
    engine.destination_mut().busy = false;
    assert!(serve_with(&mut engine, &mut host, 1000).0.more, "there is room again");
    let sent = engine.destination().tags.len();
    serve_with(&mut engine, &mut host, 1000);
    // One was encoded already, for the batch that is open.
    let turn: Vec<usize> = (sent + 1..sent + 11).collect();
    assert_eq!(positions_of(&engine, second, &all), turn);
}

#[test]
fn who_used_the_memory_up_gets_the_next_after_others() {
    let (mut host, second) = (Tombstones::default(), NamespaceId(1));
    let mut engine = two_namespaces(&host, [1_000_000; 2]);
    submit_some(&mut engine, NS, 0..9000, NOW);
    submit_some(&mut engine, second, 0..10, NOW);
    serve_with(&mut engine, &mut host, 1);
    let all = engine.dispatched().to_vec();
    let sent = engine.destination().tags.len();
    serve_with(&mut engine, &mut host, 1);
    let turn: Vec<usize> = (sent..sent + 10).collect();
    assert_eq!(positions_of(&engine, second, &all), turn);
}
