//! Whether a volume is served with the damage that a start has found on it.

use super::accepted::Met;
use super::admit::{Words, word};
use super::damage::Damage;
use super::device::DeviceError;
use super::refusal::{Cause, Refusal};
use super::volume::Volume;

/// Why a namespace is not served although its devices were opened: a start has found damage that
/// could have brought older versions back, it was not accepted before, and the word for it was not
/// left. Every shard asks when all have read, and gets the same answer; what is
/// accepted is kept before anything is served.
pub fn judge_damage(volume: &Volume, words: &Words) -> Result<Option<Refusal>, DeviceError> {
    let damage = volume.damage();
    let word = damage_word(volume, &damage);
    let is_refused = damage.may_be_old() && !words.has(&word);
    let mut accepted = damage.taken.clone();
    if !is_refused && damage.knows_all_fillings() {
        accepted.extend(&damage.fillings);
    }
    // By the next start the devices do not tell any more that they were older.
    let met = Met { volume_id: volume.id, began: volume.claims.clock(), open: damage.open.clone() };
    volume.accepted.keep(&accepted, met).map_err(|source| DeviceError::Io {
        action: "note what this start has met of",
        path: volume.devices[0].path.clone(),
        source,
    })?;
    volume.settle();
    Ok(is_refused.then(|| {
        let (namespace, cause) = (volume.namespace.clone(), Cause::Damage(damage.to_string()));
        Refusal { namespace, path: None, cause, accept: Some(word), format: None }
    }))
}

/// Whether this start has all that the volume held when it was left, but for what a crash may cost.
/// When all shards have read.
pub fn is_whole(volume: &Volume, words: &Words) -> bool {
    let damage = volume.damage();
    let is_damaged = damage.may_be_old() && words.has(&damage_word(volume, &damage));
    !volume.gives_up && !is_damaged
}

/// Says in the log what is served without all that was written.
pub fn tell_accepted_damage(volume: &Volume) {
    let (damage, namespace) = (volume.damage(), &volume.namespace);
    if damage.taken_blocks > 0 {
        let blocks = damage.taken_blocks;
        tracing::warn!(
            "namespace {namespace}: {blocks} further blocks do not hold what was written: accepted by \
             the operator before this start"
        );
    }
    if damage.may_be_old() {
        tracing::warn!("namespace {namespace}: {damage}: accepted by the operator");
    }
}

fn damage_word(volume: &Volume, damage: &Damage) -> String {
    let Damage { blocks, unreadable_bytes, records_lost, records_maybe_lost, evidence, .. } =
        *damage;
    let figures = (blocks, unreadable_bytes, records_lost, records_maybe_lost);
    word("damage", &(volume.id, figures, evidence))
}
