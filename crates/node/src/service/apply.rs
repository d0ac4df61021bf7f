//! What a request does to a record: pure, with the record, the namespace's rules and the time as
//! arguments.
//!
//! A real server's checks come in a fixed order and the first failure wins (`docs/wire.md` section
//! 9.1). Here are those from "may it write now" to "does it fit"; what comes before is the
//! request's own ([`Request::parse`], [`Request::target`], [`Request::action`]), what comes after
//! is storage's.
//!
//! Most requests can be judged from the index alone: [`needs_old_record`] says when the record
//! itself must be read. Whole-record writes, shipped ones above all, never touch the device.

use longship::model::{Generation, Lut, RecordView, TtlSpec, VoidTime};
use longship::wire::message::GenerationRule;
use longship::wire::reply::OpReply;
use longship::wire::{Action, OpCode, Request, ResultCode};

use crate::config::NamespaceConfig;
use crate::limits::TOMBSTONE_KEY_BYTES_MAX;
use crate::service::operate::{BIN_COUNT_MAX, Bins, Workspace};

/// Bytes a stored record takes besides its set name, user key and bins.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Highest void time: 30 bits are kept.
const VOID_TIME_MAX: u32 = (1 << 30) - 1;

/// What is known about the record before the request.
#[derive(Clone, Copy, Debug)]
pub enum Old<'a> {
    /// Not there, expired or deleted.
    Absent,
    /// There; known from the index only.
    Indexed(Facts<'a>),
    /// There, and read.
    Record(RecordView<'a>),
}

/// What the index tells about a live record.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Write count.
    pub generation: Generation,
    /// Expiry.
    pub void_time: VoidTime,
    /// A user key is stored.
    pub has_key: bool,
    /// Set name; empty for none.
    pub set: &'a str,
}

impl<'a> Old<'a> {
    /// The index's facts; `None` when there is no live record.
    pub fn facts(&self) -> Option<Facts<'a>> {
        match self {
            Self::Absent => None,
            Self::Indexed(facts) => Some(*facts),
            Self::Record(record) => Some(Facts {
                generation: record.generation,
                void_time: record.void_time,
                has_key: !record.key.is_empty(),
                set: record.set,
            }),
        }
    }

    fn stored_key(&self) -> Option<&[u8]> {
        match self {
            Self::Record(record) if !record.key.is_empty() => Some(record.key),
            _ => None,
        }
    }

    fn bins(&self) -> &[u8] {
        match self {
            Self::Record(record) => record.bins,
            _ => &[],
        }
    }
}

/// A reply that changes nothing: an error, with the record's metadata once it was located.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Result code.
    pub code: ResultCode,
    /// The record's, or zero.
    pub generation: Generation,
    /// The record's, or never.
    pub void_time: VoidTime,
}

impl From<ResultCode> for Refusal {
    fn from(code: ResultCode) -> Self {
        Self { code, generation: Generation::default(), void_time: VoidTime::NEVER }
    }
}

impl Refusal {
    fn of(facts: Option<&Facts<'_>>, code: ResultCode) -> Self {
        match facts {
            Some(&Facts { generation, void_time, .. }) => Self { code, generation, void_time },
            None => code.into(),
        }
    }
}

/// What a write comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Store this record.
    Put(Image<'a>),
    /// Store a tombstone in its place.
    Remove(Removal<'a>),
    /// Nothing was there and nothing is left: a shipped write that only removes bins.
    Nothing,
}

/// A record to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Set name; empty for none.
    pub set: &'a str,
    /// User key; empty for none.
    pub key: &'a [u8],
    /// Bins as [`RecordView::bins`].
    pub bins: &'a [u8],
    /// How many.
    pub bin_count: u16,
    /// Write count.
    pub generation: Generation,
    /// Expiry.
    pub void_time: VoidTime,
}

/// A record to be deleted; its identity is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal<'a> {
    /// Set name; empty for none.
    pub set: &'a str,
    /// User key; empty for none.
    pub key: &'a [u8],
    /// The client asked for durability.
    pub durable: bool,
}

/// Memory kept between requests, so that applying one allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    workspace: Workspace,
    image: Vec<u8>,
    key: Vec<u8>,
    set: String,
}

/// Whether the namespace takes writes of this origin at all (step 2).
pub fn admit(request: &Request<'_>, rules: &NamespaceConfig) -> Result<(), ResultCode> {
    let rejected =
        if request.is_shipped() { rules.reject_xdr_writes } else { rules.reject_non_xdr_writes };
    if rejected { Err(ResultCode::FORBIDDEN) } else { Ok(()) }
}

/// Whether the live record of these facts must be read before the request can be carried out.
///
/// A shipped write that replaces or deletes and brings the user key is not read for the sake of
/// comparing keys: the source has the key stored, and the digest is made of it.
pub fn needs_old_record(request: &Request<'_>, action: Action, facts: &Facts<'_>) -> bool {
    if locate(request, action, Some(facts)).is_err() {
        return false;
    }
    let key_matters = facts.has_key && !(request.is_shipped() && request.key.is_some());
    match action {
        Action::ReadMetadata => facts.has_key && request.key.is_some(),
        Action::ReadAll | Action::ReadBins => true,
        Action::Delete => key_matters,
        Action::Write => !request.is_replace() || key_matters,
    }
}

/// Whether a request that would have the record read, for its user key, can do without where it
/// cannot be read: nothing of it is to be left.
pub fn can_go_without(request: &Request<'_>, action: Action) -> bool {
    action == Action::Delete || action == Action::Write && request.is_replace()
}

/// Whether a read finds its record and may see it.
pub fn read(request: &Request<'_>, action: Action, old: &Old<'_>) -> Result<(), Refusal> {
    let facts = old.facts();
    locate(request, action, facts.as_ref())?;
    match (old.stored_key(), request.key) {
        (Some(stored), Some(sent)) if stored != sent => {
            Err(Refusal::of(facts.as_ref(), ResultCode::KEY_MISMATCH))
        }
        _ => Ok(()),
    }
}

/// Carries out a delete.
pub fn delete<'a>(
    request: &Request<'a>,
    old: &Old<'_>,
    scratch: &'a mut Scratch,
) -> Result<Removal<'a>, Refusal> {
    let facts = old.facts();
    locate(request, Action::Delete, facts.as_ref())?;
    let Scratch { key, set, .. } = scratch;
    let key = key_to_store(request, old, key);
    let key = key.map_err(|code| Refusal::of(facts.as_ref(), code))?;
    set.clear();
    set.push_str(facts.map_or("", |facts| facts.set));
    Ok(Removal { set, key: key_of_tombstone(key), durable: request.is_durable_delete() })
}

/// Applies a write's operations (steps 4 to 8). Their answers go to `reply`, which is to be dropped
/// if this fails. The effect borrows nothing from the old record, so that storage may change.
pub fn write<'a>(
    request: &Request<'a>,
    old: &Old<'_>,
    rules: &NamespaceConfig,
    now: Lut,
    scratch: &'a mut Scratch,
    reply: &mut OpReply<'_>,
) -> Result<Effect<'a>, Refusal> {
    let facts = old.facts();
    let refuse = |code| Refusal::of(facts.as_ref(), code);
    locate(request, Action::Write, facts.as_ref())?;
    let Scratch { workspace, image, key, .. } = scratch;
    let key = key_to_store(request, old, key).map_err(refuse)?;
    let void_time = void_time(request, facts.as_ref(), rules, now).map_err(refuse)?;

    let old_bins = if request.is_replace() { &[] } else { old.bins() };
    let verbatim =
        if old_bins.is_empty() { request.verbatim_bins().map_err(refuse)? } else { None };
    let (bins, bin_count) = match verbatim {
        Some(bins) => {
            if request.responds_to_all() {
                request.ops.into_iter().for_each(|op| reply.push_null(op.code, op.name));
            }
            (bins, request.header.op_count)
        }
        None => {
            let bin_count = operate(request, old_bins, workspace, image, reply).map_err(refuse)?;
            (image.as_slice(), bin_count)
        }
    };
    if bin_count == 0 {
        return match facts {
            Some(_) => {
                let (set, durable) = (request.set, request.is_durable_delete());
                let key = key_of_tombstone(key);
                Ok(Effect::Remove(Removal { set, key, durable }))
            }
            None if request.is_shipped() => Ok(Effect::Nothing),
            None => Err(ResultCode::NOT_FOUND.into()),
        };
    }
    let bytes = RECORD_OVERHEAD_BYTES + request.set.len() + key.len() + bins.len();
    if bytes > rules.max_record_size as usize {
        return Err(refuse(ResultCode::RECORD_TOO_BIG));
    }
    let generation = facts.map_or(Generation::default(), |facts| facts.generation).next();
    Ok(Effect::Put(Image { set: request.set, key, bins, bin_count, generation, void_time }))
}

/// Step 4, but for the user key: the checks that the index can answer.
fn locate(request: &Request<'_>, action: Action, facts: Option<&Facts<'_>>) -> Result<(), Refusal> {
    let check = match (action, facts) {
        (Action::Write, None) => {
            let must_exist = request.is_update_only()
                || request.ops.into_iter().any(|op| op.code == OpCode::TOUCH);
            if must_exist {
                Err(ResultCode::NOT_FOUND)
            } else {
                check_generation(request, Generation::default())
            }
        }
        (_, None) => Err(ResultCode::NOT_FOUND),
        (Action::Write, Some(_)) if request.is_create_only() => Err(ResultCode::RECORD_EXISTS),
        (Action::Write, Some(facts)) => check_generation(request, facts.generation)
            .and_then(|()| same_set(request.set == facts.set)),
        (Action::Delete, Some(facts)) => {
            same_set(request.set.is_empty() || request.set == facts.set)
                .and_then(|()| check_generation(request, facts.generation))
        }
        (_, Some(facts)) => same_set(request.set.is_empty() || request.set == facts.set),
    };
    check.map_err(|code| Refusal::of(facts, code))
}

fn same_set(same: bool) -> Result<(), ResultCode> {
    if same { Ok(()) } else { Err(ResultCode::PARAMETER) }
}

fn check_generation(request: &Request<'_>, stored: Generation) -> Result<(), ResultCode> {
    let fits = match request.generation_rule() {
        GenerationRule::Any => true,
        GenerationRule::Equal(sent) => sent == u32::from(stored.0),
        GenerationRule::Above(sent) => sent > u32::from(stored.0),
    };
    if fits { Ok(()) } else { Err(ResultCode::GENERATION) }
}

/// The user key the record keeps: the stored one, which the sent one must equal, else the sent one.
fn key_to_store<'a>(
    request: &Request<'a>,
    old: &Old<'_>,
    copy: &'a mut Vec<u8>,
) -> Result<&'a [u8], ResultCode> {
    match (old.stored_key(), request.key) {
        (Some(stored), Some(sent)) if stored != sent => Err(ResultCode::KEY_MISMATCH),
        (Some(_), Some(sent)) => Ok(sent),
        (Some(stored), None) => {
            copy.clear();
            copy.extend_from_slice(stored);
            Ok(copy)
        }
        (None, sent) => request.check_key().map(|()| sent.unwrap_or_default()),
    }
}

fn key_of_tombstone(key: &[u8]) -> &[u8] {
    if key.len() <= TOMBSTONE_KEY_BYTES_MAX { key } else { &[] }
}

/// Step 5: when the written record expires.
fn void_time(
    request: &Request<'_>,
    facts: Option<&Facts<'_>>,
    rules: &NamespaceConfig,
    now: Lut,
) -> Result<VoidTime, ResultCode> {
    let seconds = match TtlSpec::from_wire(request.header.ttl).ok_or(ResultCode::PARAMETER)? {
        TtlSpec::Never => 0,
        TtlSpec::Seconds(seconds) => seconds,
        TtlSpec::Default => rules.default_ttl_s,
        TtlSpec::Keep => match facts {
            Some(facts) => return Ok(facts.void_time),
            None => rules.default_ttl_s,
        },
    };
    if seconds == 0 {
        return Ok(VoidTime::NEVER);
    }
    if rules.nsup_period_s == 0 && !rules.allow_ttl_without_nsup {
        return Err(ResultCode::FORBIDDEN);
    }
    Ok(VoidTime(now.seconds().saturating_add(seconds).min(VOID_TIME_MAX)))
}

/// Applies the operations one by one and writes the bins they leave to `image`; gives their number.
fn operate(
    request: &Request<'_>,
    old_bins: &[u8],
    workspace: &mut Workspace,
    image: &mut Vec<u8>,
    reply: &mut OpReply<'_>,
) -> Result<u16, ResultCode> {
    let mut bins = Bins::new(workspace, old_bins);
    let applied = request.ops.into_iter().try_for_each(|op| bins.apply(&op, request, reply));
    image.clear();
    bins.write_to(image);
    let bin_count = bins.count();
    bins.end(workspace);
    applied?;
    if bin_count > BIN_COUNT_MAX { Err(ResultCode::PARAMETER) } else { Ok(bin_count as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship::model::{Digest, RecordFlags, SrcId, Version};
    use longship::wire::bits::{info1, info2, info3};
    use longship::wire::request::{Address, Head};
    use longship::wire::{ParticleType, frame::FRAME_HEADER_BYTES, ops};

    const NOW: Lut = Lut::from_ms(500_000_000_500);
    const STR: ParticleType = ParticleType::STRING;
    const NUL: ParticleType = ParticleType::NULL;

    type Step<'a> = (OpCode, ParticleType, &'a str, &'a [u8]);

    const PUT: Step<'_> = (OpCode::WRITE, STR, "a", b"new");
    const UNSET: Step<'_> = (OpCode::WRITE, NUL, "a", b"");
    const TOUCH: Step<'_> = (OpCode::TOUCH, NUL, "", b"");
    const EMPTY: Step<'_> = (OpCode::DELETE_ALL, NUL, "", b"");

    fn encode(steps: &[Step<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (code, particle, name, value) in steps {
            ops::push(&mut out, *code, *particle, name.as_bytes(), value);
        }
        out
    }

    fn address() -> Address<'static> {
        Address { namespace: "test", set: "demo", digest: Digest::of_string("demo", "k") }
    }

    /// A live record: generation 7, expiring at 900 million, set demo, bin a = "old", key as given.
    fn record(key: &'static [u8]) -> RecordView<'static> {
        const BINS: &[u8] = &[0, 0, 0, 8, 2, 3, 0, 1, b'a', b'o', b'l', b'd'];
        RecordView {
            digest: address().digest,
            version: Version::first_of(NOW),
            local_lut: NOW,
            generation: Generation(7),
            void_time: VoidTime(900_000_000),
            flags: RecordFlags::default().with(RecordFlags::HAS_KEY, !key.is_empty()),
            src_id: SrcId::NONE,
            set: "demo",
            key,
            bin_count: 1,
            bins: BINS,
        }
    }

    fn indexed(record: &RecordView<'static>) -> Old<'static> {
        Old::Indexed(Old::Record(*record).facts().unwrap())
    }

    fn rules() -> NamespaceConfig {
        NamespaceConfig { nsup_period_s: 120, ..NamespaceConfig::named("test") }
    }

    /// What came of a request, with the image's bins listed.
    #[derive(Debug, PartialEq)]
    enum Got {
        Found,
        Put { key: Vec<u8>, bins: Vec<u8>, generation: u16, void_time: u32 },
        Removed { key: Vec<u8>, durable: bool },
        Nothing,
    }

    fn run_with(
        head: Head<'_>,
        steps: &[Step<'_>],
        old: Old<'_>,
        rules: &NamespaceConfig,
    ) -> Result<Got, Refusal> {
        let mut bytes = Vec::new();
        head.push(steps.len() as u16, &encode(steps), &mut bytes);
        let request = Request::parse(&bytes[FRAME_HEADER_BYTES..])?;
        request.target()?;
        admit(&request, rules)?;
        let action = request.action()?;
        if let Old::Indexed(facts) = old {
            assert!(!needs_old_record(&request, action, &facts), "{head:?}");
        }
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        match action {
            Action::Delete => {
                let Removal { set, key, durable } = delete(&request, &old, &mut scratch)?;
                assert_eq!(set, "demo");
                Ok(Got::Removed { key: key.to_vec(), durable })
            }
            Action::Write => {
                let mut reply = OpReply::begin(&mut out, 1 << 20);
                let effect = write(&request, &old, rules, NOW, &mut scratch, &mut reply)?;
                Ok(match effect {
                    Effect::Put(image) => Got::Put {
                        key: image.key.to_vec(),
                        bins: image.bins.to_vec(),
                        generation: image.generation.0,
                        void_time: image.void_time.0,
                    },
                    Effect::Remove(Removal { key, durable, .. }) => {
                        Got::Removed { key: key.to_vec(), durable }
                    }
                    Effect::Nothing => Got::Nothing,
                })
            }
            _ => read(&request, action, &old).map(|()| Got::Found),
        }
    }

    fn run(head: Head<'_>, steps: &[Step<'_>], old: Old<'_>) -> Result<Got, Refusal> {
        run_with(head, steps, old, &rules())
    }

    fn code(head: Head<'_>, steps: &[Step<'_>], old: Old<'_>) -> u8 {
        run(head, steps, old).map_or_else(|refusal| refusal.code.0, |_| 0)
    }

    fn with(mut head: Head<'static>, info: [u8; 3]) -> Head<'static> {
        head.info.iter_mut().zip(info).for_each(|(bits, more)| *bits |= more);
        head
    }

    fn generation(mut head: Head<'static>, bit: u8, sent: u32) -> Head<'static> {
        head.generation = sent;
        with(head, [0, bit, 0])
    }

    fn ttl(ttl: u32) -> Head<'static> {
        Head { ttl, ..address().put() }
    }

    fn key<'a>(head: Head<'a>, key: &'a [u8]) -> Head<'a> {
        Head { key, ..head }
    }

    #[test]
    fn existence_rules_decide_before_anything_else() {
        let (put, live) = (address().put(), Old::Record(record(b"")));
        let create = with(put, [0, info2::CREATE_ONLY, 0]);
        let update = with(put, [0, 0, info3::UPDATE_ONLY]);
        let replace = with(put, [0, 0, info3::REPLACE_ONLY]);
        let upsert = with(put, [0, 0, info3::CREATE_OR_REPLACE]);
        let cases = [
            (put, &[PUT][..], 0, 0),
            (create, &[PUT], 0, 5),
            (update, &[PUT], 2, 0),
            (replace, &[PUT], 2, 0),
            (upsert, &[PUT], 0, 0),
            (put, &[TOUCH], 2, 0),
            (put, &[PUT, TOUCH], 2, 0),
            (address().get(), &[], 2, 0),
            (address().exists(), &[], 2, 0),
            (address().remove(), &[], 2, 0),
            (address().shipped_delete(false), &[], 2, 0),
            (address().shipped_write(true), &[PUT], 0, 0),
        ];
        for (head, steps, absent, present) in cases {
            assert_eq!(code(head, steps, Old::Absent), absent, "absent: {head:?}");
            assert_eq!(code(head, steps, live), present, "present: {head:?}");
        }
    }

    #[test]
    fn a_write_counts_up_and_a_creation_counts_one() {
        let bins = encode(&[PUT]);
        let put = |generation, old| {
            let got = Got::Put { key: vec![], bins: bins.clone(), generation, void_time: 0 };
            assert_eq!(run(address().put(), &[PUT], old), Ok(got));
        };
        put(1, Old::Absent);
        put(8, Old::Record(record(b"")));
        put(1, Old::Record(RecordView { generation: Generation(65_535), ..record(b"") }));
    }

    #[test]
    fn generation_rules() {
        let cases = [
            (info2::GENERATION, 7, 3, 0),
            (info2::GENERATION, 6, 3, 3),
            (info2::GENERATION, 0, 0, 3),
            (info2::GENERATION, 65_543, 3, 3),
            (info2::GENERATION_GT, 7, 0, 3),
            (info2::GENERATION_GT, 1000, 0, 0),
            (info2::GENERATION_GT, 0, 3, 3),
        ];
        for (bit, sent, absent, present) in cases {
            for head in [address().put(), address().shipped_write(false)] {
                let head = generation(head, bit, sent);
                assert_eq!(code(head, &[PUT], Old::Absent), absent, "{bit:#x} {sent}");
                assert_eq!(
                    code(head, &[PUT], Old::Record(record(b""))),
                    present,
                    "{bit:#x} {sent}"
                );
            }
            let head = generation(address().remove(), bit, sent);
            assert_eq!(code(head, &[], Old::Record(record(b""))), present, "{bit:#x} {sent}");
        }
        let above = generation(address().put(), info2::GENERATION_GT, 1000);
        let got = run(above, &[PUT], Old::Record(record(b"")));
        assert!(matches!(got, Ok(Got::Put { generation: 8, .. })), "the sent one is not stored");
    }

    #[test]
    fn an_update_names_the_set_of_the_record() {
        let in_set = |set| Address { set, ..address() };
        let live = Old::Record(record(b""));
        let cases = [("demo", 0, 0, 0), ("", 4, 0, 0), ("other", 4, 4, 4)];
        for (set, put, get, remove) in cases {
            assert_eq!(code(in_set(set).put(), &[PUT], live), put, "put {set}");
            assert_eq!(code(in_set(set).get(), &[], live), get, "get {set}");
            assert_eq!(code(in_set(set).remove(), &[], live), remove, "remove {set}");
        }
        let without = Old::Record(RecordView { set: "", ..record(b"") });
        assert_eq!(code(in_set("demo").put(), &[PUT], without), 4);
        assert_eq!(code(in_set("").put(), &[PUT], without), 0);
    }

    #[test]
    fn user_keys_are_kept_and_must_agree() {
        const KEY: &[u8] = b"\x03k";
        let stored = |head, old| match run(head, &[PUT], old) {
            Ok(Got::Put { key, .. }) => Ok(key),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code.0),
        };
        let (put, keyed, plain) =
            (address().put(), Old::Record(record(KEY)), Old::Record(record(b"")));
        assert_eq!(stored(put, Old::Absent), Ok(vec![]));
        assert_eq!(stored(key(put, KEY), Old::Absent), Ok(KEY.to_vec()));
        assert_eq!(stored(put, keyed), Ok(KEY.to_vec()), "kept when not sent");
        assert_eq!(stored(key(put, KEY), keyed), Ok(KEY.to_vec()));
        assert_eq!(stored(key(put, KEY), plain), Ok(KEY.to_vec()), "gained later");
        assert_eq!(stored(key(put, b"\x03other"), keyed), Err(19));
        assert_eq!(stored(key(put, b"\x01abc"), Old::Absent), Err(16));
        assert_eq!(stored(key(put, b"\x01abc"), plain), Err(16));
        assert_eq!(stored(key(put, b"\x01abc"), keyed), Err(19));

        assert_eq!(code(key(address().get(), b"\x03other"), &[], keyed), 19);
        assert_eq!(code(key(address().get(), b"\x03other"), &[], plain), 0);
        assert_eq!(code(key(address().remove(), b"\x03other"), &[], keyed), 19);
        let removed = |durable| Ok(Got::Removed { key: KEY.to_vec(), durable });
        assert_eq!(run(address().remove(), &[], keyed), removed(false));
        let durable = with(address().remove(), [0, info2::DURABLE_DELETE, 0]);
        assert_eq!(run(durable, &[], keyed), removed(true));
    }

    #[test]
    fn a_tombstone_keeps_no_long_key() {
        let long = &*[&[3][..], &[b'k'; 900 << 10]].concat().leak();
        let fits = &*[&[3][..], &[b'k'; TOMBSTONE_KEY_BYTES_MAX - 1]].concat().leak();
        for (sent, kept) in [(long, &[][..]), (fits, fits)] {
            let removed = |old| match run(key(address().remove(), sent), &[], old) {
                Ok(Got::Removed { key, .. }) => key,
                got => panic!("{got:?}"),
            };
            assert_eq!(removed(Old::Record(record(b""))), kept, "sent");
            assert_eq!(removed(Old::Record(record(sent))), kept, "stored");
            let unset = run(key(address().put(), sent), &[UNSET], Old::Record(record(b"")));
            assert_eq!(unset, Ok(Got::Removed { key: kept.to_vec(), durable: false }));
        }
    }

    #[test]
    fn lives_are_relative_default_endless_or_kept() {
        let now = NOW.seconds();
        let expiring = NamespaceConfig { default_ttl_s: 60, ..rules() };
        let frozen = NamespaceConfig { nsup_period_s: 0, ..rules() };
        let frozen_default = NamespaceConfig { nsup_period_s: 0, ..expiring.clone() };
        let lenient = NamespaceConfig { allow_ttl_without_nsup: true, ..frozen.clone() };
        let cases = [
            (100, &rules(), Ok(now + 100), Ok(now + 100)),
            (0, &rules(), Ok(0), Ok(0)),
            (0, &expiring, Ok(now + 60), Ok(now + 60)),
            (u32::MAX, &expiring, Ok(0), Ok(0)),
            (0xFFFF_FFFE, &rules(), Ok(0), Ok(900_000_000)),
            (0xFFFF_FFFE, &expiring, Ok(now + 60), Ok(900_000_000)),
            (315_360_000, &rules(), Ok(now + 315_360_000), Ok(now + 315_360_000)),
            (315_360_001, &rules(), Err(4), Err(4)),
            (100, &frozen, Err(22), Err(22)),
            (0, &frozen, Ok(0), Ok(0)),
            (0, &frozen_default, Err(22), Err(22)),
            (u32::MAX, &frozen_default, Ok(0), Ok(0)),
            (0xFFFF_FFFE, &frozen_default, Err(22), Ok(900_000_000)),
            (100, &lenient, Ok(now + 100), Ok(now + 100)),
        ];
        for (sent, rules, created, updated) in cases {
            let void_time = |old| match run_with(ttl(sent), &[PUT], old, rules) {
                Ok(Got::Put { void_time, .. }) => Ok(void_time),
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => Err(refusal.code.0),
            };
            assert_eq!(void_time(Old::Absent), created, "create with {sent}");
            assert_eq!(void_time(Old::Record(record(b""))), updated, "update with {sent}");
        }
    }

    #[test]
    fn a_record_left_without_bins_is_deleted() {
        let live = Old::Record(record(b""));
        let durable = with(address().put(), [0, info2::DURABLE_DELETE, 0]);
        let removed = |durable| Ok(Got::Removed { key: vec![], durable });
        assert_eq!(run(address().put(), &[UNSET], live), removed(false));
        assert_eq!(run(durable, &[UNSET], live), removed(true));
        assert_eq!(run(address().put(), &[EMPTY], live), removed(false));
        assert_eq!(run(address().shipped_write(false), &[UNSET], live), removed(false));
        assert_eq!(code(address().put(), &[UNSET], Old::Absent), 2);
        assert_eq!(run(address().shipped_write(false), &[UNSET], Old::Absent), Ok(Got::Nothing));
    }

    #[test]
    fn replacing_drops_what_is_not_sent() {
        let other = (OpCode::WRITE, STR, "b", &b"2"[..]);
        let bins = |head| match run(head, &[other], Old::Record(record(b""))) {
            Ok(Got::Put { bins, .. }) => bins,
            got => panic!("{got:?}"),
        };
        let old = (OpCode::WRITE, STR, "a", &b"old"[..]);
        assert_eq!(bins(address().put()), encode(&[old, other]));
        assert_eq!(bins(address().shipped_write(true)), encode(&[other]));
    }

    #[test]
    fn touching_keeps_the_bins() {
        let got = run(ttl(100), &[TOUCH], Old::Record(record(b"")));
        let bins = record(b"").bins.to_vec();
        let void_time = NOW.seconds() + 100;
        assert_eq!(got, Ok(Got::Put { key: vec![], bins, generation: 8, void_time }));
    }

    #[test]
    fn namespaces_may_refuse_an_origin() {
        let no_xdr = NamespaceConfig { reject_xdr_writes: true, ..rules() };
        let only_xdr = NamespaceConfig { reject_non_xdr_writes: true, ..rules() };
        let put = |head, rules| run_with(head, &[PUT], Old::Absent, rules).is_ok();
        assert!(!put(address().shipped_write(true), &no_xdr));
        assert!(put(address().put(), &no_xdr));
        assert!(put(address().shipped_write(true), &only_xdr));
        assert!(!put(address().put(), &only_xdr));
        let refused = run_with(address().shipped_delete(false), &[], Old::Absent, &no_xdr);
        assert_eq!(refused, Err(ResultCode::FORBIDDEN.into()));
    }

    #[test]
    fn records_have_a_largest_size() {
        let value = vec![0; 1000];
        let put = [(OpCode::WRITE, ParticleType::BLOB, "b", &value[..])];
        let fits = RECORD_OVERHEAD_BYTES + "demo".len() + encode(&put).len();
        for (max_record_size, expected) in [(fits, 0), (fits - 1, 13)] {
            let max_record_size = max_record_size as u32;
            let rules = NamespaceConfig { max_record_size, ..rules() };
            let got = run_with(address().put(), &put, Old::Absent, &rules);
            assert_eq!(got.map_or_else(|refusal| refusal.code.0, |_| 0), expected);
        }
    }

    #[test]
    fn refusals_after_the_record_was_found_tell_its_metadata() {
        let live = Old::Record(record(b"\x03k"));
        let about = |code| {
            Err(Refusal { code, generation: Generation(7), void_time: VoidTime(900_000_000) })
        };
        let create = with(address().put(), [0, info2::CREATE_ONLY, 0]);
        let add = [(OpCode::INCR, ParticleType::INTEGER, "a", &[0; 8][..])];
        let elsewhere = Address { set: "other", ..address() };
        assert_eq!(run(create, &[PUT], live), about(ResultCode::RECORD_EXISTS));
        let stale = generation(address().put(), info2::GENERATION, 6);
        assert_eq!(run(stale, &[PUT], live), about(ResultCode::GENERATION));
        assert_eq!(run(elsewhere.put(), &[PUT], live), about(ResultCode::PARAMETER));
        assert_eq!(run(address().put(), &add, live), about(ResultCode::INCOMPATIBLE_TYPE));
        assert_eq!(run(ttl(315_360_001), &[PUT], live), about(ResultCode::PARAMETER));
        let other = key(address().put(), b"\x03other");
        assert_eq!(run(other, &[PUT], live), about(ResultCode::KEY_MISMATCH));
        assert_eq!(run(address().get(), &[], Old::Absent), Err(ResultCode::NOT_FOUND.into()));
    }

    #[test]
    fn earlier_checks_win() {
        let live = Old::Record(record(b"\x03k"));
        let mut head = with(address().put(), [0, info2::CREATE_ONLY | info2::GENERATION, 0]);
        head.address.set = "other";
        (head.ttl, head.key) = (315_360_001, b"\x03other");
        let add = [(OpCode::INCR, ParticleType::INTEGER, "a", &[0; 8][..])];
        assert_eq!(code(head, &add, live), 5);
        head.info[1] = info2::WRITE | info2::GENERATION;
        assert_eq!(code(head, &add, live), 3);
        head.info[1] = info2::WRITE;
        assert_eq!(code(head, &add, live), 4);
        head.address.set = "demo";
        assert_eq!(code(head, &add, live), 19);
        head.key = b"\x03k";
        assert_eq!(code(head, &add, live), 4);
        head.ttl = 0;
        assert_eq!(code(head, &add, live), 12);
    }

    #[test]
    fn whole_record_writes_need_no_read() {
        const KEY: &[u8] = b"\x03k";
        let replace = address().shipped_write(true);
        let upsert = with(address().put(), [0, 0, info3::CREATE_OR_REPLACE]);
        let create = with(address().put(), [0, info2::CREATE_ONLY, 0]);
        let stale = generation(address().put(), info2::GENERATION, 6);
        let (get, exists, remove) = (address().get(), address().exists(), address().remove());
        let shipped_delete = address().shipped_delete(false);
        let cases: [(Head<'_>, &[Step<'_>], bool, bool); 13] = [
            (replace, &[PUT], false, true),
            (key(replace, KEY), &[PUT], false, false),
            (upsert, &[PUT], false, true),
            (key(upsert, KEY), &[PUT], false, true),
            (create, &[PUT], false, false),
            (stale, &[PUT], false, false),
            (address().put(), &[PUT], true, true),
            (address().put(), &[TOUCH], true, true),
            (get, &[], true, true),
            (exists, &[], false, false),
            (key(exists, KEY), &[], false, true),
            (remove, &[], false, true),
            (key(shipped_delete, KEY), &[], false, false),
        ];
        for (head, steps, plain, keyed) in cases {
            let mut bytes = Vec::new();
            head.push(steps.len() as u16, &encode(steps), &mut bytes);
            let request = Request::parse(&bytes[FRAME_HEADER_BYTES..]).unwrap();
            let needs = |stored: &'static [u8]| {
                let facts = Old::Record(record(stored)).facts().unwrap();
                needs_old_record(&request, request.action().unwrap(), &facts)
            };
            assert_eq!((needs(b""), needs(KEY)), (plain, keyed), "{head:?}");
        }
        assert_eq!(code(replace, &[PUT], indexed(&record(b""))), 0);
        let got = run(key(replace, KEY), &[PUT], indexed(&record(KEY)));
        let bins = encode(&[PUT]);
        assert_eq!(got, Ok(Got::Put { key: KEY.to_vec(), bins, generation: 8, void_time: 0 }));
    }

    #[test]
    fn a_metadata_read_with_an_empty_read_operation_is_fine() {
        let head = with(address().exists(), [info1::NO_BINS, 0, 0]);
        let empty = (OpCode::READ, NUL, "", &b""[..]);
        assert_eq!(run(head, &[empty], indexed(&record(b""))), Ok(Got::Found));
    }
}
