//! The shipping marks on a file in the work directory.
//!
//! The file holds two slots of equal size; a store fills the older one and waits for it to be on the
//! device, so that a crash at any moment leaves the other. A set of marks that
//! outgrows the slots goes into a new file that takes the old one's place. Hence a file that is
//! there always had a whole slot when it was made: one without is damaged, and only a missing file
//! means that there never were marks.
//!
//! | offset | size | slot |
//! |---:|---:|---|
//! | 0 | 4 | magic `LSMK` |
//! | 4 | 4 | CRC32C of bytes 8 to the end of the body |
//! | 8 | 8 | sequence: the higher one counts |
//! | 16 | 4 | bytes of the body |
//! | 20 | 4 | format version |
//! | 24 | .. | body |
//!
//! The body: number of DCs (2), their names (length 1, text); number of namespaces (1), their
//! names, and for each the id of its volume (8) and the number of its run (4); number of lanes (4),
//! and for each DC (2), namespace (1), partition (2), LST (5); number of stores at destinations (4),
//! and for each DC (2), namespace (1), id (8; 0 if no store is known), run (4), boot id of the
//! destination's process (8), and what it lacks (1); of the dead letters generation (4) and frames (4)
//! of their file, number of owners (4), and for each DC (2), namespace (1). Names and not numbers tie marks to the configuration, whatever its order is next
//! time, and the volumes tie them to the records they were made for.
//!
//! Plain reads and writes, no mapping: what the device or somebody else does to the file is an error
//! then and not a signal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use crate::host::{CheckpointStore, Holder, Hole, LettersMark, Mark, Marks, StoreError, StoreRun};
use crate::model::{DcIndex, LaneId, Lut, NamespaceId, PARTITION_COUNT, PartitionId};
use longship_rt::bytes::{put, sync_folder, u16_at, u32_at, u64_at};
use longship_rt::disk_ring::file::allocate;
use longship_rt::remedy::remedy;

const MAGIC: [u8; 4] = *b"LSMK";
const FORMAT_VERSION: u32 = 5;
const SLOT_HEADER_BYTES: usize = 24;
const SLOT_BYTES_MIN: usize = 64 << 10;
const STORE_BYTES: usize = 12;
const LANE_BYTES: usize = 10;
const HOLDER_BYTES: usize = 24;
const OWNER_BYTES: usize = 3;

const _: () = assert!(2 + 1 + 2 + 5 == LANE_BYTES);
const _: () = assert!(2 + 1 + 8 + 4 + 8 + 1 == HOLDER_BYTES);

/// Keeps marks in a file. Blocks: for the admin thread.
#[derive(Debug)]
pub struct MarksFile {
    path: PathBuf,
    /// The file, once it is known to be whole.
    slots: Option<Slots>,
    /// Kept from one store to the next.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Slots {
    file: File,
    slot_bytes: usize,
    /// Of the newest whole slot.
    sequence: u64,
    /// The slot to fill next.
    older: usize,
}

impl Slots {
    fn is_as_made(&self) -> bool {
        let meta = self.file.metadata();
        meta.is_ok_and(|meta| meta.len() == 2 * self.slot_bytes as u64 && meta.nlink() > 0)
    }
}

impl MarksFile {
    /// Marks in `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, slots: None, scratch: Vec::new() }
    }

    fn error(&self, action: &'static str) -> impl Fn(io::Error) -> StoreError {
        let path = self.path.clone();
        move |source| {
            let remedy = remedy(&source);
            StoreError::Io { action, path: path.clone(), source, remedy }
        }
    }

    /// Fills the older slot; false when the marks do not fit.
    fn store_in_place(&mut self) -> Result<bool, StoreError> {
        // A file that was cut short or removed under the node is made anew, or found out to be
        // impossible to make.
        let fits = |slots: &mut Slots| self.scratch.len() <= slots.slot_bytes && slots.is_as_made();
        let Some(mut slots) = self.slots.take_if(fits) else { return Ok(false) };
        seal(&mut self.scratch, slots.sequence + 1);
        let start = (slots.older * slots.slot_bytes) as u64;
        // On failure the file stays closed: what the system holds of it is unknown, and the next
        // store makes a new one.
        let written = slots.file.write_all_at(&self.scratch, start);
        written.and_then(|()| slots.file.sync_data()).map_err(self.error("write"))?;
        slots.sequence += 1;
        slots.older = 1 - slots.older;
        self.slots = Some(slots);
        Ok(true)
    }

    /// Puts a new file with room to grow in place of the old one.
    fn store_anew(&mut self, sequence: u64) -> Result<(), StoreError> {
        seal(&mut self.scratch, sequence);
        let slot_bytes = self.scratch.len().next_power_of_two().max(SLOT_BYTES_MIN);
        let path = self.path.with_extension("new");
        let make = || {
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
            allocate(&file, 2 * slot_bytes as u64)?;
            file.write_all_at(&self.scratch, 0)?;
            file.sync_all()?;
            fs::rename(&path, &self.path)?;
            sync_folder(&self.path)?;
            Ok(file)
        };
        let file = make().map_err(self.error("write"))?;
        self.slots = Some(Slots { file, slot_bytes, sequence, older: 1 });
        Ok(())
    }
}

impl CheckpointStore for MarksFile {
    fn load(&mut self) -> Result<Option<Marks>, StoreError> {
        self.slots = None;
        let content = match fs::read(&self.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error("read")(error)),
        };
        let (first, second) = content.split_at(content.len() / 2);
        let found = [first, second].map(decode);
        let newest = (0..2).filter_map(|slot| Some((found[slot].as_ref()?.0, slot))).max();
        let Some((sequence, slot)) = newest else {
            return Err(StoreError::Corrupt { path: self.path.clone() });
        };
        // A file of another size is not as it was made: the next store makes a new one.
        if content.len().is_multiple_of(2 * SLOT_BYTES_MIN) {
            let file = File::options().read(true).write(true).open(&self.path);
            let file = file.map_err(self.error("open"))?;
            let slot_bytes = content.len() / 2;
            self.slots = Some(Slots { file, slot_bytes, sequence, older: 1 - slot });
        }
        Ok(found.into_iter().flatten().find(|(s, _)| *s == sequence).map(|(_, marks)| marks))
    }

    fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
        let sequence = self.slots.as_ref().map_or(0, |slots| slots.sequence);
        encode(marks, &mut self.scratch);
        if !self.store_in_place()? {
            self.store_anew(sequence + 1)?;
        }
        Ok(())
    }
}

/// A slot with everything but sequence and checksum.
fn encode(marks: &Marks, out: &mut Vec<u8>) {
    out.clear();
    out.resize(SLOT_HEADER_BYTES, 0);
    out.extend_from_slice(&(marks.dcs.len() as u16).to_le_bytes());
    marks.dcs.iter().for_each(|name| encode_name(name, out));
    out.push(marks.namespaces.len() as u8);
    marks.namespaces.iter().for_each(|name| encode_name(name, out));
    debug_assert_eq!(marks.stores.len(), marks.namespaces.len());
    for StoreRun { id, run } in &marks.stores {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&run.to_le_bytes());
    }
    out.extend_from_slice(&(marks.lanes.len() as u32).to_le_bytes());
    for Mark { lane, lst } in &marks.lanes {
        out.extend_from_slice(&(lane.dc.0 as u16).to_le_bytes());
        out.push(lane.namespace.0);
        out.extend_from_slice(&(lane.partition.index() as u16).to_le_bytes());
        out.extend_from_slice(&lst.to_bytes());
    }
    out.extend_from_slice(&(marks.holders.len() as u32).to_le_bytes());
    for Holder { dc, namespace, store, hole } in &marks.holders {
        let (store, boot) = store.unwrap_or_default();
        out.extend_from_slice(&(dc.0 as u16).to_le_bytes());
        out.push(namespace.0);
        out.extend_from_slice(&store.id.to_le_bytes());
        out.extend_from_slice(&store.run.to_le_bytes());
        out.extend_from_slice(&boot.to_le_bytes());
        let number = HOLES.iter().position(|known| known == hole);
        out.push(number.expect("every hole has a number") as u8);
    }
    let LettersMark { generation, frames, owners } = &marks.letters;
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&frames.to_le_bytes());
    out.extend_from_slice(&(owners.len() as u32).to_le_bytes());
    for (dc, namespace) in owners {
        out.extend_from_slice(&(dc.0 as u16).to_le_bytes());
        out.push(namespace.0);
    }
    let body_bytes = (out.len() - SLOT_HEADER_BYTES) as u32;
    put(out, 0, &MAGIC);
    put(out, 16, &body_bytes.to_le_bytes());
    put(out, 20, &FORMAT_VERSION.to_le_bytes());
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    debug_assert!(name.len() <= usize::from(u8::MAX), "config allows 31 bytes");
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// What a destination may lack, each at its number on file.
const HOLES: [Option<Hole>; 5] = [
    None,
    Some(Hole::OtherStore),
    Some(Hole::OlderCopy),
    Some(Hole::Incomplete),
    Some(Hole::LettersLost),
];

fn seal(slot: &mut [u8], sequence: u64) {
    put(slot, 8, &sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[8..]);
    put(slot, 4, &checksum.to_le_bytes());
}

/// Sequence and marks of a slot, if it is whole.
fn decode(slot: &[u8]) -> Option<(u64, Marks)> {
    let header = slot.get(..SLOT_HEADER_BYTES)?;
    let end = SLOT_HEADER_BYTES.checked_add(u32_at(header, 16) as usize)?;
    let sealed = slot.get(8..end)?;
    let is_whole = header[..4] == MAGIC
        && u32_at(header, 20) == FORMAT_VERSION
        && u32_at(header, 4) == crc32c::crc32c(sealed);
    let marks = is_whole.then(|| decode_body(&slot[SLOT_HEADER_BYTES..end]))??;
    Some((u64_at(header, 8), marks))
}

fn decode_body(mut body: &[u8]) -> Option<Marks> {
    let dc_count = u16_at(body.split_off(..2)?, 0);
    let dcs = decode_names(&mut body, dc_count.into())?;
    let namespace_count = *body.split_off_first()?;
    let namespaces = decode_names(&mut body, namespace_count.into())?;
    let stores = body.split_off(..STORE_BYTES * namespaces.len())?.chunks_exact(STORE_BYTES);
    let stores = stores.map(|row| StoreRun { id: u64_at(row, 0), run: u32_at(row, 8) }).collect();
    let lane_count = u32_at(body.split_off(..4)?, 0) as usize;
    let rows = body.split_off(..LANE_BYTES.checked_mul(lane_count)?)?.chunks_exact(LANE_BYTES);
    let lanes = rows.map(decode_lane).collect::<Option<Vec<_>>>()?;
    let holder_count = u32_at(body.split_off(..4)?, 0) as usize;
    let rows =
        body.split_off(..HOLDER_BYTES.checked_mul(holder_count)?)?.chunks_exact(HOLDER_BYTES);
    let holders = rows.map(decode_holder).collect::<Option<Vec<_>>>()?;
    let letters = decode_letters(body)?;
    let is_known = |dc: DcIndex, namespace: NamespaceId| {
        dc.index() < dcs.len() && namespace.index() < namespaces.len()
    };
    let all_known = lanes.iter().all(|mark| is_known(mark.lane.dc, mark.lane.namespace))
        && holders.iter().all(|holder| is_known(holder.dc, holder.namespace))
        && letters.owners.iter().all(|(dc, namespace)| is_known(*dc, *namespace));
    all_known.then_some(Marks { dcs, namespaces, stores, lanes, holders, letters })
}

fn decode_letters(mut body: &[u8]) -> Option<LettersMark> {
    let fixed = body.split_off(..12)?;
    let owner_count = u32_at(fixed, 8) as usize;
    let rows = body.chunks_exact(OWNER_BYTES);
    let is_exact = rows.len() == owner_count && rows.remainder().is_empty();
    is_exact.then(|| LettersMark {
        generation: u32_at(fixed, 0),
        frames: u32_at(fixed, 4),
        owners: rows.map(|row| (DcIndex(u16_at(row, 0).into()), NamespaceId(row[2]))).collect(),
    })
}

fn decode_holder(row: &[u8]) -> Option<Holder> {
    let store = StoreRun { id: u64_at(row, 3), run: u32_at(row, 11) };
    Some(Holder {
        dc: DcIndex(u16_at(row, 0).into()),
        namespace: NamespaceId(row[2]),
        store: (store.id > 0).then(|| (store, u64_at(row, 15))),
        hole: *HOLES.get(usize::from(row[23]))?,
    })
}

fn decode_names(body: &mut &[u8], count: usize) -> Option<Vec<String>> {
    let name = |_| {
        let length = usize::from(*body.split_off_first()?);
        String::from_utf8(body.split_off(..length)?.to_vec()).ok()
    };
    (0..count).map(name).collect()
}

fn decode_lane(row: &[u8]) -> Option<Mark> {
    let partition = u16_at(row, 3);
    (usize::from(partition) < PARTITION_COUNT).then(|| Mark {
        lane: LaneId {
            dc: DcIndex(u16_at(row, 0).into()),
            namespace: NamespaceId(row[2]),
            partition: PartitionId::new(partition),
        },
        lst: Lut::from_bytes([row[5], row[6], row[7], row[8], row[9]]),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn marks(lanes: u16, lst: u64) -> Marks {
        let mark = |n: u16| Mark {
            lane: LaneId {
                dc: DcIndex((n % 2).into()),
                namespace: NamespaceId(0),
                partition: PartitionId::new(n / 2),
            },
            lst: Lut::from_ms(lst + u64::from(n)),
        };
        let holder = |n: u32| Holder {
            dc: DcIndex(n % 2),
            namespace: NamespaceId(0),
            store: (n > 0).then(|| (StoreRun { id: u64::MAX - u64::from(n), run: n }, lst)),
            hole: HOLES[n as usize],
        };
        Marks {
            dcs: vec!["berlin".into(), "tokyo".into()],
            namespaces: vec!["demo".into()],
            stores: vec![StoreRun { id: 0xDE50, run: 7 }],
            lanes: (0..lanes).map(mark).collect(),
            holders: (0..u32::from(lanes).min(5)).map(holder).collect(),
            letters: LettersMark {
                generation: lanes.into(),
                frames: 7,
                owners: (0..u32::from(lanes).min(2))
                    .map(|n| (DcIndex(n), NamespaceId(0)))
                    .collect(),
            },
        }
    }

    fn load(path: &Path) -> Result<Option<Marks>, StoreError> {
        MarksFile::new(path.to_owned()).load()
    }

    #[test]
    fn marks_come_back_after_every_store_and_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        assert_eq!(load(&path).unwrap(), None);
        let mut file = MarksFile::new(path.clone());
        for lanes in [0, 1, 2, 8192, 8000, 3] {
            file.store(&marks(lanes, 1 << 39)).unwrap();
            assert_eq!(load(&path).unwrap(), Some(marks(lanes, 1 << 39)));
        }
        let mut file = MarksFile::new(path.clone());
        file.load().unwrap();
        file.store(&marks(5, 9)).unwrap();
        assert_eq!(load(&path).unwrap(), Some(marks(5, 9)));
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_file_cut_short_under_the_node_is_no_signal_and_mended_by_the_next_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let mut file = MarksFile::new(path.clone());
        file.store(&marks(8000, 10)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        for lst in [20, 30] {
            file.store(&marks(8000, lst)).unwrap();
            assert_eq!(load(&path).unwrap(), Some(marks(8000, lst)));
        }
        fs::remove_file(&path).unwrap();
        file.store(&marks(3, 40)).unwrap();
        assert_eq!(load(&path).unwrap(), Some(marks(3, 40)));
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(matches!(file.store(&marks(3, 50)), Err(StoreError::Io { .. })), "said, not lost");
    }

    #[test]
    fn a_store_that_finds_no_room_is_an_error_and_the_former_marks_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let mut file = MarksFile::new(path.clone());
        file.store(&marks(3, 10)).unwrap();
        // Nothing can be made in place of it.
        fs::create_dir(path.with_extension("new")).unwrap();
        for _ in 0..2 {
            assert!(matches!(file.store(&marks(8000, 20)), Err(StoreError::Io { .. })));
            assert_eq!(load(&path).unwrap(), Some(marks(3, 10)));
            // What fits is stored all the same.
            file.store(&marks(3, 10)).unwrap();
        }
        fs::remove_dir(path.with_extension("new")).unwrap();
        file.store(&marks(8000, 30)).unwrap();
        assert_eq!(load(&path).unwrap(), Some(marks(8000, 30)));
        const ENOSPC: i32 = 28;
        let full = file.error("write")(io::Error::from_raw_os_error(ENOSPC)).to_string();
        assert!(full.ends_with("make room there"), "{full}");
    }

    #[test]
    fn a_damaged_slot_leaves_the_former_marks_and_two_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let mut file = MarksFile::new(path.clone());
        file.store(&marks(3, 10)).unwrap();
        file.store(&marks(3, 20)).unwrap();
        drop(file);
        let whole = fs::read(&path).unwrap();
        let newer = whole.len() / 2;
        let mut slot = Vec::new();
        encode(&marks(3, 20), &mut slot);
        for at in 0..slot.len() {
            let mut content = whole.clone();
            content[newer + at] ^= 0x20;
            fs::write(&path, &content).unwrap();
            assert_eq!(load(&path).unwrap(), Some(marks(3, 10)), "byte {at}");
            content[at] ^= 0x20;
            fs::write(&path, &content).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error}");
        }
        for length in [0, 1, 100] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(load(&path), Err(StoreError::Corrupt { .. })), "{length} bytes");
        }
        let mut file = MarksFile::new(path.clone());
        file.load().unwrap_err();
        file.store(&marks(4, 30)).unwrap();
        assert_eq!(load(&path).unwrap(), Some(marks(4, 30)), "a store mends it");
    }
}
