//! The hello that opens a shipping connection between Longship nodes, and its answer.
//!
//! Info commands, asked only of nodes that list [`FEATURE`] among their features, before any data
//! on the connection. First a challenge, drawn for this connection, then the hello:
//!
//! ```text
//! longship-challenge
//!                <hex32>
//! longship-hello:origin=<hex64>;process=<n>;node=<hex>;shard=<n>;stream=<n>;streams=<n>,<n>;
//!                epoch=<n>;src-id=<0..255>;dc=<name>;proof=<hex128>
//!                boot=<hex16>;loss-window-ms=<n>;src-id=<0..255>;
//!                stores=<hex16>.<n>.<0|1>.<namespace>,...
//! ```
//!
//! An origin is the public half of an Ed25519 key. The proof is the origin's signature of the
//! challenge, of the destination's node id and of everything in the line before the proof. So
//! nobody else can speak for an origin; a hello that was overheard is of no use on another
//! connection; and a destination cannot pass it on to another one. A destination stores nothing to
//! recognise an origin.
//!
//! Before answering, the destination ends the origin's connections that have been superseded,
//! together with their unread bytes (the *fence*, `node/server/hello.rs` tells which). The answer's
//! boot id tells a restarted destination, and its loss window how much acknowledged data a restart
//! may have cost. Of each namespace it tells the id of the store, the number of the store's run,
//! and whether that run began with all that the store held before. So a source notices when a store
//! is not the one that took what was shipped. A refusal is a failure value whose text is the cause.
//! Unknown keys are ignored on both sides, and signed. Source: `docs/design.md`, D22 and D24; RFC
//! 8032.

use std::fmt::{self, Write as _};

use ed25519_compact::{KeyPair, PublicKey, Seed, Signature};

use crate::limits::{HELLO_DC_BYTES_MAX, LOSS_WINDOW_MS_MAX, STORES_MAX, STREAMS_MAX};
use crate::model::{SrcId, StoreRun};

use super::info::{self, Command};

/// Name of the command, and of the feature that announces it.
pub const FEATURE: &str = "longship-hello";
/// Name of the command that asks for the boot id alone, in hexadecimal.
pub const BOOT: &str = "longship-boot";
/// Name of the command that asks for the challenge of this connection.
pub const CHALLENGE: &str = "longship-challenge";
/// Name of the command by which a source asks whether another process goes by its name:
/// `longship-standing:origin=<hex64>;process=<n>;node=<hex>`. The answer is `ok`, or a text.
pub const STANDING: &str = "longship-standing";

/// What is signed begins with this, so that no other text can be taken for a hello.
const DOMAIN: &[u8] = b"longship-hello 2\n";

/// Who ships: the public half of a key that is kept across restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(pub [u8; 32]);

/// For people: the first eight bytes.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Origin {
    /// All of it, in hexadecimal.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Reads what [`Self::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

/// The secret half.
#[derive(Clone)]
pub struct Key {
    pair: KeyPair,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key of {}", self.origin())
    }
}

impl Key {
    /// Made of 32 random bytes; `None` if they are all zero.
    pub fn from_seed(seed: [u8; 32]) -> Option<Self> {
        let pair = KeyPair::try_from_seed(Seed::new(seed)).ok()?;
        Some(Self { pair })
    }

    /// The public half of the key.
    pub fn origin(&self) -> Origin {
        Origin(*self.pair.pk)
    }

    /// The command line of a hello to the node with id `to`, with the proof that answers its
    /// challenge. The hello's origin is the holder of the key.
    pub fn sign(&self, hello: &Hello<'_>, to: &str, challenge: &Challenge) -> String {
        debug_assert_eq!(hello.origin, self.origin());
        let line = hello.format();
        let proof = self.pair.sk.sign(signed(to, challenge, &line), None);
        format!("{line};proof={}", hex(proof.as_ref()))
    }
}

/// What a hello on one connection has to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; 16]);

impl Challenge {
    /// The challenge as an answer's value: 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Reads the value of an answer.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

/// Who opens a shipping connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The source's storage, through all its processes.
    pub origin: Origin,
    /// Grows with every process of the origin: of two, the higher began later.
    pub process: u64,
    /// Node id of the process's first shard, for people.
    pub node: u64,
    /// Number of the source's shard that opens the connection.
    pub shard: u16,
    /// What the connection carries: one DC under one set of rules, numbered by the shard.
    pub stream: u64,
    /// The streams of that shard there are now; what others carried has no heir.
    pub streams: Vec<u64>,
    /// Grows with every hello of that shard of that process.
    pub epoch: u64,
    /// `src-id` of the source cluster; records without a [`super::fields::SRC_ID`] field were
    /// written there.
    pub src_id: SrcId,
    /// The DC, as the source calls it: for people.
    pub dc: &'a str,
}

/// A command is no hello, or not from whom it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// A key is missing or its value is bad.
    #[error("'{0}=' is missing or bad")]
    Key(&'static str),
    /// The proof is not the origin's, answers another challenge or was made for another node.
    #[error(
        "the proof does not fit: ask for {CHALLENGE} first, on the same connection, and sign for \
         this node"
    )]
    Proof,
}

/// What a destination says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Drawn anew at every start of the process.
    pub boot: u64,
    /// How far back acknowledged changes may be lost in a crash, in ms; 0 when none are.
    pub loss_window_ms: u64,
    /// `src-id` of the destination cluster.
    pub src_id: SrcId,
    /// The store of each namespace that the destination has.
    pub stores: Vec<NamespaceStore>,
}

/// The store of one namespace of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceStore {
    /// The namespace, as the destination calls it.
    pub namespace: String,
    /// The store, and its run.
    pub store: StoreRun,
    /// The run began with all that the store held when the one before it ended, but for what a crash
    /// may cost. False when the destination's operator has let it start without.
    pub is_whole: bool,
}

impl<'a> Hello<'a> {
    /// The command line, without its proof.
    fn format(&self) -> String {
        let Self { origin, process, node, shard, stream, epoch, src_id: SrcId(src_id), dc, .. } =
            self;
        let streams: Vec<String> = self.streams.iter().map(u64::to_string).collect();
        format!(
            "{FEATURE}:origin={};process={process};node={node:X};shard={shard};stream={stream};\
             streams={};epoch={epoch};src-id={src_id};dc={dc}",
            origin.to_hex(),
            streams.join(","),
        )
    }

    /// Reads a command whose name is [`FEATURE`] and checks that the holder of the origin's key
    /// wrote it for this connection of the node with id `to`. Costs a tenth of a millisecond.
    ///
    /// # Errors
    /// It is no hello, or nobody's.
    pub fn verify(line: &'a [u8], to: &str, challenge: &Challenge) -> Result<Self, BadHello> {
        let command = Command::parse(line).ok_or(BadHello::Key("origin"))?;
        let hello = Self::parse(&command)?;
        let proof = command.arg("proof").and_then(from_hex::<64>).map(Signature::new);
        let end = line.windows(7).rposition(|window| window == b";proof=");
        let (Some(proof), Some(end)) = (proof, end) else { return Err(BadHello::Key("proof")) };
        let key = PublicKey::new(hello.origin.0);
        let said = str::from_utf8(&line[..end]).map_err(|_| BadHello::Proof)?;
        key.verify(signed(to, challenge, said), &proof).map_err(|_| BadHello::Proof)?;
        Ok(hello)
    }

    fn parse(command: &Command<'a>) -> Result<Self, BadHello> {
        fn number<T: std::str::FromStr>(
            command: &Command<'_>,
            key: &'static str,
        ) -> Result<T, BadHello> {
            command.arg(key).and_then(|text| text.parse().ok()).ok_or(BadHello::Key(key))
        }
        let origin = command.arg("origin").and_then(Origin::from_hex);
        let node = command.arg("node").and_then(|text| u64::from_str_radix(text, 16).ok());
        let streams = command.arg("streams").unwrap_or_default().split(',');
        let streams = streams.take(STREAMS_MAX + 1).map(|text| text.parse().ok());
        let streams: Option<Vec<u64>> = streams.collect();
        let streams = streams.filter(|streams| streams.len() <= STREAMS_MAX);
        let is_short = |dc: &&str| (1..=HELLO_DC_BYTES_MAX).contains(&dc.len());
        let hello = Self {
            origin: origin.ok_or(BadHello::Key("origin"))?,
            process: number(command, "process")?,
            node: node.ok_or(BadHello::Key("node"))?,
            shard: number(command, "shard")?,
            stream: number(command, "stream")?,
            streams: streams.ok_or(BadHello::Key("streams"))?,
            epoch: number(command, "epoch")?,
            src_id: SrcId(number(command, "src-id")?),
            dc: command.arg("dc").filter(is_short).ok_or(BadHello::Key("dc"))?,
        };
        match hello.streams.contains(&hello.stream) {
            true => Ok(hello),
            false => Err(BadHello::Key("streams")),
        }
    }
}

impl HelloAnswer {
    /// The value of the answer.
    pub fn format(&self) -> String {
        let Self { boot, loss_window_ms, src_id: SrcId(src_id), stores } = self;
        let stores: Vec<String> = stores.iter().map(NamespaceStore::format).collect();
        let stores = stores.join(",");
        format!("boot={boot:016x};loss-window-ms={loss_window_ms};src-id={src_id};stores={stores}")
    }

    /// Reads the value of an answer; `None` if it is a failure, or a key is missing or bad.
    pub fn parse(value: &str) -> Option<Self> {
        let list = |text: &str| {
            let stores = text.split(',').filter(|text| !text.is_empty()).take(STORES_MAX + 1);
            let stores: Option<Vec<_>> = stores.map(NamespaceStore::parse).collect();
            stores.filter(|stores| stores.len() <= STORES_MAX)
        };
        let find = |key| info::pairs(value).find(|(name, _)| *name == key).map(|(_, text)| text);
        Some(Self {
            boot: u64::from_str_radix(find("boot")?, 16).ok()?,
            loss_window_ms: find("loss-window-ms")?.parse::<u64>().ok()?.min(LOSS_WINDOW_MS_MAX),
            src_id: SrcId(find("src-id")?.parse().ok()?),
            stores: list(find("stores")?)?,
        })
    }
}

impl NamespaceStore {
    fn format(&self) -> String {
        let Self { namespace, store: StoreRun { id, run }, is_whole } = self;
        format!("{id:016x}.{run}.{}.{namespace}", u8::from(*is_whole))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let id = u64::from_str_radix(parts.next()?, 16).ok()?;
        let run = parts.next()?.parse().ok()?;
        let is_whole = match parts.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let namespace = parts.next().filter(|name| !name.is_empty())?.to_owned();
        Some(Self { namespace, store: StoreRun { id, run }, is_whole })
    }
}

fn signed(to: &str, challenge: &Challenge, line: &str) -> Vec<u8> {
    [DOMAIN, &challenge.0, to.as_bytes(), b"\n", line.as_bytes()].concat()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads exactly `N` bytes.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_hex = text.len() == 2 * N && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)).filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGED: Challenge = Challenge([0xC4; 16]);

    fn key(seed: u8) -> Key {
        Key::from_seed([seed; 32]).unwrap()
    }

    fn hello(key: &Key) -> Hello<'static> {
        Hello {
            origin: key.origin(),
            process: u64::MAX,
            node: 0xBB90,
            shard: 3,
            stream: 2,
            streams: vec![2, 5],
            epoch: 9,
            src_id: SrcId(7),
            dc: "west",
        }
    }

    #[test]
    fn a_hello_survives_its_line() {
        let key = key(1);
        let line = key.sign(&hello(&key), "B0", &CHALLENGED);
        let tail = ";process=18446744073709551615;node=BB90;shard=3;stream=2;streams=2,5;epoch=9;\
                    src-id=7;dc=west;proof=";
        assert!(line.contains(tail), "{line}");
        assert_eq!(Hello::verify(line.as_bytes(), "B0", &CHALLENGED), Ok(hello(&key)));
    }

    #[test]
    fn nobody_speaks_for_an_origin_but_the_holder_of_its_key() {
        let (key, other) = (key(1), key(2));
        let line = key.sign(&hello(&key), "B0", &CHALLENGED);
        let check = |line: &str, challenge: &Challenge| {
            assert_eq!(
                Hello::verify(line.as_bytes(), "B0", challenge),
                Err(BadHello::Proof),
                "{line}"
            );
        };
        check(&line, &Challenge([0xC5; 16]));
        check(
            &line.replace("process=1844674407370955161", "process=0844674407370955161"),
            &CHALLENGED,
        );
        check(&line.replace("streams=2,5", "streams=2"), &CHALLENGED);
        check(&line.replace(";proof=", ";later=1;proof="), &CHALLENGED);
        check(&line.replace(&key.origin().to_hex(), &other.origin().to_hex()), &CHALLENGED);
        let passed_on = Hello::verify(line.as_bytes(), "B1", &CHALLENGED);
        assert_eq!(passed_on, Err(BadHello::Proof), "by the node it was said to");
        // A second origin in front of the one that was signed for.
        let doubled =
            line.replace("origin=", &format!("origin={};origin=", other.origin().to_hex()));
        check(&doubled, &CHALLENGED);
    }

    #[test]
    fn incomplete_hellos_are_refused() {
        let key = key(1);
        let whole = key.sign(&hello(&key), "B0", &CHALLENGED);
        let long = format!("dc={}", "w".repeat(64));
        let many = format!("streams=2{}", ",7".repeat(STREAMS_MAX));
        for (from, to, bad) in [
            ("origin=", "origin=0", "origin"),
            ("process=", "process=-", "process"),
            ("node=BB90", "node=xyz", "node"),
            ("shard=3", "shard=65536", "shard"),
            ("stream=2", "stream=", "stream"),
            ("streams=2,5", "streams=3,5", "streams"),
            ("streams=2,5", "streams=", "streams"),
            ("streams=2,5", &many, "streams"),
            ("epoch=9", "epochs=9", "epoch"),
            ("src-id=7", "src-id=256", "src-id"),
            ("dc=west", "dc=", "dc"),
            ("dc=west", &long, "dc"),
            (";proof=", ";proofs=", "proof"),
        ] {
            let line = whole.replacen(from, to, 1);
            let refused = Hello::verify(line.as_bytes(), "B0", &CHALLENGED);
            assert_eq!(refused, Err(BadHello::Key(bad)), "{line}");
        }
        assert!(Hello::verify(b"longship-hello:", "B0", &CHALLENGED).is_err());
        assert!(Hello::verify(&[0xFF], "B0", &CHALLENGED).is_err());
    }

    #[test]
    fn an_answer_survives_its_value() {
        let store = |namespace: &str, id, run, is_whole| {
            let store = StoreRun { id, run };
            NamespaceStore { namespace: namespace.to_owned(), store, is_whole }
        };
        let stores = vec![store("demo", 0xDE50, 7, true), store("a.b", 1, 0, false)];
        let (boot, src_id) = (u64::MAX, SrcId::NONE);
        let answer = HelloAnswer { boot, loss_window_ms: 1000, src_id, stores };
        let text = "boot=ffffffffffffffff;loss-window-ms=1000;src-id=0;\
                    stores=000000000000de50.7.1.demo,0000000000000001.0.0.a.b";
        assert_eq!(answer.format(), text);
        assert_eq!(HelloAnswer::parse(text), Some(answer));
        let least = "x=1;boot=a;src-id=1;stores=;loss-window-ms=0";
        let least = HelloAnswer::parse(least).unwrap();
        assert_eq!((least.boot, least.stores), (10, vec![]));
        let many = format!("stores=1.1.1.a{}", ",1.1.1.a".repeat(STORES_MAX));
        for stores in
            ["", "stores=1.1.1", "stores=1.1.1.", "stores=1.1.2.a", "stores=1.a.1.a", &many]
        {
            let value = format!("boot=1;loss-window-ms=0;src-id=1;{stores}");
            assert_eq!(HelloAnswer::parse(&value), None, "{value}");
        }
        for value in ["ERROR:4:unrecognized command", "boot=1;src-id=1;stores=", ""] {
            assert_eq!(HelloAnswer::parse(value), None, "{value}");
        }
    }
}
