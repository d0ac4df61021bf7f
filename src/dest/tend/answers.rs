//! Reading what a destination node answers to info commands.

use crate::limits::{ANSWER_LINES_MAX, HOST_BYTES_MAX, NODE_COUNT_MAX};
use crate::wire::info;

/// The oldest server that has the commands used here.
const BUILD_MIN: [u32; 2] = [4, 9];

/// An answer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAnswer {
    /// A command was not answered, or with something else than it should be.
    #[error("answered {command} with {answer:?}")]
    Value {
        /// The command.
        command: &'static str,
        /// The answer; empty when there was none.
        answer: String,
    },
    /// Another node lives at this address now.
    #[error(
        "node {expected} was expected there, node {found} answered: correct the address that is \
         listed there for node {expected} (its access-address or alternate-access-address)"
    )]
    OtherNode {
        /// Its id as last seen.
        expected: String,
        /// The id it gives now.
        found: String,
    },
    /// A server too old to be shipped to.
    #[error("build {0} is older than 4.9")]
    OldBuild(String),
    /// The node has not joined its cluster yet.
    #[error("the node is not ready: partition-generation -1")]
    NotReady,
    /// It is one more than are followed.
    #[error("one more than the {NODE_COUNT_MAX} nodes that are followed")]
    NoRoom,
}

/// Whether a name that a destination tells can be one: it is kept, logged and sent back.
pub(super) fn is_sane(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && !"[],;=\t".contains(c);
    (1..=HOST_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain)
}

/// The (command, value) lines of an info reply.
#[derive(Clone, Copy)]
pub(super) struct Answers<'a>(pub(super) &'a [u8]);

impl<'a> Answers<'a> {
    pub(super) fn get(self, command: &str) -> Option<&'a str> {
        let mut lines = info::answers(self.0).take(ANSWER_LINES_MAX);
        lines.find(|&(asked, _)| asked == command).map(|(_, value)| value)
    }

    pub(super) fn bad(self, command: &'static str) -> BadAnswer {
        let answer = self.get(command).unwrap_or_default().chars().take(80).collect();
        BadAnswer::Value { command, answer }
    }

    pub(super) fn number(self, command: &'static str) -> Result<i64, BadAnswer> {
        self.get(command).and_then(|value| value.parse().ok()).ok_or_else(|| self.bad(command))
    }

    pub(super) fn node_id(self) -> Result<&'a str, BadAnswer> {
        let id = self.get("node").filter(|id| is_sane(id) && info::failure(id).is_none());
        id.ok_or_else(|| self.bad("node"))
    }

    pub(super) fn check_build(self) -> Result<(), BadAnswer> {
        let build = self.get("build").unwrap_or_default();
        let mut parts = build.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        match (parts.next(), parts.next()) {
            (Some(major), Some(minor)) if [major, minor] >= BUILD_MIN => Ok(()),
            (Some(_), Some(_)) => Err(BadAnswer::OldBuild(build.chars().take(40).collect())),
            _ => Err(self.bad("build")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_from_4_9_on_are_taken() {
        let check = |build: &str, expected: Result<(), BadAnswer>| {
            let body = format!("build\t{build}\n");
            assert_eq!(Answers(body.as_bytes()).check_build(), expected, "{build}");
        };
        let old = |build: &str| Err(BadAnswer::OldBuild(build.into()));
        let bad = |answer: &str| Err(BadAnswer::Value { command: "build", answer: answer.into() });
        check("4.9.0.3", Ok(()));
        check("8.1.2.0", Ok(()));
        check("10.0-rc1", Ok(()));
        check("4.8.0.6", old("4.8.0.6"));
        check("3.16", old("3.16"));
        check("", bad(""));
        check("ERROR:4:unrecognized command", bad("ERROR:4:unrecognized command"));
    }

    #[test]
    fn ids_and_numbers_are_checked() {
        let answers = Answers(b"node\tA1\npartition-generation\t-1\npeers-generation\tx\n");
        assert_eq!(answers.node_id(), Ok("A1"));
        assert_eq!(answers.number("partition-generation"), Ok(-1));
        assert!(answers.number("peers-generation").is_err() && answers.number("other").is_err());
        assert!(Answers(b"node\tERROR:80:not authenticated\n").node_id().is_err());
        assert!(Answers(b"").node_id().is_err());
        for id in ["A1;lag=0", "A 1", "A\u{1b}[0m", &"A".repeat(256)] {
            assert!(Answers(format!("node\t{id}\n").as_bytes()).node_id().is_err(), "{id}");
        }
    }
}
