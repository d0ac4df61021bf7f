//! Info commands about the connection they come by: a shipper's introduction, mostly.

use longship::info::{Effect, Row};
use longship::wire::hello::{BOOT, CHALLENGE, FEATURE, STANDING};

/// What a connection answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Boot,
    Challenge,
    Hello,
    Standing,
    UserAgent,
}

/// The commands that ask for it.
pub(crate) const TABLE: &[Row<Own>] = &[
    Row::reads(BOOT, "", "a number drawn anew at every start", Own::Boot),
    Row::reads(CHALLENGE, "", "what the next hello of this connection has to sign", Own::Challenge),
    Row::changes(
        Effect::Changes,
        FEATURE,
        ":origin=O;process=P;...;proof=SIGNATURE",
        "makes this connection a shipper's, and ends older ones of the same stream",
        Own::Hello,
    ),
    Row::reads(
        STANDING,
        ":origin=O;process=P;node=N",
        "who else ships under that name; `ok` when nobody does",
        Own::Standing,
    ),
    Row::reads("user-agent-set", ":value=TEXT", "takes note of a client; once", Own::UserAgent),
];
