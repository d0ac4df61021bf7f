//! Rules broken on purpose, to prove that the simulator's oracles notice. A test-only switch: in
//! other builds nothing is ever planted and the checks for it vanish.

/// One broken rule. Those of `ship` are planted here; the others in the simulator's own model of a
/// host, or in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// An LST passes changes in flight.
    LstPassesInFlight,
    /// Recovery takes what lies above the LST only.
    LstInclusive,
    /// The version clock ignores open write tickets.
    TicketIgnored,
    /// A temporary error ends a change.
    LostRetry,
    /// The first change of an idle lane wakes nobody.
    LostWake,
    /// A throttled namespace is not told when its next token comes.
    TokenUntold,
    /// What a lane owes is walked from the beginning of time.
    WalksEverything,
    /// The gap of a lane ends before its newest change.
    OverflowForgetsNewest,
    /// Walks give no tombstones.
    RecoverySkipsTombstones,
    /// A lane's position jumps to the end of its walk when that begins.
    RecoveryTakesItsEnd,
    /// Recovery without `forward` goes by LUT.
    RecoveryByLut,
    /// A record that is rewritten leaves its block without a word to open walks.
    RewriteUntold,
    /// A record that is moved leaves its block without a word to open walks.
    MoveUntold,
    /// What a walk finds ships at once, however young it is.
    FindsAtOnce,
    /// A hot key's version that waited for another's verdict ships when that has come.
    HotKeyAtOnce,
    /// A queued version ships while an older one is in flight.
    TwoVersionsInFlight,
    /// A change merges into one that has been dispatched.
    MergeIntoDispatched,
    /// The beginning of a reply is forgotten when the rest of it comes.
    ReplyPieceLost,
    /// The destination serves what arrived on a connection it had given up.
    StragglerLetIn,
    /// Nothing is shipped again when a destination restarts.
    DestinationRestartBelieved,
    /// A DC is created before its mark is durable.
    CreatedWithoutMark,
    /// A command is answered when the first shard has followed.
    AnswersEarly,
    /// A deleted DC's marks stay.
    DeletedDcKeepsMarks,
    /// Marks that a shard told before a namespace was detached are taken after it.
    MarksOfTheGoneTaken,
    /// A pause drops the queue and its position.
    PauseForgets,
    /// Tombstones go when the fastest DC is past them.
    RaidBeforeSlowest,
    /// Tombstones go while an older copy of the record is on the device.
    RaidWithOlderCopy,
    /// A raid that is under way drops what a DC needs that began meanwhile.
    RaidAsksOnce,
    /// Lanes that begin in the past do not keep tombstones at once.
    BeginsWithoutPins,
    /// A rewind moves positions forward, too.
    RewindShortens,
    /// After a restart versions start at the wall clock.
    ClockUnderMarks,
    /// Records are shipped back to the cluster they came from.
    Echo,
    /// What was shipped in goes on with all its bins, whatever the DC withholds.
    ForwardedWhole,
    /// What a dead connection left unanswered ships once only.
    NoGrace,
    /// A DC made again, or by a process that started again, ships at once.
    NoHold,
    /// A reply settles newer changes of the same millisecond.
    CoversItsMillisecond,
    /// A dead letter that could not be kept lets its change go.
    LetterLost,
    /// A dead letter counts as kept that could not be written.
    LetterUnwritten,
    /// A replayed letter goes before its change has arrived for good.
    ReplayBelieved,
    /// A mark is the LST, whatever the destination may forget.
    MarkIsLst,
    /// Marks are stored while versions they rely on are not on the device.
    MarksBeforeFlush,
    /// Positions count as durable when earlier ones are.
    StoredInAnyRound,
    /// An expiry counts as the source's own change.
    ExpiryIsOwnChange,
    /// An expiry does not say that the record was shipped in.
    ExpiryForgetsOrigin,
    /// A lane that meets a full node has had its turn.
    FullNodeTakesTurns,
    /// A lane keeps its turn while it has something to ship.
    LaneKeepsTurn,
    /// A lane whose turn a full node has interrupted gets another in the same lap.
    TurnBeginsAnew,
    /// A namespace keeps its turn while it has something to ship.
    NamespaceKeepsTurn,
    /// What has to be read from the device waits for no lap.
    DeviceUnordered,
    /// A walk's finds go as far in their first lap as the walk before had come.
    WalkGoesOnFar,
    /// A client's write over what was shipped in counts as shipped in.
    WriteStaysShipped,
    /// A write is acknowledged before it is on the device, though that was asked for.
    CommitsEarly,
    /// The raider takes what no DC has settled.
    RaidUnasked,
    /// What is to survive a power failure is written, and no more.
    FlushSkipped,
    /// What is to be on the device first is shown, and shipped, before.
    ShownEarly,
    /// A write that fails counts as done.
    WriteErrorForgiven,
    /// A stop waits for no write.
    StopsUnflushed,
    /// Of the versions of a record that a start reads the last is the newest.
    LastReadWins,
    /// A start takes no tombstones from the log.
    TombstonesUnread,
    /// A start takes nothing from blocks that were open.
    OpenBlocksUnread,
    /// A start does not go on behind the newest version.
    ClockForgotten,
    /// After a change of the number of shards blocks of others are not claimed.
    ForeignUnclaimed,
    /// Nobody looks at the checksum of a record.
    ChecksumIgnored,
    /// Every record is read from the first device.
    WrongDevice,
    /// A record that has expired is shown.
    ExpiredShown,
    /// A record that is replaced is counted still.
    ReplacedCounted,
    /// A record leaves its block without a word to open walks of a node.
    WalksUntold,
    /// A name that is resolved is answered to nobody.
    NameUnanswered,
    /// Nobody is told that something was dispatched.
    BellUnrung,
}

impl Mutation {
    /// Those that are planted outside the rules: whole nodes show them.
    pub const OF_NODES: [Self; 18] = [
        Self::CommitsEarly,
        Self::RaidUnasked,
        Self::NameUnanswered,
        Self::BellUnrung,
        Self::FlushSkipped,
        Self::ShownEarly,
        Self::WriteErrorForgiven,
        Self::StopsUnflushed,
        Self::LastReadWins,
        Self::TombstonesUnread,
        Self::OpenBlocksUnread,
        Self::ClockForgotten,
        Self::ForeignUnclaimed,
        Self::ChecksumIgnored,
        Self::WrongDevice,
        Self::ExpiredShown,
        Self::ReplacedCounted,
        Self::WalksUntold,
    ];

    /// Those of the rules.
    pub const ALL: [Self; 51] = [
        Self::LstPassesInFlight,
        Self::LstInclusive,
        Self::TicketIgnored,
        Self::LostRetry,
        Self::LostWake,
        Self::TokenUntold,
        Self::WalksEverything,
        Self::OverflowForgetsNewest,
        Self::RecoverySkipsTombstones,
        Self::RecoveryTakesItsEnd,
        Self::RecoveryByLut,
        Self::RewriteUntold,
        Self::MoveUntold,
        Self::FindsAtOnce,
        Self::HotKeyAtOnce,
        Self::TwoVersionsInFlight,
        Self::MergeIntoDispatched,
        Self::ReplyPieceLost,
        Self::StragglerLetIn,
        Self::DestinationRestartBelieved,
        Self::CreatedWithoutMark,
        Self::AnswersEarly,
        Self::DeletedDcKeepsMarks,
        Self::MarksOfTheGoneTaken,
        Self::PauseForgets,
        Self::RaidBeforeSlowest,
        Self::RaidWithOlderCopy,
        Self::RaidAsksOnce,
        Self::BeginsWithoutPins,
        Self::RewindShortens,
        Self::ClockUnderMarks,
        Self::Echo,
        Self::ForwardedWhole,
        Self::NoGrace,
        Self::NoHold,
        Self::CoversItsMillisecond,
        Self::LetterLost,
        Self::LetterUnwritten,
        Self::ReplayBelieved,
        Self::MarkIsLst,
        Self::MarksBeforeFlush,
        Self::StoredInAnyRound,
        Self::ExpiryIsOwnChange,
        Self::ExpiryForgetsOrigin,
        Self::FullNodeTakesTurns,
        Self::LaneKeepsTurn,
        Self::TurnBeginsAnew,
        Self::NamespaceKeepsTurn,
        Self::DeviceUnordered,
        Self::WalkGoesOnFar,
        Self::WriteStaysShipped,
    ];
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Plants a mutation on this thread, or none.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    /// Whether this one is planted.
    #[inline]
    pub fn planted(mutation: Mutation) -> bool {
        PLANTED.get() == Some(mutation)
    }
}

#[cfg(any(test, feature = "sim"))]
pub use switch::{plant, planted};

/// Whether this one is planted: never, in this build.
#[cfg(not(any(test, feature = "sim")))]
#[inline]
pub const fn planted(_: Mutation) -> bool {
    false
}
