//! The answers of `get-config`: `name=value` joined by `;`, in the reference system's shapes.
//!
//! Source: `docs/behaviour.md` section 3. Items that the reference system lacks stand where the
//! alphabet puts them; readers go by name.

use longship::config::grammar::show::entries;

use super::table;
use super::{NamespaceConfig, NetworkConfig, ServiceConfig};

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

#[cfg(test)]
mod tests {
    use super::*;

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
