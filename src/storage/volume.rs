//! The devices of a namespace, opened once per process and shared by its shards: plain facts, and
//! for each block a byte or two through which shards and the zeroing thread keep out of each
//! other's way. None of it is touched per record.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::damage::Damage;
use super::device::{DeviceError, DeviceHeader, OpenDevice};
use super::geometry::{Geometry, stripes_for};
use super::index::BlockId;
use super::progress::Progress;
use super::sets::SetNames;
use crate::config::NamespaceConfig;
use crate::model::{Lut, ShardIndex};

/// A device of a volume.
#[derive(Debug)]
pub struct Device {
    /// Where it is.
    pub path: PathBuf,
    /// Its id.
    pub id: u64,
    /// Its blocks, the header's included.
    pub blocks: u32,
    file: File,
}

impl Device {
    /// It, open for direct I/O; shards' rings get clones.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The devices of a namespace.
#[derive(Debug)]
pub struct Volume {
    /// Name of the namespace.
    pub namespace: String,
    /// Its id, on each of its devices.
    pub id: u64,
    /// Where shards leave their checkpoints at a clean stop; `None` for no warm starts.
    pub checkpoints: Option<PathBuf>,
    /// Its devices, as configured.
    pub devices: Vec<Device>,
    /// Bytes of a write block.
    pub block_bytes: u32,
    /// Stripes of each device.
    pub stripes: u32,
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
    /// What they found damaged; complete when all are through.
    pub(super) damage: Mutex<Damage>,
}

impl Volume {
    /// Opens, checks and where empty formats the devices of a namespace. Blocks: for the main
    /// thread, before the shards start.
    pub fn open(config: &NamespaceConfig, shard_count: u16) -> Result<Self, DeviceError> {
        let storage = &config.storage;
        let block_bytes = storage.write_block_size;
        let on_files = storage.devices.is_empty();
        let (paths, file_bytes) = match on_files {
            true => (&storage.files, storage.filesize),
            false => (&storage.devices, 0),
        };
        let open = |path: &PathBuf| OpenDevice::open(path, file_bytes, block_bytes);
        let mut open: Vec<OpenDevice> = paths.iter().map(open).collect::<Result<_, _>>()?;
        let expected = expected_header(config, &open, shard_count);
        open.iter().try_for_each(|device| check(device, &expected, shard_count))?;
        for device in open.iter_mut().filter(|device| device.header.is_none()) {
            let blocks = device.blocks(block_bytes) as u32;
            device.format(DeviceHeader { device_id: random(), blocks, ..expected.clone() })?;
        }
        let mut has_cheap_durable_writes = true;
        for device in &open {
            let (limits, cost) = device.probe(block_bytes)?;
            let is_cheap = cost.durable_is_cheap();
            has_cheap_durable_writes &= is_cheap;
            tracing::info!(
                "{}: 4 KiB written in {} us, durably in {} us: {}; requests of up to {} bytes in \
                 multiples of {}",
                device.path.display(),
                cost.plain_us,
                cost.durable_us,
                if is_cheap {
                    "each write is made durable"
                } else {
                    "one flush serves many writes"
                },
                limits.transfer_bytes_max,
                limits.alignment_bytes,
            );
        }
        let devices: Vec<Device> = open.into_iter().filter_map(Device::of).collect();
        let blocks = devices.iter().map(|device| device.blocks as usize).sum();
        Ok(Self {
            namespace: config.name.clone(),
            id: expected.volume_id,
            checkpoints: None,
            block_bytes,
            stripes: expected.stripes,
            shard_count,
            on_files,
            has_cheap_durable_writes,
            claims: Arc::new(Claims::new(blocks, shard_count)),
            sets: Arc::default(),
            progress: Progress::default(),
            damage: Mutex::default(),
            devices,
        })
    }

    /// Has shards leave checkpoints in `folder` at a clean stop, and start from them.
    pub fn with_checkpoints(self, folder: PathBuf) -> Self {
        Self { checkpoints: Some(folder), ..self }
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
        Geometry::new(self.block_bytes, self.stripes, &blocks, shard, self.shard_count)
    }
}

impl Device {
    fn of(device: OpenDevice) -> Option<Self> {
        let header = device.header.as_ref()?;
        let blocks = device.blocks(header.block_bytes) as u32;
        Some(Self { path: device.path, id: header.device_id, blocks, file: device.file })
    }
}

/// The header a device of this volume must have, but for its own id and size: as the formatted
/// ones have it, where there are any.
fn expected_header(
    config: &NamespaceConfig,
    devices: &[OpenDevice],
    shard_count: u16,
) -> DeviceHeader {
    let formatted = devices.iter().find_map(|device| device.header.as_ref());
    DeviceHeader {
        device_id: 0,
        volume_id: formatted.map_or_else(random, |header| header.volume_id),
        block_bytes: config.storage.write_block_size,
        blocks: 0,
        stripes: formatted.map_or_else(|| stripes_for(shard_count), |header| header.stripes),
        devices: devices.len() as u16,
        namespace: config.name.clone(),
    }
}

fn check(
    device: &OpenDevice,
    expected: &DeviceHeader,
    shard_count: u16,
) -> Result<(), DeviceError> {
    let blocks = device.blocks(expected.block_bytes);
    // A header, and for each shard a reserve, an open block and one to reuse.
    let needed = 1 + 4 * u64::from(shard_count);
    if blocks < needed || blocks > u64::from(u32::MAX) {
        return Err(DeviceError::TooSmall {
            path: device.path.clone(),
            blocks,
            block_bytes: expected.block_bytes,
            needed,
            shards: shard_count,
        });
    }
    let differs = |item, on_device: &dyn ToString, configured: &dyn ToString| {
        let (on_device, configured) = (on_device.to_string(), configured.to_string());
        let path = device.path.clone();
        Err(DeviceError::Mismatch { path, item, on_device, configured })
    };
    let Some(header) = &device.header else { return Ok(()) };
    if header.namespace != expected.namespace {
        return differs("namespace", &header.namespace, &expected.namespace);
    }
    if header.block_bytes != expected.block_bytes {
        return differs("write-block-size", &header.block_bytes, &expected.block_bytes);
    }
    if header.volume_id != expected.volume_id || header.devices != expected.devices {
        return differs("number of devices", &header.devices, &expected.devices);
    }
    if u64::from(header.blocks) > blocks {
        return differs("number of blocks", &header.blocks, &blocks);
    }
    if header.stripes != expected.stripes || header.stripes < u32::from(shard_count) {
        return differs(
            "number of stripes (the most shards it takes)",
            &header.stripes,
            &shard_count,
        );
    }
    Ok(())
}

/// An id nobody else has: the standard library seeds this from the system's randomness.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Per block: how many shards have records in a block of somebody else's, and how far a block
/// never written has got.
#[derive(Debug)]
pub struct Claims {
    shards: Box<[AtomicU16]>,
    fresh: Box<[AtomicU8]>,
    /// Whose owner waits for the others to leave.
    wanted_back: Box<[AtomicBool]>,
    /// Some block holds records of another shard than its owner, alive or dead.
    mixed: AtomicBool,
    /// Shards that have not said yet which of their blocks are fresh.
    starting: AtomicU16,
    /// The highest tombstone horizon met by any shard at start, in ms.
    horizon_ms: AtomicU64,
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
            wanted_back: (0..blocks).map(|_| AtomicBool::new(false)).collect(),
            mixed: AtomicBool::new(false),
            starting: AtomicU16::new(shard_count),
            horizon_ms: AtomicU64::new(0),
        }
    }

    /// A block says that tombstones up to `lut` may have been forgotten, by whatever shard had them
    /// then.
    pub fn note_horizon(&self, lut: Lut) {
        self.horizon_ms.fetch_max(lut.ms(), Ordering::Relaxed);
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

    /// The owner has nothing left in `id` and waits for the others.
    pub fn want_back(&self, id: BlockId) {
        self.wanted_back[id.0 as usize].store(true, Ordering::Relaxed);
    }

    /// Whether the owner of `id` waits for the others.
    pub fn is_wanted_back(&self, id: BlockId) -> bool {
        self.wanted_back[id.0 as usize].load(Ordering::Relaxed)
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
