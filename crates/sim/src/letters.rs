//! Dead letters: the file they are kept in, how they leave it, and what the ledger says of them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::control::{Loop, name_of, namespace_of};
use crate::link::Link;
use crate::oracle;
use crate::plan::Fault;
use crate::rng::Rng;
use crate::store::{Key, Rec};
use crate::trace::tell;
use crate::work::last_of;
use crate::world::World;
use longship::engine::{Command, Letter, LetterFile, Notice};
use longship::model::{Digest, NamespaceId};

/// A file in memory, which outlives the process. Clones are the same file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paper(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// The next writes fail, after so many bytes.
    fails_after: Option<usize>,
}

impl Paper {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes fail after so many bytes, or do no longer.
    pub(crate) fn fail_after(&self, bytes: Option<usize>) {
        self.lock().fails_after = bytes;
    }
}

impl LetterFile for Paper {
    fn name(&self) -> String {
        "a model file".to_owned()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.lock().bytes.clone())
    }

    fn set_aside(&mut self, _: &[u8]) -> (String, io::Result<()>) {
        ("another".to_owned(), Ok(()))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.lock();
        let written = content.fails_after.map_or(bytes.len(), |most| bytes.len().min(most));
        content.bytes.extend(&bytes[..written]);
        if content.fails_after.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn replace(&mut self, new: &[u8]) -> io::Result<()> {
        let mut content = self.lock();
        if content.fails_after.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.bytes = new.to_vec();
        Ok(())
    }
}

impl World {
    /// What an engine has to tell goes to its control loop.
    pub(crate) fn tell_news(&mut self, link: usize) {
        let from = self.links[link].from;
        let Some(engine) = &mut self.links[link].engine else { return };
        for notice in engine.take_news() {
            match &notice {
                Notice::Abandoned(burial) => {
                    for (_, letter) in &burial.letters {
                        let key = self.keys_named(&letter.namespace, &[letter.digest])[0];
                        self.links[link].waits.ended(key, false, None);
                    }
                    self.links[link].letters.extend(burial.letters.iter().cloned());
                }
                Notice::Replayed { namespace, taken, .. } => {
                    for key in self.keys_named(namespace, taken) {
                        tell(Some(key), || format!("DC {link} replays it"));
                        self.links[link].counted.submitted += 1;
                        self.links[link].waits.replayed(key);
                    }
                }
                Notice::ReplaySettled { namespace, letters, .. } => {
                    for key in self.keys_named(namespace, letters) {
                        tell(Some(key), || format!("DC {link} has settled its replay"));
                        oracle::a_letter_goes_when_its_change_is_safe(self, link, key);
                    }
                }
                _ => {}
            }
            self.notify(from, 0, notice);
        }
    }

    fn keys_named(&self, namespace: &str, digests: &[Digest]) -> Vec<Key> {
        let n = (0..self.plan.namespaces).find(|n| namespace == namespace_of(*n));
        let n = NamespaceId(n.expect("a namespace there is") as u8);
        digests.iter().map(|digest| self.key(n, digest)).collect()
    }

    /// The control loop hears of letters: its file takes them, or not.
    pub(crate) fn before_letters(&mut self, site: usize, notice: &Notice, rng: &mut Rng) {
        let full = !self.calm
            && self.plan.has(Fault::LettersFull)
            && matches!(notice, Notice::Abandoned(_))
            && rng.percent(60);
        if full {
            self.happened(Fault::LettersFull);
        }
        let paper = &self.sites[site].durable.letters;
        paper.fail_after(full.then(|| rng.below(60) as usize));
    }

    /// A link's engine learns what became of letters. Those of a namespace that was detached
    /// meanwhile count for nothing.
    pub(crate) fn take_buried(
        &mut self,
        link: usize,
        slots: &[(u32, bool)],
        refusal: Option<String>,
    ) {
        let from = self.links[link].from;
        let now = self.now(from);
        for &(slot, is_kept) in slots {
            let Some(letter) = self.links[link].letters.remove(&slot) else {
                panic!("DC {link} learns of a letter that it did not write, slot {slot}");
            };
            let key = self.keys_named(&letter.namespace, &[letter.digest])[0];
            let word = if is_kept { "has" } else { "cannot have" };
            tell(Some(key), || format!("DC {link} {word} a dead letter: {}", letter.code));
            if !is_kept {
                self.links[link].waits.returned(key);
            }
            let Some(engine) = &mut self.links[link].engine else { return };
            let abandoned = engine.rules().counted().0.abandoned;
            engine.buried(&[(slot, is_kept)], refusal.clone(), now);
            if engine.rules().counted().0.abandoned > abandoned {
                self.note_letter(link, key, &letter);
                // It may have left before the engine hears that it was kept.
                if self.links[link].letters_left.remove(&key) {
                    self.note_left(from, &letter.dc, &letter.namespace, &[letter.digest]);
                }
            }
        }
        self.links[link].woken = true;
    }

    fn note_letter(&mut self, link: usize, key: Key, letter: &Letter) {
        let place = &mut self.links[link];
        // A failed read says nothing about versions: it gives up what its change stood for.
        let upto = match letter.code {
            -1 => last_of(letter.lut),
            _ => place.refused.get(&key).copied().unwrap_or_default(),
        };
        place.counted.letters += 1;
        place.ledger.send(key, upto);
        place.ledger.dead.insert(key, upto);
        place.ledger.left.remove(&key);
    }

    /// A site died: where it is back at a change that was given up, the letter of that is to be back.
    pub(crate) fn take_letters_back(&mut self, site: usize) {
        let wall = self.sites[site].wall(self.now_us);
        let store = &self.sites[site].store;
        for place in self.links.iter_mut().filter(|link| link.from == site) {
            for (key, dead) in std::mem::take(&mut place.ledger.left) {
                // What has expired once needs none, though a clock that is set back has it live again.
                let is_live = |rec: &&Rec| rec.is_live(wall) && !store.expired.contains_key(&key);
                let back = store.get(key).filter(|rec| rec.version <= dead && is_live(rec));
                let arrived = place.ledger.arrived.get(&key).copied().unwrap_or_default();
                // It may have left because its change had nothing to ship any more.
                let is_owed = |version| version > arrived && !place.ledger.withholds(key, version);
                if back.is_some_and(|rec| is_owed(rec.version)) {
                    tell(Some(key), || "its dead letter is to be back".to_owned());
                    place.ledger.dead.insert(key, dead);
                }
            }
        }
    }

    /// Whether a site ships a namespace to a DC, or has positions of it.
    pub(crate) fn knows(&self, site: usize, dc: &str, namespace: &str) -> bool {
        let place = self.loops[site].as_ref();
        place.is_some_and(|place| place.looped.control().knows(dc, namespace))
    }

    /// Whether a letter of a key is kept, whatever replays it.
    pub(crate) fn has_letter(&self, link: usize, key: Key) -> bool {
        let Some(Loop { looped, .. }) = &self.loops[self.links[link].from] else { return false };
        let (dc, namespace) = (name_of(link), namespace_of(self.namespace(key).index()));
        let digest = self.digest(key);
        looped.letters().letters().of(&dc, &namespace).any(|letter| letter.digest == digest)
    }

    /// Letters have left their file, if a newer one has not come.
    pub(crate) fn note_left(&mut self, site: usize, dc: &str, namespace: &str, digests: &[Digest]) {
        let of = |link: &usize| self.links[*link].from == site && name_of(*link) == dc;
        let Some(link) = (0..self.links.len()).find(of) else { return };
        for (key, digest) in self.keys_named(namespace, digests).into_iter().zip(digests) {
            let Link { letters, letters_left, .. } = &mut self.links[link];
            if letters.values().any(|of| (of.namespace.as_str(), of.digest) == (namespace, *digest))
            {
                letters_left.insert(key);
            }
            if !self.has_letter(link, key) {
                tell(Some(key), || format!("the dead letter of DC {link} leaves"));
                let store = &self.sites[site].store;
                let is_gone = store.expired.contains_key(&key) || store.get(key).is_none();
                let ledger = &mut self.links[link].ledger;
                let dead = ledger.dead.remove(&key).map(|dead| (key, dead));
                ledger.left.extend(dead);
                ledger.gone.extend(dead.filter(|_| is_gone));
            }
        }
    }

    /// An operator gives an order to replay all letters of a DC.
    pub(crate) fn replay(&mut self, link: usize) {
        let from = self.links[link].from;
        for n in 0..self.plan.namespaces {
            if self.links[link].configs[n].is_some() {
                let (dc, namespace) = (name_of(link), namespace_of(n));
                self.command(from, Command::Replay { dc, namespace });
            }
        }
    }
}

/// Letters that leave their file with a notice: DC, namespace and records.
pub(crate) fn left_by(notice: &Notice) -> Option<(String, String, Vec<Digest>)> {
    let (dc, namespace, digests) = match notice {
        Notice::ReplaySettled { dc, namespace, letters, .. } => (dc, namespace, letters.clone()),
        Notice::LettersOutdated { dc, namespace, records, .. } => {
            (dc, namespace, records.iter().map(|(digest, _)| *digest).collect())
        }
        _ => return None,
    };
    Some((dc.clone(), namespace.clone(), digests))
}
