//! The epochs of a volume: by them a device that was away, or an older copy of one, is told from
//! those that were in use. See [`super::device`] for what is written in which order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::admit::Roster;
use super::device::{AT_REST, DeviceHeader, OpenDevice};
use super::known;
use longship::model::Version;
use longship_rt::clock::boot_id;

/// Takes the devices of a volume, and what the work directory knows of them, from one epoch to the
/// next.
#[derive(Debug)]
pub(super) struct Epochs {
    namespace: String,
    work: Option<PathBuf>,
    roster: Mutex<Roster>,
    is_closing: AtomicBool,
    /// No power failure has been since the devices were left, or what one has taken is noted.
    has_settled: AtomicBool,
}

impl Epochs {
    /// Of a volume whose devices are to be taken to an epoch after that of `roster`. `had_power`: no
    /// power failure has been since they were left.
    pub(super) fn new(
        namespace: &str,
        work: Option<&Path>,
        roster: Roster,
        had_power: bool,
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            work: work.map(Path::to_owned),
            roster: Mutex::new(roster),
            is_closing: AtomicBool::new(false),
            has_settled: AtomicBool::new(had_power),
        }
    }

    /// The epoch that is complete. None is begun from now on but by [`Self::advance`].
    pub(super) fn last(&self) -> u64 {
        let roster = self.roster();
        self.is_closing.store(true, Ordering::Relaxed);
        roster.epoch
    }

    /// What a power failure before this start has taken is noted: it is no damage to the next one.
    pub(super) fn settle(&self) {
        self.has_settled.store(true, Ordering::Relaxed);
    }

    /// The run of the system that the devices have been under since: unknown until it is noted what
    /// an earlier one's end has taken.
    fn boot(&self) -> u32 {
        if self.has_settled.load(Ordering::Relaxed) { boot() } else { 0 }
    }

    /// Notes that there are marks of the run which began with epoch `run`.
    pub(super) fn note_run(&self, run: u32) {
        self.roster().run = run;
    }

    /// Begins the next epoch, unless the run is being closed.
    pub(super) fn go_on<'a>(
        &self,
        devices: impl Iterator<Item = &'a OpenDevice> + Clone,
    ) -> Result<(), (PathBuf, io::Error)> {
        let mut roster = self.roster();
        match self.is_closing.load(Ordering::Relaxed) {
            true => Ok(()),
            false => {
                let next = roster.epoch + 1;
                self.take_to(&mut roster, devices, next, self.boot())
            }
        }
    }

    fn roster(&self) -> std::sync::MutexGuard<'_, Roster> {
        self.roster.lock().expect("nobody panics holding it")
    }

    /// Goes to epoch `next`: when this returns every device says so, durably. A failure names the
    /// device; those before it may have begun.
    pub(super) fn advance<'a>(
        &self,
        devices: impl Iterator<Item = &'a OpenDevice> + Clone,
        next: u64,
    ) -> Result<(), (PathBuf, io::Error)> {
        self.take_to(&mut self.roster(), devices, next, self.boot())
    }

    /// Goes to an epoch that none follows in this run, with everything durable: every filling that was
    /// begun below `whole_below` is on the devices.
    pub(super) fn close<'a>(
        &self,
        devices: impl Iterator<Item = &'a OpenDevice> + Clone,
        whole_below: Version,
    ) -> Result<(), (PathBuf, io::Error)> {
        let next = self.last() + 1;
        let mut roster = self.roster();
        roster.whole_below = whole_below;
        self.take_to(&mut roster, devices, next, AT_REST)
    }

    fn take_to<'a>(
        &self,
        roster: &mut Roster,
        devices: impl Iterator<Item = &'a OpenDevice> + Clone,
        next: u64,
        boot: u32,
    ) -> Result<(), (PathBuf, io::Error)> {
        let header = |roster: &Roster, position, epoch| {
            header_of(&self.namespace, roster, position, (epoch, next, boot))
        };
        for (position, device) in devices.clone().enumerate() {
            let begun = device.note_begun(&header(roster, position, roster.epoch));
            begun.map_err(|error| (device.path.clone(), error))?;
        }
        roster.epoch = next;
        if let Some(work) = &self.work {
            known::store(work, &self.namespace, roster).map_err(|error| (work.clone(), error))?;
        }
        for (position, device) in devices.enumerate() {
            let complete = device.note_complete(&header(roster, position, next));
            complete.map_err(|error| (device.path.clone(), error))?;
        }
        Ok(())
    }
}

/// What the header of a device says in an epoch.
pub(super) fn header_of(
    namespace: &str,
    roster: &Roster,
    position: usize,
    (epoch, begun, boot): (u64, u64, u32),
) -> DeviceHeader {
    DeviceHeader {
        device_id: roster.members[position].id,
        volume_id: roster.volume_id,
        block_bytes: roster.block_bytes,
        run: roster.run,
        crash_cost: roster.crash_cost,
        whole_below: roster.whole_below,
        boot,
        epoch,
        begun,
        position: position as u16,
        members: roster.members.clone(),
        namespace: namespace.to_owned(),
    }
}

/// Names this run of the system; 0 when it does not tell.
pub(super) fn boot() -> u32 {
    let id = boot_id();
    if id.is_empty() { 0 } else { crc32c::crc32c(&id).clamp(1, AT_REST - 1) }
}
