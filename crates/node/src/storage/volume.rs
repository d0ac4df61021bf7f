//! The devices of a namespace, opened once per process and shared by its shards: plain facts, and
//! for each block a byte or two through which shards and the zeroing thread keep out of each
//! other's way. None of it is touched per record.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::accepted::Accepted;
use super::admit::Plan;
use super::block::BlockName;
use super::damage::Damage;
use super::device::OpenDevice;
use super::epochs::Epochs;
use super::geometry::Geometry;
use super::index::BlockId;
use super::loss::CrashCost;
use super::progress::Progress;
use super::sets::SetNames;
use longship::model::{Lut, ShardIndex, Version};
use longship_rt::metrics::Alarm;

use crate::config::NamespaceConfig;

/// A device of a volume.
#[derive(Debug)]
pub struct Device {
    /// Where it is.
    pub path: PathBuf,
    /// Its id.
    pub id: u64,
    /// Its blocks, the header's included.
    pub blocks: u32,
    open: OpenDevice,
}

impl Device {
    pub(super) fn new(open: OpenDevice, id: u64, blocks: u32) -> Self {
        Self { path: open.path.clone(), id, blocks, open }
    }

    /// It, open for direct I/O; shards' rings get clones.
    pub fn file(&self) -> &File {
        &self.open.file
    }
}

/// A trouble of a namespace of which nothing was seen for so long is over.
const CALM_S: u64 = 5;

/// The devices of a namespace.
#[derive(Debug)]
pub struct Volume {
    /// Name of the namespace.
    pub namespace: String,
    /// Its id, on each of its devices.
    pub id: u64,
    /// It was formatted by this start.
    pub is_new: bool,
    /// The epoch it was left in; `None` when it is new, or not as it was left.
    pub(super) found_epoch: Option<u64>,
    /// This run, and the last one that has kept marks, each by the epoch it began with.
    run: u32,
    last_run: u32,
    epochs: Epochs,
    /// Shards that have not stopped with everything durable.
    running: AtomicU16,
    /// Where shards leave their checkpoints at a clean stop; `None` for no warm starts.
    pub checkpoints: Option<PathBuf>,
    /// Its devices, as configured.
    pub devices: Vec<Device>,
    /// Bytes of a write block.
    pub block_bytes: u32,
    /// The operator has accepted that these devices are older than their siblings, or cut short, from
    /// that block on: what is missing there because of that needs no further word.
    takes_missing: Vec<(u64, u32)>,
    /// What was accepted of damage that starts have found.
    pub(super) accepted: Accepted,
    /// The operator has given up what a device of it held, or may have held.
    pub(super) gives_up: bool,
    /// What was written last has not been lost by a power failure: the system has not been started
    /// anew since, or the last run ended in order.
    pub(super) had_power: bool,
    /// What the end of its last run may have cost: nothing where that was in order.
    pub crash_cost: CrashCost,
    /// Fillings begun below this were left as a whole by a run that ended in order.
    pub(super) whole_below: Version,
    /// Shards it was opened for.
    pub shard_count: u16,
    /// Its devices are files: written once ahead of the head.
    pub on_files: bool,
    /// A durable write costs about as much as another, on every device, as measured at start.
    pub has_cheap_durable_writes: bool,
    /// Who may write what.
    pub claims: Arc<Claims>,
    /// The sets of the namespace.
    pub sets: Arc<SetNames>,
    /// How far the shards have got with opening it.
    pub progress: Progress,
    /// Writes are refused for want of room, on any shard.
    pub(super) full: Alarm,
    /// Writes are refused since devices do not keep up, on any shard.
    pub(super) overloaded: Alarm,
    /// A device does not answer, on any shard.
    pub(super) hangs: Alarm,
    /// A flush of its devices has failed for some shard.
    flush_failed: AtomicBool,
    /// What they found damaged; complete when all are through.
    pub(super) damage: Mutex<Damage>,
}

impl Volume {
    pub(super) fn new(
        config: &NamespaceConfig,
        shard_count: u16,
        plan: Plan,
        epochs: Epochs,
        devices: Vec<Device>,
        has_cheap_durable_writes: bool,
    ) -> Self {
        let blocks = devices.iter().map(|device| device.blocks as usize).sum();
        Self {
            namespace: config.name.clone(),
            id: plan.volume_id,
            is_new: plan.is_new,
            found_epoch: plan.found_epoch,
            run: plan.next_epoch as u32,
            last_run: plan.last_run,
            epochs,
            running: AtomicU16::new(shard_count),
            checkpoints: None,
            block_bytes: config.storage.write_block_size,
            takes_missing: plan.takes_missing,
            accepted: Accepted::default(),
            gives_up: plan.gives_up,
            had_power: plan.had_power,
            crash_cost: plan.crash_cost,
            whole_below: plan.whole_below,
            shard_count,
            on_files: config.storage.devices.is_empty(),
            has_cheap_durable_writes,
            claims: Arc::new(Claims::new(blocks, shard_count)),
            sets: Arc::default(),
            progress: Progress::default(),
            full: Alarm::calm_after_s(CALM_S),
            overloaded: Alarm::calm_after_s(CALM_S),
            hangs: Alarm::calm_after_s(CALM_S),
            flush_failed: AtomicBool::new(false),
            damage: Mutex::default(),
            devices,
        }
    }

    /// The epoch that this run ends in: from now on only its end takes the volume to another.
    pub(super) fn last_epoch(&self) -> u64 {
        self.epochs.last()
    }

    /// Number of this run, and of the last one that has kept marks.
    pub fn runs(&self) -> (u32, u32) {
        (self.run, self.last_run)
    }

    /// There are marks of this run: the next epoch says so. Blocks.
    pub(crate) fn keeps_marks(&self) {
        self.epochs.note_run(self.run);
        self.begin_epoch();
    }

    /// What a power failure before this start has taken is noted.
    pub(super) fn settle(&self) {
        self.epochs.settle();
    }

    /// Takes the volume to its next epoch, in the middle of a run. Blocks.
    pub(crate) fn begin_epoch(&self) {
        let devices = self.devices.iter().map(|device| &device.open);
        if let Err((path, error)) = self.epochs.go_on(devices) {
            tracing::warn!("{}: cannot note a new epoch: {error}", path.display());
        }
    }

    /// A shard has stopped with everything durable. The last one closes the epoch, so that a copy
    /// of a device made before is known to be older. Blocks.
    pub(super) fn shard_stopped(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let devices = self.devices.iter().map(|device| &device.open);
        let whole_below = Version::from_raw(self.claims.clock().raw() + 1);
        if let Err((path, error)) = self.epochs.close(devices, whole_below) {
            let path = path.display();
            tracing::error!(
                "{path}: cannot note the clean stop: {error}; the next start reads the log"
            );
        }
    }

    /// Has shards leave checkpoints in `folder` at a clean stop, and start from them.
    pub fn with_checkpoints(self, folder: PathBuf) -> Self {
        Self { checkpoints: Some(folder), ..self }
    }

    /// Remembers what was accepted before.
    pub(super) fn with_accepted(self, accepted: Accepted) -> Self {
        Self { accepted, ..self }
    }

    /// Whether the operator knows that what was written to a block last may be missing.
    pub(super) fn takes_as_missing(&self, block: BlockName) -> bool {
        let BlockName { device_id, number } = block;
        self.takes_missing.iter().any(|(device, from)| *device == device_id && number >= *from)
    }

    /// A flush of a device has failed: what was written before it may be lost, on all shards.
    pub(super) fn flush_failed(&self) {
        // Release pairs with the Acquire in `has_failed_flush`.
        self.flush_failed.store(true, Ordering::Release);
    }

    /// Whether a flush has failed for any shard.
    pub(super) fn has_failed_flush(&self) -> bool {
        self.flush_failed.load(Ordering::Acquire)
    }

    /// What the shards found damaged so far.
    pub fn damage(&self) -> Damage {
        self.with_damage(|damage| damage.clone())
    }

    /// Adds to what was found damaged. Only at a start.
    pub(super) fn with_damage<T>(&self, change: impl FnOnce(&mut Damage) -> T) -> T {
        change(&mut self.damage.lock().expect("nothing panics that holds it"))
    }

    /// The numbering of its blocks for one shard.
    pub fn geometry(&self, shard: ShardIndex) -> Geometry {
        let blocks: Vec<u32> = self.devices.iter().map(|device| device.blocks).collect();
        Geometry::new(self.block_bytes, &blocks, shard, self.shard_count)
    }
}

/// Per block: how many shards have records in a block of somebody else's, and how far a block
/// never written has got.
#[derive(Debug)]
pub struct Claims {
    shards: Box<[AtomicU16]>,
    fresh: Box<[AtomicU8]>,
    /// Some block holds records of another shard than its owner, alive or dead.
    mixed: AtomicBool,
    /// Shards that have not said yet which of their blocks are fresh.
    starting: AtomicU16,
    /// The highest tombstone horizon met by any shard at start, in ms.
    horizon_ms: AtomicU64,
    /// The newest filling that a header met at start vouches for, of each block.
    vouched: Box<[AtomicU64]>,
    /// What headers say of the fillings that moved records went to: the newest of each block, and how
    /// many bytes of it were durable at least.
    moved_to: Newest<(Version, u32)>,
    /// The newest filling of each block that a header names, but that a power failure may have taken.
    doubtful: Newest<Version>,
    /// The highest version met by any shard at start.
    clock: AtomicU64,
}

/// The newest of what headers say of a few blocks.
#[derive(Debug, Default)]
struct Newest<T>(Mutex<HashMap<BlockId, T>>);

impl<T: Copy + Default + Ord> Newest<T> {
    fn note(&self, id: BlockId, said: T) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(id).or_default();
        *known = (*known).max(said);
    }

    fn of(&self, id: BlockId) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

const TAKEN: u8 = 0;
const UNTOUCHED: u8 = 1;
const ZEROING: u8 = 2;
const READY: u8 = 3;

impl Claims {
    /// Nothing claimed, nothing known to be fresh.
    pub fn new(blocks: usize, shard_count: u16) -> Self {
        Self {
            shards: (0..blocks).map(|_| AtomicU16::new(0)).collect(),
            fresh: (0..blocks).map(|_| AtomicU8::new(TAKEN)).collect(),
            mixed: AtomicBool::new(false),
            starting: AtomicU16::new(shard_count),
            horizon_ms: AtomicU64::new(0),
            vouched: (0..blocks).map(|_| AtomicU64::new(0)).collect(),
            moved_to: Newest::default(),
            doubtful: Newest::default(),
            clock: AtomicU64::new(0),
        }
    }

    /// A block says that tombstones up to `lut` may have been forgotten, by whatever shard had them
    /// then.
    pub fn note_horizon(&self, lut: Lut) {
        self.horizon_ms.fetch_max(lut.ms(), Ordering::Relaxed);
    }

    /// A header says that a block was filled so before its own.
    pub fn vouch(&self, id: BlockId, sequence: Version) {
        self.vouched[id.0 as usize].fetch_max(sequence.raw(), Ordering::Relaxed);
    }

    /// The newest filling that a block is said to hold; zero when none vouches for it.
    pub fn vouched(&self, id: BlockId) -> Version {
        Version::from_raw(self.vouched[id.0 as usize].load(Ordering::Relaxed))
    }

    /// A header says that so many bytes of a filling were durable before its own.
    pub fn vouch_to(&self, id: BlockId, filling: (Version, u32)) {
        self.moved_to.note(id, filling);
    }

    /// The newest filling of a block that is said to be there in part, and how much of it.
    pub fn vouched_to(&self, id: BlockId) -> Option<(Version, u32)> {
        self.moved_to.of(id)
    }

    /// A header names a filling of a block that may not have reached the device.
    pub fn doubt(&self, id: BlockId, sequence: Version) {
        self.doubtful.note(id, sequence);
    }

    /// The newest of those; zero when there is none.
    pub fn doubted(&self, id: BlockId) -> Version {
        self.doubtful.of(id).unwrap_or_default()
    }

    /// A shard has met no version above this.
    pub fn note_clock(&self, version: Version) {
        self.clock.fetch_max(version.raw(), Ordering::Relaxed);
    }

    /// The highest of those: what is written from now on is newer, on every shard.
    pub fn clock(&self) -> Version {
        Version::from_raw(self.clock.load(Ordering::Relaxed))
    }

    /// The highest horizon noted.
    pub fn horizon(&self) -> Lut {
        Lut::from_ms(self.horizon_ms.load(Ordering::Relaxed))
    }

    /// The owner has found that a block was never written.
    pub fn offer_fresh(&self, id: BlockId) {
        self.fresh[id.0 as usize].store(UNTOUCHED, Ordering::Relaxed);
    }

    /// A shard has offered all of its fresh blocks.
    pub fn shard_started(&self) {
        // Release pairs with the Acquire in `is_fresh_known`: the offers come before.
        self.starting.fetch_sub(1, Ordering::Release);
    }

    /// Whether every shard has offered its fresh blocks.
    pub fn is_fresh_known(&self) -> bool {
        self.starting.load(Ordering::Acquire) == 0
    }

    /// Notes that a shard other than the owner has records in `id`.
    pub fn claim(&self, id: BlockId) {
        self.shards[id.0 as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A record lies in a block of another shard than its own.
    pub fn note_mixed(&self) {
        self.mixed.store(true, Ordering::Relaxed);
    }

    /// Whether records may lie in blocks of other shards than their own.
    pub fn is_mixed(&self) -> bool {
        self.mixed.load(Ordering::Relaxed)
    }

    /// Gives a claim up: the shard's newer copies are durable.
    pub fn release(&self, id: BlockId) {
        // Release pairs with the Acquire in `is_claimed`: the owner writes the block only after
        // the claimant's reads of it.
        self.shards[id.0 as usize].fetch_sub(1, Ordering::Release);
    }

    /// Whether another shard still has records in `id`.
    pub fn is_claimed(&self, id: BlockId) -> bool {
        self.shards[id.0 as usize].load(Ordering::Acquire) != 0
    }

    /// The owner takes a block never written. False while it is being zeroed: another one, please.
    pub fn take_fresh(&self, id: BlockId) -> bool {
        let cell = &self.fresh[id.0 as usize];
        let take = |state| (state != ZEROING).then_some(TAKEN);
        cell.fetch_update(Ordering::Acquire, Ordering::Relaxed, take).is_ok()
    }

    /// The zeroing thread takes a block. False when somebody was faster.
    pub fn begin_zeroing(&self, id: BlockId) -> bool {
        let cell = &self.fresh[id.0 as usize];
        cell.compare_exchange(UNTOUCHED, ZEROING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The block is zeroed, on the device.
    pub fn end_zeroing(&self, id: BlockId) {
        // Release pairs with the Acquire in `take_fresh`: the owner's writes come after the zeros.
        self.fresh[id.0 as usize].store(READY, Ordering::Release);
    }

    /// Whether a zeroed block is still waiting for the head.
    pub fn is_ready(&self, id: BlockId) -> bool {
        self.fresh[id.0 as usize].load(Ordering::Relaxed) == READY
    }
}
