//! Which devices a namespace may be opened on: what was found is held against what the volume and
//! the work directory know. Pure: no I/O, nothing changes here.
//!
//! A device that could hold data is never formatted, extended or left out by itself. Each such case
//! is a [`Refusal`] with its cause, what giving in would cost, and the *word* by which the operator
//! says so. A word is made from all that was found, so it holds for that device in that state only,
//! and a start that has obeyed it changes the state: it holds once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::device::{AT_REST, Content, DEVICES_MAX, DeviceHeader, Member, Scar, Seen};
use super::loss::CrashCost;
use super::refusal::{Cause, Known, Refusal};
use longship::model::Version;

/// What is known of a volume: by its newest header, or by the work directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roster {
    pub(super) volume_id: u64,
    /// The last epoch that all of its devices had begun.
    pub(super) epoch: u64,
    pub(super) block_bytes: u32,
    /// The last run that has kept marks; 0 where the work directory alone knows the volume.
    pub(super) run: u32,
    /// What a crash of the last run may have cost.
    pub(super) crash_cost: CrashCost,
    /// The last run that ended in order left every filling that was begun below this as a whole.
    pub(super) whole_below: Version,
    pub(super) members: Vec<Member>,
    /// Where each member was last, as far as that is known.
    pub(super) paths: Vec<Option<PathBuf>>,
}

impl Roster {
    fn of(header: &DeviceHeader, remembered: Option<&Self>) -> Self {
        let path = |member: &Member| {
            let known = remembered?;
            let index = known.members.iter().position(|known| known.id == member.id)?;
            known.paths[index].clone()
        };
        Self {
            volume_id: header.volume_id,
            epoch: header.epoch,
            block_bytes: header.block_bytes,
            run: header.run,
            crash_cost: header.crash_cost,
            whole_below: header.whole_below,
            paths: header.members.iter().map(path).collect(),
            members: header.members.clone(),
        }
    }

    fn known(&self, position: usize) -> Known {
        let Member { id, blocks } = self.members[position];
        Known {
            number: position + 1,
            of: self.members.len(),
            id,
            bytes: u64::from(blocks) * u64::from(self.block_bytes),
            path: self.paths[position].clone(),
        }
    }
}

/// The words an operator has left for this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(BTreeSet<String>);

impl Words {
    /// The words in a text, one a line.
    pub fn in_text(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether that word was left.
    pub fn has(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    /// Where DCs start that have lost their positions, if the operator has said.
    pub fn positions(&self) -> Option<LostStart> {
        self.iter().find_map(|word| match word.strip_prefix("positions-")? {
            "now" => Some(LostStart::Now),
            seconds => seconds.parse().ok().map(LostStart::SecondsAgo),
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Where DCs start that have lost their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostStart {
    /// With the next write.
    Now,
    /// With what was changed so long ago.
    SecondsAgo(u64),
}

/// The word for `what` in exactly that state.
pub(super) fn word(what: &str, state: &impl fmt::Debug) -> String {
    format!("{what}-{:08x}", crc32c::crc32c(format!("{what} {state:?}").as_bytes()))
}

/// What is to be judged.
pub(super) struct Given<'a> {
    pub(super) namespace: &'a str,
    pub(super) block_bytes: u32,
    /// Size each file is to have.
    pub(super) filesize: u64,
    pub(super) shard_count: u16,
    /// The run of the system; 0 for unknown.
    pub(super) boot: u32,
    /// What was found, in the order of the configuration.
    pub(super) seen: &'a [Seen],
    /// What the work directory knows.
    pub(super) remembered: Option<&'a Roster>,
    pub(super) words: &'a Words,
}

/// How a namespace is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) volume_id: u64,
    /// What was written last has not been lost by a power failure.
    pub(super) had_power: bool,
    /// The last run ended in order, with everything durable.
    pub(super) is_at_rest: bool,
    /// The last run that has kept marks.
    pub(super) last_run: u32,
    /// What its crash may have cost; nothing if it ended in order.
    pub(super) crash_cost: CrashCost,
    /// Fillings begun below this were left as a whole by a run that ended in order.
    pub(super) whole_below: Version,
    /// Nothing of a former volume is kept.
    pub(super) is_new: bool,
    /// The last complete epoch.
    pub(super) epoch: u64,
    /// The last complete epoch, if all devices are as they were left then.
    pub(super) found_epoch: Option<u64>,
    /// The next epoch to begin.
    pub(super) next_epoch: u64,
    /// In the order of the configuration.
    pub(super) parts: Vec<Part>,
    /// Devices on which the operator takes what is missing from that block on: they are older or
    /// shorter than they were.
    pub(super) takes_missing: Vec<(u64, u32)>,
    /// The operator gives up what a device held, or may have held.
    pub(super) gives_up: bool,
    /// What the operator has taken, or should know.
    pub(super) notes: Vec<String>,
}

/// What is done with one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: u64,
    pub(super) blocks: u32,
    pub(super) act: Act,
}

/// What is done to a device before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It is as it was; blocks from this number on are new.
    Keep(u32),
    /// Its header is written again.
    Restore,
    /// It is blank and gets a header.
    Format,
    /// What it holds is given up; then it gets a header.
    Wipe,
}

/// Holds what was found against what is known. `fresh` makes ids.
pub(super) fn judge(
    given: &Given<'_>,
    fresh: &mut dyn FnMut() -> u64,
) -> Result<Plan, Vec<Refusal>> {
    let mut court = Court::of(given);
    court.look_for_twins();
    court.choose_volume();
    let parts: Vec<Option<Act>> = (0..given.seen.len()).map(|index| court.judge(index)).collect();
    court.look_for_lost();
    court.look_at_order();
    if !court.refusals.is_empty() {
        return Err(court.refusals);
    }
    let is_kept = |act: &Option<Act>| matches!(act, Some(Act::Keep(_) | Act::Restore));
    let roster = court.roster.filter(|_| parts.iter().any(is_kept));
    let parts = parts.into_iter().enumerate().map(|(index, act)| {
        let kept = court.claimed[index].zip(roster.as_ref());
        let act = act.unwrap_or(Act::Format);
        let id = match (act, kept) {
            (Act::Keep(_) | Act::Restore, Some((position, roster))) => roster.members[position].id,
            _ => fresh(),
        };
        Part { id, blocks: given.blocks(&given.seen[index]) as u32, act }
    });
    let parts = parts.collect();
    let headers = (0..given.seen.len()).filter_map(|index| given.header(index));
    Ok(Plan {
        volume_id: roster.as_ref().map_or_else(&mut *fresh, |roster| roster.volume_id),
        is_at_rest: headers.clone().all(|header| header.boot == AT_REST),
        had_power: headers.clone().all(|header| match header.boot {
            AT_REST => true,
            boot => boot > 0 && boot == given.boot,
        }),
        last_run: roster.as_ref().map_or(0, |roster| roster.run),
        crash_cost: headers
            .filter(|header| header.boot != AT_REST && roster.is_some())
            .map(|header| header.crash_cost)
            .fold(CrashCost::default(), CrashCost::max),
        whole_below: roster.as_ref().map_or(Version::ZERO, |roster| roster.whole_below),
        is_new: roster.is_none(),
        epoch: roster.as_ref().map_or(0, |_| court.newest),
        found_epoch: (roster.is_some() && !court.is_changed).then_some(court.newest),
        next_epoch: court.begun.max(court.newest) + 1,
        parts,
        takes_missing: court.takes_missing,
        gives_up: court.gives_up,
        notes: court.notes,
    })
}

impl Given<'_> {
    /// Blocks a device will have.
    fn blocks(&self, seen: &Seen) -> u64 {
        let bytes = if seen.is_file { seen.bytes.max(self.filesize) } else { seen.bytes };
        bytes / u64::from(self.block_bytes)
    }

    /// The header of a device that was in use; one that never was counts as blank.
    fn header(&self, index: usize) -> Option<&DeviceHeader> {
        match &self.seen[index].content {
            Content::Ours(header) if header.begun > 0 => Some(header),
            _ => None,
        }
    }
}

struct Court<'a> {
    given: &'a Given<'a>,
    /// The volume that the namespace was opened on before, if it was.
    roster: Option<Roster>,
    /// The last complete epoch of it, and the last that any device has begun.
    newest: u64,
    begun: u64,
    /// The member that each configured device is, or stands in for.
    claimed: Vec<Option<usize>>,
    /// Something was taken by the operator's word.
    is_changed: bool,
    takes_missing: Vec<(u64, u32)>,
    /// With that word, some of what the volume held.
    gives_up: bool,
    refusals: Vec<Refusal>,
    notes: Vec<String>,
}

impl<'a> Court<'a> {
    fn of(given: &'a Given<'a>) -> Self {
        Self {
            given,
            roster: None,
            newest: 0,
            begun: 0,
            claimed: vec![None; given.seen.len()],
            is_changed: false,
            takes_missing: Vec::new(),
            gives_up: false,
            refusals: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn refusal(&self, index: Option<usize>, cause: Cause) -> Refusal {
        let path = index.map(|index| self.given.seen[index].path.clone());
        let namespace = self.given.namespace.to_owned();
        Refusal { namespace, path, cause, accept: None, format: None }
    }

    /// Refuses for good.
    fn refuse(&mut self, index: Option<usize>, cause: Cause) {
        let refusal = self.refusal(index, cause);
        self.refusals.push(refusal);
    }

    /// Refuses unless one of the words was left: gives what is then done.
    fn refuse_unless(
        &mut self,
        index: Option<usize>,
        cause: Cause,
        on_accept: Option<Act>,
        on_format: Option<Act>,
    ) -> Option<Act> {
        let mut refusal = self.refusal(index, cause);
        let seen = index.map(|index| &self.given.seen[index]);
        let state = (
            &refusal.namespace,
            &refusal.path,
            &refusal.cause,
            seen.map(|seen| (&seen.content, seen.bytes)),
            self.roster.as_ref().map(|roster| (roster.volume_id, &roster.members)),
            self.begun.max(self.newest),
        );
        let accept = on_accept.map(|_| word(refusal.cause.kind(), &state));
        let format = on_format.map(|_| word("format", &state));
        for (word, act) in [(&accept, on_accept), (&format, on_format)] {
            if word.as_ref().is_some_and(|word| self.given.words.has(word)) {
                let refusal = Refusal { accept: None, format: None, ..refusal };
                self.notes.push(format!("{refusal}: accepted by the operator"));
                self.is_changed = true;
                // One that was no member, and is in no member's place, held nothing of the volume.
                let is_members = index.is_none_or(|index| self.claimed[index].is_some());
                let is_kept = act == Some(Act::Restore) || matches!(refusal.cause, Cause::Grown(_));
                self.gives_up |= is_members && !is_kept;
                return act;
            }
        }
        (refusal.accept, refusal.format) = (accept, format);
        self.refusals.push(refusal);
        None
    }

    /// The same device in two places, by its id: a copy, or another way to it.
    fn look_for_twins(&mut self) {
        if self.given.seen.len() > DEVICES_MAX {
            self.refuse(None, Cause::TooMany(DEVICES_MAX));
        }
        for index in 0..self.given.seen.len() {
            let Some(header) = self.given.header(index) else { continue };
            let id = header.device_id;
            let twin = (0..index)
                .find(|other| self.given.header(*other).is_some_and(|h| h.device_id == id));
            if let Some(twin) = twin {
                self.refuse(Some(index), Cause::Twice(self.given.seen[twin].path.clone()));
            }
        }
    }

    /// Finds out which volume this is about, and what is known of it.
    fn choose_volume(&mut self) {
        let headers: Vec<&DeviceHeader> =
            (0..self.given.seen.len()).filter_map(|index| self.given.header(index)).collect();
        let remembered = self.given.remembered;
        let is_own = |header: &&&DeviceHeader| header.namespace == self.given.namespace;
        let found = headers.iter().find(is_own).map(|header| header.volume_id);
        let known = remembered.map(|known| known.volume_id);
        let is_found = |volume: &u64| headers.iter().any(|header| header.volume_id == *volume);
        let volume = known.filter(is_found).or(found).or(known);
        let Some(volume) = volume else { return };
        let remembered = remembered.filter(|known| known.volume_id == volume);
        let own = || headers.iter().filter(|header| header.volume_id == volume);
        let best = own().max_by_key(|header| (header.begun, header.epoch));
        self.begun = best.map_or(0, |header| header.begun);
        let complete = own().map(|header| header.epoch).max().unwrap_or(0);
        self.newest = complete.max(remembered.map_or(0, |known| known.epoch));
        let of_header = best.map(|header| Roster::of(header, remembered));
        let is_behind = remembered.is_some_and(|known| known.epoch > self.begun);
        self.roster = of_header.filter(|_| !is_behind).or_else(|| remembered.cloned());
        if remembered.is_some_and(|known| known.epoch < complete) {
            self.notes.push(format!(
                "namespace {}: the work directory is older than the devices: it was restored from a \
                 copy, or could not be written when the node last ran; what was shipped since then \
                 ships again",
                self.given.namespace
            ));
        }
        if let Some(known) = known.filter(|known| *known != volume) {
            let cause = Cause::OtherStore { found: volume, known };
            self.refuse_unless(None, cause, Some(Act::Keep(0)), None);
        }
    }

    fn judge(&mut self, index: usize) -> Option<Act> {
        let seen = &self.given.seen[index];
        let act = match &seen.content {
            Content::Ours(header) if header.begun > 0 => self.judge_ours(index, header),
            Content::Absent | Content::Blank | Content::Ours(_) => self.judge_blank(index),
            Content::Data { at, device_id } => self.judge_data(index, *at, *device_id),
            Content::Damaged { device_id } => self.judge_damaged(index, *device_id),
            Content::Format(version) => self.judge_broken(index, Cause::Format(*version)),
        }?;
        let (blocks, block_bytes) = (self.given.blocks(seen), self.given.block_bytes);
        // A header, and for each shard a reserve, an open block and one to reuse.
        let needed = 1 + 4 * u64::from(self.given.shard_count);
        if blocks < needed || blocks > u64::from(u32::MAX) {
            self.refuse(Some(index), Cause::TooSmall { blocks, needed, block_bytes });
            return None;
        }
        Some(act)
    }

    fn judge_ours(&mut self, index: usize, header: &DeviceHeader) -> Option<Act> {
        let roster = self.roster.clone().filter(|roster| roster.volume_id == header.volume_id);
        let (Some(roster), true) = (roster, header.namespace == self.given.namespace) else {
            let (namespace, volume) = (header.namespace.clone(), header.volume_id);
            self.stand_in(index);
            let cause = Cause::OtherVolume { namespace, volume };
            return self.refuse_unless(Some(index), cause, None, Some(Act::Wipe));
        };
        let is_own = |member: &Member| member.id == header.device_id;
        let Some(position) = roster.members.iter().position(is_own) else {
            self.stand_in(index);
            return self.refuse_unless(Some(index), Cause::Stray, None, Some(Act::Wipe));
        };
        self.claimed[index] = Some(position);
        if header.block_bytes != self.given.block_bytes {
            let item = "write-block-size";
            let (on_device, configured) = (header.block_bytes, self.given.block_bytes);
            let (on_device, configured) = (on_device.to_string(), configured.to_string());
            self.refuse(Some(index), Cause::Differs { item, on_device, configured });
            return None;
        }
        let member = roster.members[position];
        let seen = &self.given.seen[index];
        if seen.scar == Some(Scar::Overwritten) {
            let (keep, wipe) = (Some(Act::Keep(member.blocks)), Some(Act::Wipe));
            let act = self.refuse_unless(Some(index), Cause::Overwritten, keep, wipe)?;
            if act == Act::Wipe {
                return Some(act);
            }
        } else if seen.scar.is_some() {
            self.notes.push(format!(
                "{}: one of the two copies of its header is bad: it is written again from the other",
                seen.path.display()
            ));
        }
        let mut gained_from = member.blocks;
        if header.begun < self.newest {
            let cause = Cause::Older { epoch: header.begun, newest: self.newest };
            let (keep, wipe) = (Some(Act::Keep(member.blocks)), Some(Act::Wipe));
            let act = self.refuse_unless(Some(index), cause, keep, wipe)?;
            if act == Act::Wipe {
                return Some(act);
            }
            self.takes_missing.push((member.id, 0));
        }
        let there = seen.bytes / u64::from(self.given.block_bytes);
        if there < u64::from(member.blocks) {
            let of = u64::from(member.blocks) * u64::from(self.given.block_bytes);
            let cause = Cause::Short { bytes: seen.bytes, of };
            gained_from = there as u32;
            let keep = Some(Act::Keep(gained_from));
            self.refuse_unless(Some(index), cause, keep, Some(Act::Wipe))?;
            self.takes_missing.push((member.id, gained_from));
        } else if let Some(at) = seen.tail_data {
            let keep = Some(Act::Keep(member.blocks));
            self.refuse_unless(Some(index), Cause::Grown(at), keep, None)?;
        }
        Some(Act::Keep(gained_from))
    }

    /// The member whose place in the configuration is held by a device that is no member: the
    /// device may be meant to take its place.
    fn stand_in(&mut self, index: usize) -> Option<usize> {
        let roster = self.roster.as_ref()?;
        let is_member = |position: usize| {
            (0..self.given.seen.len()).any(|other| {
                self.given.header(other).is_some_and(|header| {
                    header.volume_id == roster.volume_id
                        && header.device_id == roster.members[position].id
                })
            })
        };
        if index < roster.members.len() && !is_member(index) {
            self.claimed[index] = Some(index);
        }
        self.claimed[index]
    }

    fn judge_blank(&mut self, index: usize) -> Option<Act> {
        let seen = &self.given.seen[index];
        let is_absent = seen.content == Content::Absent;
        let stood_for = self.stand_in(index);
        let Some(roster) = &self.roster else {
            if is_absent && !seen.is_file {
                self.refuse(Some(index), Cause::NoDevice);
                return None;
            }
            return Some(Act::Format);
        };
        let (cause, act) = match stood_for {
            Some(position) if is_absent => (Cause::Missing(roster.known(position)), Act::Format),
            Some(position) => (Cause::Blank(roster.known(position)), Act::Wipe),
            None if is_absent && !seen.is_file => (Cause::NoDevice, Act::Format),
            None => (Cause::New(roster.members.len()), Act::Wipe),
        };
        let can_format = !is_absent || seen.is_file;
        self.refuse_unless(Some(index), cause, None, can_format.then_some(act))
    }

    fn judge_data(&mut self, index: usize, at: u64, device_id: Option<u64>) -> Option<Act> {
        let stood_for = self.stand_in(index);
        let known = stood_for.zip(self.roster.as_ref()).map(|(at, roster)| roster.known(at));
        match known {
            Some(known) if device_id == Some(known.id) => {
                let cause = Cause::HeaderGone(known);
                self.refuse_unless(Some(index), cause, Some(Act::Restore), Some(Act::Wipe))
            }
            _ => self.refuse_unless(Some(index), Cause::Foreign(at), None, Some(Act::Wipe)),
        }
    }

    /// Without a header, and with write blocks by which it may be known.
    fn judge_damaged(&mut self, index: usize, device_id: Option<u64>) -> Option<Act> {
        let known = self.stand_in(index).zip(self.roster.as_ref());
        match known.map(|(at, roster)| roster.known(at)) {
            Some(known) if device_id == Some(known.id) => self.judge_data(index, 0, device_id),
            _ => self.judge_broken(index, Cause::Damaged),
        }
    }

    fn judge_broken(&mut self, index: usize, cause: Cause) -> Option<Act> {
        self.stand_in(index);
        self.refuse_unless(Some(index), cause, None, Some(Act::Wipe))
    }

    /// Members that no configured device is or stands in for.
    fn look_for_lost(&mut self) {
        let Some(roster) = self.roster.clone() else { return };
        for position in 0..roster.members.len() {
            if !self.claimed.contains(&Some(position)) {
                let cause = Cause::NotGiven(roster.known(position));
                self.refuse_unless(None, cause, Some(Act::Keep(0)), None);
            }
        }
    }

    /// Members have to come in the order they were used in.
    fn look_at_order(&mut self) {
        let seen = self.given.seen.iter();
        let mut places: Vec<(usize, &Path)> =
            self.claimed.iter().zip(seen).filter_map(|(at, s)| Some(((*at)?, &*s.path))).collect();
        let wrong = places.windows(2).position(|pair| pair[0].0 >= pair[1].0);
        let Some(wrong) = wrong else { return };
        let number = places[wrong].0 + 1;
        let index = self.claimed.iter().position(|at| *at == Some(number - 1));
        places.sort_unstable();
        let order = places.iter().map(|(_, path)| path.to_path_buf()).collect();
        self.refuse(index, Cause::Order { number, order });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u32 = 128 << 10;
    const BLOCKS: u32 = 512;
    const BYTES: u64 = BLOCKS as u64 * BLOCK_BYTES as u64;
    const VOLUME: u64 = 77;

    /// A volume of devices 1 to `count`, all in `epoch`.
    fn header(id: u64, count: u64, epoch: u64) -> DeviceHeader {
        DeviceHeader {
            device_id: id,
            volume_id: VOLUME,
            block_bytes: BLOCK_BYTES,
            run: 0,
            crash_cost: CrashCost::default(),
            whole_below: Version::ZERO,
            boot: 1,
            epoch,
            begun: epoch,
            position: (id - 1) as u16,
            members: (1..=count).map(|id| Member { id, blocks: BLOCKS }).collect(),
            namespace: "demo".into(),
        }
    }

    fn seen(name: &str, content: Content) -> Seen {
        let bytes = if content == Content::Absent { 0 } else { BYTES };
        let path = PathBuf::from(format!("/data/{name}"));
        Seen { path, is_file: true, content, bytes, tail_data: None, scar: None }
    }

    fn ours(id: u64, count: u64, epoch: u64) -> Seen {
        seen(&id.to_string(), Content::Ours(header(id, count, epoch)))
    }

    fn remembered(count: u64, epoch: u64) -> Roster {
        let header = header(1, count, epoch);
        let roster = Roster::of(&header, None);
        let paths = (1..=count).map(|id| Some(PathBuf::from(format!("/data/{id}")))).collect();
        Roster { paths, ..roster }
    }

    fn judged(
        seen: &[Seen],
        remembered: Option<&Roster>,
        words: &Words,
    ) -> Result<Plan, Vec<Refusal>> {
        let given = Given {
            namespace: "demo",
            block_bytes: BLOCK_BYTES,
            filesize: BYTES,
            shard_count: 2,
            boot: 1,
            seen,
            remembered,
            words,
        };
        let mut next = 1000;
        judge(&given, &mut || {
            next += 1;
            next
        })
    }

    fn plan(seen: &[Seen], remembered: Option<&Roster>) -> Plan {
        judged(seen, remembered, &Words::default()).unwrap()
    }

    fn acts(plan: &Plan) -> Vec<Act> {
        plan.parts.iter().map(|part| part.act).collect()
    }

    /// The one refusal there is; its words lead to a plan, and to none in another state.
    fn refused(seen: &[Seen], remembered: Option<&Roster>) -> Refusal {
        let refusals = judged(seen, remembered, &Words::default()).unwrap_err();
        let [refusal] = refusals.as_slice() else { panic!("{refusals:#?}") };
        for word in [&refusal.accept, &refusal.format].into_iter().flatten() {
            assert!(judged(seen, remembered, &Words::in_text(word)).is_ok(), "{refusal}");
            let other = Words::in_text(&format!("{word}0"));
            assert!(judged(seen, remembered, &other).is_err(), "{refusal}");
        }
        refusal.clone()
    }

    fn accepted(seen: &[Seen], remembered: Option<&Roster>) -> Plan {
        let word = refused(seen, remembered).accept.unwrap();
        judged(seen, remembered, &Words::in_text(&word)).unwrap()
    }

    fn formatted(seen: &[Seen], remembered: Option<&Roster>) -> Plan {
        let word = refused(seen, remembered).format.unwrap();
        judged(seen, remembered, &Words::in_text(&word)).unwrap()
    }

    #[test]
    fn a_new_volume_on_blank_devices_needs_no_word() {
        let new = plan(&[seen("1", Content::Absent), seen("2", Content::Blank)], None);
        assert_eq!(acts(&new), [Act::Format, Act::Format]);
        assert_eq!((new.is_new, new.found_epoch, new.next_epoch), (true, None, 1));
        // One that died while it formatted: nothing was ever written to it.
        let again = plan(&[ours(1, 2, 0), seen("2", Content::Absent)], None);
        assert_eq!(acts(&again), [Act::Format, Act::Format]);
    }

    #[test]
    fn a_volume_that_is_as_it_was_left_is_opened() {
        let known = remembered(2, 5);
        for remembered in [Some(&known), None] {
            let as_left = plan(&[ours(1, 2, 5), ours(2, 2, 5)], remembered);
            assert_eq!(acts(&as_left), [Act::Keep(BLOCKS); 2]);
            assert_eq!((as_left.volume_id, as_left.found_epoch), (VOLUME, Some(5)));
            assert_eq!((as_left.next_epoch, as_left.notes.len()), (6, 0));
        }
        // Killed between the first and the last device, before and after all had begun.
        let begun = |id, epoch, begun| {
            let header = DeviceHeader { begun, ..header(id, 2, epoch) };
            seen(&id.to_string(), Content::Ours(header))
        };
        for devices in [
            [begun(1, 5, 6), begun(2, 5, 5)],
            [begun(1, 5, 6), begun(2, 5, 6)],
            [begun(1, 6, 6), begun(2, 5, 6)],
        ] {
            let torn = plan(&devices, Some(&known));
            assert_eq!((acts(&torn), torn.next_epoch), (vec![Act::Keep(BLOCKS); 2], 7));
        }
    }

    #[test]
    fn the_power_is_known_not_to_have_failed_since_a_run_that_ended_in_order_or_is_not_over() {
        for (boots, had_power) in [
            ([1, 1], true),
            ([1, 2], false),
            ([1, 0], false),
            ([AT_REST, 1], true),
            ([AT_REST, 2], false),
            ([AT_REST, AT_REST], true),
        ] {
            let device = |(id, boot)| {
                let header = DeviceHeader { boot, ..header(id, 2, 5) };
                seen(&id.to_string(), Content::Ours(header))
            };
            let devices: Vec<Seen> = (1..).zip(boots).map(device).collect();
            let plan = plan(&devices, None);
            let is_at_rest = boots == [AT_REST, AT_REST];
            assert_eq!((plan.had_power, plan.is_at_rest), (had_power, is_at_rest), "{boots:?}");
        }
    }

    #[test]
    fn a_known_device_that_is_gone_or_blank_takes_a_word_that_names_it() {
        let known = remembered(2, 5);
        for (content, remembered) in [
            (Content::Absent, None),
            (Content::Absent, Some(&known)),
            (Content::Blank, None),
            (Content::Blank, Some(&known)),
            (Content::Ours(header(2, 2, 0)), Some(&known)),
        ] {
            for first in [true, false] {
                let (gone, there) = if first { (1, 2) } else { (2, 1) };
                let mut devices = vec![ours(there, 2, 5), seen("new", content.clone())];
                devices.rotate_left(usize::from(first));
                let refusal = refused(&devices, remembered);
                assert_eq!(refusal.path, Some("/data/new".into()));
                let text = refusal.to_string();
                assert!(text.contains(&format!("device {gone} of 2")), "{text}");
                assert!(text.contains("longship format --config FILE /data/new"), "{text}");
                let plan = formatted(&devices, remembered);
                assert_eq!((plan.volume_id, plan.gives_up), (VOLUME, true));
                assert_ne!(plan.parts[gone as usize - 1].id, gone, "it has a new id");
                assert_eq!(plan.parts[there as usize - 1].id, there);
            }
        }
    }

    #[test]
    fn all_devices_blank_are_noticed_where_the_work_directory_knows_them() {
        let known = remembered(2, 5);
        let devices = [seen("1", Content::Absent), seen("2", Content::Blank)];
        let refusals = judged(&devices, Some(&known), &Words::default()).unwrap_err();
        assert_eq!(refusals.len(), 2);
        let words: Vec<String> = refusals.into_iter().filter_map(|r| r.format).collect();
        let one = judged(&devices, Some(&known), &Words::in_text(&words[0])).unwrap_err();
        assert_eq!(one.len(), 1, "the other one still");
        let anew = judged(&devices, Some(&known), &Words::in_text(&words.join("\n"))).unwrap();
        assert_ne!(anew.volume_id, VOLUME, "nothing of the former volume is left");
        assert!(anew.is_new);
    }

    #[test]
    fn a_device_left_out_or_added_takes_a_word() {
        let left_out = [ours(1, 3, 5), ours(3, 3, 5)];
        let text = refused(&left_out, Some(&remembered(3, 5))).to_string();
        assert!(text.contains("device 2 of 3") && text.contains("last at /data/2"), "{text}");
        let less = accepted(&left_out, None);
        assert_eq!(less.parts.iter().map(|part| part.id).collect::<Vec<_>>(), [1, 3]);
        assert!(less.gives_up);

        for content in [Content::Absent, Content::Blank] {
            let added = [ours(1, 1, 5), seen("new", content)];
            assert_eq!(refused(&added, None).cause, Cause::New(1));
            let plan = formatted(&added, None);
            assert_eq!((plan.volume_id, plan.parts[0].id, plan.gives_up), (VOLUME, 1, false));
        }
        let back = [ours(1, 1, 9), seen("2", Content::Ours(header(2, 2, 5)))];
        assert_eq!(refused(&back, None).cause, Cause::Stray);
    }

    #[test]
    fn what_holds_something_else_is_wiped_by_a_word_only() {
        let other = DeviceHeader { volume_id: 5, namespace: "other".into(), ..header(1, 1, 3) };
        for content in [
            Content::Data { at: 9, device_id: None },
            Content::Data { at: 9, device_id: Some(4) },
            Content::Damaged { device_id: None },
            Content::Damaged { device_id: Some(4) },
            Content::Format(1),
            Content::Ours(other),
        ] {
            let devices = [seen("1", content)];
            for remembered in [None, Some(&remembered(1, 5))] {
                let refusal = refused(&devices, remembered);
                assert!(refusal.accept.is_none(), "{refusal}");
                assert_eq!(acts(&formatted(&devices, remembered)), [Act::Wipe]);
            }
        }
    }

    #[test]
    fn a_lost_header_is_written_again_by_a_word() {
        let headless = Content::Data { at: 131_072, device_id: Some(2) };
        let devices = [ours(1, 2, 5), seen("2", headless)];
        let plan = accepted(&devices, None);
        assert_eq!((plan.parts[1].act, plan.parts[1].id, plan.gives_up), (Act::Restore, 2, false));
        // Both copies are damaged.
        let devices = [seen("1", Content::Damaged { device_id: Some(1) })];
        let plan = judged(&devices, Some(&remembered(1, 5)), &Words::default()).unwrap_err();
        assert!(matches!(plan[0].cause, Cause::HeaderGone(_)) && plan[0].accept.is_some());
        // One was written over, and the other tells what it was.
        let overwritten = Seen { scar: Some(Scar::Overwritten), ..ours(2, 2, 5) };
        let plan = accepted(&[ours(1, 2, 5), overwritten], None);
        assert_eq!((plan.parts[1].act, plan.parts[1].id), (Act::Keep(BLOCKS), 2));
    }

    #[test]
    fn an_older_copy_is_noticed_by_its_siblings_and_by_the_work_directory() {
        let one_of_two = [ours(1, 2, 5), ours(2, 2, 3)];
        let older = Cause::Older { epoch: 3, newest: 5 };
        assert_eq!(refused(&one_of_two, None).cause, older);
        let plan = accepted(&one_of_two, None);
        assert_eq!((plan.found_epoch, plan.next_epoch), (None, 6), "no checkpoint is good");
        assert!(plan.gives_up);
        assert_eq!(refused(&[ours(1, 1, 3)], Some(&remembered(1, 5))).cause, older);
        let plan = formatted(&one_of_two, None);
        assert_eq!(acts(&plan), [Act::Keep(BLOCKS), Act::Wipe]);

        let newer = plan_with_notes(&[ours(1, 1, 5)], &remembered(1, 3));
        assert!(newer.notes[0].contains("work directory is older"), "{:?}", newer.notes);
    }

    fn plan_with_notes(seen: &[Seen], remembered: &Roster) -> Plan {
        plan(seen, Some(remembered))
    }

    #[test]
    fn a_device_of_another_size_is_noticed() {
        let short = Seen { bytes: BYTES / 4, ..ours(1, 1, 5) };
        assert_eq!(
            refused(std::slice::from_ref(&short), None).cause,
            Cause::Short { bytes: BYTES / 4, of: BYTES }
        );
        assert_eq!(acts(&accepted(&[short], None)), [Act::Keep(BLOCKS / 4)]);
        let grown = Seen { bytes: 2 * BYTES, ..ours(1, 1, 5) };
        let larger = plan(std::slice::from_ref(&grown), None);
        assert_eq!((larger.parts[0].act, larger.parts[0].blocks), (Act::Keep(BLOCKS), 2 * BLOCKS));
        let onto_data = Seen { tail_data: Some(BYTES + 1), ..grown };
        assert_eq!(acts(&accepted(&[onto_data], None)), [Act::Keep(BLOCKS)]);
        let tiny = Seen { bytes: 1 << 20, is_file: false, ..seen("1", Content::Blank) };
        assert!(matches!(refused(&[tiny], None).cause, Cause::TooSmall { .. }));
    }

    #[test]
    fn devices_twice_or_in_another_order_are_refused_for_good() {
        let copy = seen("copy", Content::Ours(header(1, 2, 5)));
        let refusals = judged(&[ours(1, 2, 5), copy], None, &Words::default()).unwrap_err();
        assert_eq!(refusals[0].cause, Cause::Twice("/data/1".into()));
        let swapped = refused(&[ours(2, 2, 5), ours(1, 2, 5)], None);
        assert!(swapped.to_string().contains("in the order /data/1, /data/2"), "{swapped}");
    }

    #[test]
    fn devices_and_work_directory_of_different_nodes_are_told() {
        let other = Roster { volume_id: 5, ..remembered(1, 9) };
        let devices = [ours(1, 1, 5)];
        assert_eq!(
            refused(&devices, Some(&other)).cause,
            Cause::OtherStore { found: VOLUME, known: 5 }
        );
        assert_eq!(accepted(&devices, Some(&other)).volume_id, VOLUME);
    }

    #[test]
    fn a_crash_costs_what_its_run_has_noted_and_nothing_of_a_volume_that_begins_anew() {
        let crash_cost = CrashCost { loss_ms: 4, reorder_ms: 7 };
        let crashed = DeviceHeader { crash_cost, ..header(1, 1, 5) };
        let of = |header: &DeviceHeader| [seen("1", Content::Ours(header.clone()))];
        assert_eq!(plan(&of(&crashed), None).crash_cost, crash_cost);
        let stopped = DeviceHeader { boot: AT_REST, ..crashed.clone() };
        assert_eq!(plan(&of(&stopped), None).crash_cost, CrashCost::default());
        let other = DeviceHeader { namespace: "other".into(), ..crashed };
        let anew = formatted(&of(&other), None);
        assert!(anew.is_new);
        assert_eq!(anew.crash_cost, CrashCost::default());
    }

    #[test]
    fn what_it_was_formatted_for_has_to_be_configured() {
        let mut header = header(1, 1, 5);
        header.block_bytes *= 2;
        let refusal = refused(&[seen("1", Content::Ours(header.clone()))], None);
        assert!(refusal.to_string().contains("write-block-size 262144"), "{refusal}");
    }
}
