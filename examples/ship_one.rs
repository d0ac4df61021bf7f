//! Drives the shipping rules by hand, without I/O: one record is written, shipped, refused once for
//! lack of time, shipped again and acknowledged, and the lane's position follows.
//!
//! Run it with `cargo run --example ship_one`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use longship::config::DcNamespaceConfig;
use longship::model::{
    Change, ChangeKind, Digest, Generation, Lut, NamespaceId, PartitionId, RecordFlags, RecordView,
    SetId, SrcId, Tick, Version, VoidTime,
};
use longship::ship::{
    BATCH_BYTES, Batch, DcShard, Limits, Now, Outcome, Policy, Room, Routes, Start, Target, encode,
    judge,
};
use longship::wire::ResultCode;

/// A destination of one node that masters everything and always has room.
struct OneNode;

impl Routes for OneNode {
    fn room(&mut self, _: NamespaceId, _: PartitionId) -> Room {
        Room::Yes(0)
    }

    fn is_full(&self, _: u16) -> bool {
        false
    }

    fn has_node(&self, _: NamespaceId, _: PartitionId) -> bool {
        true
    }
}

fn main() {
    let namespace = NamespaceId(0);
    let at = |ms: u64| Now { tick: Tick(ms * 1000), wall: Lut::from_ms(1_000_000 + ms) };
    let clock = |ms: u64| move |_| Lut::from_ms(1_000_000 + ms);

    // One DC, on the only shard, shipping one namespace from now on.
    let mut dc = DcShard::new(Limits::default(), 0, 1);
    let policy = Policy::new(&DcNamespaceConfig::named("test"), 0, 1);
    dc.attach(namespace, policy, clock(0)(namespace), at(0), |_| Start::Now);

    // A client writes a record: the writer submits the change, which is queued.
    let digest = Digest::of_string("demo", "user1");
    let version = Version::first_of(Lut::from_ms(1_000_010));
    let change = Change {
        namespace,
        digest,
        version,
        previous_lut: None,
        set: SetId(1),
        kind: ChangeKind::Write,
        shipped: false,
        src_id: SrcId::NONE,
    };
    println!("submitted:  {:?}", dc.submit(&change, "demo", at(10)));

    let mut out = Vec::new();
    let answers = [(20, ResultCode::TIMEOUT), (40, ResultCode::OK)];
    for (ms, answer) in answers {
        // The DC task picks what may ship now.
        out.clear();
        let idle = dc.dispatch(at(ms), &mut OneNode, &mut out, 100);
        println!("dispatched: {} at {ms} ms, then {idle:?}", out.len());

        // A service task reads the record, judges it and encodes it into the open batch.
        let record = RecordView {
            digest,
            version,
            local_lut: version.lut(),
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
            set: "demo",
            key: &[],
            bin_count: 1,
            bins: &[0, 0, 0, 7, 2, 3, 0, 1, b's', b'h', b'i'],
        };
        let mut batch = Batch::new(vec![0; BATCH_BYTES], Vec::new());
        for dispatch in &out {
            let policy = dc.policy(namespace).expect("attached above");
            let judgement = judge(&record, policy, SrcId::NONE, at(ms).wall);
            let target = Target {
                takes_origin: true,
                source: SrcId(1),
                plain_deletes: dispatch.plain_delete,
            };
            let written = batch.push(dispatch.slot, |room| {
                encode(&record, judgement, policy, target, at(ms).wall, room)
            });
            if let Some(Ok(frame)) = written {
                println!("encoded:    {:?}, {} bytes", frame.sent, frame.bytes);
                dc.sent(dispatch.slot, record.version, frame.sent, frame.bytes);
            }
        }

        // Replies come back in order; each becomes a verdict.
        for &slot in batch.slots() {
            let settled = dc.settle(slot, Outcome::Reply(answer), at(ms + 1));
            println!("answered:   {answer}, {settled:?}");
        }
        while dc.sweep(1000, clock(ms + 5)) == longship::ship::SweepStep::More {}
        let lst = dc.lst(namespace, digest.partition()).expect("attached above");
        println!("LST:        {lst}, the change has {}", version.lut());
    }
    let stats = dc.dc_stats();
    let sum = stats.check_sum();
    println!("counted:    {:?}", stats.counters);
    println!("adds up:    {} taken, {} accounted for", sum.taken, sum.accounted);
}
