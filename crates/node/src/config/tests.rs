//! Whole files: what is read from them and how they are refused.

use std::path::Path;

use longship::config::{BinPolicy, DcNamespaceConfig, WritePolicy};

use super::{Config, CpuSet, LogLevel, NodeId};

const FULL: &str = "
# A node with everything.
service {
    cluster-name east
    work-directory /var/lib/longship   # comment after a value
    shards 2
    cpu-set 0-1,4
    leave-cores 1
    smt true
    proto-fd-max 20000
    stop-deadline-ms 5000
    node-id BB9
}
network {
    service {
        address 127.0.0.1
        port 3100
        access-address 10.0.0.7
        alternate-access-address db.example.org
    }
}
logging {
    console { context any info }
    file /var/log/longship.log {
        context any warning
        context ship debug
    }
}
namespace orders {
    replication-factor 1
    default-ttl 30d
    nsup-period 2m
    max-record-size 512K
    reject-xdr-writes true
    storage-engine device {
        file /data/a.dat
        file /data/b.dat
        filesize 4G
        write-block-size 2M
        flush-max-ms 500
        commit-to-device true
        defrag-lwm-pct 60
        post-write-cache 64M
        max-write-cache 32M
        stop-writes-used-pct 80
    }
}
namespace raw {
    storage-engine device {
        device /dev/nvme0n1
    }
}
xdr {
    src-id 7
    dc west {
        node-address-port 10.1.0.1 3000
        node-address-port ::1 3001
        period-ms 50
        doorbell false
        connector false
        namespace orders {
            bin-policy only-specified
            ship-bin a
            ship-bin b
            ignore-set tmp
            enable-set live
            ship-only-specified-sets true
            max-throughput 20000
            transaction-queue-limit 2048
            hot-key-ms 200
            delay-ms 100
            remote-namespace orders_copy
            write-policy update
        }
        namespace raw { }
    }
    dc north { }
}
";

#[test]
fn a_full_file_is_read() {
    let config = Config::parse(FULL, "full.conf").unwrap_or_else(|errors| panic!("{errors}"));
    let service = &config.service;
    assert_eq!(service.cluster_name.as_deref(), Some("east"));
    assert_eq!(service.work_directory, Path::new("/var/lib/longship"));
    assert_eq!((service.shards, service.leave_cores, service.smt), (2, 1, true));
    assert_eq!(service.cpu_set, CpuSet(vec![0, 1, 4]));
    assert_eq!((service.proto_fd_max, service.stop_deadline_ms), (20_000, 5000));
    assert_eq!(service.node_id, NodeId(Some(0xBB9)));
    assert_eq!(
        (config.network.address.to_string().as_str(), config.network.port),
        ("127.0.0.1", 3100)
    );
    assert_eq!(config.network.alternate_access_addresses, ["db.example.org"]);
    assert_eq!(config.logging.sinks.len(), 2);
    assert_eq!(config.logging.sinks[0].contexts, [("any".to_owned(), LogLevel::Info)]);
    assert_eq!(config.logging.sinks[1].file.as_deref(), Some(Path::new("/var/log/longship.log")));
    let orders = &config.namespaces[0];
    assert_eq!((orders.default_ttl_s, orders.nsup_period_s), (30 * 86_400, 120));
    assert_eq!((orders.max_record_size, orders.reject_xdr_writes), (512 << 10, true));
    assert_eq!((orders.storage.files.len(), orders.storage.filesize), (2, 4 << 30));
    assert_eq!((orders.storage.write_block_size, orders.storage.commit_to_device), (2 << 20, true));
    assert_eq!(config.namespaces[1].storage.devices, [Path::new("/dev/nvme0n1")]);
    assert_eq!((config.xdr.src_id, config.xdr.dcs.len()), (7, 2));
    let west = &config.xdr.dcs[0];
    assert_eq!(west.seeds, [("10.1.0.1".to_owned(), 3000), ("::1".to_owned(), 3001)]);
    assert_eq!((west.period_ms, west.doorbell), (50, false));
    let expected = DcNamespaceConfig {
        bin_policy: BinPolicy::OnlySpecified,
        shipped_bins: vec!["a".into(), "b".into()],
        ignored_sets: vec!["tmp".into()],
        shipped_sets: vec!["live".into()],
        ship_only_specified_sets: true,
        max_throughput: 20_000,
        transaction_queue_limit: 2048,
        hot_key_ms: 200,
        delay_ms: 100,
        remote_namespace: Some("orders_copy".into()),
        write_policy: WritePolicy::Update,
        ..DcNamespaceConfig::named("orders")
    };
    assert_eq!(west.namespaces, [expected, DcNamespaceConfig::named("raw")]);
}

#[test]
fn the_examples_are_good() {
    for text in [
        include_str!("../../../../examples/source.conf"),
        include_str!("../../../../examples/destination.conf"),
    ] {
        Config::parse(text, "example").unwrap_or_else(|errors| panic!("{errors}"));
    }
}

const SMALL: &str = "service { work-directory /w }\n\
    namespace test { storage-engine device { file /f\n filesize 1G } }\n";

#[test]
fn what_is_not_given_has_its_default() {
    let config = Config::parse(SMALL, "x").unwrap();
    assert_eq!(config.namespaces[0].max_record_size, 1 << 20);
    assert_eq!((config.network.port, config.service.shards), (3000, 0));
    let small_blocks = SMALL.replace("file /f", "file /f\n write-block-size 128K\n");
    let config = Config::parse(&small_blocks, "x").unwrap();
    assert_eq!(config.namespaces[0].max_record_size, 128 << 10);
}

/// Parses `SMALL` followed by `text` (which starts at line 4) and compares the messages.
fn check(text: &str, expected: &[&str]) {
    check_whole(&format!("{SMALL}{text}"), expected);
}

fn check_whole(text: &str, expected: &[&str]) {
    let got = match Config::parse(text, "f") {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    assert_eq!(got, expected.join("\n"), "for {text}");
}

#[test]
fn every_error_of_a_file_is_told_with_its_place() {
    check(
        "xdr {\n dc D {\n period-ms 2\n namespace test {\n hot-kye-ms 10\n\
         max-ship-throughput 5\n ship-bin-luts true\n max-throughput 150\n }\n }\n}\n}",
        &[
            "f:6: xdr/dc D: `period-ms 2`: `2` is not allowed here: expected 5..1000 ms",
            "f:8: xdr/dc D/namespace test: `hot-kye-ms 10`: unknown; did you mean `hot-key-ms`?",
            "f:9: xdr/dc D/namespace test: `max-ship-throughput 5`: no longer an item: write \
             `max-throughput` in the DC's namespace",
            "f:10: xdr/dc D/namespace test: `ship-bin-luts true`: not supported yet: only \
             `false` is",
            "f:11: xdr/dc D/namespace test: `max-throughput 150`: `150` is not allowed here: \
             expected a multiple of 100, 0..100000000",
            "f:15: `}` without a context to close",
        ],
    );
}

#[test]
fn lines_of_the_wrong_shape_are_refused() {
    check("service { }", &["f:4: `service`: given twice, first in line 1"]);
    check("serivce { }", &["f:4: `serivce`: unknown; did you mean `service`?"]);
    check("xdr", &["f:4: `xdr`: is a context: `{` must follow on the same line"]);
    check("xdr x { }", &["f:4: `xdr x`: takes no name before the `{`"]);
    check("xdr { dc { } }", &["f:4: xdr: `dc`: takes one name before the `{`"]);
    check(
        "xdr { src-id { } }",
        &["f:4: xdr: `src-id`: is an item with a value, not a context with braces"],
    );
    check("xdr { src-id 1\n src-id 2\n }", &["f:5: xdr: `src-id 2`: given twice, first in line 4"]);
    check("xdr { src-id }", &["f:4: xdr: `src-id`: takes 0..255"]);
    check(
        "xdr { dc D { node-address-port h 3000 tls\n node-address-port h\n } }",
        &[
            "f:4: xdr/dc D: `node-address-port h 3000 tls`: not supported: there is no TLS yet: \
             give host and port",
            "f:5: xdr/dc D: `node-address-port h`: takes a host and a port of 1..65535",
        ],
    );
    check(
        "network { service { }\n service { } }",
        &["f:5: network: `service`: given twice, first in line 4"],
    );
    check(
        "logging { console { context xdrr debug } }",
        &["f:4: logging/console: `context xdrr debug`: unknown; did you mean `xdr`?"],
    );
    check(
        "logging { console { context any loud } }",
        &["f:4: logging/console: `context any loud`: `loud` is not allowed here: expected \
         critical | warning | info | debug | detail"],
    );
}

#[test]
fn names_are_checked_and_must_fit_together() {
    check(
        "xdr { dc null { } }",
        &["f:4: xdr: `dc null`: `null` is not allowed here: expected 1..31 characters of A-Z a-z \
         0-9 _ - $, not `null`"],
    );
    check("xdr { dc D { }\n dc D { } }", &["f:5: xdr: `dc D`: there is one of that name already"]);
    check(
        "xdr { dc D { namespace nope { } } }",
        &["f:4: xdr/dc D: `namespace nope`: there is no namespace of that name here"],
    );
    let dcs: String = (0..66).map(|n| format!("dc d{n} {{ }}\n")).collect();
    check(
        &format!("xdr {{\n{dcs}}}"),
        &[
            "f:69: xdr: `dc d64`: there can be 64 at most",
            "f:70: xdr: `dc d65`: there can be 64 at most",
        ],
    );
    let namespaces: String = (0..32)
        .map(|n| format!("namespace n{n} {{ storage-engine device {{ device /d{n}\n }} }}\n"))
        .collect();
    check(&namespaces, &["f:66: `namespace n31`: there can be 32 at most"]);
    check(
        "namespace test { storage-engine device {\n file /f\n filesize 1G\n } }",
        &["f:4: `namespace test`: there is one of that name already"],
    );
}

#[test]
fn items_that_do_not_go_together_are_refused() {
    check(
        "xdr { dc D { namespace test {\n delay-ms 200\n ship-bin a\n ignore-bin a\n } } }",
        &[
            "f:5: xdr/dc D/namespace test: `delay-ms`: must not be above `hot-key-ms`, which is \
             100",
            "f:6: xdr/dc D/namespace test: `ship-bin`: `a` is also in `ignore-bin`",
        ],
    );
    check(
        "namespace b {\n default-ttl 1\n storage-engine device { device /d } }",
        &["f:5: namespace b: `default-ttl`: needs a `nsup-period` above 0, or \
         `allow-ttl-without-nsup true`"],
    );
    check(
        "namespace b { }",
        &["f:4: namespace b: `storage-engine`: needs at least one `file` or `device`"],
    );
    check(
        "namespace b {\n storage-engine device { device /d\n file /e } }",
        &["f:5: namespace b: `storage-engine`: holds both `file` and `device`: choose one kind"],
    );
    check(
        "namespace b { storage-engine device { file /e } }",
        &["f:4: namespace b: `filesize`: must be given with `file`"],
    );
    check(
        "namespace b {\n storage-engine memory { } }",
        &["f:5: namespace b: `storage-engine memory`: not supported: records live on files or \
         devices: write `storage-engine device {`"],
    );
    check(
        "namespace b { storage-engine device { file /f\n filesize 1G\n } }",
        &["f:4: namespace b: `storage-engine`: `/f` is already used by namespace `test`"],
    );
    check_whole("", &["f:1: `service`: must be given", "f:1: `namespace`: must be given"]);
    check_whole(
        &SMALL.replace("work-directory /w", "shards 600\n"),
        &["f:1: service: `work-directory`: must be given"],
    );
    check_whole(
        &SMALL.replace("/w", "/w\n shards 600\n").replacen(
            "namespace",
            "network { service { port 65000\n } }\nnamespace",
            1,
        ),
        &["f:4: network/service: `port`: leaves no ports for 600 shards"],
    );
}

/// As a configuration management writes it for the reference server.
const DEPLOYED: &str = "\
service {
    user root
    group root
    pidfile /run/db.pid
    service-threads 20
    proto-fd-max 15000
    work-directory '/var/lib/db'
}
logging {
    file /var/log/db.log { context any info }
}
network {
    service { address any
        port 3000
    }
    heartbeat { mode mesh
        mesh-seed-address-port 10.0.0.2 3002
        interval 150
    }
    fabric { port 3001 }
    info { port 3003 }
}
security { enable-quotas true }
namespace \"orders\" {
    replication-factor 1
    memory-size 4G
    default-ttl 30D
    nsup-period 2M
    storage-engine device {
        device /dev/nvme0n1
        write-block-size 128k
        data-in-memory false
    }
}
";

#[test]
fn a_file_of_the_reference_server_is_refused_for_what_cannot_be_ignored_alone() {
    let errors = Config::parse(DEPLOYED, "db.conf").unwrap_err().to_string();
    let expected = [
        "db.conf:2: service: `user root`: not supported: start the process as that user",
        "db.conf:3: service: `group root`: not supported: start the process as that group",
        "db.conf:23: `security`: not supported: there is no access control yet: who reaches the \
         port reads and writes; guard it with a firewall and take the section out",
    ];
    assert_eq!(errors, expected.join("\n"));
    let lines = DEPLOYED.lines().enumerate();
    let kept: Vec<&str> =
        lines.filter(|(line, _)| ![1, 2, 22].contains(line)).map(|(_, text)| text).collect();
    let config = Config::parse(&kept.join("\n"), "db.conf").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.service.work_directory, Path::new("/var/lib/db"));
    let orders = &config.namespaces[0];
    assert_eq!((orders.name.as_str(), orders.default_ttl_s), ("orders", 30 * 86_400));
    assert_eq!((orders.nsup_period_s, orders.storage.write_block_size), (120, 128 << 10));
    let notes: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    let cluster = "ignored: one process is one cluster here";
    assert_eq!(
        notes,
        [
            "db.conf:2: service: `pidfile /run/db.pid`: ignored: the process stays in the \
             foreground: its supervisor knows its id",
            "db.conf:3: service: `service-threads 20`: ignored: there is one thread for each \
             shard: see `shards`",
            &format!("db.conf:14: network: `heartbeat`: {cluster}"),
            &format!("db.conf:18: network: `fabric`: {cluster}"),
            "db.conf:19: network: `info`: ignored: info commands are answered at the service port",
            "db.conf:23: namespace orders: `memory-size 4G`: ignored: the index grows as needed, \
             64 bytes a record at most",
            "db.conf:29: namespace orders/storage-engine device: `data-in-memory false`: ignored: \
             recent blocks stay in memory: see `post-write-cache`",
        ]
    );
}

#[test]
fn one_slip_is_one_error_that_says_what_to_write() {
    let filesize = |text: &str| SMALL.replace("filesize 1G", text);
    let expected = "expected 16M..2T bytes (K, M, G, T)";
    let place = "f:3: namespace test/storage-engine device";
    for (written, meant) in [("4GB", "4G"), ("64MiB", "64M"), ("64M;", "64M")] {
        check_whole(
            &filesize(&format!("filesize {written}")),
            &[&format!(
                "{place}: `filesize {written}`: `{written}` is not allowed here: {expected}; \
                 write `{meant}`"
            )],
        );
    }
    check_whole(
        &filesize("filesize 64 M"),
        &[&format!("{place}: `filesize 64 M`: takes 16M..2T bytes (K, M, G, T); write `64M`")],
    );
    let slips = [
        ("flush-max-ms 1s", "flush-max-ms 1000"),
        ("flush-max-ms 100ms", "flush-max-ms 100"),
        ("flush-max-ms 1S", "flush-max-ms 1000"),
        ("flush-max-ms 100MS", "flush-max-ms 100"),
        ("defrag-lwm-pct 50%", "defrag-lwm-pct 50"),
    ];
    for (written, meant) in slips {
        let errors = Config::parse(&filesize(&format!("filesize 1G\n{written}")), "f");
        let errors = errors.unwrap_err().to_string();
        let (_, meant) = meant.split_once(' ').unwrap();
        assert!(errors.trim_end().ends_with(&format!("; write `{meant}`")), "{errors}");
    }
    check_whole(&filesize("filesize 1G\n commit-to-device TRUE"), &[]);
    check_whole(
        &SMALL.replace("file /f\n", "file /a b\n"),
        &[&format!("{}: `file /a b`: takes a path; write `\"/a b\"`", place.replace(":3", ":2"))],
    );
    check(
        "logging { console {\n context any INFO\n context xdr warn\n } \n file /a b {\n } }",
        &[
            "f:6: logging/console: `context xdr warn`: `warn` is not allowed here: expected critical \
             | warning | info | debug | detail; write `warning`",
            "f:8: logging: `file /a b`: takes `file PATH {` or `console {`; write `file \"/a b\" {`",
        ],
    );
    check_whole(
        &filesize("filesiz 64M"),
        &[&format!("{place}: `filesiz 64M`: unknown; did you mean `filesize`?")],
    );
    check_whole(
        &SMALL.replace("file /f\n filesize 1G", "device /a /b\n"),
        &["f:2: namespace test/storage-engine device: `device /a /b`: takes one device: shadow \
         devices are not supported"],
    );
    check_whole(
        &SMALL.replace("service {", "servcie {"),
        &["f:1: `servcie`: unknown; did you mean `service`?"],
    );
    check_whole(
        &format!("{}xdr {{ dc D {{ namespace te {{ }} }} }}", SMALL.replace(" test", " te st")),
        &["f:2: `namespace te st`: takes one name before the `{`"],
    );
}

#[test]
fn files_of_other_editors_are_read_or_refused_by_line() {
    let parse = |bytes: &[u8]| match Config::parse_bytes(bytes, "f") {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    let with = |before: &[u8], after: &[u8]| [before, SMALL.as_bytes(), after].concat();
    assert_eq!(parse(&with(b"\xEF\xBB\xBF", b"")), "");
    assert_eq!(parse(&with(b"# f\xFCr\n", b"")), "");
    assert_eq!(parse(SMALL.replace('\n', "\r\n").as_bytes()), "");
    assert_eq!(
        parse(&with(b"", b"xdr { dc w\xFCst { } }")),
        "f:4: not UTF-8: byte fc at column 11; save the file as UTF-8"
    );
    assert_eq!(parse(b"\xFF\xFEs\0"), "f:1: the file is UTF-16; save it as UTF-8");
    let utf16: Vec<u8> = SMALL.bytes().flat_map(|byte| [byte, 0]).collect();
    assert_eq!(parse(&utf16), "f:1: the file is UTF-16; save it as UTF-8");
    let invisible = |line, code, column| {
        format!(
            "f:{line}: the invisible character {code} is at column {column}: remove it, and write \
             that part anew"
        )
    };
    assert_eq!(parse(&with(b"\xEF\xBB\xBF\xEF\xBB\xBF", b"")), invisible(1, "U+FEFF", 1));
    assert_eq!(parse(&with(b"", "xdr\u{200B} {\n}".as_bytes())), invisible(4, "U+200B", 4));
    assert_eq!(parse(&with(b"", b"xdr {\n src-id 1\0\n}")), invisible(5, "U+0000", 10));
    assert_eq!(
        parse(SMALL.replace('\n', "\r").as_bytes()),
        "f:1: its lines end with a carriage return alone; save it with LF or CRLF"
    );
    assert_eq!(
        parse(&with(b"", b"xdr { dc 'west { }\n}")),
        "f:4: the quote is not closed on this line"
    );
}

#[test]
fn a_seed_is_read_as_people_write_addresses_or_told_how_to_be_written() {
    let parse = |seed: &str| {
        let text = format!("{SMALL}xdr {{ dc D {{ node-address-port {seed}\n}} }}");
        Config::parse(&text, "f").map(|config| config.xdr.dcs[0].seeds[0].clone())
    };
    for seed in ["::1 3000", "[::1] 3000"] {
        assert_eq!(parse(seed).unwrap(), ("::1".to_owned(), 3000));
    }
    for (seed, meant) in [("10.0.0.1:3000", "10.0.0.1 3000"), ("[::1]:3000", "::1 3000")] {
        let error = parse(seed).unwrap_err().to_string();
        assert!(error.contains(&format!("1..65535; write `{meant}`")), "{error}");
    }
    let semicolon = SMALL.replace("work-directory /w", "work-directory \"/w\";");
    let error = Config::parse(&semicolon, "f").unwrap_err().to_string();
    assert!(error.contains("takes a path; write `/w`"), "{error}");
}

/// Each stands in files that people have, in a section it may stand in.
#[test]
fn items_of_the_reference_server_are_known_by_name() {
    let unknown = |context: &str, names: &str| {
        for name in names.split_whitespace() {
            let text = match context {
                "service" => SMALL.replace("service {", &format!("service {{\n{name} 1\n")),
                "network" => format!("{SMALL}network {{ service {{\n{name} 1\n}} }}"),
                "xdr" => format!("{SMALL}xdr {{\n{name} 1\n}}"),
                "storage" => SMALL.replace("filesize 1G", &format!("filesize 1G\n{name} 1")),
                _ => SMALL.replace("namespace test {", &format!("namespace test {{\n{name} 1\n")),
            };
            let errors = Config::parse(&text, "f").map(drop).map_err(|e| e.to_string());
            let is_known = errors
                .as_ref()
                .err()
                .is_none_or(|text| !text.contains("unknown") && !text.contains("belongs to"));
            assert!(is_known, "{context} {name}: {errors:?}");
        }
    };
    unknown(
        "service",
        "advertise-ipv6 batch-without-digests debug-allocations downgrading enforce-best-practices \
         indent-allocations info-max-ms keep-caps-ssd-health max-query-threads os-group-perms \
         poison-allocations quarantine-allocations query-threads secrets-address-port \
         secrets-tls-context secrets-uds-path sindex-builder-threads single-scan-threads \
         tls-refresh-period vault-url snub-nodes sub-threads",
    );
    unknown("network", "tls-name tls-address tls-port disable-localhost reuse-address");
    unknown(
        "namespace",
        "apply-ttl-reductions auto-revive disable-cold-start-eviction disable-mrt-writes \
         disable-nsup evict-indexes-memory-pct force-long-queries ignore-migrate-fill-delay \
         indexes-memory-budget max-ttl migrate-retransmit-ms mrt-duration obj-size-hist-max \
         partition-tree-locks read-consistency-level-override sets-enable-xdr single-bin \
         write-commit-level-override",
    );
    unknown(
        "storage",
        "compression compression-level commit-min-size direct-files disable-odirect enable-osync \
         flush-size fsync-max-sec max-used-pct min-avail-pct serialize-tomb-raider \
         sindex-startup-device-scan",
    );
    unknown(
        "xdr",
        "datacenter enable-xdr xdr-client-threads xdr-compression-threshold xdr-digestlog-path \
         xdr-errorlog-path xdr-info-port xdr-max-ship-throughput xdr-named-pipe-path \
         xdr-ship-bins xdr-shipping-enabled",
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_accepted_or_refused(
        text in "(service|xdr|dc|namespace|storage-engine|device|file|[a-c0-9]|[{}#\n ]){0,60}"
    ) {
        let _ = Config::parse(&text, "any");
    }
}
