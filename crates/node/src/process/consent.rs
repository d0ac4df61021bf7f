//! The operator's word for what a start does not do by itself, while the node is not running.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::process::ground::Ground;
use crate::process::home::Home;
use crate::process::start::NodeError;
use crate::storage::admit::Words;
use crate::storage::known;
use crate::storage::refusal::Refusal;
use crate::storage::volume::Volume;

/// Why a word is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsentError {
    /// The work directory or a device cannot be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It is for nothing that is in the way.
    #[error(
        "{word} is for nothing that is in the way of a start now: `longship accept --config FILE` \
         shows what is"
    )]
    Word {
        /// The word as given.
        word: String,
    },
    /// The next start has no reason to format it.
    #[error(
        "{} is not to be formatted: it is none of the configured devices, or is taken as it is; \
         `longship accept --config FILE` shows what is in the way of a start", path.display()
    )]
    Device {
        /// Path as given.
        path: PathBuf,
    },
}

/// A node's devices and work directory, held so that it does not start meanwhile.
pub struct Consent {
    config: Config,
    shard_count: u16,
    home: Home,
}

impl Consent {
    /// Takes the work directory of a node that is not running.
    ///
    /// # Errors
    ///
    /// It is running, or the work directory cannot be used.
    pub fn open(config: Config, shard_count: u16) -> Result<Self, NodeError> {
        let home = Home::open(&config.service.work_directory, config.service.node_id)?;
        Ok(Self { config, shard_count, home })
    }

    fn words(&self) -> Result<Words, NodeError> {
        Ok(known::words(self.home.folder()).map_err(self.home.failed("read", "accepted"))?)
    }

    /// What is in the way of the next start, with the words left so far; in words.
    pub fn in_the_way(&self) -> Vec<String> {
        let ground = Ground::look(&self.config, self.shard_count, &self.home);
        let refused = ground.err().unwrap_or_default();
        let mut all: Vec<String> = refused.iter().map(ToString::to_string).collect();
        match self.refusals() {
            Ok(refusals) => all.extend(refusals.iter().map(ToString::to_string)),
            Err(error) => all.push(error.to_string()),
        }
        match self.found_by_last_start() {
            Ok(found) => all.extend(found.map(|one| format!("found by the last start: {one}"))),
            Err(error) => all.push(error.to_string()),
        }
        // A file that each of them needs is told of once.
        let mut told: Vec<String> = Vec::new();
        for one in all {
            if !told.contains(&one) {
                told.push(one);
            }
        }
        told
    }

    /// What devices have in the way.
    fn refusals(&self) -> Result<Vec<Refusal>, NodeError> {
        let (namespaces, work) = (&self.config.namespaces, self.home.folder());
        Ok(Volume::examine(namespaces, self.shard_count, work, &self.words()?)?)
    }

    /// What else the last start was refused for, which headers do not tell, and no word was left for;
    /// in words.
    fn found_by_last_start(&self) -> Result<impl Iterator<Item = String>, NodeError> {
        let words = self.words()?;
        let found = self.kept()?.into_iter().filter(move |(word, _)| !words.has(word));
        Ok(found.map(|(_, refusal)| refusal))
    }

    fn kept(&self) -> Result<Vec<(String, String)>, NodeError> {
        let kept = known::kept_refusals(self.home.folder());
        Ok(kept.map_err(self.home.failed("read", "refused"))?)
    }

    fn leave(&self, word: &str) -> Result<(), NodeError> {
        let left = known::leave_word(self.home.folder(), word);
        Ok(left.map_err(self.home.failed("write", "accepted"))?)
    }

    /// Leaves a word for the next start; gives what it costs.
    ///
    /// # Errors
    ///
    /// It is for nothing that is in the way, or cannot be left.
    pub fn accept(&mut self, word: &str) -> Result<&'static str, ConsentError> {
        let refusals = self.refusals()?;
        let is_word = |own: &Option<String>| own.as_deref() == Some(word);
        let refusal = refusals.iter().find(|r| is_word(&r.accept) || is_word(&r.format));
        let found = self.kept()?;
        let is_told = || found.iter().any(|(told, _)| told == word);
        let cost = match refusal {
            Some(refusal) if is_word(&refusal.accept) => refusal.cause.cost(),
            Some(refusal) => refusal.cause.cost_of_format(),
            // What only a start finds out, it has told with the word.
            None if word.starts_with("damage-") && is_told() => {
                "what is damaged is lost, and older versions and deleted records may come back"
            }
            None if Words::in_text(word).positions().is_some() => {
                "what was changed before and is not shipped yet never ships"
            }
            None => return Err(ConsentError::Word { word: word.to_owned() }),
        };
        self.leave(word)?;
        Ok(cost)
    }

    /// Leaves the word for formatting a device; gives what that costs.
    ///
    /// # Errors
    ///
    /// It is not in the way, or the word cannot be left.
    pub fn format(&mut self, path: &Path) -> Result<&'static str, ConsentError> {
        let refusals = self.refusals()?;
        let is_same = |other: &Path| {
            other == path
                || path
                    .canonicalize()
                    .is_ok_and(|real| other.canonicalize().is_ok_and(|o| o == real))
        };
        let refusal = refusals.iter().find(|refusal| refusal.path.as_deref().is_some_and(is_same));
        let word = refusal.and_then(|refusal| Some((refusal, refusal.format.as_ref()?)));
        let Some((refusal, word)) = word else {
            return Err(ConsentError::Device { path: path.to_owned() });
        };
        self.leave(word)?;
        Ok(refusal.cause.cost_of_format())
    }
}
