//! What is shipped where: the `xdr` context, its DCs and their namespaces.

/// The `xdr` context: the identity of this cluster, and its DCs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdrConfig {
    /// This cluster's identity, 1..=255; 0 is unset.
    pub src_id: u8,
    /// The destinations, in the order given.
    pub dcs: Vec<DcConfig>,
}

/// One destination datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcConfig {
    /// Name of the DC: in marks, letters and answers.
    pub name: String,
    /// Wake the DC's task at the write that finds it idle, instead of at its next lap.
    pub doorbell: bool,
    /// Partitions recovered at the same time; 0 is no limit.
    pub max_recoveries_interleaved: u32,
    /// Lap period: the sweep for whatever waits on time.
    pub period_ms: u32,
    /// Paused by an operator, at run time; not an item of the file.
    pub paused: bool,
    /// Width of the recovery walk.
    pub recovery_threads: u32,
    /// Where the destination is first looked for: host (no brackets) and port.
    pub seeds: Vec<(String, u16)>,
    /// What is shipped, in the order given.
    pub namespaces: Vec<DcNamespaceConfig>,
}

impl DcConfig {
    /// A DC of that name with every item at its default, no seeds and no namespaces.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            doorbell: true,
            max_recoveries_interleaved: 0,
            paused: false,
            period_ms: 100,
            recovery_threads: 1,
            seeds: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}

/// How one namespace is shipped to one DC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcNamespaceConfig {
    /// The namespace at the source.
    pub name: String,
    /// Which bins of a changed record are shipped.
    pub bin_policy: BinPolicy,
    /// Age a queue entry must reach before it is picked.
    pub delay_ms: u32,
    /// Ship changes that were themselves shipped here.
    pub forward: bool,
    /// A key changed again within this time ships once for both; 0 turns merging off.
    pub hot_key_ms: u32,
    /// Bins never shipped.
    pub ignored_bins: Vec<String>,
    /// Do not ship client deletes that are not durable.
    pub ignore_expunges: bool,
    /// Sets never shipped.
    pub ignored_sets: Vec<String>,
    /// Records per second, the whole process together; 0 pauses shipping.
    pub max_throughput: u32,
    /// The namespace at the destination; `None` is the same name.
    pub remote_namespace: Option<String>,
    /// Reserved for strong consistency; without effect so far.
    pub sc_replication_wait_ms: u32,
    /// Bins shipped under [`BinPolicy::OnlySpecified`].
    pub shipped_bins: Vec<String>,
    /// Ship expiries and evictions as deletes.
    pub ship_nsup_deletes: bool,
    /// Ship only [`DcNamespaceConfig::shipped_sets`]; records without a set then stay.
    pub ship_only_specified_sets: bool,
    /// Sets shipped when only specified sets are.
    pub shipped_sets: Vec<String>,
    /// Entries of one lane's queue; a power of two.
    pub transaction_queue_limit: u32,
    /// Whether a shipped write replaces the record or updates it.
    pub write_policy: WritePolicy,
}

impl DcNamespaceConfig {
    /// A namespace of that name with every item at its default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            bin_policy: BinPolicy::All,
            delay_ms: 0,
            forward: false,
            hot_key_ms: 100,
            ignored_bins: Vec::new(),
            ignore_expunges: false,
            ignored_sets: Vec::new(),
            max_throughput: 100_000,
            remote_namespace: None,
            sc_replication_wait_ms: 100,
            shipped_bins: Vec::new(),
            ship_nsup_deletes: false,
            ship_only_specified_sets: false,
            shipped_sets: Vec::new(),
            transaction_queue_limit: 16_384,
            write_policy: WritePolicy::Auto,
        }
    }

    /// The namespace at the destination.
    pub fn remote_name(&self) -> &str {
        self.remote_namespace.as_deref().unwrap_or(&self.name)
    }
}

/// Which bins of a changed record are shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinPolicy {
    /// All bins but the ignored ones.
    All,
    /// Only the listed ones; a listed bin the record lacks ships as its removal.
    OnlySpecified,
}

/// Whether a shipped write replaces the record at the destination or updates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Replace when no bin is withheld, else update.
    Auto,
    /// Bins that are not shipped stay.
    Update,
    /// Bins that are not shipped go.
    Replace,
}
