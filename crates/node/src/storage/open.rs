//! Opening the volumes of a node: everything is looked at first, then judged, and only when nothing
//! is in the way of any namespace is anything made, formatted or extended. Blocks: for the main
//! thread, before the shards start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::accepted::Accepted;
use super::admit::{Act, Given, Part, Plan, Roster, Words, judge};
use super::device::{
    DeviceError, DeviceHeader, DeviceKey, Member, OpenDevice, Seen, end_of, folder_of, look,
};
use super::epochs::{Epochs, boot, header_of};
use super::known;
use super::loss::CrashCost;
use super::refusal::{Cause, Refusal};
use super::volume::{Device, Volume};
use longship_rt::bytes::sync_folder;
use longship_rt::disk_ring::file::{allocate, free_bytes};
use longship_rt::makes_files::makes_files;
use longship_rt::random::random_u64;

use crate::config::NamespaceConfig;

/// What was found for a namespace.
struct Survey<'a> {
    config: &'a NamespaceConfig,
    seen: Vec<Seen>,
    open: Vec<Option<OpenDevice>>,
    remembered: Option<Roster>,
    accepted: Accepted,
}

impl Volume {
    /// Opens the devices of all namespaces of a node. What was never in use and is blank is
    /// formatted; whatever else is not as it was left takes one of `words`.
    ///
    /// # Errors
    ///
    /// What the system refuses, and everything that is in the way, of all namespaces at once.
    /// Nothing was changed on any device then, but for what `words` allow.
    pub fn open_all(
        namespaces: &[NamespaceConfig],
        shard_count: u16,
        work: Option<&Path>,
        words: &Words,
    ) -> Result<Vec<Self>, DeviceError> {
        let (surveys, plans) = look_at(namespaces, shard_count, work, words)?;
        // From here on headers tell what the files are.
        make_room(&surveys)?.keep();
        let each = surveys.into_iter().zip(plans);
        each.map(|(survey, plan)| open_one(survey, plan, shard_count, work)).collect()
    }

    /// Opens the devices of one namespace that is nobody's: no work directory knows of it.
    ///
    /// # Errors
    ///
    /// As [`Self::open_all`].
    pub fn open(config: &NamespaceConfig, shard_count: u16) -> Result<Self, DeviceError> {
        let all = std::slice::from_ref(config);
        let mut opened = Self::open_all(all, shard_count, None, &Words::default())?;
        Ok(opened.remove(0))
    }

    /// Everything that would be in the way of a start with these `words`. Changes nothing.
    ///
    /// # Errors
    ///
    /// What the system refuses, or would refuse.
    pub fn examine(
        namespaces: &[NamespaceConfig],
        shard_count: u16,
        work: &Path,
        words: &Words,
    ) -> Result<Vec<Refusal>, DeviceError> {
        match look_at(namespaces, shard_count, Some(work), words) {
            Ok(_) => Ok(Vec::new()),
            Err(DeviceError::Refused { refusals }) => Ok(refusals),
            Err(error) => Err(error),
        }
    }
}

/// Everything that is asked before anything is made or changed.
fn look_at<'a>(
    namespaces: &'a [NamespaceConfig],
    shard_count: u16,
    work: Option<&Path>,
    words: &Words,
) -> Result<(Vec<Survey<'a>>, Vec<Plan>), DeviceError> {
    let surveys = survey(namespaces, work)?;
    let plans = judge_all(&surveys, shard_count, words)?;
    find_folders(&surveys)?;
    find_room(&surveys)?;
    Ok((surveys, plans))
}

fn paths_of(config: &NamespaceConfig) -> impl Iterator<Item = (&PathBuf, bool)> {
    let storage = &config.storage;
    let files = storage.files.iter().map(|path| (path, true));
    files.chain(storage.devices.iter().map(|path| (path, false)))
}

/// Looks at every device of every namespace.
fn survey<'a>(
    namespaces: &'a [NamespaceConfig],
    work: Option<&Path>,
) -> Result<Vec<Survey<'a>>, DeviceError> {
    let mut places: BTreeMap<DeviceKey, &Path> = BTreeMap::new();
    let mut refusals = Vec::new();
    for config in namespaces {
        for (path, _) in paths_of(config) {
            if let Some(other) = places.insert(DeviceKey::of(path), path) {
                refusals.push(Refusal {
                    namespace: config.name.clone(),
                    path: Some(path.clone()),
                    cause: Cause::Twice(other.to_owned()),
                    accept: None,
                    format: None,
                });
            }
        }
    }
    if !refusals.is_empty() {
        return Err(DeviceError::Refused { refusals });
    }
    let survey = |config: &'a NamespaceConfig| {
        let remembered = match work {
            Some(work) => known::load(work, &config.name)?,
            None => None,
        };
        let looked = paths_of(config).map(|(path, is_file)| look(path, is_file));
        let looked = looked.collect::<Result<Vec<_>, _>>()?;
        let (seen, open) = looked.into_iter().unzip();
        let accepted = Accepted::load(work, &config.name)?;
        Ok(Survey { config, seen, open, remembered, accepted })
    };
    namespaces.iter().map(survey).collect()
}

fn judge_all(
    surveys: &[Survey<'_>],
    shard_count: u16,
    words: &Words,
) -> Result<Vec<Plan>, DeviceError> {
    let (mut plans, mut refusals) = (Vec::new(), Vec::new());
    for Survey { config, seen, remembered, .. } in surveys {
        let given = Given {
            namespace: &config.name,
            block_bytes: config.storage.write_block_size,
            filesize: config.storage.filesize,
            shard_count,
            boot: boot(),
            seen,
            remembered: remembered.as_ref(),
            words,
        };
        match judge(&given, &mut random_u64) {
            Ok(plan) => plans.push(plan),
            Err(more) => refusals.extend(more),
        }
    }
    if refusals.is_empty() { Ok(plans) } else { Err(DeviceError::Refused { refusals }) }
}

/// Files made or extended by a start, put back as they were unless all get their space.
#[derive(Default)]
struct Made {
    /// Each with its former size; `None` for one that was not there.
    files: Vec<(PathBuf, Option<u64>)>,
}

impl Made {
    fn keep(mut self) {
        self.files.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (path, former) in self.files.drain(..) {
            let undone = match former {
                None => fs::remove_file(&path),
                Some(bytes) => {
                    File::options().write(true).open(&path).and_then(|file| file.set_len(bytes))
                }
            };
            if let Err(error) = undone {
                tracing::error!("{}: cannot be put back as it was: {error}", path.display());
            }
        }
    }
}

/// Each file, with the size it is to have.
fn files_of<'a>(surveys: &'a [Survey<'_>]) -> impl Iterator<Item = (&'a Seen, u64)> {
    surveys.iter().flat_map(|survey| {
        let filesize = survey.config.storage.filesize;
        let files = survey.seen.iter().filter(|seen| seen.is_file);
        files.map(move |seen| (seen, filesize))
    })
}

/// Whether files that are not there can be made.
fn find_folders(surveys: &[Survey<'_>]) -> Result<(), DeviceError> {
    for (Seen { path, .. }, _) in files_of(surveys).filter(|(seen, _)| seen.is_absent()) {
        let file = end_of(path);
        let folder = folder_of(&file);
        let refused = |source| {
            let path = folder.to_owned();
            DeviceError::Io { action: "make a file in", path, source }
        };
        makes_files(folder).map_err(refused)?;
    }
    Ok(())
}

/// Whether there is space for all files.
fn find_room(surveys: &[Survey<'_>]) -> Result<(), DeviceError> {
    let mut wanted: BTreeMap<u64, (u64, &Path)> = BTreeMap::new();
    for (seen, filesize) in files_of(surveys) {
        let io = |source| DeviceError::Io { action: "look at", path: seen.path.clone(), source };
        let (file_system, missing) = match seen.path.metadata() {
            Ok(meta) => (meta.dev(), filesize.saturating_sub(meta.blocks() * 512)),
            Err(_) => (folder_of(&seen.path).metadata().map_err(io)?.dev(), filesize),
        };
        wanted.entry(file_system).or_insert((0, &seen.path)).0 += missing;
    }
    for (wanted, path) in wanted.into_values().filter(|(wanted, _)| *wanted > 0) {
        let path = path.to_owned();
        match free_bytes(folder_of(&path)) {
            Ok(free) if free < wanted => return Err(DeviceError::NoRoom { path, wanted, free }),
            Ok(_) => {}
            Err(source) => {
                return Err(DeviceError::Io { action: "find room for", path, source });
            }
        }
    }
    Ok(())
}

/// Gives all files their space, or none.
fn make_room(surveys: &[Survey<'_>]) -> Result<Made, DeviceError> {
    let mut made = Made::default();
    for (seen, filesize) in files_of(surveys) {
        let Seen { path, bytes, .. } = seen;
        let io = |action| move |source| DeviceError::Io { action, path: path.to_owned(), source };
        let is_absent = seen.is_absent();
        let mut options = File::options();
        options.write(true).create(is_absent).truncate(false).mode(0o600);
        let file = options.open(path).map_err(io("create"))?;
        made.files.push((path.clone(), (!is_absent).then_some(*bytes)));
        allocate(&file, filesize).map_err(io("allocate space for"))?;
        sync_folder(path).map_err(io("sync the folder of"))?;
    }
    Ok(made)
}

/// Does what the plan says, takes the volume to its next epoch, and measures its devices.
fn open_one(
    survey: Survey<'_>,
    plan: Plan,
    shard_count: u16,
    work: Option<&Path>,
) -> Result<Volume, DeviceError> {
    let Survey { config, seen, open, accepted, .. } = survey;
    let storage = &config.storage;
    let block_bytes = storage.write_block_size;
    plan.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let roster = Roster {
        volume_id: plan.volume_id,
        epoch: plan.epoch,
        block_bytes,
        run: plan.last_run,
        // Until this run has ended in order, what the one before it left may not be settled.
        crash_cost: CrashCost::of(storage).max(plan.crash_cost),
        whole_below: plan.whole_below,
        members: plan
            .parts
            .iter()
            .map(|part| Member { id: part.id, blocks: part.blocks })
            .collect(),
        paths: seen.iter().map(|seen| Some(seen.path.clone())).collect(),
    };
    let mut devices = Vec::with_capacity(seen.len());
    for (position, ((part, seen), open)) in plan.parts.iter().zip(&seen).zip(open).enumerate() {
        let open = match open {
            Some(open) => open,
            None => OpenDevice::open(&seen.path, false)?,
        };
        let header = header_of(&config.name, &roster, position, (0, 0, boot()));
        prepare(&open, &header, *part).map_err(|source| DeviceError::Io {
            action: "write the header of",
            path: seen.path.clone(),
            source,
        })?;
        devices.push(open);
    }
    let epochs = Epochs::new(&config.name, work, roster, plan.had_power);
    epochs.advance(devices.iter(), plan.next_epoch).map_err(|(path, source)| DeviceError::Io {
        action: "write what is known of a volume to",
        path,
        source,
    })?;
    let has_cheap_durable_writes = measure(&devices, block_bytes)?;
    let devices = devices.into_iter().zip(&plan.parts);
    let devices = devices.map(|(open, Part { id, blocks, .. })| Device::new(open, *id, *blocks));
    let devices = devices.collect();
    let volume = Volume::new(config, shard_count, plan, epochs, devices, has_cheap_durable_writes);
    let volume = volume.with_accepted(accepted);
    Ok(match work {
        Some(work) => volume.with_checkpoints(work.to_owned()),
        None => volume,
    })
}

/// Makes a device what the plan takes it for.
fn prepare(device: &OpenDevice, header: &DeviceHeader, part: Part) -> io::Result<()> {
    let path = device.path.display();
    let Part { blocks, act, .. } = part;
    match act {
        Act::Keep(known) if known < blocks => {
            tracing::info!("{path}: grown from {known} to {blocks} blocks");
            device.wipe(header.block_bytes, known..blocks)
        }
        Act::Keep(_) => Ok(()),
        Act::Restore | Act::Format => device.format(header),
        Act::Wipe => {
            tracing::warn!("{path}: what it held is wiped");
            device.wipe(header.block_bytes, 0..blocks)?;
            device.format(header)
        }
    }
    .inspect(|()| {
        if !matches!(act, Act::Keep(_)) {
            tracing::info!(
                "{path}: formatted as device {} of {} of volume {:016X}, namespace {}",
                header.position + 1,
                header.members.len(),
                header.volume_id,
                header.namespace
            );
        }
    })
}

/// Says of each device what a write costs; whether durable ones are cheap on all.
fn measure(devices: &[OpenDevice], block_bytes: u32) -> Result<bool, DeviceError> {
    let mut all_cheap = true;
    for device in devices {
        let (limits, cost) = device.probe(block_bytes)?;
        let is_cheap = cost.durable_is_cheap();
        all_cheap &= is_cheap;
        tracing::info!(
            "{}: 4 KiB written in {} us, durably in {} us: {}; requests of up to {} bytes in \
             multiples of {}",
            device.path.display(),
            cost.plain_us,
            cost.durable_us,
            if is_cheap { "each write is made durable" } else { "one flush serves many writes" },
            limits.transfer_bytes_max,
            limits.alignment_bytes,
        );
    }
    Ok(all_cheap)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};

    use super::super::accept;
    use super::*;
    use crate::config::StorageConfig;
    use longship_rt::disk_ring::file::disk_folder;

    const BLOCK_BYTES: u32 = 128 << 10;
    const FILE_BYTES: u64 = 4 << 20;

    /// A folder with a work directory, and a namespace of those files.
    struct Bed {
        folder: tempfile::TempDir,
        config: NamespaceConfig,
    }

    impl Bed {
        fn new(files: &[&str]) -> Self {
            let folder = disk_folder();
            fs::create_dir(folder.path().join("work")).unwrap();
            let files = files.iter().map(|name| folder.path().join(name)).collect();
            let storage = StorageConfig {
                files,
                filesize: FILE_BYTES,
                write_block_size: BLOCK_BYTES,
                ..StorageConfig::default()
            };
            let config = NamespaceConfig { storage, ..NamespaceConfig::named("demo") };
            Self { folder, config }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn open(&self) -> Result<Volume, DeviceError> {
            let work = self.path("work");
            let words = known::words(&work).unwrap();
            let all = std::slice::from_ref(&self.config);
            let opened = Volume::open_all(all, 1, Some(&work), &words)?;
            known::forget_words(&work).unwrap();
            Ok(opened.into_iter().next().unwrap())
        }

        fn refused(&self) -> Vec<Refusal> {
            let Err(DeviceError::Refused { refusals }) = self.open() else {
                panic!("nothing was refused")
            };
            let work = self.path("work");
            let all = std::slice::from_ref(&self.config);
            let examined = Volume::examine(all, 1, &work, &Words::default()).unwrap();
            assert_eq!(examined, refusals, "the operator is told the same beforehand");
            refusals
        }

        /// Everything is refused until the operator has given in, and that counts once.
        fn accept(&self) -> Volume {
            for refusal in self.refused() {
                let word = refusal.accept.or(refusal.format).unwrap();
                known::leave_word(&self.path("work"), &word).unwrap();
            }
            self.open().unwrap()
        }
    }

    fn ids(volume: &Volume) -> Vec<u64> {
        volume.devices.iter().map(|device| device.id).collect()
    }

    fn write_at(path: &Path, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    #[test]
    fn a_volume_is_opened_again_as_it_was_left() {
        let bed = Bed::new(&["a", "b"]);
        let first = bed.open().unwrap();
        assert!(first.is_new && first.last_epoch() == 1);
        let (id, devices) = (first.id, ids(&first));
        first.shard_stopped();
        drop(first);
        let again = bed.open().unwrap();
        assert_eq!((again.id, ids(&again)), (id, devices.clone()));
        assert_eq!((again.is_new, again.found_epoch, again.last_epoch()), (false, Some(2), 3));
        drop(again);
        // The work directory is lost.
        fs::remove_dir_all(bed.path("work")).unwrap();
        fs::create_dir(bed.path("work")).unwrap();
        assert_eq!(ids(&bed.open().unwrap()), devices);
        // And restored from a copy made then.
        let known = fs::read(bed.path("work/volume-demo")).unwrap();
        drop(bed.open().unwrap());
        fs::write(bed.path("work/volume-demo"), known).unwrap();
        assert_eq!(ids(&bed.open().unwrap()), devices);
    }

    #[test]
    fn a_lost_device_is_not_made_again_by_itself() {
        for lost in ["a", "b"] {
            let bed = Bed::new(&["a", "b"]);
            let devices = ids(&bed.open().unwrap());
            fs::rename(bed.path(lost), bed.path("away")).unwrap();
            let refusals = bed.refused();
            assert!(matches!(refusals[0].cause, Cause::Missing(_)), "{}", refusals[0]);
            assert!(!bed.path(lost).exists());
            // It comes back.
            fs::rename(bed.path("away"), bed.path(lost)).unwrap();
            assert_eq!(ids(&bed.open().unwrap()), devices);
            fs::remove_file(bed.path(lost)).unwrap();
            let accepted = bed.accept();
            assert!(accepted.gives_up);
            let replaced = ids(&accepted);
            drop(accepted);
            assert_eq!(replaced.iter().filter(|id| devices.contains(id)).count(), 1);
            let again = bed.open().unwrap();
            assert!(!again.gives_up);
            assert_eq!(ids(&again), replaced);
        }
    }

    #[test]
    fn zeros_over_the_beginning_do_not_make_a_device_blank() {
        let bed = Bed::new(&["a"]);
        let volume = bed.open().unwrap();
        let id = volume.devices[0].id;
        drop(volume);
        // The first page alone is a torn header; the second copy counts.
        write_at(&bed.path("a"), 0, &[0; 4096]);
        assert_eq!(ids(&bed.open().unwrap()), [id]);
        let block = super::super::block::BlockHeader {
            sequence: longship::model::Version::first_of(longship::model::Lut::from_ms(5)),
            device_id: id,
            number: 9,
            shard: 9,
            ..Default::default()
        };
        let mut bytes = vec![0; 4096];
        block.encode(&mut bytes);
        write_at(&bed.path("a"), 9 * u64::from(BLOCK_BYTES), &bytes);
        write_at(&bed.path("a"), 0, &vec![0; BLOCK_BYTES as usize]);
        assert!(matches!(bed.refused()[0].cause, Cause::HeaderGone(_)));
        assert_eq!(ids(&bed.accept()), [id], "by what the work directory knows");
        // Nobody knows it any more.
        write_at(&bed.path("a"), 0, &vec![0; BLOCK_BYTES as usize]);
        fs::remove_file(bed.path("work/volume-demo")).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Foreign(_)));
        assert!(bed.accept().is_new);
        let mut left = vec![1; 4096];
        let file = File::open(bed.path("a")).unwrap();
        file.read_exact_at(&mut left, 9 * u64::from(BLOCK_BYTES)).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "wiped");
    }

    #[test]
    fn a_file_cut_short_is_not_extended_by_itself() {
        let bed = Bed::new(&["a"]);
        drop(bed.open().unwrap());
        let cut = FILE_BYTES / 4;
        File::options().write(true).open(bed.path("a")).unwrap().set_len(cut).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Short { .. }));
        assert_eq!(bed.path("a").metadata().unwrap().len(), cut, "left as it is");
        assert_eq!(u64::from(bed.accept().devices[0].blocks), FILE_BYTES / u64::from(BLOCK_BYTES));
        assert!(bed.open().is_ok());
    }

    #[test]
    fn a_copy_from_before_is_older_whether_it_was_made_in_a_run_or_after_it() {
        let bed = Bed::new(&["a", "b"]);
        let volume = bed.open().unwrap();
        let live = fs::read(bed.path("b")).unwrap();
        volume.shard_stopped();
        drop(volume);
        let stopped = fs::read(bed.path("b")).unwrap();
        fs::write(bed.path("b"), &live).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Older { .. }), "stopped since");
        fs::write(bed.path("b"), &stopped).unwrap();
        drop(bed.open().unwrap());
        let whole = fs::read(bed.path("b")).unwrap();
        fs::write(bed.path("b"), &stopped).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Older { .. }), "started since");
        fs::write(bed.path("b"), whole).unwrap();
        drop(bed.open().unwrap());
        fs::write(bed.path("b"), &stopped).unwrap();
        drop(bed.accept());
        assert!(bed.open().is_ok());
    }

    #[test]
    fn a_copy_from_the_middle_of_a_run_is_older_after_a_crash() {
        let bed = Bed::new(&["a", "b"]);
        let volume = bed.open().unwrap();
        let copy = fs::read(bed.path("b")).unwrap();
        volume.begin_epoch();
        drop(volume);
        assert!(bed.open().is_ok(), "a crash alone is none");
        fs::write(bed.path("b"), copy).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Older { .. }));
        let volume = bed.accept();
        let last = volume.last_epoch();
        volume.begin_epoch();
        assert_eq!(volume.last_epoch(), last, "it is being closed");
    }

    #[test]
    fn a_start_that_ends_before_it_has_judged_does_not_hide_a_power_failure_from_the_next() {
        let bed = Bed::new(&["a", "b"]);
        drop(bed.open().unwrap());
        assert!(bed.open().unwrap().had_power);
        for name in ["a", "b"] {
            let file = File::options().read(true).write(true).open(bed.path(name)).unwrap();
            let mut start = vec![0; BLOCK_BYTES as usize];
            file.read_exact_at(&mut start, 0).unwrap();
            for page in start.chunks_mut(4096).filter(|page| page.starts_with(b"LONGSHIP")) {
                page[36..40].copy_from_slice(&1_u32.to_le_bytes());
                let checksum = crc32c::crc32c(&page[16..]);
                page[12..16].copy_from_slice(&checksum.to_le_bytes());
            }
            file.write_all_at(&start, 0).unwrap();
        }
        for _ in 0..2 {
            assert!(!bed.open().unwrap().had_power, "nobody has noted what it took");
        }
        let judged = bed.open().unwrap();
        assert!(accept::judge_damage(&judged, &Words::default()).unwrap().is_none());
        judged.begin_epoch();
        drop(judged);
        assert!(bed.open().unwrap().had_power);
    }

    #[test]
    fn one_device_under_two_names_is_refused() {
        let bed = Bed::new(&["a", "b"]);
        drop(bed.open().unwrap());
        fs::remove_file(bed.path("b")).unwrap();
        for is_hard in [true, false] {
            let (from, to) = (bed.path("a"), bed.path("b"));
            let made = if is_hard { fs::hard_link(from, to) } else { symlink(from, to) };
            made.unwrap();
            assert!(
                matches!(&bed.refused()[0].cause, Cause::Twice(other) if *other == bed.path("a"))
            );
            fs::remove_file(bed.path("b")).unwrap();
        }
        fs::copy(bed.path("a"), bed.path("b")).unwrap();
        assert!(matches!(&bed.refused()[0].cause, Cause::Twice(other) if *other == bed.path("a")));
    }

    #[test]
    fn a_file_of_somebody_else_is_left_as_it_is() {
        let bed = Bed::new(&["a"]);
        let letter = b"Dear Ada,\n".repeat(100);
        fs::write(bed.path("a"), &letter).unwrap();
        assert!(matches!(bed.refused()[0].cause, Cause::Foreign(0)));
        assert_eq!(fs::read(bed.path("a")).unwrap(), letter);
        assert!(bed.accept().is_new);
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_before_anything_is_made() {
        let mut bed = Bed::new(&["a", "b"]);
        bed.config.storage.filesize = 1 << 45;
        let error = bed.open().unwrap_err();
        let DeviceError::NoRoom { wanted, free, .. } = error else { panic!("{error}") };
        assert!(wanted == 2 << 45 && free < wanted);
        assert!(!bed.path("a").exists() && !bed.path("b").exists());
    }

    #[test]
    fn a_file_that_was_made_for_a_start_that_failed_is_gone_again() {
        let bed = Bed::new(&["a", "b"]);
        fs::write(bed.path("b"), [0; 1000]).unwrap();
        let surveys = survey(std::slice::from_ref(&bed.config), None).unwrap();
        let made = make_room(&surveys).unwrap();
        assert_eq!(bed.path("a").metadata().unwrap().len(), FILE_BYTES);
        drop(made);
        assert!(!bed.path("a").exists());
        assert_eq!(bed.path("b").metadata().unwrap().len(), 1000);
    }
}
