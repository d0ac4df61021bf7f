//! The `replicas` answer: which partitions a node serves.
//!
//! `<ns>:<regime>,<count>,<bitmap>…;<ns2>:…`, without a `;` at the end. A bitmap is 512 bytes in
//! padded base64, 684 characters; partition p is bit `0x80 >> (p & 7)` of byte `p >> 3`. Column 0:
//! the node is master; column k: its k-th replica. Source: `docs/wire.md` section 8.4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{ANSWER_BYTES_MAX, NAME_BYTES_MAX, NAMESPACE_COUNT_MAX};
use crate::model::{PARTITION_COUNT, PartitionId};

const BITMAP_BYTES: usize = PARTITION_COUNT / 8;
/// Length of a bitmap in base64.
const BITMAP_CHARS: usize = BITMAP_BYTES.div_ceil(3) * 4;

// A map of every namespace, with a bitmap for each of 32 copies, fits into an answer.
const _: () =
    assert!(NAMESPACE_COUNT_MAX * 32 * (BITMAP_CHARS + NAME_BYTES_MAX) <= ANSWER_BYTES_MAX);

/// A set of partitions.
#[derive(Clone, PartialEq, Eq)]
pub struct PartitionSet(Box<[u8; BITMAP_BYTES]>);

impl PartitionSet {
    /// No partition.
    pub fn new() -> Self {
        Self(Box::new([0; BITMAP_BYTES]))
    }

    /// Adds a partition.
    pub fn insert(&mut self, partition: PartitionId) {
        self.0[partition.index() >> 3] |= 0x80 >> (partition.index() & 7);
    }

    /// Whether a partition is in it.
    pub fn contains(&self, partition: PartitionId) -> bool {
        self.0[partition.index() >> 3] & (0x80 >> (partition.index() & 7)) != 0
    }

    /// Its partitions, in order.
    pub fn iter(&self) -> impl Iterator<Item = PartitionId> {
        PartitionId::all().filter(|&partition| self.contains(partition))
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        Some(Self(Box::new(bytes.try_into().ok()?)))
    }
}

impl Default for PartitionSet {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<PartitionId> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = PartitionId>>(partitions: I) -> Self {
        let mut set = Self::new();
        partitions.into_iter().for_each(|partition| set.insert(partition));
        set
    }
}

impl std::fmt::Debug for PartitionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} partitions", self.iter().count())
    }
}

/// What a node is for one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceReplicas {
    /// Name of the namespace, as that node calls it.
    pub namespace: String,
    /// 0 in available mode; anything else marks strong consistency.
    pub regime: u32,
    /// Column 0: partitions it masters; column k: those it is k-th replica of. Never empty.
    pub columns: Vec<PartitionSet>,
}

/// Why a `replicas` answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicasError {
    /// The text around the bitmaps is not as agreed.
    #[error("replicas of {namespace:?}: expected <regime>,<count>,<bitmap>…")]
    Shape {
        /// The namespace, as far as it could be read.
        namespace: String,
    },
    /// A bitmap is not 512 bytes in padded base64.
    #[error("replicas of {namespace:?}: column {column} is no 684-character bitmap")]
    Bitmap {
        /// Name of the namespace.
        namespace: String,
        /// The column, from 0.
        column: usize,
    },
}

/// Writes the answer.
pub fn format<'a>(namespaces: impl IntoIterator<Item = &'a NamespaceReplicas>) -> String {
    let mut out = String::new();
    for entry in namespaces {
        if !out.is_empty() {
            out.push(';');
        }
        out += &format!("{}:{},{}", entry.namespace, entry.regime, entry.columns.len());
        for column in &entry.columns {
            out.push(',');
            STANDARD.encode_string(column.0.as_slice(), &mut out);
        }
    }
    out
}

/// Reads an answer. A `;` at the end is tolerated.
///
/// # Errors
/// When a namespace's entry does not have the agreed form; nothing of the answer is used then.
pub fn parse(text: &str) -> Result<Vec<NamespaceReplicas>, ReplicasError> {
    text.split(';').filter(|entry| !entry.is_empty()).map(parse_entry).collect()
}

fn parse_entry(entry: &str) -> Result<NamespaceReplicas, ReplicasError> {
    let (namespace, rest) = entry.split_once(':').unwrap_or((entry, ""));
    let shape = || ReplicasError::Shape { namespace: namespace.chars().take(64).collect() };
    let mut parts = rest.split(',');
    let regime = parts.next().and_then(|text| text.parse().ok()).ok_or_else(shape)?;
    let count: u8 = parts.next().and_then(|text| text.parse().ok()).ok_or_else(shape)?;
    let columns = parts
        .enumerate()
        .map(|(column, text)| {
            let namespace = || namespace.to_owned();
            PartitionSet::decode(text)
                .ok_or_else(|| ReplicasError::Bitmap { namespace: namespace(), column })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if count == 0 || columns.len() != usize::from(count) {
        return Err(shape());
    }
    Ok(NamespaceReplicas { namespace: namespace.to_owned(), regime, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &str, partitions: impl Iterator<Item = PartitionId>) -> NamespaceReplicas {
        let columns = vec![partitions.collect()];
        NamespaceReplicas { namespace: namespace.into(), regime: 0, columns }
    }

    #[test]
    fn all_and_none_look_as_the_reference_says() {
        let all = format([&entry("test", PartitionId::all())]);
        assert_eq!(all, format!("test:0,1,{}8=", "/".repeat(682)));
        let none = format([&entry("test", std::iter::empty())]);
        assert_eq!(none, format!("test:0,1,{}=", "A".repeat(683)));
        assert_eq!(none.len(), "test:0,1,".len() + BITMAP_CHARS);
    }

    #[test]
    fn maps_survive_their_text() {
        let shard = crate::model::ShardIndex(1);
        let mut first = entry("test", PartitionId::of_shard(shard, 3));
        first.columns.push([PartitionId::new(0), PartitionId::new(4095)].into_iter().collect());
        let second = entry("bar", PartitionId::all().skip(4000));
        let text = format([&first, &second]);
        assert_eq!(parse(&text), Ok(vec![first.clone(), second.clone()]));
        assert_eq!(parse(&(text + ";")), Ok(vec![first, second]));
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn malformed_maps_are_refused_by_cause() {
        let bitmap = format!("{}=", "A".repeat(683));
        let shape = || Err(ReplicasError::Shape { namespace: "test".into() });
        let bad_bitmap = || Err(ReplicasError::Bitmap { namespace: "test".into(), column: 0 });
        let check = |text: &str, expected: Result<Vec<NamespaceReplicas>, ReplicasError>| {
            assert_eq!(parse(text), expected, "{text:.40}");
        };
        check("test", shape());
        check("test:", shape());
        check("test:x,1", shape());
        check("test:0,0", shape());
        check(&format!("test:0,2,{bitmap}"), shape());
        check(&format!("test:0,1,{bitmap},{bitmap}"), shape());
        check(&format!("test:0,1,{}", "A".repeat(683)), bad_bitmap());
        check(&format!("test:0,1,{}", "A".repeat(684)), bad_bitmap());
        check("test:0,1,", bad_bitmap());
        check("test:0,1,!!!!", bad_bitmap());
    }
}
