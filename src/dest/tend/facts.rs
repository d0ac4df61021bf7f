//! What a destination tells about a namespace that decides whether shipping there can work at all.
//!
//! Read before anything is shipped and now and then afterwards: what would make every write fail
//! parks the DC with a reason, instead of abandoning its records one by one. A destination that
//! does not tell is not suspected.

/// What is known of a namespace at a destination; `None` is "it did not say".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Whether the destination has it. Without it every write fails with 20.
    pub exists: Option<bool>,
    /// Whether writes flagged as shipped are let in. If not every write fails with 22.
    pub takes_shipped: Option<bool>,
    /// Whether writes with a time to live are let in. If not they fail with 22.
    pub takes_ttl: Option<bool>,
}

impl NamespaceFacts {
    /// Reads the answer to `namespace/NAME`: `key=value` pairs joined by `;`, statistics and
    /// configuration mixed. Source: `docs/wire.md` section 8.3, `docs/destinations.md` section 1.
    pub fn parse(answer: &str) -> Self {
        if answer == "type=unknown" || answer.starts_with("ERROR:20:") {
            return Self { exists: Some(false), ..Self::default() };
        }
        if answer.is_empty() || answer.starts_with("ERROR") {
            return Self::default();
        }
        // One pass: how long the answer is, is the destination's choice.
        let (mut nsup_runs, mut ttl_without_nsup, mut rejects) = (None, None, None);
        for (key, value) in answer.split(';').filter_map(|pair| pair.split_once('=')) {
            match key {
                "nsup-period" => nsup_runs = Some(value != "0"),
                "allow-ttl-without-nsup" => ttl_without_nsup = value.parse().ok(),
                "reject-xdr-writes" => rejects = value.parse::<bool>().ok(),
                _ => {}
            }
        }
        let takes_ttl = match (nsup_runs, ttl_without_nsup) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        };
        Self { exists: Some(true), takes_shipped: rejects.map(|rejects| !rejects), takes_ttl }
    }

    /// What holds for the cluster when two of its nodes say `self` and `other`: the stricter of
    /// both, except that a namespace exists when any node has it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn join<T>(a: Option<T>, b: Option<T>, both: impl Fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(both(a, b)),
                (one, None) | (None, one) => one,
            }
        }
        Self {
            exists: join(self.exists, other.exists, |a, b| a | b),
            takes_shipped: join(self.takes_shipped, other.takes_shipped, |a, b| a & b),
            takes_ttl: join(self.takes_ttl, other.takes_ttl, |a, b| a & b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_facts() {
        let check = |answer: &str, exists, takes_shipped, takes_ttl| {
            let expected = NamespaceFacts { exists, takes_shipped, takes_ttl };
            assert_eq!(NamespaceFacts::parse(answer), expected, "{answer}");
        };
        check("type=unknown", Some(false), None, None);
        check("ERROR:20:namespace not found on node", Some(false), None, None);
        check("ERROR:4:unrecognized command", None, None, None);
        check("", None, None, None);
        check("objects=5;nsup-period=0;stop_writes=false", Some(true), None, None);
        check(
            "nsup-period=0;allow-ttl-without-nsup=false;reject-xdr-writes=false",
            Some(true),
            Some(true),
            Some(false),
        );
        check(
            "allow-ttl-without-nsup=true;nsup-period=0;reject-xdr-writes=true",
            Some(true),
            Some(false),
            Some(true),
        );
        check("nsup-period=120;garbage", Some(true), None, Some(true));
    }

    #[test]
    fn the_stricter_node_speaks_for_the_cluster() {
        let one = NamespaceFacts::parse("nsup-period=9");
        let other = NamespaceFacts::parse(
            "nsup-period=0;allow-ttl-without-nsup=false;reject-xdr-writes=true",
        );
        let both = NamespaceFacts {
            exists: Some(true),
            takes_shipped: Some(false),
            takes_ttl: Some(false),
        };
        assert_eq!(one.and(other), both);
        assert_eq!(other.and(one), both);
        let missing = NamespaceFacts::parse("type=unknown");
        assert_eq!(missing.and(one).exists, Some(true));
        assert_eq!(missing.and(NamespaceFacts::default()), missing);
    }
}
