//! The hello that opens a shipping connection between Longship nodes, and its answer.
//!
//! An info command, asked only of nodes that list [`FEATURE`] among their features, before any data
//! on the connection:
//!
//! ```text
//! longship-hello:origin=<hex16>;src-id=<0..255>;dc=<name>;shard=<n>;epoch=<n>
//!                boot=<hex16>;loss-window-ms=<n>;src-id=<0..255>
//! ```
//!
//! Before answering, the destination drops older connections of the same origin, DC and shard
//! together with their unread bytes, so that no straggler undoes a newer version (the *fence*). The
//! answer's boot id tells a restarted destination, and its loss window how much acknowledged data
//! a restart may have cost. Source: design section 6. Unknown keys are ignored on both sides.

use crate::model::SrcId;

use super::info::{self, Command};

/// Name of the command, and of the feature that announces it.
pub const FEATURE: &str = "longship-hello";
/// Name of the command that asks for the boot id alone, in hexadecimal.
pub const BOOT: &str = "longship-boot";

/// Who opens a shipping connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Random id of the source process's storage, kept across restarts.
    pub origin: u64,
    /// `src-id` of the source cluster; records without a [`super::fields::SRC_ID`] field were
    /// written there.
    pub src_id: SrcId,
    /// The DC, as the source calls it.
    pub dc: &'a str,
    /// The source's shard.
    pub shard: u16,
    /// Grows with every connection of this origin, DC and shard: of two, the higher is the newer.
    pub epoch: u64,
}

/// What a destination says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Drawn anew at every start of the process.
    pub boot: u64,
    /// How far back acknowledged changes may be lost in a crash, in ms; 0 when none are.
    pub loss_window_ms: u64,
    /// `src-id` of the destination cluster.
    pub src_id: SrcId,
}

impl<'a> Hello<'a> {
    /// The command line.
    pub fn format(&self) -> String {
        let Self { origin, src_id: SrcId(src_id), dc, shard, epoch } = self;
        format!(
            "{FEATURE}:origin={origin:016x};src-id={src_id};dc={dc};shard={shard};epoch={epoch}"
        )
    }

    /// Reads a command whose name is [`FEATURE`]; `None` if a key is missing or its value bad.
    pub fn parse(command: &Command<'a>) -> Option<Self> {
        Some(Self {
            origin: u64::from_str_radix(command.arg("origin")?, 16).ok()?,
            src_id: SrcId(command.arg("src-id")?.parse().ok()?),
            dc: command.arg("dc").filter(|dc| !dc.is_empty())?,
            shard: command.arg("shard")?.parse().ok()?,
            epoch: command.arg("epoch")?.parse().ok()?,
        })
    }
}

impl HelloAnswer {
    /// The value of the answer.
    pub fn format(&self) -> String {
        let Self { boot, loss_window_ms, src_id: SrcId(src_id) } = self;
        format!("boot={boot:016x};loss-window-ms={loss_window_ms};src-id={src_id}")
    }

    /// Reads the value of an answer; `None` if it is a failure, or a key is missing or bad.
    pub fn parse(value: &str) -> Option<Self> {
        let find = |key| info::pairs(value).find(|(name, _)| *name == key).map(|(_, text)| text);
        Some(Self {
            boot: u64::from_str_radix(find("boot")?, 16).ok()?,
            loss_window_ms: find("loss-window-ms")?.parse().ok()?,
            src_id: SrcId(find("src-id")?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_its_line() {
        let hello = Hello { origin: 0xa1, src_id: SrcId(7), dc: "west", shard: 3, epoch: u64::MAX };
        let line = hello.format();
        assert_eq!(
            line,
            "longship-hello:origin=00000000000000a1;src-id=7;dc=west;shard=3;\
             epoch=18446744073709551615"
        );
        let command = Command::parse(line.as_bytes()).unwrap();
        assert_eq!((command.name, Hello::parse(&command)), (FEATURE, Some(hello)));
    }

    #[test]
    fn an_answer_survives_its_value() {
        let answer = HelloAnswer { boot: u64::MAX, loss_window_ms: 1000, src_id: SrcId::NONE };
        assert_eq!(answer.format(), "boot=ffffffffffffffff;loss-window-ms=1000;src-id=0");
        assert_eq!(HelloAnswer::parse(&answer.format()), Some(answer));
        assert_eq!(HelloAnswer::parse("x=1;boot=a;src-id=1;loss-window-ms=0").unwrap().boot, 10);
    }

    #[test]
    fn incomplete_hellos_are_refused() {
        let whole = "longship-hello:origin=a1;src-id=7;dc=west;shard=3;epoch=1";
        assert!(Hello::parse(&Command::parse(whole.as_bytes()).unwrap()).is_some());
        for (from, to) in [
            ("origin=a1;", ""),
            ("origin=a1", "origin=xyz"),
            ("src-id=7", "src-id=256"),
            ("dc=west", "dc="),
            ("shard=3", "shard=65536"),
            ("epoch=1", "epoch=-1"),
        ] {
            let line = whole.replace(from, to);
            assert_eq!(Hello::parse(&Command::parse(line.as_bytes()).unwrap()), None, "{line}");
        }
        for value in ["ERROR:4:unrecognized command", "boot=1;src-id=1", ""] {
            assert_eq!(HelloAnswer::parse(value), None, "{value}");
        }
    }
}
