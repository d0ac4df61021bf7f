//! Descriptors: how many of those that the process may open client connections get. The rest is for
//! files, mailboxes and rings, and for shipping, which must go on when clients have taken all of
//! theirs.

use std::io;

use tracing::warn;

use longship_rt::descriptors::raise_limit;
use longship_rt::disk_ring::RING_FILES_MAX;

use crate::config::Config;

/// Kept for whatever there is only one of: logs, work directory, libraries.
const KEPT_OF_PROCESS: u64 = 64;
/// Kept for a shard's rings, mailboxes and listener.
const KEPT_OF_SHARD: u64 = 32;
/// Kept for a shard's connections to one DC: its nodes, and attempts to reach them.
const KEPT_OF_DC: u64 = 16;
/// And this part of the limit, for DCs made later and for larger clusters.
const KEPT_PART: u64 = 8;
/// A node that could not take so many clients is of no use.
const CLIENTS_MIN: u64 = 16;

/// Why the process cannot have the descriptors it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The system does not tell.
    #[error("cannot tell how many files the process may open: {0}")]
    Unknown(io::Error),
    /// Next to nothing is left for clients.
    #[error(
        "the process may open {limit} files, and {least} are the least for {shards} shards with \
         their files, shipping and a few clients: allow more (LimitNOFILE= of the unit, ulimit -n; \
         {wanted} for all clients of `proto-fd-max`){}", if_many(*shards)
    )]
    TooFew {
        /// The limit.
        limit: u64,
        /// The lowest limit that does.
        least: u64,
        /// Enough for `proto-fd-max`.
        wanted: u64,
        /// How many shards there are.
        shards: u16,
    },
}

/// What else can be done where there are several shards.
fn if_many(shards: u16) -> &'static str {
    if shards > 1 { ", or configure fewer `shards`" } else { "" }
}

/// Raises the limit as far as it goes, and tells how many client connections the process takes:
/// `proto-fd-max`, or fewer, which is then said in the log.
///
/// # Errors
/// [`DescriptorError`].
pub fn for_clients(config: &Config, shard_count: u16) -> Result<u32, DescriptorError> {
    let wanted = wanted(config, shard_count);
    let limit = raise_limit(wanted).map_err(DescriptorError::Unknown)?;
    let clients = share(limit, config, shard_count)?;
    if clients < config.service.proto_fd_max {
        warn!(
            "proto-fd-max is {}, but the process may open {limit} files only: taking {clients} \
             client connections; for all allow {wanted} files (LimitNOFILE= of the unit, ulimit -n)",
            config.service.proto_fd_max,
        );
    }
    Ok(clients)
}

/// What is kept of a limit for other things than clients.
fn kept(limit: u64, config: &Config, shard_count: u16) -> u64 {
    let shards = u64::from(shard_count);
    let devices = config.namespaces.iter().map(|namespace| {
        let storage = &namespace.storage;
        storage.devices.len().max(storage.files.len()) as u64
    });
    let devices: u64 = devices.sum();
    let dcs = config.xdr.dcs.len() as u64;
    let of_shards = shards * (KEPT_OF_SHARD + devices + KEPT_OF_DC * dcs);
    KEPT_OF_PROCESS + devices + of_shards + limit / KEPT_PART
}

fn wanted(config: &Config, shard_count: u16) -> u64 {
    limit_for(config.service.proto_fd_max.into(), config, shard_count)
}

/// The limit that leaves so many for clients.
fn limit_for(clients: u64, config: &Config, shard_count: u16) -> u64 {
    let least = clients + kept(0, config, shard_count);
    // So that what is left after the part kept of it is still enough.
    least * KEPT_PART / (KEPT_PART - 1) + 1
}

fn share(limit: u64, config: &Config, shard_count: u16) -> Result<u32, DescriptorError> {
    let kept = kept(limit, config, shard_count);
    let left = limit.saturating_sub(kept);
    // A ring's table of files must fit into the limit, however few of its places are used.
    if left < CLIENTS_MIN || limit < u64::from(RING_FILES_MAX) {
        let wanted = wanted(config, shard_count);
        let least = limit_for(CLIENTS_MIN, config, shard_count).max(RING_FILES_MAX.into());
        return Err(DescriptorError::TooFew { limit, least, wanted, shards: shard_count });
    }
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    Ok(left.min(config.service.proto_fd_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_is_configured_or_what_is_left() {
        let config = Config::default();
        let wanted = wanted(&config, 4);
        assert_eq!(share(wanted, &config, 4).ok(), Some(config.service.proto_fd_max));
        assert_eq!(share(u64::MAX, &config, 4).ok(), Some(config.service.proto_fd_max));
        let few = share(1024, &config, 1).unwrap();
        assert!((700..900).contains(&few), "{few} of 1024");
        for (limit, shard_count) in [(100, 4), (255, 1)] {
            let few = share(limit, &config, shard_count);
            let Err(few) = few else { panic!("{limit} are too few") };
            let DescriptorError::TooFew { least, .. } = few else { panic!("{few}") };
            assert!(limit < least && share(least, &config, shard_count).is_ok(), "{few}");
            assert_eq!(few.to_string().contains("fewer `shards`"), shard_count > 1, "{few}");
        }
    }
}
