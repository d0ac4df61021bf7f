//! Who may change this node, and the record of who did.
//!
//! Commands that change something, and the hellos of shippers, are taken from the node's own
//! loopback and from what `admin-allow` names; the tables of commands tell which those are
//! (`Row::changes_state`). Each that is carried out leaves a line in the log: who, what, and with
//! what result. Those that come to nothing may be tried for ever, and leave fewer.

use std::net::{IpAddr, SocketAddr};

use tracing::{info, warn};

use longship::wire::hello::FEATURE;
use longship::wire::info;
use longship_rt::clock::Clock;
use longship_rt::metrics::LogLimit;

use crate::config::{Config, Networks};
use crate::limits::{ANSWER_CHARS_MAX, COMMAND_CHARS_MAX};

/// The node's guard; each shard has one.
#[derive(Debug)]
pub struct Guard {
    allow: Networks,
    refused: LogLimit,
    failed: LogLimit,
    failed_hellos: LogLimit,
}

impl Guard {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        Self {
            allow: config.service.admin_allow.clone(),
            refused: LogLimit::every_s(10),
            failed: LogLimit::every_s(1),
            failed_hellos: LogLimit::every_s(10),
        }
    }

    /// Whether a peer may change the node.
    pub fn allows(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        is_loopback(address) || self.allow.contains(address)
    }

    /// Whether a peer may change the node. If not, what to answer it; the log hears of it, too.
    ///
    /// # Errors
    /// The cause and the remedy.
    pub fn admit(&self, peer: SocketAddr, command: &str) -> Result<(), String> {
        if self.allows(peer) {
            return Ok(());
        }
        let address = peer.ip().to_canonical();
        let text = format!(
            "{address} may not change this node: add `admin-allow {address}`, or its network, to \
             the service context of this node's file and restart it, or ask from its own host"
        );
        if let Some(held_back) = self.refused.pass(Clock::real().now()) {
            let command = shown(command, COMMAND_CHARS_MAX);
            warn!("refused {command}: {text} ({held_back} more refused since the last such line)");
        }
        Err(text)
    }

    /// Whether a command is recorded, and how many like it were not since the last that was. Of
    /// those that came to nothing one a second is; of hellos, which shippers go on saying, one in
    /// 10 s.
    fn passes(&self, command: &str, answer: &str, now_us: u64) -> Option<u64> {
        if info::failure(answer).is_none() {
            return Some(0);
        }
        let name = info::Command::parse(command.as_bytes()).map_or("", |command| command.name);
        let limit = if name == FEATURE { &self.failed_hellos } else { &self.failed };
        limit.pass(now_us)
    }

    /// Records a command: see [`Self::passes`].
    pub fn audit(&self, peer: SocketAddr, command: &str, answer: &str) {
        let Some(held_back) = self.passes(command, answer, Clock::real().now()) else { return };
        // Whoever has seen a proof could not use it, but need not see it either.
        let command = command.split(";proof=").next().unwrap_or_default();
        let (command, answer) =
            (shown(command, COMMAND_CHARS_MAX), shown(answer, ANSWER_CHARS_MAX));
        match held_back {
            0 => info!("audit: {peer} {command}: {answer}"),
            more => {
                info!("audit: {peer} {command}: {answer} ({more} like it since the last such line)")
            }
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

/// Without what could end or forge a line.
fn shown(text: &str, chars_max: usize) -> String {
    let mut shown: String = text.chars().take(chars_max).flat_map(char::escape_debug).collect();
    if text.chars().nth(chars_max).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    #[test]
    fn the_nodes_own_host_and_what_is_named_may_change_it() {
        let mut config = Config::default();
        config.service.admin_allow = Networks(vec![Network::parse("10.0.0.0/8").unwrap()]);
        let guard = Guard::of(&config);
        let admits = |address: &str| guard.admit(SocketAddr::new(address.parse().unwrap(), 1), "x");
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert_eq!(admits(address), Ok(()), "{address}");
        }
        for address in ["11.0.0.1", "::2", "::ffff:192.0.2.1"] {
            let refusal = admits(address).unwrap_err();
            assert!(refusal.contains("add `admin-allow "), "{refusal}");
        }
    }

    #[test]
    fn what_is_carried_out_is_recorded_and_a_hello_refused_for_ever_once_in_ten_seconds() {
        let guard = Guard::of(&Config::default());
        let passes =
            |command: &str, answer: &str, s: u64| guard.passes(command, answer, s * 1_000_000);
        let hello = format!("{FEATURE}:origin=00;dc=west");
        let refused = "ERROR:4:hello refused: for a test";
        let passed: Vec<u64> = (0..60).filter_map(|s| passes(&hello, refused, s)).collect();
        assert_eq!(passed, [0, 9, 9, 9, 9, 9]);
        let set = "set-config:context=xdr;dc=west;action=create";
        assert_eq!(passes(set, "ERROR:4:it exists", 60), Some(0), "of another kind");
        assert_eq!(passes(set, "ERROR:4:it exists", 60), None);
        assert_eq!(passes(set, "ERROR:4:it exists", 61), Some(1));
        for _ in 0..3 {
            assert_eq!(passes(set, "ok", 61), Some(0));
            assert_eq!(passes(&hello, "ok", 61), Some(0));
        }
    }

    #[test]
    fn what_is_logged_is_one_line_of_bounded_length() {
        assert_eq!(shown("a\nb\u{1b}[0m", 99), "a\\nb\\u{1b}[0m");
        assert_eq!(shown("abcdef", 3), "abc...");
    }
}
