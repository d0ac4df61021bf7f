//! Dead letters: changes that were given up, kept in a file until an operator replays them.
//!
//! The list is the control loop's; an LST passes an abandoned change only when its letter is
//! durable here. Each namespace of a DC has a budget of [`LETTERS_MAX`]: one whose list is full
//! keeps its lanes waiting, and nobody else's. A letter leaves for one of three reasons, once no
//! crash can take that back: there is a newer version of its record, the record is gone, or its
//! replay has settled. The file is a log of letters, the last one of a record counts; it is written anew
//! when letters have left it. The marks know how much it held when they passed what its letters
//! stand for ([`LettersMark`]): a file that has less at a start has lost letters.
//!
//! | offset | size | header |
//! |---:|---:|---|
//! | 0 | 4 | magic `LSDL` |
//! | 4 | 4 | generation: how often it has been written anew |
//!
//! | offset | size | frame |
//! |---:|---:|---|
//! | 0 | 4 | bytes of the body |
//! | 4 | 4 | CRC32C of the body |
//! | 8 | 20 | digest |
//! | 28 | 5 | LUT of the change |
//! | 33 | 5 | when it was given up, counted as LUTs are |
//! | 38 | 2 | why: the destination's result code, or -1 for "cannot be read" |
//! | 40 | .. | DC, namespace, set, key: each length 2, bytes |
//!
//! Numbers are little-endian. A frame that is not whole is passed over: at the end of the file a
//! crash cut it off before anybody was told that it is kept; elsewhere it is damage, and a copy of
//! the file is set aside before it is written again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use tracing::{error, info};

use crate::host::LettersMark;
use crate::limits::{LETTER_COPIES_MAX, LETTER_KEY_BYTES_MAX, LETTERS_MAX};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, ShardIndex};
use crate::ship::mutation::{Mutation, planted};
use longship_rt::bytes::sync_folder;

const MAGIC: [u8; 4] = *b"LSDL";
const HEADER_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 8;
const FIXED_BYTES: usize = 20 + 5 + 5 + 2;
/// With four texts, of which the key is the longest.
const BODY_BYTES_MAX: usize = FIXED_BYTES + 4 * (2 + LETTER_KEY_BYTES_MAX);

/// A change the destination will not get until its record changes again, or it is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Name of the DC.
    pub dc: String,
    /// Namespace at the source.
    pub namespace: String,
    /// Its set; empty when it has none or it is not known.
    pub set: String,
    /// User key: particle type byte, then the value; empty when not stored or not known.
    pub key: Vec<u8>,
    /// Digest of the record.
    pub digest: Digest,
    /// LUT of the change that was given up.
    pub lut: Lut,
    /// The destination's result code; -1 when the record could not be read.
    pub code: i16,
    /// When it was given up.
    pub at: Lut,
    /// What is done about it. Not on file: a replay that a crash cut short is to be asked for again.
    pub state: LetterState,
}

/// What is done about a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// Nothing.
    Kept,
    /// It is replayed, and not known to be settled yet.
    Replayed,
    /// It is not needed any more, unless a crash takes back why: it goes with the next positions.
    Leaving,
}

/// Letters of a DC leave the list, for a reason that a crash of the source may take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The shard whose records these are.
    pub shard: ShardIndex,
    /// Counts leavings of letters of that DC on that shard.
    pub number: u64,
}

type LetterKey = (String, String, Digest);

/// The list. No I/O.
#[derive(Debug, Default)]
pub struct Letters {
    held: BTreeMap<LetterKey, Letter>,
    /// How many there are of each DC and namespace.
    counts: HashMap<(String, String), usize>,
}

impl Letters {
    /// Whether a letter can be kept: there is room, or an older one of its record gives way.
    /// `coming` are kept before it, `fresh` of them of its namespace and of records without a
    /// letter.
    fn has_room(&self, place: &LetterKey, coming: &HashSet<LetterKey>, fresh: usize) -> bool {
        let replaces = self.held.contains_key(place) || coming.contains(place);
        replaces || self.count(&place.0, &place.1) + fresh < LETTERS_MAX
    }

    /// A later letter may be of an older change: of the record as it is, both are. What either stood
    /// for counts as given up until that LUT.
    fn insert(&mut self, letter: Letter) {
        match self.held.entry(letter.place()) {
            Entry::Occupied(mut former) => {
                let lut = letter.lut.max(former.get().lut);
                former.insert(Letter { lut, ..letter });
            }
            Entry::Vacant(place) => {
                let owner = (letter.dc.clone(), letter.namespace.clone());
                *self.counts.entry(owner).or_default() += 1;
                place.insert(letter);
            }
        }
    }

    /// Letters of a namespace of a DC.
    fn count(&self, dc: &str, namespace: &str) -> usize {
        let owner = (dc.to_owned(), namespace.to_owned());
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    /// Letters of a DC and namespace, by digest.
    pub fn of(&self, dc: &str, namespace: &str) -> impl Iterator<Item = &Letter> {
        self.after(dc, namespace, None)
    }

    /// Letters of a DC and namespace behind a digest.
    pub(super) fn after(
        &self,
        dc: &str,
        namespace: &str,
        after: Option<Digest>,
    ) -> impl Iterator<Item = &Letter> {
        self.held.range(range(dc, namespace, after)).map(|(_, letter)| letter)
    }

    /// Notes whether lanes have taken letters up again.
    pub(super) fn set_replayed(&mut self, dc: &str, namespace: &str, letters: &[Digest], is: bool) {
        for digest in letters {
            let place = (dc.to_owned(), namespace.to_owned(), *digest);
            if let Some(letter) = self.held.get_mut(&place) {
                letter.state = if is { LetterState::Replayed } else { LetterState::Kept };
            }
        }
    }

    /// Takes out what `gone` picks.
    fn take_if(&mut self, gone: impl Fn(&Letter) -> bool) -> Vec<Letter> {
        let taken = self.held.extract_if(.., |_, letter| gone(letter));
        let taken: Vec<Letter> = taken.map(|(_, letter)| letter).collect();
        for letter in &taken {
            let owner = (letter.dc.clone(), letter.namespace.clone());
            if let Some(count) = self.counts.get_mut(&owner) {
                *count -= 1;
            }
        }
        self.counts.retain(|_, count| *count > 0);
        taken
    }
}

/// All letters of a namespace of a DC behind a digest.
fn range(dc: &str, namespace: &str, after: Option<Digest>) -> (Bound<LetterKey>, Bound<LetterKey>) {
    let place = |digest| (dc.to_owned(), namespace.to_owned(), digest);
    let from = match after {
        None => Bound::Included(place(Digest([0; 20]))),
        Some(digest) => Bound::Excluded(place(digest)),
    };
    (from, Bound::Included(place(Digest([0xFF; 20]))))
}

impl Letter {
    fn place(&self) -> LetterKey {
        (self.dc.clone(), self.namespace.clone(), self.digest)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&self.lut.to_bytes());
        out.extend_from_slice(&self.at.to_bytes());
        out.extend_from_slice(&self.code.to_le_bytes());
        let key = if self.key.len() <= LETTER_KEY_BYTES_MAX { self.key.as_slice() } else { &[] };
        for text in [self.dc.as_bytes(), self.namespace.as_bytes(), self.set.as_bytes(), key] {
            let bytes = u16::try_from(text.len()).expect("names and kept keys are short");
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(text);
        }
        let body = start + FRAME_HEADER_BYTES;
        let bytes = u32::try_from(out.len() - body).expect("a letter is short");
        let check = crc32c::crc32c(&out[body..]);
        out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
        out[start + 4..body].copy_from_slice(&check.to_le_bytes());
    }

    /// Generation and all whole letters of a file, and how many of its bytes are neither, if any.
    fn decode_all(content: &[u8]) -> (u32, Vec<Self>, Option<usize>) {
        let header = content.split_first_chunk::<HEADER_BYTES>();
        let (generation, frames) = match header {
            Some(([a, b, c, d, generation @ ..], frames)) if [*a, *b, *c, *d] == MAGIC => {
                (u32::from_le_bytes(*generation), frames)
            }
            _ => (0, content),
        };
        let (mut letters, mut rest, mut damaged) = (Vec::new(), frames, 0);
        while !rest.is_empty() {
            match Self::decode(rest) {
                Some((letter, behind)) => {
                    letters.push(letter);
                    rest = behind;
                }
                None => {
                    damaged += 1;
                    rest = &rest[1..];
                }
            }
        }
        (generation, letters, (damaged > 0).then_some(damaged))
    }

    /// The first letter of `bytes` and what follows it; `None` if it is not whole.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let [a, b, c, d, check @ ..] = *header;
        let body_bytes = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        if !(FIXED_BYTES..=BODY_BYTES_MAX).contains(&body_bytes) {
            return None;
        }
        let (body, rest) = rest.split_at_checked(body_bytes)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(check) {
            return None;
        }
        let (fixed, mut texts) = body.split_at_checked(FIXED_BYTES)?;
        let (digest, fixed) = fixed.split_first_chunk::<20>()?;
        let (lut, fixed) = fixed.split_first_chunk::<5>()?;
        let (at, code) = fixed.split_first_chunk::<5>()?;
        let mut text = || {
            let (bytes, rest) = texts.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*bytes)))?;
            texts = rest;
            Some(text.to_vec())
        };
        let letter = Self {
            dc: String::from_utf8(text()?).ok()?,
            namespace: String::from_utf8(text()?).ok()?,
            set: String::from_utf8(text()?).ok()?,
            key: text()?,
            digest: Digest(*digest),
            lut: Lut::from_bytes(*lut),
            at: Lut::from_bytes(*at),
            code: i16::from_le_bytes(code.try_into().ok()?),
            state: LetterState::Kept,
        };
        Some((letter, rest))
    }
}

/// Where letters are kept: a file, or a model of one.
pub trait LetterFile: Send {
    /// For people: its path.
    fn name(&self) -> String;

    /// All that is in it; nothing if it was never written.
    fn read(&mut self) -> io::Result<Vec<u8>>;

    /// Keeps a copy of what is in it, since it is going to be written anew. Gives the copy's name.
    fn set_aside(&mut self, content: &[u8]) -> (String, io::Result<()>);

    /// Makes bytes durable behind those of the last [`LetterFile::replace`]. If that fails, a part of
    /// them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes this all that is in it, or leaves it as it is.
    fn replace(&mut self, content: &[u8]) -> io::Result<()>;
}

/// A file of the file system.
struct OnDisk {
    path: PathBuf,
    /// Open for appending, once it has been written anew.
    file: Option<File>,
}

/// The file of that path, which need not exist.
pub(super) fn on_disk(path: &Path) -> Box<dyn LetterFile> {
    Box::new(OnDisk { path: path.to_owned(), file: None })
}

impl OnDisk {
    /// Where a copy of a damaged file goes: `letters.damaged`, then `letters.damaged.1` and so on.
    fn copy(&self, number: usize) -> PathBuf {
        match number {
            0 => self.path.with_extension("damaged"),
            number => self.path.with_extension(format!("damaged.{number}")),
        }
    }
}

/// Writes a file that is not there yet, durably. One that is cut short does not stay.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.and_then(|()| sync_folder(path)).inspect_err(|_| _ = fs::remove_file(path))
}

impl LetterFile for OnDisk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    fn set_aside(&mut self, content: &[u8]) -> (String, io::Result<()>) {
        for number in 0..LETTER_COPIES_MAX {
            let aside = self.copy(number);
            match write_new(&aside, content) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Of an earlier start, after which nothing was written.
                    if fs::read(&aside).is_ok_and(|kept| kept == content) {
                        return (aside.display().to_string(), Ok(()));
                    }
                }
                written => return (aside.display().to_string(), written),
            }
        }
        let (first, last) = (self.copy(0), self.copy(LETTER_COPIES_MAX - 1));
        let why = format!(
            "{LETTER_COPIES_MAX} copies are kept there, from {} to {}: look at them, and move them away",
            first.display(),
            last.display()
        );
        (last.display().to_string(), Err(io::Error::other(why)))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("it has not been written anew"));
        };
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn replace(&mut self, content: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }
}

/// Keeps a copy of a file in which `damaged` bytes are no letter, since the file is going to be
/// written anew. False if that fails: nothing may be written then.
fn set_aside(file: &mut dyn LetterFile, content: &[u8], damaged: usize) -> bool {
    let (shown, (aside, kept)) = (file.name(), file.set_aside(content));
    match kept {
        Ok(()) => {
            error!(
                "{damaged} bytes in {shown} are no dead letter, as after a crash: left out, the file as \
                 it was is {aside}"
            );
            true
        }
        Err(error) => {
            error!(
                "{damaged} bytes in {shown} are no dead letter, and no copy can be kept: {error}"
            );
            false
        }
    }
}

/// The list and its file. Blocks: for the control loop.
pub struct LetterBox {
    file: Box<dyn LetterFile>,
    /// The file holds whole letters, of which the newest of each record count. It has to be written
    /// anew first if not.
    is_whole: bool,
    /// How often the file has been written anew.
    generation: u32,
    /// Frames on file.
    frames: usize,
    letters: Letters,
    is_readable: bool,
    /// The last write failed, which has been said.
    is_failing: bool,
    /// Letters that have left the list, and stay on file until nothing brings back what they stand for.
    leaving: BTreeMap<LetterKey, (Letter, Until)>,
    /// Letters are on file that have left for good.
    holds_gone: bool,
}

/// How long a letter that has left the list stays on file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// What it left for is on the source's device: the leaving of that number.
    Flushed(Leaving),
    /// Marks are stored that know its DC, or its namespace there, no more.
    Stored,
}

impl LetterBox {
    /// Reads the letters in `path`, which need not exist.
    #[cfg(test)]
    pub(super) fn open(path: &Path) -> Self {
        Self::over(on_disk(path))
    }

    /// Reads the letters of a file. One that cannot be read is reported and left alone: nothing is
    /// kept then, and lanes rest with what they would give up.
    pub fn over(mut file: Box<dyn LetterFile>) -> Self {
        let mut letters = Letters::default();
        let (mut generation, mut frames, mut is_readable) = (0, 0, true);
        match file.read() {
            Ok(content) => {
                let (of_file, read, damage) = Letter::decode_all(&content);
                (generation, frames) = (of_file, read.len());
                read.into_iter().for_each(|letter| letters.insert(letter));
                if let Some(damage) = damage {
                    is_readable = set_aside(&mut *file, &content, damage);
                }
            }
            Err(error) => {
                error!("cannot read the dead letters in {}: {error}", file.name());
                is_readable = false;
            }
        }
        Self {
            file,
            is_whole: false,
            generation,
            frames,
            letters,
            is_readable,
            is_failing: false,
            leaving: BTreeMap::new(),
            holds_gone: false,
        }
    }

    /// What marks are to know of the file, with their names of DCs and namespaces.
    pub(super) fn mark(&self, dcs: &[String], namespaces: &[String]) -> LettersMark {
        let owner = |(dc, namespace): &(String, String)| {
            let dc = dcs.iter().position(|known| known == dc)?;
            let namespace = namespaces.iter().position(|known| known == namespace)?;
            Some((DcIndex(dc as u32), NamespaceId(namespace as u8)))
        };
        LettersMark {
            generation: self.generation,
            frames: self.frames as u32,
            owners: self.letters.counts.keys().filter_map(owner).collect(),
        }
    }

    /// Whether the file, as it was read, has lost letters that there were when marks were made.
    pub(super) fn has_lost(&self, marked: &LettersMark) -> bool {
        let found = (self.generation, self.frames);
        let is_behind = found < (marked.generation, marked.frames as usize);
        marked.frames > 0 && (is_behind || !self.is_readable)
    }

    /// For people: the file.
    pub(super) fn file_name(&self) -> String {
        self.file.name()
    }

    /// Letters of a DC and namespace behind a digest, by digest: those that are leaving, too.
    pub(super) fn shown(&self, dc: &str, namespace: &str, after: Option<Digest>) -> Vec<&Letter> {
        let leaving = self.leaving.range(range(dc, namespace, after));
        let leaving = leaving.filter(|(_, (_, until))| *until != Until::Stored);
        let held = self.letters.after(dc, namespace, after);
        let mut shown: Vec<&Letter> = held.chain(leaving.map(|(_, (letter, _))| letter)).collect();
        shown.sort_by_key(|letter| letter.digest);
        shown
    }

    /// The letters that are kept.
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    pub(super) fn letters_mut(&mut self) -> &mut Letters {
        &mut self.letters
    }

    /// Makes letters durable. Tells of each whether it is kept.
    pub(super) fn keep(&mut self, coming: Vec<Letter>) -> Vec<bool> {
        let mut places = HashSet::new();
        let mut fresh: HashMap<(&str, &str), usize> = HashMap::new();
        let mut frames = Vec::new();
        let mut kept = Vec::with_capacity(coming.len());
        for letter in &coming {
            let place = letter.place();
            let owner = (letter.dc.as_str(), letter.namespace.as_str());
            let fresh = fresh.entry(owner).or_default();
            let room = self.is_readable
                && self.leaving_of(&letter.dc, &letter.namespace) < LETTERS_MAX
                && self.letters.has_room(&place, &places, *fresh);
            if room {
                *fresh += usize::from(!self.letters.held.contains_key(&place));
                places.insert(place);
                letter.encode(&mut frames);
            }
            kept.push(room);
        }
        if places.is_empty() {
            return kept;
        }
        let written = self.append(&frames, coming.len());
        if !self.note_written(written) && !planted(Mutation::LetterUnwritten) {
            return vec![false; coming.len()];
        }
        let taken = coming.into_iter().zip(&kept).filter(|(_, kept)| **kept);
        for (letter, _) in taken {
            // One of its record that had left stays with it.
            if let Some((former, _)) = self.leaving.remove(&letter.place()) {
                self.letters.insert(Letter { state: LetterState::Kept, ..former });
            }
            self.letters.insert(letter);
        }
        kept
    }

    /// Letters whose replay has settled leave. One given up again meanwhile is a new letter.
    pub(super) fn drop_settled(
        &mut self,
        dc: &str,
        namespace: &str,
        settled: &[Digest],
        leaving: Leaving,
    ) {
        let settled: HashSet<&Digest> = settled.iter().collect();
        let is_settled = |letter: &Letter| {
            letter.state == LetterState::Replayed
                && letter.dc == dc
                && letter.namespace == namespace
                && settled.contains(&letter.digest)
        };
        self.leave(is_settled, Until::Flushed(leaving));
    }

    /// Letters of a DC, or of a namespace of it, that is shipped no more leave. Its positions are on
    /// file until [`Self::stored`].
    pub(super) fn drop_if(&mut self, gone: impl Fn(&Letter) -> bool) {
        self.leave(&gone, Until::Stored);
        let leaving = self.leaving.values_mut().filter(|(letter, _)| gone(letter));
        leaving.for_each(|(_, until)| *until = Until::Stored);
    }

    /// Letters of records that changed leave, each if it is of a change before that LUT.
    pub(super) fn drop_outdated(
        &mut self,
        dc: &str,
        namespace: &str,
        records: &[(Digest, Lut)],
        leaving: Leaving,
    ) {
        let records: HashMap<&Digest, Lut> = records.iter().map(|(d, lut)| (d, *lut)).collect();
        let is_outdated = |letter: &Letter| {
            letter.dc == dc
                && letter.namespace == namespace
                && records.get(&letter.digest).is_some_and(|lut| letter.lut < *lut)
        };
        self.leave(is_outdated, Until::Flushed(leaving));
    }

    fn leave(&mut self, gone: impl Fn(&Letter) -> bool, until: Until) {
        for letter in self.letters.take_if(gone) {
            let letter = Letter { state: LetterState::Leaving, ..letter };
            self.leaving.insert(letter.place(), (letter, until));
        }
    }

    /// Why letters of a namespace of a DC have left the list, up to that leaving, is on the source's
    /// device. The file follows with [`Self::forget_gone`].
    pub(super) fn flushed(&mut self, dc: &str, namespace: &str, upto: Leaving) {
        let Leaving { shard, number } = upto;
        let is_flushed =
            |until| matches!(until, Until::Flushed(at) if at.shard == shard && at.number <= number);
        self.forget_if(|letter, until| {
            is_flushed(until) && letter.dc == dc && letter.namespace == namespace
        });
    }

    /// Marks are stored: what is shipped no more is known no more.
    pub(super) fn stored(&mut self) {
        self.forget_if(|_, until| until == Until::Stored);
        self.forget_gone();
    }

    fn forget_if(&mut self, is_over: impl Fn(&Letter, Until) -> bool) {
        let before = self.leaving.len();
        self.leaving.retain(|_, (letter, until)| !is_over(letter, *until));
        self.holds_gone |= self.leaving.len() < before;
    }

    /// Makes it durable that letters have left.
    pub(super) fn forget_gone(&mut self) {
        if self.holds_gone {
            // Until this succeeds the file holds too much, which a later replay puts right.
            let written = self.write_anew();
            self.holds_gone = !self.note_written(written);
        }
    }

    /// Whether a write succeeded. Says once that writes fail, and once that they do no longer.
    fn note_written(&mut self, written: io::Result<()>) -> bool {
        let path = self.file.name();
        match &written {
            Ok(()) if self.is_failing => info!("dead letters are written to {path} again"),
            Ok(()) => {}
            Err(error) => {
                if !self.is_failing {
                    error!(
                        "cannot write dead letters to {path}: {error}; lanes wait with what they \
                         would give up until the file system takes writes"
                    );
                }
                self.is_whole = false;
            }
        }
        self.is_failing = written.is_err();
        written.is_ok()
    }

    /// Why no more letters of a DC's namespace are kept; for people.
    pub(super) fn refusal(&self, dc: &str, namespace: &str) -> String {
        let path = self.file.name();
        if !self.is_readable {
            format!("the dead letters in {path} cannot be read, so that none are kept")
        } else if self.letters.count(dc, namespace) >= LETTERS_MAX {
            format!(
                "{LETTERS_MAX} dead letters of namespace {namespace} are kept and no more: mend their \
                 cause and replay them (xdr-dead-letters)"
            )
        } else if self.leaving_of(dc, namespace) >= LETTERS_MAX {
            format!(
                "{LETTERS_MAX} dead letters of namespace {namespace} leave {path} with the next \
                 positions, and none comes before: see whether its devices take writes"
            )
        } else {
            format!("dead letters cannot be written to {path}: look at its file system")
        }
    }

    fn append(&mut self, frames: &[u8], count: usize) -> io::Result<()> {
        if !self.is_whole || self.frames + count > 2 * self.on_file() + LETTERS_MAX {
            self.write_anew()?;
        }
        self.file.append(frames)?;
        self.frames += count;
        Ok(())
    }

    /// Letters of a namespace of a DC that have left the list and are on file.
    fn leaving_of(&self, dc: &str, namespace: &str) -> usize {
        self.leaving.range(range(dc, namespace, None)).count()
    }

    /// Letters that have to be on file.
    fn on_file(&self) -> usize {
        self.letters.held.len() + self.leaving.len()
    }

    /// Puts a new file with these letters in place of the old one.
    fn write_anew(&mut self) -> io::Result<()> {
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(&(self.generation + 1).to_le_bytes());
        let leaving = self.leaving.values().map(|(letter, _)| letter);
        leaving.chain(self.letters.held.values()).for_each(|letter| letter.encode(&mut content));
        self.file.replace(&content)?;
        self.generation += 1;
        self.frames = self.on_file();
        self.is_whole = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(n: u32) -> Letter {
        let mut digest = [7; 20];
        digest[8..12].copy_from_slice(&n.to_be_bytes());
        Letter {
            dc: "west".to_owned(),
            namespace: "demo".to_owned(),
            set: "users".to_owned(),
            key: b"\x03alice".to_vec(),
            digest: Digest(digest),
            lut: Lut::from_ms(500 + u64::from(n)),
            code: 13,
            at: Lut::from_ms(900),
            state: LetterState::Kept,
        }
    }

    fn nth(number: u64) -> Leaving {
        Leaving { shard: ShardIndex(0), number }
    }

    #[test]
    fn letters_survive_a_restart_and_the_newest_of_a_record_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        assert_eq!(desk.keep(vec![letter(1), letter(2)]), [true, true]);
        let newer = Letter { code: -1, ..letter(1) };
        assert_eq!(desk.keep(vec![newer.clone()]), [true]);
        let again = LetterBox::open(&path);
        assert_eq!(again.letters.of("west", "demo").collect::<Vec<_>>(), [&newer, &letter(2)]);
        assert_eq!(again.letters.of("west", "other").count(), 0);
    }

    #[test]
    fn a_letter_of_an_older_change_does_not_move_its_record_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        // Of one and the same version: by its own change, and by one that a recovery found.
        let older = Letter { lut: letter(1).lut.minus_ms(1), code: 19, ..letter(1) };
        desk.keep(vec![letter(1)]);
        desk.keep(vec![older]);
        let kept = [&Letter { code: 19, ..letter(1) }];
        assert_eq!(desk.letters.of("west", "demo").collect::<Vec<_>>(), kept);
        let again = LetterBox::open(&path);
        assert_eq!(again.letters.of("west", "demo").collect::<Vec<_>>(), kept);
    }

    #[test]
    fn a_full_list_refuses_but_for_records_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = LetterBox::open(&folder.path().join("letters"));
        let all = (0..LETTERS_MAX as u32 - 1).map(letter).collect();
        assert!(desk.keep(all).iter().all(|kept| *kept));
        let coming = vec![letter(70_000), letter(70_001), letter(5)];
        assert_eq!(desk.keep(coming), [true, false, true]);
        let refusal = desk.refusal("west", "demo");
        assert!(refusal.contains("10000 dead letters of namespace demo"), "{refusal}");
        let other = Letter { dc: "east".to_owned(), ..letter(5) };
        assert_eq!(desk.keep(vec![other.clone(), other]), [true, true], "a budget of its own");
        let beside = Letter { namespace: "orders".to_owned(), ..letter(5) };
        assert_eq!(desk.keep(vec![beside]), [true], "so has each namespace of a DC");
        desk.drop_if(|letter| letter.dc == "west" && letter.lut < Lut::from_ms(600));
        assert_eq!(desk.keep(vec![letter(70_001)]), [true]);
        assert_eq!(
            (desk.letters.count("west", "demo"), desk.letters.count("east", "demo")),
            (9901, 1)
        );
    }

    #[test]
    fn a_letter_leaves_when_its_record_has_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        desk.keep(vec![letter(1), letter(2), letter(3)]);
        let after = |n, ms: u64| (letter(n).digest, Lut::from_ms(500 + ms));
        desk.drop_outdated("west", "demo", &[after(1, 1), after(2, 3), after(9, 99)], nth(7));
        desk.drop_outdated("west", "other", &[after(3, 99)], nth(8));
        let digests = |desk: &LetterBox| -> Vec<Digest> {
            desk.letters.of("west", "demo").map(|letter| letter.digest).collect()
        };
        assert_eq!(digests(&desk), [letter(1).digest, letter(3).digest]);
        let on_file = || LetterBox::open(&path).letters.held.len();
        desk.flushed("west", "demo", nth(6));
        desk.flushed("west", "demo", Leaving { shard: ShardIndex(1), number: 7 });
        desk.flushed("west", "other", nth(99));
        desk.write_anew().unwrap();
        assert_eq!(on_file(), 3, "a crash of the source could bring back what it stands for");
        let states = |desk: &LetterBox| -> Vec<LetterState> {
            desk.shown("west", "demo", None).iter().map(|letter| letter.state).collect()
        };
        assert_eq!(states(&desk), [LetterState::Kept, LetterState::Leaving, LetterState::Kept]);
        desk.flushed("west", "demo", nth(7));
        desk.forget_gone();
        assert_eq!(states(&desk), [LetterState::Kept; 2]);
        assert_eq!(digests(&LetterBox::open(&path)), digests(&desk));
        let behind = desk.letters.after("west", "demo", Some(letter(1).digest));
        assert_eq!(behind.map(|letter| letter.digest).collect::<Vec<_>>(), [letter(3).digest]);
    }

    #[test]
    fn a_replayed_letter_leaves_when_it_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        desk.keep(vec![letter(1), letter(2), letter(3)]);
        let digests = [letter(1).digest, letter(2).digest];
        desk.letters_mut().set_replayed("west", "demo", &digests, true);
        desk.keep(vec![letter(2)]);
        desk.drop_settled("west", "demo", &digests, nth(1));
        assert_eq!(LetterBox::open(&path).letters.held.len(), 3);
        desk.flushed("west", "demo", nth(1));
        desk.forget_gone();
        let left = LetterBox::open(&path);
        assert_eq!(left.letters.of("west", "demo").collect::<Vec<_>>(), [&letter(2), &letter(3)]);
    }

    #[test]
    fn a_letter_that_had_left_stays_with_a_new_one_of_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        desk.keep(vec![letter(1)]);
        desk.drop_outdated("west", "demo", &[(letter(1).digest, Lut::MAX)], nth(1));
        assert_eq!(desk.letters.count("west", "demo"), 0);
        // Of an older change, as where a clock was set back.
        let again = Letter { lut: letter(1).lut.minus_ms(1), ..letter(1) };
        assert_eq!(desk.keep(vec![again]), [true]);
        desk.flushed("west", "demo", nth(1));
        desk.forget_gone();
        for desk in [&desk, &LetterBox::open(&path)] {
            assert_eq!(desk.letters.of("west", "demo").collect::<Vec<_>>(), [&letter(1)]);
        }
    }

    #[test]
    fn letters_of_a_deleted_dc_stay_on_file_as_long_as_its_positions_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        desk.keep(vec![letter(1), letter(2), letter(3)]);
        desk.drop_outdated("west", "demo", &[(letter(1).digest, Lut::MAX)], nth(1));
        desk.drop_if(|letter| letter.dc == "west" && letter.lut < Lut::from_ms(503));
        desk.forget_gone();
        desk.write_anew().unwrap();
        assert_eq!(LetterBox::open(&path).letters.held.len(), 3);
        desk.stored();
        assert_eq!(LetterBox::open(&path).letters.held.len(), 1);
    }

    #[test]
    fn letters_that_cannot_leave_are_bounded_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = LetterBox::open(&folder.path().join("letters"));
        desk.keep((0..LETTERS_MAX as u32).map(letter).collect());
        let all: Vec<_> = (0..LETTERS_MAX as u32).map(|n| (letter(n).digest, Lut::MAX)).collect();
        desk.drop_outdated("west", "demo", &all, nth(1));
        assert_eq!(desk.keep(vec![letter(70_000)]), [false]);
        let refusal = desk.refusal("west", "demo");
        assert!(refusal.contains("leave") && refusal.contains("next positions"), "{refusal}");
        desk.flushed("west", "demo", nth(1));
        assert_eq!(desk.keep(vec![letter(70_000)]), [true]);
    }

    #[test]
    fn a_torn_end_is_left_out_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        LetterBox::open(&path).keep(vec![letter(1), letter(2)]);
        let mut content = fs::read(&path).unwrap();
        content.truncate(content.len() - 3);
        fs::write(&path, content).unwrap();
        let mut desk = LetterBox::open(&path);
        assert_eq!(desk.letters.held.len(), 1);
        desk.keep(vec![letter(3)]);
        assert_eq!(LetterBox::open(&path).letters.held.len(), 2);
    }

    #[test]
    fn damage_costs_the_letters_it_hits_and_the_file_is_set_aside_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        LetterBox::open(&path).keep(vec![letter(1), letter(2), letter(3)]);
        let mut content = fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&path, &content).unwrap();
        let mut desk = LetterBox::open(&path);
        let left: Vec<Digest> = desk.letters.held.values().map(|letter| letter.digest).collect();
        assert_eq!(left, [letter(1).digest, letter(3).digest]);
        assert_eq!(desk.keep(vec![letter(4)]), [true]);
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), content);
        assert_eq!(LetterBox::open(&path).letters.held.len(), 3);
    }

    #[test]
    fn no_copy_of_a_damaged_file_is_written_over_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let damaged = ["first", "second", "second", "third"].map(|torn| torn.as_bytes());
        for content in damaged {
            fs::write(&path, content).unwrap();
            LetterBox::open(&path);
        }
        let copies = ["damaged", "damaged.1", "damaged.2", "damaged.3"];
        let kept = copies.map(|name| fs::read(path.with_extension(name)).ok());
        let [first, second, _, third] = damaged.map(|content| Some(content.to_vec()));
        assert_eq!(kept, [first, second, third, None], "and none is kept twice");
    }

    #[test]
    fn a_file_that_holds_less_than_when_marks_were_made_has_lost_letters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut desk = LetterBox::open(&path);
        let mark = |desk: &LetterBox| desk.mark(&["west".to_owned()], &["demo".to_owned()]);
        let none = mark(&desk);
        desk.keep(vec![letter(1)]);
        let copy = fs::read(&path).unwrap();
        desk.keep(vec![letter(2)]);
        let two = mark(&desk);
        assert_eq!(two.owners, [(DcIndex(0), NamespaceId(0))]);
        let whole = fs::read(&path).unwrap();
        let has_lost = |marked: &LettersMark| LetterBox::open(&path).has_lost(marked);
        assert!(!has_lost(&two));
        fs::write(&path, [&whole, &b"torn"[..]].concat()).unwrap();
        assert!(!has_lost(&two), "a crash cut off what nobody was told of");
        for found in [Vec::new(), copy.clone(), vec![0; whole.len()]] {
            fs::write(&path, found).unwrap();
            assert!(has_lost(&two));
            assert!(!has_lost(&none));
        }
        fs::remove_file(&path).unwrap();
        assert!(has_lost(&two));
        fs::create_dir(&path).unwrap();
        assert!(has_lost(&two), "it cannot be read");
        fs::remove_dir(&path).unwrap();

        fs::write(&path, &whole).unwrap();
        let mut desk = LetterBox::open(&path);
        desk.drop_if(|letter| letter.lut == Lut::from_ms(501));
        desk.stored();
        let (one, newer) = (mark(&desk), fs::read(&path).unwrap());
        assert!(!has_lost(&one) && !has_lost(&two), "one has left");
        fs::write(&path, &whole).unwrap();
        assert!(has_lost(&one), "an older copy, with more in it");
        fs::write(&path, &newer).unwrap();
        let mut desk = LetterBox::open(&path);
        desk.drop_if(|_| true);
        desk.stored();
        fs::remove_file(&path).unwrap();
        assert!(!has_lost(&mark(&desk)), "there was none left");
    }

    #[test]
    fn a_file_whose_damage_cannot_be_set_aside_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        fs::write(&path, b"damaged").unwrap();
        let copy = |number| OnDisk { path: path.clone(), file: None }.copy(number);
        (0..LETTER_COPIES_MAX).for_each(|number| fs::create_dir(copy(number)).unwrap());
        let mut desk = LetterBox::open(&path);
        assert_eq!(desk.keep(vec![letter(1)]), [false]);
        assert_eq!(fs::read(&path).unwrap(), b"damaged");
        assert!(desk.refusal("west", "demo").contains("cannot be read"));
    }

    proptest! {
        #[test]
        fn a_letter_is_read_as_it_was_written_and_noise_is_no_letter(
            set in "[a-z]{0,63}", key in prop::collection::vec(any::<u8>(), 0..200),
            code in any::<i16>(), noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let written = Letter { set, key, code, ..letter(9) };
            let mut bytes = Vec::new();
            written.encode(&mut bytes);
            bytes.extend_from_slice(b"rest");
            prop_assert_eq!(Letter::decode(&bytes), Some((written, &b"rest"[..])));
            let _ = Letter::decode(&noise);
        }
    }
}
