//! The loop around [`Control`]: files, letters, names and mailboxes.

use std::collections::VecDeque;
use std::iter;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use tracing::{error, info, warn};

use super::super::files::{FileWait, Watched};
use super::super::letters::{Letter, LetterBox, LetterState, on_disk};
use super::super::positions::{Beginning, StoreFacts};
use super::super::resolver::Resolver;
use super::super::trouble::Troubles;
use super::{After, Asker, Burial, Control, ControlStart, Left, Notice, Order, Step, UNSTORED};
#[cfg(any(test, feature = "sim"))]
use crate::config::DcConfig;
use crate::config::XdrConfig;
use crate::host::{CheckpointStore, Marks, NamespaceSettings, StoreError};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, ShardIndex};
use longship_rt::clock::Clock;
#[cfg(feature = "sim")]
use longship_rt::event::Event;
use longship_rt::metrics::LogLimit;
#[cfg(feature = "sim")]
use longship_rt::shard::yield_now;

/// Hands an order to a shard, waiting for room if need be. Called from several threads.
pub type Tell = Arc<dyn Fn(ShardIndex, Order) + Send + Sync>;

/// What starts the control loop.
pub struct ControlSeed {
    /// What ships where, from the configuration file.
    pub xdr: XdrConfig,
    /// Names of the namespaces, indexed by [`NamespaceId`].
    pub namespaces: Vec<String>,
    /// The namespaces' own items, which the host judges.
    pub settings: Box<dyn NamespaceSettings>,
    /// Their stores, in the same order.
    pub stores: Vec<StoreFacts>,
    /// Where DCs whose positions are lost start, if the operator has said so; without a word
    /// everything ships again.
    pub lost_start: Option<Beginning>,
    /// Where marks are kept.
    pub store: Box<dyn CheckpointStore>,
    /// Where dead letters are kept.
    pub letters: PathBuf,
    /// Reads the wall clock.
    pub wall: fn() -> Lut,
}

/// Does what [`Control`] decides, on a thread of its own.
pub struct ControlLoop {
    pub(super) control: Control,
    store: Box<dyn CheckpointStore>,
    pub(super) letters: LetterBox,
    pub(super) letters_log: LogLimit,
    troubles: Troubles,
    /// When it was told something last.
    now: Lut,
    shard_count: usize,
    resolver: Resolver,
    tell: Tell,
    /// Called once, when every shard is told to serve.
    on_serving: Option<Box<dyn FnOnce()>>,
    /// The last marks could not be stored.
    unstored: Option<StoreError>,
}

impl ControlLoop {
    /// Reads the marks, and says with `files` when it waits for a file. Fails when they cannot be
    /// read for a reason other than damage; damaged marks mean recovery from the oldest record,
    /// loudly.
    ///
    /// # Errors
    /// The marks cannot be read.
    pub fn start(
        seed: ControlSeed,
        shard_count: usize,
        tell: Tell,
        files: &FileWait,
    ) -> Result<Self, StoreError> {
        let ControlSeed { xdr, namespaces, settings, stores, lost_start, mut store, letters, wall } =
            seed;
        files.name(letters.parent().unwrap_or(&letters));
        let letters = Box::new(Watched::new(on_disk(&letters), files.clone()));
        store = Box::new(Watched::new(store, files.clone()));
        let marks = match store.load() {
            Ok(marks) => marks,
            Err(StoreError::Corrupt { path }) => {
                error!("the shipping marks in {} are unreadable", path.display());
                None
            }
            Err(error) => return Err(error),
        };
        let file = xdr.clone();
        let start = ControlStart {
            xdr,
            file,
            namespaces,
            settings,
            stores,
            lost_start,
            marks,
            has_lost_letters: false,
            shard_count,
        };
        Ok(Self::over(start, store, LetterBox::over(letters), wall(), tell))
    }

    /// Begins at marks that were read, beside letters that were.
    pub fn over(
        mut start: ControlStart,
        store: Box<dyn CheckpointStore>,
        letters: LetterBox,
        now: Lut,
        tell: Tell,
    ) -> Self {
        let marked = start.marks.as_ref().map(|marks| &marks.letters);
        start.has_lost_letters = marked.is_some_and(|marked| letters.has_lost(marked));
        if start.has_lost_letters {
            error!(
                "dead letters in {} are lost since the last marks: what they stand for does not ship \
                 until its DCs are rewound",
                letters.file_name()
            );
        }
        Self {
            shard_count: start.shard_count,
            control: Control::start(start),
            store,
            letters,
            letters_log: LogLimit::every_s(10),
            troubles: Troubles::default(),
            now,
            resolver: Resolver::new(Arc::clone(&tell)),
            tell,
            on_serving: None,
            unstored: None,
        }
    }

    /// What is decided.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The letters that are kept.
    pub fn letters(&self) -> &LetterBox {
        &self.letters
    }

    /// Tells every shard about every configured DC, then runs until every shard has stopped; the
    /// last marks are durable then. `on_serving` is called when the shards take requests: after
    /// every configured DC is in place, with durable marks. Says whether everything acknowledged is
    /// on the devices.
    ///
    /// # Errors
    /// The last marks cannot be stored.
    pub fn run(
        mut self,
        notices: &mpsc::Receiver<Notice>,
        wall: fn() -> Lut,
        on_serving: impl FnOnce() + 'static,
    ) -> Result<bool, StoreError> {
        self.begin(on_serving);
        let mut waiting = VecDeque::new();
        while !self.control.is_ended() {
            if waiting.is_empty() {
                match notices.recv() {
                    Ok(notice) => waiting.push_back(notice),
                    Err(mpsc::RecvError) => {
                        self.control.end();
                        self.act();
                        continue;
                    }
                }
            }
            waiting.extend(notices.try_iter());
            self.hear_next(&mut waiting, wall());
        }
        self.end()
    }

    /// Runs the loop in virtual time, where no thread may wait: it looks now and then for what it
    /// is told.
    ///
    /// # Errors
    /// As of [`Self::run`].
    #[cfg(feature = "sim")]
    pub async fn run_virtually(
        mut self,
        notices: &mpsc::Receiver<Notice>,
        wall: fn() -> Lut,
        on_serving: impl FnOnce() + 'static,
    ) -> Result<bool, StoreError> {
        const LOOK_US: u64 = 200;
        self.begin(on_serving);
        let (mut waiting, pause) = (VecDeque::new(), Event::new());
        while !self.control.is_ended() {
            waiting.extend(notices.try_iter());
            if waiting.is_empty() {
                pause.wait_until(Clock::real().now() + LOOK_US).await;
            } else {
                self.hear_next(&mut waiting, wall());
                yield_now().await;
            }
        }
        self.end()
    }

    fn begin(&mut self, on_serving: impl FnOnce() + 'static) {
        self.on_serving = Some(Box::new(on_serving));
        self.act();
    }

    fn end(self) -> Result<bool, StoreError> {
        self.unstored.map_or(Ok(self.control.is_durable()), Err)
    }

    /// Takes what it is told first, and does all that follows. Letters that wait together are one
    /// write: who waits behind thousands waits for one or two, a stop among them.
    pub fn hear_next(&mut self, waiting: &mut VecDeque<Notice>, now: Lut) {
        let Some(notice) = waiting.pop_front() else { return };
        self.now = now;
        self.note(notice, waiting);
        self.act();
        self.troubles.tell(Clock::real().now());
    }

    fn note(&mut self, notice: Notice, waiting: &mut VecDeque<Notice>) {
        let now = self.now;
        match notice {
            Notice::Command { shard, ticket, command } => {
                self.control.command((shard, ticket), command, now);
            }
            Notice::Resolve { shard, ticket, host, port } => {
                self.resolver.ask(shard, ticket, host, port);
            }
            Notice::Abandoned(first) => {
                let is_more = |notice: &mut Notice| matches!(notice, Notice::Abandoned(_));
                let next = || match waiting.pop_front_if(is_more) {
                    Some(Notice::Abandoned(next)) => Some(next),
                    _ => None,
                };
                self.bury(iter::once(first).chain(iter::from_fn(next)).collect());
            }
            Notice::Letters { shard, ticket, dc, namespace, after, count } => {
                self.show_letters((shard, ticket), &dc, &namespace, after, count);
            }
            // One may still be on its way when its DC is deleted.
            Notice::Troubles { shard, dc, troubles } if self.control.has_dc(&dc) => {
                self.troubles.note(&dc, shard, troubles);
            }
            Notice::Troubles { .. } => {}
            Notice::LettersOutdated { dc, namespace, records, leaving } => {
                self.letters.drop_outdated(&dc, &namespace, &records, leaving);
            }
            Notice::Replayed { dc, namespace, taken } => {
                self.letters.letters_mut().set_replayed(&dc, &namespace, &taken, true);
                self.control.taken(taken.len());
            }
            Notice::ReplayDropped { dc, namespace, letters } => {
                self.letters.letters_mut().set_replayed(&dc, &namespace, &letters, false);
            }
            Notice::ReplaySettled { dc, namespace, letters, leaving } => {
                self.letters.drop_settled(&dc, &namespace, &letters, leaving);
            }
            Notice::Stores { dc, boot, stores } => {
                self.control.stores_told(dc, boot, stores, now);
            }
            Notice::Followed { serial, marks, gaps } => {
                self.control.followed(serial, &marks, gaps, now);
            }
            Notice::Marks { shard, round, marks, letters } => {
                self.forget_left(&letters);
                self.control.checkpoint(shard, round, &marks);
            }
            Notice::Stop => self.control.stop(),
            Notice::Quiet => self.control.quiet(),
            Notice::Stopped { marks, letters, durable } => {
                self.forget_left(&letters);
                self.control.stopped(&marks, durable);
            }
        }
    }

    /// Why letters have left the list is on the devices.
    fn forget_left(&mut self, letters: &[Left]) {
        for Left { dc, namespace, upto } in letters {
            if let Some(dc) = self.control.name(*dc) {
                self.letters.flushed(dc, self.control.namespace(*namespace), *upto);
            }
        }
        self.letters.forget_gone();
    }

    /// Takes settings of a DC as [`Control::edit`] does. Says whether it has.
    #[cfg(any(test, feature = "sim"))]
    pub fn edit(&mut self, dc: &str, change: impl FnOnce(&mut DcConfig), now: Lut) -> bool {
        let is_taken = self.control.edit((ShardIndex(0), 0), dc, change, now);
        self.act();
        is_taken
    }

    /// Does all that is to be done.
    pub fn act(&mut self) {
        while let Some(step) = self.control.next_step() {
            match step {
                Step::Tell(shard, order) => (self.tell)(shard, order),
                Step::TellAll(order) => self.tell_all(&order),
                Step::TellLetters { dc, name } => self.tell_letters(dc, &name),
                Step::Replay { serial, dc, name, namespace } => {
                    self.replay(serial, dc, &name, namespace);
                }
                Step::ForgetDc(name) => {
                    self.letters.drop_if(|letter| letter.dc == name);
                    self.troubles.forget(&name);
                }
                Step::Store(marks, after) => self.store(marks, after),
                Step::Serve => {
                    self.tell_all(&Order::Serve);
                    if let Some(on_serving) = self.on_serving.take() {
                        on_serving();
                    }
                }
                Step::Remark(remark) if remark.is_warning() => warn!("{remark}"),
                Step::Remark(remark) => info!("{remark}"),
            }
        }
    }

    fn store(&mut self, mut marks: Marks, after: After) {
        marks.letters = self.letters.mark(&marks.dcs, &marks.namespaces);
        let result = self.store.store(&marks);
        let told = result.as_ref().map(drop).map_err(ToString::to_string);
        match result {
            Err(error) if after == After::End => self.unstored = Some(error),
            Err(error) => {
                error!("{error}; shipping goes on; {UNSTORED}");
            }
            Ok(()) => self.letters.stored(),
        }
        self.control.stored(after, told, self.now);
    }

    /// Keeps letters of changes that shards gave up, all in one write, and tells each shard which are
    /// durable.
    pub(super) fn bury(&mut self, burials: Vec<Burial>) {
        let mut coming = Vec::new();
        // Slots in the order of `coming`, each with whose letter it is; and of namespaces that were
        // detached meanwhile: of those there are no letters, and nobody waits for them.
        let mut parts = Vec::new();
        for Burial { shard, dc, letters } in burials {
            if !self.control.has_index(dc) {
                // It was deleted meanwhile, and its letters with it.
                continue;
            }
            let is_known = |letter: &Letter| self.control.knows(&letter.dc, &letter.namespace);
            let (letters, detached): (Vec<_>, Vec<_>) =
                letters.into_iter().partition(|(_, letter)| is_known(letter));
            let owner = |letter: &Letter| (letter.dc.clone(), letter.namespace.clone());
            let slots: Vec<_> =
                letters.iter().map(|(slot, letter)| (*slot, owner(letter))).collect();
            let detached = detached.into_iter().map(|(slot, _)| (slot, true));
            parts.push((shard, dc, slots, detached));
            coming.extend(letters.into_iter().map(|(_, letter)| letter));
        }
        let first = coming.first().map(|letter: &Letter| (letter.digest, letter.code));
        let mut kept = self.letters.keep(coming).into_iter();
        let mut fates = Vec::new();
        for (shard, dc, slots, detached) in parts {
            let (slots, owners): (Vec<u32>, Vec<_>) = slots.into_iter().unzip();
            let kept: Vec<bool> = kept.by_ref().take(slots.len()).collect();
            let refused = kept.iter().position(|kept| !kept).map(|place| &owners[place]);
            let refusal = refused.map(|(dc, namespace)| self.letters.refusal(dc, namespace));
            let slots = slots.into_iter().zip(kept.iter().copied()).chain(detached).collect();
            (self.tell)(shard, Order::Buried { dc, slots, refusal });
            fates.extend(owners.into_iter().zip(kept));
        }
        if let Some((digest, code)) = first
            && let Some(held_back) = self.letters_log.pass(self.now.unix_ms() * 1000)
        {
            let owner = &fates[0].0;
            let of_owner = || fates.iter().filter(|(other, _)| other == owner);
            let (all, kept) = (of_owner().count(), of_owner().filter(|(_, kept)| *kept).count());
            let (dc, namespace) = owner;
            warn!(
                "DC {dc} gave up {all} changes of {namespace}, {kept} of them kept: see \
                 xdr-dead-letters; the first is {digest}, code {code} ({held_back} lines like this \
                 held back)"
            );
        }
    }

    fn show_letters(
        &self,
        (shard, ticket): Asker,
        dc: &str,
        namespace: &str,
        after: Option<Digest>,
        count: usize,
    ) {
        let of_shard =
            |letter: &&Letter| letter.digest.partition().shard(self.shard_count as u16) == shard;
        let shown = self.letters.shown(dc, namespace, after);
        let mut found = shown.into_iter().filter(of_shard);
        let letters: Vec<Letter> = found.by_ref().take(count).cloned().collect();
        let more = found.count();
        (self.tell)(shard, Order::Letters { ticket, letters, more });
    }

    /// Gives letters back to their lanes, but for those that are on their way already.
    fn replay(&mut self, serial: u64, dc: DcIndex, name: &str, namespace: NamespaceId) {
        let waiting = self.letters.letters().of(name, self.control.namespace(namespace));
        let waiting = waiting.filter(|letter| letter.state == LetterState::Kept);
        let letters: Arc<[Letter]> = waiting.cloned().collect();
        self.control.offered(letters.len());
        self.tell_all(&Order::Replay { serial, dc, namespace, letters });
    }

    /// Tells the shards of a DC's letters. Those of a namespace that was detached go with its
    /// positions.
    pub(super) fn tell_letters(&mut self, dc: DcIndex, name: &str) {
        let control = &self.control;
        self.letters.drop_if(|letter| letter.dc == name && !control.knows(name, &letter.namespace));
        for namespace in self.control.namespaces() {
            let letters = self.letters.letters().of(name, self.control.namespace(namespace));
            let records: Arc<[_]> = letters.map(|letter| (letter.digest, letter.lut)).collect();
            self.tell_all(&Order::LettersKept { dc, namespace, records });
        }
    }

    fn tell_all(&self, order: &Order) {
        for index in 0..self.shard_count {
            (self.tell)(ShardIndex(index as u16), order.clone());
        }
    }
}
