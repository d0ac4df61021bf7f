//! The answers of `get-config`: `name=value` joined by `;`, in the reference system's shapes.
//!
//! Source: `docs/behaviour.md` section 3. Items that the reference system lacks stand where the
//! alphabet puts them; readers go by name.

use super::grammar::show::entries;
use super::table;
use super::{DcConfig, DcNamespaceConfig, XdrConfig};

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(",")
}

impl XdrConfig {
    /// The answer to `get-config:context=xdr`.
    pub fn info_text(&self) -> String {
        let dcs = join(self.dcs.iter().map(|dc| &dc.name));
        format!("dcs={dcs};{}", entries(table::XDR, self, "").join(";"))
    }
}

impl DcConfig {
    /// The answer to `get-config:context=xdr;dc=NAME`.
    pub fn info_text(&self) -> String {
        let namespaces = join(self.namespaces.iter().map(|namespace| &namespace.name));
        format!("{};namespaces={namespaces}", entries(table::DC, self, "").join(";"))
    }

    /// The answer to `get-config:context=xdr;dc=NAME;namespace=NAMESPACE`: the defaults and
    /// `enabled=false` when the DC does not ship that namespace.
    pub fn namespace_info_text(&self, namespace: &str) -> String {
        let attached = self.namespace(namespace);
        let enabled = attached.is_some();
        let unattached;
        let config = match attached {
            Some(config) => config,
            None => {
                unattached = DcNamespaceConfig::named(namespace);
                &unattached
            }
        };
        format!("enabled={enabled};{}", entries(table::DC_NAMESPACE, config, "").join(";"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdr_answers_have_the_reference_shapes() {
        let mut xdr = XdrConfig::default();
        assert_eq!(xdr.info_text(), "dcs=;src-id=0;trace-sample=0");
        xdr.create_dc("DC2").unwrap();
        let dc = xdr.create_dc("DC1").unwrap();
        dc.set("node-address-port", "10.0.0.1:3000").unwrap();
        dc.set("node-address-port", "[::1]:3001").unwrap();
        dc.add_namespace("n1").unwrap();
        dc.add_namespace("n2").unwrap();
        assert_eq!(
            dc.info_text(),
            "auth-mode=none;auth-password-file=null;auth-user=null;connector=false;doorbell=true;\
             max-recoveries-interleaved=0;node-address-port=10.0.0.1:3000,[::1]:3001;period-ms=100;\
             recovery-threads=1;tls-name=null;use-alternate-access-address=false;namespaces=n1,n2"
        );
        assert_eq!(xdr.info_text(), "dcs=DC2,DC1;src-id=0;trace-sample=0");
    }

    #[test]
    fn a_dc_namespace_answers_the_reference_text() {
        const DEFAULTS: &str = "bin-policy=all;compression-level=1;compression-threshold=128;\
            delay-ms=0;enable-compression=false;forward=false;hot-key-ms=100;ignored-bins=;\
            ignore-expunges=false;ignored-sets=;max-throughput=100000;remote-namespace=null;\
            sc-replication-wait-ms=100;shipped-bins=;ship-bin-luts=false;ship-nsup-deletes=false;\
            ship-only-specified-sets=false;shipped-sets=;ship-versions-interval=60;\
            ship-versions-policy=latest;transaction-queue-limit=16384;write-policy=auto";
        let mut dc = DcConfig::named("DC1");
        assert_eq!(dc.namespace_info_text("test"), format!("enabled=false;{DEFAULTS}"));
        dc.add_namespace("test").unwrap();
        assert_eq!(dc.namespace_info_text("test"), format!("enabled=true;{DEFAULTS}"));
        let namespace = dc.namespace_mut("test").unwrap();
        for (key, value) in [("ship-bin", "a"), ("ship-bin", "b"), ("ignore-set", "s")] {
            namespace.set(key, value).unwrap();
        }
        let text = dc.namespace_info_text("test");
        for part in [";shipped-bins=a,b;", ";ignored-sets=s;", ";shipped-sets=;"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
