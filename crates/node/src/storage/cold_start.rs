//! Starting: the index from a checkpoint of a clean stop ([`super::warm`]), or from the log.
//!
//! A shard reads the header of each of its blocks, then every block that has one, several at a
//! time, and enters what it finds: the newest version of a record wins, wherever it lies. Records
//! of other shards (there are some after a restart with another number of shards) are handed to
//! them. When all shards have read everything, each claims the foreign blocks its records lie in,
//! and when all have done that, blocks without anything alive are free.
//!
//! A block that was open when the process died has no trailer; what a torn write left at its end
//! was never acknowledged as durable. Damage anywhere else is reported with device and offset,
//! costs only the records it hit, and is counted in the volume's [`super::damage::Damage`]: blocks
//! know how many records were written to them, and vouch for each other (see [`super::block`]). The
//! index is made of what can be read, so nothing is alive in a page that cannot. Before the node
//! works on, zeros are written over such a page ([`heal`]): should the device read it again some
//! day, nothing in it comes back.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use super::block::{
    BLOCK_HEADER_BYTES, BLOCK_TRAILER_BYTES, BlockHeader, BlockName, BlockTrailer, Filling, Former,
    HeaderFound, LutRange, MovedTo, WRITE_ALIGN, lose_header, record_extent_max,
};
use super::damage::{DamagedPlace, FillingLeft, Harm};
use super::flat::{Flat, RECORD_HEADER_BYTES};
use super::index::{BlockId, IndexEntry, Location, SET_ID_MAX};
use super::loss::CrashCost;
use super::space::Space;
use super::store::SharedStore;
use super::volume::Volume;
use super::warm::{self, Saved};
use super::whole::{self, BlockContent};
use longship::model::{
    Digest, Lut, NamespaceId, PartitionId, RecordView, SetId, ShardIndex, Version,
};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::{AppendBuffer, Arena, Buffer};
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{Completions, DiskRing, Done, FileId};
use longship_rt::event::Event;
use longship_rt::prefetch;
use longship_rt::shard::yield_now;

/// Header reads under way at a time.
const HEADERS_IN_FLIGHT: usize = 32;
/// Bytes of block reads under way at a time.
const BLOCK_BYTES_IN_FLIGHT: usize = 8 << 20;
/// Blank blocks looked at for a trailer behind the last one written, since a few blocks may be
/// taken out of turn.
const BLANKS_CHECKED: usize = 64;
/// When a 1024th of the blocks has been read, and again at a 256th, a 64th, a 16th and a quarter,
/// the index is made ready for four times the records it has then. Splitting buckets before they
/// fill touches few slots: 5 million records are entered in half the time. Where the rest of the
/// log holds less, there are four times too many buckets at most, 12 bytes a record.
const GROW_AT_HALVINGS: [u32; 5] = [10, 8, 6, 4, 2];
const GROW_TIMES: usize = 4;
/// Records handed over in one message.
const BATCH_RECORDS: usize = 256;
/// Messages waiting for a shard at most.
const INBOX_MESSAGES: usize = 64;
/// Wait of a shard that has nothing to do but to wait for others: what they send comes through a
/// channel of threads, which wakes no task, and soon, as all read at once.
const PAUSE_US: u64 = 200;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColdStartError {
    /// The arena has no room for a single block.
    #[error("the buffer memory of the shard holds no block of {bytes} bytes")]
    NoMemory {
        /// Bytes that were wanted.
        bytes: usize,
    },
    /// The records of a namespace are in more sets than there are numbers for.
    #[error(
        "namespace {namespace} holds records of more than {SET_ID_MAX} sets on one shard: start it \
         with more `shards`"
    )]
    TooManySets {
        /// The namespace.
        namespace: String,
    },
    /// A checkpoint is whole and contradicts itself. It is gone; the next start reads the log.
    #[error("the checkpoint of namespace {namespace} contradicts itself; start again")]
    Checkpoint {
        /// The namespace.
        namespace: String,
    },
    /// Another shard has given up.
    #[error("another shard could not read its part of the log")]
    PeerGone,
}

/// What cold start found on a shard's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdStartReport {
    /// Blocks read.
    pub blocks: u64,
    /// Records read, superseded versions included.
    pub records: u64,
    /// Blocks that were open when the process ended.
    pub open_blocks: u64,
    /// Blocks whose header or trailer is damaged; their records were looked for all the same.
    pub damaged_blocks: u64,
    /// Records lost to damage in closed blocks.
    pub damaged_records: u64,
    /// Torn ends of open blocks: never acknowledged as durable.
    pub torn_records: u64,
    /// Blocks the device could not read.
    pub unreadable_blocks: u64,
    /// Highest version and block sequence met.
    pub highest_version: Version,
    /// Namespaces whose index came from a checkpoint: of their blocks only headers were read.
    pub warm: u32,
    /// Namespaces whose log was read.
    pub cold: u32,
}

/// A record for the shard that owns it.
struct OthersRecord {
    namespace: NamespaceId,
    entry: IndexEntry,
    set: Box<str>,
}

enum Message {
    /// The namespaces of which the sender has a checkpoint that agrees with their devices: a bit each.
    CanStartWarm(u32),
    Records(Vec<OthersRecord>),
    /// The sender has read all of its blocks.
    Scanned,
    /// The sender has claimed the foreign blocks it needs.
    Claimed,
}

/// A shard's end of the exchange.
pub struct Peer {
    shard: ShardIndex,
    to: Vec<SyncSender<Message>>,
    from: Receiver<Message>,
    outbox: Vec<Vec<OthersRecord>>,
    /// Shards that have told which namespaces they can start warm, and those that all of them can.
    told: usize,
    warm: u32,
    scanned: usize,
    claimed: usize,
}

/// Makes the ends of an exchange, one for each shard.
pub fn peers(shard_count: u16) -> Vec<Peer> {
    let channels: Vec<_> = (0..shard_count).map(|_| sync_channel(INBOX_MESSAGES)).collect();
    let to: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
    let peer = |(shard, (_, from)): (usize, (_, _))| Peer {
        shard: ShardIndex(shard as u16),
        to: to.clone(),
        from,
        outbox: (0..shard_count).map(|_| Vec::new()).collect(),
        told: 0,
        warm: u32::MAX,
        scanned: 0,
        claimed: 0,
    };
    channels.into_iter().enumerate().map(peer).collect()
}

/// Where blocks are read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) ring: &'a DiskRing,
    pub(super) arena: &'a Arena,
}

/// Reads all namespaces of a shard; returns when every shard is through.
pub(super) async fn run(
    reader: Reader<'_>,
    spaces: &mut [Space],
    volumes: &[&Volume],
    peer: &mut Peer,
) -> Result<ColdStartReport, ColdStartError> {
    let settled = vec![Settled::default(); volumes.len()];
    let report = ColdStartReport::default();
    let nameless = volumes.iter().map(|_| Vec::new()).collect();
    let open = vec![HashSet::new(); volumes.len()];
    let mut scan = Scan { reader, spaces, volumes, peer, report, settled, nameless, open };
    let mut found = Vec::with_capacity(volumes.len());
    for index in 0..volumes.len() {
        found.push(scan.find_blocks(index).await?);
    }
    let warm = scan.start_warm(&found).await?;
    let cold = |index: &usize| warm & (1 << index) == 0;
    // Every shard has read its headers by now, and noted what they vouch for.
    for index in (0..volumes.len()).filter(cold) {
        scan.find_lost(index, &mut found[index]);
    }
    for index in (0..volumes.len()).filter(cold) {
        scan.read_blocks(index, &found[index]).await?;
        scan.report.cold += 1;
    }
    for volume in volumes {
        volume.claims.note_clock(scan.report.highest_version);
    }
    scan.exchange().await?;
    scan.name_tombstones();
    let report = scan.report;
    for ((space, candidates), volume) in spaces.iter_mut().zip(&found).zip(volumes) {
        let horizon = &mut space.log.tombstone_horizon;
        // Every shard has read its headers by now; the messages between them order this.
        *horizon = (*horizon).max(volume.claims.horizon());
        let holes: HashSet<BlockId> = space.holes.iter().map(|(id, _)| *id).collect();
        // What was accepted holds for the filling it was found in: its block is not filled anew
        // before that is forgotten, whether this start has met the damage or not.
        let accepted = volume.accepted.blocks();
        let own = space.log.geometry().own_blocks();
        let is_accepted = |id: &BlockId| accepted.contains(&space.log.name(*id));
        let accepted: HashSet<BlockId> = own.filter(is_accepted).collect();
        space.damaged.extend(&accepted);
        space.log.note_unsound(&space.damaged);
        let written = |id| of_block(candidates, id).is_some() || accepted.contains(&id);
        space.log.sort_after_start(written, &holes);
        space.damaged.drain(..).for_each(|id| space.log.empty_soon(id));
    }
    Ok(report)
}

/// Writes zeros over what the device could not read of a namespace's blocks at a cold start. Nothing
/// alive lies there, and what lay there once must not come back. Such blocks are left alone until
/// then; and for good, if that fails.
pub(super) async fn heal(store: SharedStore, namespace: NamespaceId) {
    let holes = std::mem::take(&mut store.borrow_mut().spaces[namespace.index()].holes);
    let mut is_sound: BTreeMap<BlockId, bool> = BTreeMap::new();
    for (id, hole) in holes {
        let begun = {
            let store = store.borrow();
            let space = store.space(namespace);
            let source = space.source(&store.ring, &store.arena, id);
            store.arena.take(hole.len()).map(|buffer| {
                let zeros = AppendBuffer::new(buffer);
                zeros.append(hole.len(), |out| {
                    out.fill(0);
                    if hole.start == 0 {
                        // Not blank: what else the block holds is looked for at the next start.
                        lose_header(out);
                    }
                });
                let offset = source.offset + hole.start as u64;
                store.ring.write(source.file, offset, zeros, 0..hole.len(), true)
            })
        };
        let is_written = match begun {
            Some(write) => write.await.1.is_ok(),
            None => false,
        };
        *is_sound.entry(id).or_insert(true) &= is_written;
    }
    let mut store = store.borrow_mut();
    for (id, is_sound) in is_sound {
        let place = store.place(namespace, Location { block: id, ..Location::default() });
        match is_sound {
            true => tracing::info!("{place}: what could not be read is written over with zeros"),
            false => tracing::error!(
                "{place}: can neither be read nor written: the block is left alone; replace the device"
            ),
        }
        let space = &mut store.spaces[namespace.index()];
        let needed = space.appended();
        space.log.end_healing(id, needed, is_sound);
    }
}

/// A block that was written at least once.
#[derive(Clone, Copy)]
struct Candidate {
    id: BlockId,
    /// `None` when it is damaged.
    header: Option<BlockHeader>,
    /// The filling that others vouch for: it is there, as a whole, or a newer one. Zero for none.
    vouched: Version,
    /// It was open, and its first page is blank.
    is_beheaded: bool,
}

/// What is on the devices of a namespace since long before the process ended.
#[derive(Clone, Copy, Default)]
struct Settled {
    /// Fillings that were begun below this: the last start has met them.
    met_below: Version,
    /// What was written before this is settled.
    written_before: Lut,
    /// Of the log of moves and of that of writes: fillings begun before had arrived as a whole when a
    /// later one was begun.
    arrived: [Version; 2],
}

impl Settled {
    /// Whether a filling had arrived, of the log that its header tells, or of either.
    fn has(&self, sequence: Version, header: Option<BlockHeader>) -> bool {
        let [moves, writes] = self.arrived;
        let is_in_order = header.map(|header| header.is_in_order);
        sequence < is_in_order.map_or(moves.min(writes), |is| if is { writes } else { moves })
    }
}

impl Candidate {
    fn new(id: BlockId, header: Option<BlockHeader>) -> Self {
        Self { id, header, vouched: Version::ZERO, is_beheaded: false }
    }

    /// The filling that is there, where the header does not tell it.
    fn known(&self) -> Option<Version> {
        let of_header = self.header.map_or(Version::ZERO, |header| header.sequence);
        (self.vouched > of_header).then_some(self.vouched)
    }
}

/// Damage within a block whose records are in the order in which they were written: it was there
/// before the first record behind it.
#[derive(Default)]
struct Scars {
    count: u32,
    /// The first record behind the first.
    followed_at: Option<Lut>,
}

impl Scars {
    /// A record, behind so much damage.
    fn see(&mut self, damaged: u32, lut: Lut) {
        if damaged > self.count {
            self.count = damaged;
            self.followed_at.get_or_insert(lut);
        }
    }

    /// Whether some of it has come to what was written before.
    fn are_older_than(&self, before: Lut) -> bool {
        self.followed_at.is_some_and(|lut| lut < before)
    }
}

fn blocks_in_flight(block_bytes: usize) -> usize {
    (BLOCK_BYTES_IN_FLIGHT / block_bytes).clamp(2, 16)
}

/// When the last record of a filling was written, as a whole block has it.
fn last_lut(filling: &Filling, block: &[u8]) -> Lut {
    let records = filling.records(block, BLOCK_HEADER_BYTES, block.len() as u32);
    records.map(|(_, flat)| flat.record.version.lut()).max().unwrap_or_default()
}

/// Which records of a block are there, with one more; in order.
fn with_place(places: u64, offset: u32) -> u64 {
    places.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(offset))
}

/// The blocks that can tell when they were begun.
fn told(candidates: &[Candidate]) -> impl Iterator<Item = (BlockId, BlockHeader)> {
    candidates.iter().filter_map(|block| Some((block.id, block.header?)))
}

/// The one of them that was begun last.
fn newest(told: impl Iterator<Item = (BlockId, BlockHeader)>) -> Option<(BlockId, BlockHeader)> {
    told.max_by_key(|(_, header)| header.sequence)
}

/// The candidate with that number; they are sorted.
fn of_block(candidates: &[Candidate], id: BlockId) -> Option<&Candidate> {
    let place = candidates.binary_search_by_key(&id, |candidate| candidate.id);
    Some(&candidates[place.ok()?])
}

struct Scan<'a> {
    reader: Reader<'a>,
    spaces: &'a mut [Space],
    volumes: &'a [&'a Volume],
    peer: &'a mut Peer,
    report: ColdStartReport,
    /// Of each namespace.
    settled: Vec<Settled>,
    /// Of each, tombstones without a set though they have one: its name.
    nameless: Vec<Vec<(Digest, Version, Box<str>)>>,
    /// Of each, own blocks that were open when the process ended.
    open: Vec<HashSet<BlockId>>,
}

/// Which of two places of the same version of a record counts: the highest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// In a block that was open: the sooner it was begun, the more.
    Open(Reverse<Version>),
    /// In a block of another shard.
    Foreign,
    /// In a block that is closed: the later it was begun, the more.
    Closed(Version),
}

impl Scan<'_> {
    /// Reads the header of every own block.
    async fn find_blocks(&mut self, index: usize) -> Result<Vec<Candidate>, ColdStartError> {
        let ids: Vec<BlockId> = self.spaces[index].log.geometry().own_blocks().collect();
        let space = &self.spaces[index];
        let page = 0..WRITE_ALIGN;
        let mut reads = BlockReads::new(self.reader, space, &ids, page, HEADERS_IN_FLIGHT);
        let progress = &self.volumes[index].progress;
        progress.want_headers(ids.len() as u64);
        let mut candidates = Vec::new();
        let mut blank = Vec::new();
        let mut last_written = 0;
        while let Some((place, read)) = reads.next().await? {
            let id = ids[place];
            progress.have_header();
            let found =
                read.map(|bytes| HeaderFound::judge(&bytes, self.spaces[index].log.name(id)));
            let header = match found {
                Ok(HeaderFound::Blank) => {
                    blank.push(place);
                    continue;
                }
                Ok(HeaderFound::Alien) => continue,
                Ok(HeaderFound::Whole(header)) => {
                    self.volumes[index].claims.note_horizon(header.horizon);
                    Some(header)
                }
                // What of the block can be read is looked for when it is read.
                Ok(HeaderFound::Misplaced | HeaderFound::Damaged) | Err(_) => None,
            };
            last_written = last_written.max(place);
            candidates.push(Candidate::new(id, header));
        }
        // Blocks are taken in order. A blank one among those written may have lost its first page.
        blank.retain(|place| *place <= last_written + BLANKS_CHECKED);
        let blank: Vec<BlockId> = blank.into_iter().map(|place| ids[place]).collect();
        let (wiped, last_of_wiped) = self.find_wiped(index, &blank).await?;
        candidates.extend(wiped);
        candidates.sort_unstable_by_key(|candidate| candidate.id);
        let last_written = last_of_wiped.max(self.last_written(index, &candidates).await?);
        let reorder_ms = self.volumes[index].crash_cost.reorder_ms.into();
        self.settled[index].written_before = last_written.minus_ms(reorder_ms);
        self.vouch(index, &candidates);
        Ok(candidates)
    }

    /// When something was written last, as the blocks tell that were begun last, or do not tell when.
    /// What is missing of that was not durable.
    async fn last_written(
        &self,
        index: usize,
        candidates: &[Candidate],
    ) -> Result<Lut, ColdStartError> {
        let (space, block_bytes) = (&self.spaces[index], self.volumes[index].block_bytes);
        let in_order = told(candidates).filter(|(_, header)| header.is_in_order);
        let newest = [newest(told(candidates)), newest(in_order)];
        let newest = newest.into_iter().flatten().map(|(id, header)| (id, Some(header.sequence)));
        let headless = candidates.iter().filter(|it| it.header.is_none() && !it.is_beheaded);
        let newest: BTreeMap<BlockId, Option<Version>> =
            newest.chain(headless.map(|it| (it.id, None))).collect();
        let mut last = newest.values().flatten().map(|it| it.lut()).max().unwrap_or_default();
        let (ids, sequences): (Vec<_>, Vec<_>) = newest.into_iter().unzip();
        let whole = 0..block_bytes as usize;
        let mut reads = BlockReads::new(self.reader, space, &ids, whole, 1);
        while let Some((place, read)) = reads.next().await? {
            let Ok(bytes) = read else { continue };
            let block = &bytes[..block_bytes as usize];
            let filling = Filling::judge(block, space.log.name(ids[place]), sequences[place]);
            last = filling.map_or(last, |filling| last.max(last_lut(&filling, block)));
        }
        Ok(last)
    }

    /// Notes what headers vouch for. What was written shortly before the power failed may not have
    /// reached the device, in whatever order, and was not durable: nothing vouches for that, nor for what
    /// was on its way when the process died.
    fn vouch(&mut self, index: usize, candidates: &[Candidate]) {
        // A stop in good order leaves nothing on its way.
        self.settled[index].arrived = [self.volumes[index].whole_below; 2];
        // What others filled was met by the start at which their blocks became this shard's.
        let shard = newest(told(candidates)).map(|(_, header)| header.shard);
        for (_, header) in told(candidates).filter(|(_, header)| Some(header.shard) == shard) {
            let arrived = &mut self.settled[index].arrived[usize::from(header.is_in_order)];
            *arrived = header.arrived.max(*arrived);
        }
        let (space, volume) = (&self.spaces[index], self.volumes[index]);
        let written_before = self.settled[index].written_before;
        for (_, header) in told(candidates) {
            let MovedTo { filling, bytes } = header.moved_to;
            match space.log.find(&filling) {
                Some(id) if bytes == volume.block_bytes => {
                    volume.claims.vouch(id, filling.sequence)
                }
                Some(id) => volume.claims.vouch_to(id, (filling.sequence, bytes)),
                None => {}
            }
            let Some(former) = space.log.find(&header.former) else { continue };
            let had_arrived = header.former.sequence < header.arrived.max(volume.whole_below);
            let had_arrived = volume.had_power && had_arrived;
            match had_arrived || header.sequence.lut() < written_before {
                true => volume.claims.vouch(former, header.former.sequence),
                false => volume.claims.doubt(former, header.former.sequence),
            }
        }
    }

    /// Of blocks whose first page is blank, those that hold something all the same: a trailer or, where
    /// one may have been open, records. Tells when the last record of such was written, too.
    async fn find_wiped(
        &self,
        index: usize,
        blank: &[BlockId],
    ) -> Result<(Vec<Candidate>, Lut), ColdStartError> {
        let (space, volume) = (&self.spaces[index], self.volumes[index]);
        let block_bytes = volume.block_bytes as usize;
        let (part, in_flight) = match volume.crash_cost == CrashCost::default() {
            true => (block_bytes - WRITE_ALIGN..block_bytes, HEADERS_IN_FLIGHT),
            false => (0..block_bytes, blocks_in_flight(block_bytes)),
        };
        let (is_whole, bytes) = (part.start == 0, part.len());
        let mut reads = BlockReads::new(self.reader, space, blank, part, in_flight);
        let (mut wiped, mut last) = (Vec::new(), Lut::ZERO);
        while let Some((place, read)) = reads.next().await? {
            let (Ok(mut read), id) = (read, blank[place]) else { continue };
            let block = &mut read[..bytes];
            let is_closed = BlockTrailer::decode(block).is_some();
            if is_whole && block.iter().any(|byte| *byte != 0) {
                lose_header(block);
            }
            // The trailer may be of the filling before.
            let filling = Filling::judge(block, space.log.name(id), None).filter(|_| is_whole);
            if let Some(filling) = filling.filter(|filling| filling.trailer.is_none()) {
                last = last.max(last_lut(&filling, block));
                wiped.push(Candidate { is_beheaded: true, ..Candidate::new(id, None) });
            } else if is_closed {
                wiped.push(Candidate::new(id, None));
            }
        }
        Ok((wiped, last))
    }

    /// Adds the blocks that hold nothing of ours and were written all the same, and notes of each
    /// what others vouch for.
    fn find_lost(&mut self, index: usize, candidates: &mut Vec<Candidate>) {
        let (space, volume) = (&self.spaces[index], self.volumes[index]);
        let Some((_, header)) = newest(told(candidates)) else { return };
        let (mut lost, mut blank) = (Vec::new(), Vec::new());
        for id in space.log.geometry().own_blocks() {
            let vouched = volume.claims.vouched(id);
            let known = candidates.binary_search_by_key(&id, |candidate| candidate.id);
            // What the last start has met of it, unless it was filled anew.
            let open = volume.accepted.open(space.log.name(id)).map(|filling| filling.sequence);
            let begun = volume.claims.vouched_to(id).map(|(sequence, _)| sequence);
            let open = open.max(begun).unwrap_or_default();
            match known {
                Ok(at) => {
                    let is_older = candidates[at].header.is_some_and(|it| it.sequence < open);
                    candidates[at].vouched = if is_older { vouched.max(open) } else { vouched };
                }
                Err(_) if open > Version::ZERO => {
                    let vouched = vouched.max(open);
                    lost.push(Candidate { vouched, ..Candidate::new(id, None) });
                }
                Err(_) if vouched == Version::ZERO => {
                    blank.push(id);
                    self.note_taken(index, id, None);
                }
                Err(_) => lost.push(Candidate { vouched, ..Candidate::new(id, None) }),
            }
        }
        if header.layout == space.log.layout() {
            // Blocks are taken in order: the first ones were written.
            let excess = blank.len().saturating_sub(header.blank_max as usize);
            lost.extend(blank.into_iter().take(excess).map(|id| Candidate::new(id, None)));
        }
        candidates.extend(lost);
        candidates.sort_unstable_by_key(|candidate| candidate.id);
        // What a process that died has left was not flushed when it was met, but is by now.
        let began = volume.accepted.began(volume.id);
        let is_flushed = volume.had_power || began.lut() < self.settled[index].written_before;
        self.settled[index].met_below = if is_flushed { began } else { Version::ZERO };
    }

    /// Starts each namespace from checkpoints that every shard can start from its own; the files are
    /// gone afterwards in any case. Gives those namespaces, a bit each.
    async fn start_warm(&mut self, found: &[Vec<Candidate>]) -> Result<u32, ColdStartError> {
        let shard = self.peer.shard;
        let take = |index: usize| {
            let saved = warm::take(self.volumes[index], shard)?;
            let header = |id| of_block(&found[index], id).map(|candidate| candidate.header);
            let agrees = saved.agrees_with(&self.spaces[index], header);
            if !agrees {
                let namespace = &self.volumes[index].namespace;
                tracing::warn!(
                    "namespace {namespace}: the checkpoint is not of this log: reading it"
                );
            }
            Some((index, saved, agrees))
        };
        // All are taken away, also behind one that does not count.
        let saved: Vec<(usize, Saved<'_>, bool)> = (0..found.len()).filter_map(take).collect();
        let usable = saved.iter().filter(|(_, _, agrees)| *agrees);
        let usable = usable.fold(0, |bits, (index, ..)| bits | 1 << index);
        let shards = self.peer.to.len();
        for shard in 0..shards {
            self.send(shard, Message::CanStartWarm(usable)).await?;
        }
        while self.peer.told < shards {
            self.receive()?;
            pause().await;
        }
        let warm = self.peer.warm;
        for (index, saved, _) in saved {
            let volume = self.volumes[index];
            if warm & (1 << index) == 0 {
                // It is true all the same: its blocks held what it says.
                saved.vouch(&self.spaces[index], &volume.claims);
                continue;
            }
            saved.restore(&mut self.spaces[index], volume).ok_or_else(|| {
                ColdStartError::Checkpoint { namespace: volume.namespace.clone() }
            })?;
            self.see_version(saved.clock());
            self.report.records += self.spaces[index].index.len() as u64;
            self.report.warm += 1;
            let candidates = &found[index];
            // A clean stop closes every block.
            if let Some((id, header)) = newest(told(candidates)) {
                self.go_on_behind(index, id, header.sequence);
            }
            // The checkpoint knows what lies there: its records cannot be read, at worst.
            let is_damaged = |it: &&Candidate| it.header.is_none() && !it.is_beheaded;
            for candidate in candidates.iter().filter(is_damaged) {
                let place = self.place(index, candidate.id);
                tracing::error!("{place}: {}; its records are known all the same", Harm::Header);
                self.report.damaged_blocks += 1;
                self.note_damage(index, candidate.id, Harm::Header, &[]);
            }
        }
        Ok(warm)
    }

    /// Reads whole blocks and enters their records.
    async fn read_blocks(
        &mut self,
        index: usize,
        candidates: &[Candidate],
    ) -> Result<(), ColdStartError> {
        self.volumes[index].with_damage(|damage| _ = damage.open.get_or_insert_default());
        let block_bytes = self.volumes[index].block_bytes as usize;
        let in_flight = blocks_in_flight(block_bytes);
        let ids: Vec<BlockId> = candidates.iter().map(|block| block.id).collect();
        let space = &self.spaces[index];
        let mut reads = BlockReads::new(self.reader, space, &ids, 0..block_bytes, in_flight);
        let progress = &self.volumes[index].progress;
        progress.want(ids.len() as u64 * block_bytes as u64);
        let mut done = 0;
        while let Some((place, read)) = reads.next().await? {
            let before = self.report.records;
            done += 1;
            if GROW_AT_HALVINGS.into_iter().any(|halvings| done == ids.len() >> halvings) {
                let index = &mut self.spaces[index].index;
                index.expect(index.len() * GROW_TIMES);
            }
            let mut content = match read {
                Ok(buffer) => BlockContent::Read(buffer, Vec::new()),
                Err(error) => self.read_in_pages(index, ids[place], &error).await?,
            };
            if let (BlockContent::Read(block, _), true) =
                (&mut content, candidates[place].is_beheaded)
            {
                lose_header(block);
            }
            self.take_block(index, &candidates[place], &content)?;
            progress.have(block_bytes as u64, self.report.records - before);
            self.send_batches(BATCH_RECORDS).await?;
            self.receive()?;
            yield_now().await;
        }
        Ok(())
    }

    async fn read_in_pages(
        &self,
        index: usize,
        id: BlockId,
        error: &io::Error,
    ) -> Result<BlockContent, ColdStartError> {
        let Reader { ring, arena } = self.reader;
        let source = self.spaces[index].source(ring, arena, id);
        let bytes = source.bytes;
        let buffer = arena.take(bytes).ok_or(ColdStartError::NoMemory { bytes })?;
        Ok(whole::read_in_pages(source, buffer, error).await)
    }

    /// A block whose header is lost may be one that the last start has found open: its records tell.
    fn with_open(
        &self,
        index: usize,
        candidate: Candidate,
        (block, name): (&[u8], BlockName),
    ) -> Candidate {
        let open = self.volumes[index].accepted.open(name).map(|filling| filling.sequence);
        let is_it = |open: &Version| {
            let there = Filling::judge(block, name, None);
            there.is_none_or(|filling| filling.seal == name.seal(*open))
        };
        let open = open.filter(|open| candidate.header.is_none() && is_it(open));
        Candidate { vouched: candidate.vouched.max(open.unwrap_or_default()), ..candidate }
    }

    /// Enters the records of a block.
    fn take_block(
        &mut self,
        index: usize,
        candidate: &Candidate,
        content: &BlockContent,
    ) -> Result<(), ColdStartError> {
        let block_bytes = self.volumes[index].block_bytes;
        let block = &content.bytes()[..block_bytes as usize];
        let name = self.spaces[index].log.name(candidate.id);
        let candidate = &self.with_open(index, *candidate, (block, name));
        let filling = Filling::judge(block, name, candidate.known());
        let filling =
            filling.filter(|it| it.trailer.is_some() || !planted(Mutation::OpenBlocksUnread));
        let sequence = filling.and_then(|filling| filling.sequence);
        if filling.is_some_and(|filling| filling.trailer.is_none()) {
            self.open[index].insert(candidate.id);
        }
        if let Some(block) = self.spaces[index].log.block_mut(candidate.id) {
            block.sequence = sequence.unwrap_or_default();
        }
        let (mut luts, mut found_bytes, mut places) = (LutRange::EMPTY, 0, 0);
        let mut scars = Scars::default();
        // A header that is not there is the first of it.
        let no_header = u32::from(filling.is_some_and(|filling| !filling.has_header));
        let mut records =
            filling.map(|filling| filling.records(block, BLOCK_HEADER_BYTES, block_bytes));
        // In batches, whose lookups miss the cache together.
        let mut batch: Vec<(u32, Flat<'_>)> = Vec::with_capacity(prefetch::WIDTH);
        let mut digests = Vec::with_capacity(prefetch::WIDTH);
        while let Some(records) = &mut records {
            while batch.len() < prefetch::WIDTH
                && let Some((offset, flat)) = records.next()
            {
                scars.see(records.damaged() + no_header, flat.record.version.lut());
                batch.push((offset, flat));
            }
            if batch.is_empty() {
                break;
            }
            digests.extend(batch.iter().map(|(_, flat)| flat.record.digest));
            self.spaces[index].index.prefetch(&digests, |_| {});
            digests.clear();
            for (offset, flat) in batch.drain(..) {
                luts.add(flat.record.version.lut(), flat.record.local_lut);
                found_bytes += flat.extent;
                places = with_place(places, offset);
                let location = Location { block: candidate.id, offset, extent: flat.extent as u32 };
                self.take_record(index, location, &flat.record)?;
            }
        }
        let (found, damaged) = records.map_or((0, 0), |it| (it.found(), it.damaged()));
        if let Some(trailer) = filling.and_then(|filling| filling.trailer) {
            self.go_on_behind(index, candidate.id, trailer.sequence);
        }
        self.report.blocks += 1;
        self.report.records += u64::from(found);
        self.see_version(sequence.unwrap_or_default());
        let room = record_extent_max(block_bytes).saturating_sub(found_bytes);
        let left = FillingLeft {
            block: name,
            sequence: candidate.vouched.max(sequence.unwrap_or_default()),
            found: places,
        };
        // What is damaged or torn first where no header tells, it has lost its header with.
        let is_in_order = candidate.header.is_none_or(|header| header.is_in_order);
        let vouched_to = self.volumes[index].claims.vouched_to(candidate.id);
        let lacks = |(of, bytes)| {
            filling.is_some_and(|it| it.sequence == Some(of) && !it.is_whole_to(block, bytes))
        };
        let had_settled = is_in_order && scars.are_older_than(self.settled[index].written_before)
            || vouched_to.is_some_and(lacks);
        let counts = (found, damaged, room, had_settled);
        self.report_damage(index, candidate, content, filling.as_ref(), counts, left);
        self.note_taken(index, candidate.id, Some((block, sequence)));
        if let Some(block) = self.spaces[index].log.block_mut(candidate.id) {
            block.luts = luts;
        }
        let holes = content.holes().iter().map(|hole| (candidate.id, hole.clone()));
        self.spaces[index].holes.extend(holes);
        if candidate.is_beheaded {
            // So that nobody takes this block for one that holds nothing.
            self.spaces[index].holes.push((candidate.id, 0..WRITE_ALIGN));
            self.spaces[index].damaged.push(candidate.id);
        }
        Ok(())
    }

    /// A power failure may have taken a block's newest filling, and left the one before it, or nothing:
    /// the next start is to know that this is all there was.
    fn note_taken(&self, index: usize, id: BlockId, found: Option<(&[u8], Option<Version>)>) {
        let (volume, block) = (self.volumes[index], self.spaces[index].log.name(id));
        let sequence = volume.claims.doubted(id);
        let of_found = found.and_then(|(_, sequence)| sequence).unwrap_or_default();
        if sequence <= of_found.max(volume.claims.vouched(id)) {
            return;
        }
        let records = found.and_then(|(bytes, _)| {
            let filling = Filling::judge(bytes, block, Some(sequence))?;
            Some(filling.records(bytes, BLOCK_HEADER_BYTES, volume.block_bytes))
        });
        let places = records.into_iter().flatten().map(|(offset, _)| offset);
        let left = FillingLeft { block, sequence, found: places.fold(0, with_place) };
        volume.with_damage(|damage| {
            let open = damage.open.get_or_insert_default();
            open.retain(|other| other.block != block);
            open.push(left);
        });
    }

    /// Counts and logs what of a block is not as it was written.
    fn report_damage(
        &mut self,
        index: usize,
        candidate: &Candidate,
        content: &BlockContent,
        filling: Option<&Filling>,
        (found, damaged, room, had_settled): (u32, u32, usize, bool),
        left: FillingLeft,
    ) {
        let (bytes, holes) = (content.bytes(), content.holes());
        let end = self.volumes[index].block_bytes as usize;
        let no_header = !filling.is_some_and(|filling| filling.has_header);
        let closed = filling.and_then(|filling| filling.trailer);
        let trailer = &bytes[end - BLOCK_TRAILER_BYTES..end];
        let is_odd =
            BlockTrailer::decode(&bytes[..end]).is_none() && trailer.iter().any(|byte| *byte != 0);
        let no_trailer = is_odd || holes.last().is_some_and(|hole| hole.end == end);
        let unreadable: usize = holes.iter().map(|hole| hole.len()).sum();
        // Where nothing tells how many records there were: as many as fit.
        let blank = if candidate.is_beheaded { WRITE_ALIGN } else { 0 };
        let fit = ((unreadable + blank) / RECORD_HEADER_BYTES) as u64 + u64::from(damaged);
        let fit_all = (room / RECORD_HEADER_BYTES) as u64;
        let sequence = filling.and_then(|filling| filling.sequence).unwrap_or_default();
        let was_closed = candidate.vouched > Version::ZERO && candidate.vouched >= sequence;
        // The last start has met it: closed, but for those it knows to be open.
        let volume = self.volumes[index];
        let Settled { met_below, written_before, .. } = self.settled[index];
        let had_arrived = volume.had_power && self.settled[index].has(sequence, candidate.header);
        let was_met = sequence > Version::ZERO && sequence < met_below;
        let is_old = closed.is_some_and(|trailer| {
            trailer.written > Version::ZERO && trailer.written.lut() < written_before
        });
        // As the start met it that followed on the power failure.
        let is_torn_still = || volume.accepted.open(left.block) == Some(left);
        let is_missing = found == 0 && no_header;
        // A filling of which the end arrived before its beginning. What the block held before was not
        // needed any more.
        let begun = BlockTrailer::decode(&bytes[..end]).map(|trailer| trailer.sequence);
        let is_on_its_way = begun.is_some_and(|begun| {
            let had_arrived = volume.had_power && self.settled[index].has(begun, None);
            let is_late = !had_arrived && begun.lut() >= written_before || is_torn_still();
            let header = HeaderFound::judge(bytes, left.block);
            let is_former = matches!(header, HeaderFound::Whole(_) | HeaderFound::Blank);
            begun > sequence && unreadable == 0 && is_former && is_late
        });
        let (lost, maybe) = match closed {
            _ if is_on_its_way => (0, 0),
            Some(trailer)
                if (was_closed || was_met || is_old || had_settled || had_arrived)
                    && !is_torn_still()
                    || unreadable > 0 =>
            {
                (u64::from(trailer.records.saturating_sub(found)), 0)
            }
            // The trailer may have got there alone.
            Some(_) => (0, 0),
            None if (is_missing || was_closed || was_met || had_settled) && !is_torn_still() => {
                (0, fit_all)
            }
            None if no_trailer || unreadable > 0 => (0, fit),
            None if no_header && volume.had_power && !is_torn_still() => (0, fit),
            // Open when the process died: what is torn was never durable.
            None => (0, 0),
        };
        let is_aged = closed.is_none()
            && unreadable == 0
            && (was_closed || is_missing)
            && !matches!(
                HeaderFound::judge(bytes, left.block),
                HeaderFound::Misplaced | HeaderFound::Damaged
            );
        let is_short = closed.is_none_or(|trailer| trailer.records > found);
        let is_torn = is_short && (lost, maybe) == (0, 0);
        let torn: u64 =
            closed.map_or(damaged, |trailer| trailer.records.saturating_sub(found)).into();
        if is_torn {
            volume.with_damage(|damage| damage.open.iter_mut().for_each(|open| open.push(left)));
        }
        let is_taken =
            || is_aged && volume.takes_as_missing(left.block) || volume.accepted.knows(&left);
        if lost + maybe > 0 && is_taken() {
            self.spaces[index].damaged.push(candidate.id);
            return volume.with_damage(|damage| damage.take(left));
        }
        let report = &mut self.report;
        report.open_blocks += u64::from(closed.is_none());
        if is_on_its_way {
            return;
        }
        if is_torn {
            report.torn_records += torn;
        }
        report.damaged_records += lost;
        report.damaged_blocks += u64::from(no_header || no_trailer);
        report.unreadable_blocks += u64::from(unreadable > 0);
        let place = self.place(index, candidate.id);
        let harm = match (unreadable > 0, no_header, no_trailer) {
            (true, ..) => Harm::Unreadable,
            _ if is_missing => Harm::Missing,
            (_, true, _) => Harm::Header,
            (_, _, true) => Harm::Trailer,
            _ if closed.is_none() && maybe > 0 => Harm::Trailer,
            _ if lost > 0 => Harm::Records,
            _ if is_torn && torn > 0 => {
                tracing::warn!("{place}: torn, {torn} records that were never durable");
                return;
            }
            _ => return,
        };
        // The first ones; the sum tells of all.
        if self.volumes[index].with_damage(|damage| damage.knows_all_places()) {
            tracing::error!(
                "{place}: {harm}; {found} records read, {lost} known to be lost{}",
                if maybe > 0 { format!(", perhaps {maybe} more") } else { String::new() }
            );
        }
        self.note_damage(index, candidate.id, harm, holes);
        self.volumes[index].with_damage(|damage| damage.lose(left, (lost, maybe)));
    }

    /// The next block to be filled vouches for the newest that was closed.
    fn go_on_behind(&mut self, index: usize, id: BlockId, sequence: Version) {
        let space = &mut self.spaces[index];
        space.head.go_on_behind(Former::new(space.log.name(id), sequence));
    }

    /// Adds a damaged block to what the volume's shards have found.
    fn note_damage(&mut self, index: usize, id: BlockId, harm: Harm, holes: &[Range<usize>]) {
        self.spaces[index].damaged.push(id);
        let (device, offset) = self.spaces[index].log.geometry().offset(id);
        let device = &self.volumes[index].devices[device].path;
        let block = 0..self.volumes[index].block_bytes as usize;
        let parts = if holes.is_empty() { std::slice::from_ref(&block) } else { holes };
        self.volumes[index].with_damage(|damage| {
            damage.blocks += 1;
            damage.unreadable_bytes += holes.iter().map(|hole| hole.len() as u64).sum::<u64>();
            for part in parts {
                damage.note(|| DamagedPlace {
                    device: device.clone(),
                    offset: offset + part.start as u64,
                    bytes: part.len() as u64,
                    harm,
                });
            }
        });
    }

    /// Device and offset of a block, for people.
    fn place(&self, index: usize, id: BlockId) -> String {
        let (device, offset) = self.spaces[index].log.geometry().offset(id);
        let path = self.volumes[index].devices[device].path.display();
        format!("{path}, block at byte {offset}")
    }

    fn see_version(&mut self, version: Version) {
        if !planted(Mutation::ClockForgotten) {
            self.report.highest_version = self.report.highest_version.max(version);
        }
    }

    /// Enters a record, or puts it aside for the shard that owns it.
    fn take_record(
        &mut self,
        index: usize,
        location: Location,
        record: &RecordView<'_>,
    ) -> Result<(), ColdStartError> {
        self.see_version(record.version);
        let entry = IndexEntry {
            digest: record.digest,
            version: record.version,
            local_lut: record.local_lut,
            location,
            generation: record.generation,
            void_time: record.void_time,
            set: SetId::NONE,
            flags: record.flags,
            src_id: record.src_id,
        };
        let owner = record.digest.partition().shard(self.peer.shard_count());
        if owner == self.peer.shard {
            return self.enter(index, entry, record.set);
        }
        let namespace = NamespaceId(index as u8);
        let found = OthersRecord { namespace, entry, set: record.set.into() };
        self.volumes[index].claims.note_mixed();
        self.peer.outbox[usize::from(owner.0)].push(found);
        Ok(())
    }

    /// Enters a record of this shard, unless a newer version of it is known. Of two copies, which a
    /// move leaves that was cut off, the one it made counts: it is not to be done again. But where it was
    /// still filling its block, the other does: what it took to move records is given back, or a node
    /// that dies again and again on a full device runs out of blocks, and no move frees any more.
    fn enter(&mut self, index: usize, entry: IndexEntry, set: &str) -> Result<(), ColdStartError> {
        let space = &self.spaces[index];
        let place = space.index.find(&entry.digest);
        let known = space.index.at(&place, &entry.digest);
        let standing = |Location { block, .. }| match space.log.sequence(block) {
            None => Standing::Foreign,
            Some(sequence) if self.open[index].contains(&block) => {
                Standing::Open(Reverse(sequence))
            }
            Some(sequence) => Standing::Closed(sequence),
        };
        let is_known = |known: IndexEntry| match known.version.cmp(&entry.version) {
            Ordering::Less => false,
            Ordering::Equal => standing(known.location) >= standing(entry.location),
            Ordering::Greater => true,
        };
        let is_known = known.is_some_and(is_known) && !planted(Mutation::LastReadWins);
        if is_known || entry.is_tombstone() && planted(Mutation::TombstonesUnread) {
            return Ok(());
        }
        let set = match self.spaces[index].sets.intern_found(set) {
            Some(set) => set,
            None => self.number_of_a_set_too_many(index, &entry, set)?,
        };
        let space = &mut self.spaces[index];
        space.log.add_live(entry.location, entry.version, entry.local_lut);
        space.enter_at(&place, &IndexEntry { set, ..entry });
        Ok(())
    }

    /// Numbers of sets have run out, since names are met that were given back long ago: of tombstones
    /// that are forgotten already, but still on the device. Records come first; tombstones wait for
    /// what is left, see [`Scan::name_tombstones`].
    fn number_of_a_set_too_many(
        &mut self,
        index: usize,
        entry: &IndexEntry,
        name: &str,
    ) -> Result<SetId, ColdStartError> {
        let space = &mut self.spaces[index];
        space.sets.give_back_now(|_| false);
        if let Some(set) = space.sets.intern_found(name) {
            return Ok(set);
        }
        if entry.is_tombstone() {
            self.nameless[index].push((entry.digest, entry.version, name.into()));
            return Ok(SetId::NONE);
        }
        self.take_sets_of_tombstones(index);
        let space = &mut self.spaces[index];
        space.sets.intern_found(name).ok_or_else(|| ColdStartError::TooManySets {
            namespace: self.volumes[index].namespace.clone(),
        })
    }

    /// Takes their names from sets in which only tombstones lie, until all is read.
    fn take_sets_of_tombstones(&mut self, index: usize) {
        let space = &mut self.spaces[index];
        let mut alone = Vec::new();
        let shards = self.peer.shard_count();
        let is_own = |partition: &PartitionId| partition.shard(shards) == self.peer.shard;
        for partition in PartitionId::all().filter(is_own) {
            let mut next = Some(space.index.start());
            while let Some(cursor) = next {
                next = space.index.walk(partition, cursor, usize::MAX, &mut |entry| {
                    if entry.is_tombstone() && space.sets.holds_tombstones_alone(entry.set) {
                        alone.push(*entry);
                    }
                });
            }
        }
        for entry in alone {
            let name = space.sets.name(entry.set).into();
            self.nameless[index].push((entry.digest, entry.version, name));
            space.put_in_set(&entry, SetId::NONE);
        }
        space.sets.give_back_now(|_| false);
    }

    /// All is read: tombstones that made room for sets with records get their sets again, the newest
    /// first, while there are numbers.
    fn name_tombstones(&mut self) {
        for index in 0..self.spaces.len() {
            if self.nameless[index].is_empty() {
                continue;
            }
            // All have the same claim.
            self.take_sets_of_tombstones(index);
            let mut nameless = std::mem::take(&mut self.nameless[index]);
            let (space, volume) = (&mut self.spaces[index], &self.volumes[index]);
            nameless.sort_unstable_by_key(|(_, version, _)| std::cmp::Reverse(*version));
            let mut unnamed = 0;
            for (digest, version, name) in nameless {
                let entry = space.index.get(&digest);
                let Some(entry) = entry.filter(|entry| entry.version == version) else { continue };
                match space.sets.intern_found(&name) {
                    Some(set) => space.put_in_set(&entry, set),
                    // Up to there they may have been forgotten, and can be again.
                    None => unnamed += u64::from(version.lut() > volume.claims.horizon()),
                }
            }
            if unnamed > 0 {
                tracing::warn!(
                    shard = self.peer.shard.0,
                    "namespace {}: {unnamed} tombstones are kept without the names of their sets, of \
                     which there were more than {SET_ID_MAX}: a DC that ships some sets only may not \
                     ship these deletes",
                    volume.namespace
                );
            }
        }
    }

    /// Hands over what is set aside for other shards, where there are at least `least` records.
    async fn send_batches(&mut self, least: usize) -> Result<(), ColdStartError> {
        for shard in 0..self.peer.outbox.len() {
            while self.peer.outbox[shard].len() >= least.max(1) {
                let keep = self.peer.outbox[shard].len().saturating_sub(BATCH_RECORDS);
                let batch = self.peer.outbox[shard].split_off(keep);
                self.send(shard, Message::Records(batch)).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, shard: usize, message: Message) -> Result<(), ColdStartError> {
        let mut message = message;
        loop {
            match self.peer.to[shard].try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(ColdStartError::PeerGone),
                Err(TrySendError::Full(back)) => message = back,
            }
            self.receive()?;
            pause().await;
        }
    }

    /// Takes in whatever other shards have sent.
    fn receive(&mut self) -> Result<(), ColdStartError> {
        loop {
            match self.peer.from.try_recv() {
                Ok(Message::CanStartWarm(usable)) => {
                    self.peer.told += 1;
                    self.peer.warm &= usable;
                }
                Ok(Message::Records(batch)) => {
                    for OthersRecord { namespace, entry, set } in batch {
                        self.enter(namespace.index(), entry, &set)?;
                    }
                }
                Ok(Message::Scanned) => self.peer.scanned += 1,
                Ok(Message::Claimed) => self.peer.claimed += 1,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(ColdStartError::PeerGone),
            }
        }
    }

    /// Goes through the end of cold start together with the other shards.
    async fn exchange(&mut self) -> Result<(), ColdStartError> {
        let shards = self.peer.to.len();
        self.send_batches(1).await?;
        for shard in 0..shards {
            self.send(shard, Message::Scanned).await?;
        }
        while self.peer.scanned < shards {
            self.receive()?;
            pause().await;
        }
        self.spaces.iter_mut().for_each(|space| space.log.claim_foreign());
        for shard in 0..shards {
            self.send(shard, Message::Claimed).await?;
        }
        while self.peer.claimed < shards {
            self.receive()?;
            pause().await;
        }
        Ok(())
    }
}

impl Peer {
    fn shard_count(&self) -> u16 {
        self.to.len() as u16
    }
}

/// Lets the other shards work.
async fn pause() {
    let soon = Clock::real().now() + PAUSE_US;
    Event::new().wait_until(soon).await;
}

/// Reads the same part of many blocks, several at a time, in whatever order they come back.
struct BlockReads<'a> {
    reader: Reader<'a>,
    /// File and offset of each.
    places: Vec<(FileId, u64)>,
    begun: usize,
    in_flight: usize,
    in_flight_max: usize,
    len: usize,
    sink: Rc<Completions>,
    done: Vec<Done>,
}

impl<'a> BlockReads<'a> {
    fn new(
        reader: Reader<'a>,
        space: &Space,
        ids: &[BlockId],
        part: Range<usize>,
        in_flight_max: usize,
    ) -> Self {
        let place = |id: &BlockId| {
            let (device, offset) = space.log.geometry().offset(*id);
            (space.files[device], offset + part.start as u64)
        };
        Self {
            reader,
            places: ids.iter().map(place).collect(),
            begun: 0,
            in_flight: 0,
            in_flight_max,
            len: part.len(),
            sink: Completions::new(),
            done: Vec::new(),
        }
    }

    /// The next read to come back, by its place in the list; `None` after the last.
    async fn next(&mut self) -> Result<Option<(usize, io::Result<Buffer>)>, ColdStartError> {
        while self.in_flight < self.in_flight_max && self.begun < self.places.len() {
            let Some(buffer) = self.reader.arena.take(self.len) else { break };
            let (file, offset) = self.places[self.begun];
            let op = self.reader.ring.read(file, offset, buffer, self.len);
            self.reader.ring.submit_tagged(op, self.begun as u64, &self.sink);
            self.begun += 1;
            self.in_flight += 1;
        }
        if self.in_flight == 0 {
            let is_through = self.begun == self.places.len();
            return match is_through {
                true => Ok(None),
                false => Err(ColdStartError::NoMemory { bytes: self.len }),
            };
        }
        while self.done.is_empty() {
            poll_fn(|cx| self.sink.poll_ready(cx)).await;
            self.sink.drain(&mut self.done);
        }
        self.in_flight -= 1;
        let done = self.done.pop();
        Ok(done.map(|done| (done.tag as usize, done.result.map(|_| done.buffer))))
    }
}
