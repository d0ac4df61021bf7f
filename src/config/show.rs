//! The answers of `get-config`: `name=value` joined by `;`, in the reference system's shapes.
//!
//! Source: `docs/behaviour.md` section 3. Items that the reference system lacks stand where the
//! alphabet puts them; readers go by name.

use super::table::{self, Item};
use super::value::Field;
use super::{
    DcConfig, DcNamespaceConfig, NamespaceConfig, NetworkConfig, ServiceConfig, XdrConfig,
};

/// One `name=value` per item of the table; file lists are numbered, as `file[0]=PATH`.
fn entries<T>(table: &'static [Item<T>], config: &T, prefix: &str) -> Vec<String> {
    let show = |item: &Item<T>| {
        let name = format!("{prefix}{}", item.shown);
        match item.field(config).map(Field::numbered) {
            Some(Some(values)) => {
                let number = |(index, value)| format!("{name}[{index}]={value}");
                values.into_iter().enumerate().map(number).collect()
            }
            _ => vec![format!("{name}={}", item.show(config))],
        }
    };
    table.iter().flat_map(show).collect()
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(",")
}

impl ServiceConfig {
    /// The answer to `get-config:context=service`.
    pub fn info_text(&self) -> String {
        entries(table::SERVICE, self, "").join(";")
    }
}

impl NetworkConfig {
    /// The answer to `get-config:context=network`.
    pub fn info_text(&self) -> String {
        entries(table::NETWORK_SERVICE, self, "service.").join(";")
    }
}

impl NamespaceConfig {
    /// The answer to `get-config:context=namespace;id=NAME`.
    pub fn info_text(&self) -> String {
        let mut all = entries(table::NAMESPACE, self, "");
        all.push("storage-engine=device".to_owned());
        all.extend(entries(table::STORAGE, &self.storage, "storage-engine."));
        all.join(";")
    }
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

    #[test]
    fn service_network_and_namespace_show_every_item() {
        assert_eq!(
            ServiceConfig { work_directory: "/w".into(), ..Default::default() }.info_text(),
            "admin-allow=;cluster-name=null;cpu-set=all;leave-cores=0;node-id=null;proto-fd-max=15000;shards=0;\
             smt=false;stop-deadline-ms=10000;work-directory=/w"
        );
        assert_eq!(
            NetworkConfig::default().info_text(),
            "service.access-address=;service.address=any;service.alternate-access-address=;\
             service.port=3000"
        );
        let mut namespace = NamespaceConfig::named("test");
        namespace.storage.files = vec!["/a".into(), "/b".into()];
        let text = namespace.info_text();
        for part in [
            "replication-factor=1;",
            ";storage-engine=device;storage-engine.commit-to-device=false;",
            ";storage-engine.file[0]=/a;storage-engine.file[1]=/b;",
            ";storage-engine.post-write-cache=268435456;",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("storage-engine.device"), "{text}");
    }
}
