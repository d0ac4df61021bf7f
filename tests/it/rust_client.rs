//! The unmodified Rust client: every call, keys of every type, and what was shipped.

use std::time::Instant;

use aerospike::operations;
use aerospike::{
    Bin, Bins, Client, ClientPolicy, Expiration, GenerationPolicy, Key, ReadPolicy,
    RecordExistsAction, ResultCode, Value, WritePolicy, as_bin,
};

use crate::support::{Node, PATIENCE, Settings};

/// Where namespace `test` is written and where it is shipped to, two shards each.
struct Pair {
    source: Node,
    destination: Node,
}

impl Pair {
    fn start() -> Self {
        let destination = Node::start(&Settings::default());
        let source = Node::start(&Settings::default().shipping_to(&destination));
        Self { source, destination }
    }
}

async fn client_of(node: &Node) -> Client {
    let client = Client::new(&ClientPolicy::default(), &node.seed()).await.unwrap();
    assert_eq!(client.nodes().len(), node.ports().len(), "every shard is found as a node");
    client
}

/// Keys of every type; the integers are many, so that each shard has some.
fn keys(set: &str) -> Vec<Key> {
    let mut values: Vec<Value> = (0..16_i64).map(Value::from).collect();
    values.extend([-1_i64, i64::MIN, i64::MAX].map(Value::from));
    values.extend(["user1", "", "h\u{e9}llo"].map(Value::from));
    values.extend([vec![0xde, 0xad, 0xbe, 0xef], vec![0; 40]].map(Value::Blob));
    values.into_iter().map(|value| Key::new("test", set, value).unwrap()).collect()
}

fn write() -> WritePolicy {
    WritePolicy::default()
}

fn read() -> ReadPolicy {
    ReadPolicy::default()
}

/// The code of a refused call.
fn code<T: std::fmt::Debug>(outcome: aerospike::Result<T>) -> ResultCode {
    let error = outcome.expect_err("the call is refused");
    error.server_result_code().unwrap_or_else(|| panic!("not the server's answer: {error}"))
}

/// Bins of every type that the node stores as they are.
fn all_types() -> [Bin; 6] {
    [
        as_bin!("int", -7),
        as_bin!("text", "h\u{e9}llo"),
        Bin::new("blob", Value::Blob(vec![0, 1, 255])),
        as_bin!("float", 2.5),
        as_bin!("bool", true),
        Bin::new("list", Value::List(vec![Value::from(1), Value::from("two")])),
    ]
}

async fn assert_bins(client: &Client, key: &Key, expected: &[Bin]) {
    let record = client.get(&read(), key, Bins::All).await.unwrap();
    assert_eq!(record.bins.len(), expected.len(), "{key}: {:?}", record.bins);
    for Bin { name, value } in expected {
        assert_eq!(record.bins.get(name), Some(value), "bin {name} of {key}");
    }
}

/// A record that is not there, before anything is written.
async fn missing_record(client: &Client, key: &Key) {
    use ResultCode::KeyNotFoundError;
    assert_eq!(code(client.get(&read(), key, Bins::All).await), KeyNotFoundError);
    assert_eq!(code(client.touch(&write(), key).await), KeyNotFoundError);
    assert!(!client.exists(&read(), key).await.unwrap());
    assert!(!client.delete(&write(), key).await.unwrap());
    let update = WritePolicy { record_exists_action: RecordExistsAction::UpdateOnly, ..write() };
    assert_eq!(code(client.put(&update, key, &all_types()).await), KeyNotFoundError);
}

/// Put, get, select, exists, touch, time to live.
async fn plain_calls(client: &Client, key: &Key) {
    client.put(&write(), key, &all_types()).await.unwrap();
    assert_bins(client, key, &all_types()).await;
    let some = Bins::from(["int", "blob", "absent"].as_slice());
    let record = client.get(&read(), key, some).await.unwrap();
    let mut names: Vec<&str> = record.bins.keys().map(String::as_str).collect();
    names.sort();
    assert_eq!((names, record.generation), (vec!["blob", "int"], 1));
    let header = client.get(&read(), key, Bins::None).await.unwrap();
    assert_eq!((header.bins.len(), header.generation, header.time_to_live()), (0, 1, None));
    assert!(client.exists(&read(), key).await.unwrap());

    let hour = WritePolicy { expiration: Expiration::Seconds(3600), ..write() };
    client.touch(&hour, key).await.unwrap();
    let header = client.get(&read(), key, Bins::None).await.unwrap();
    let left = header.time_to_live().expect("a touched record expires").as_secs();
    assert!((3500..=3600).contains(&left), "{left} s");
    assert_eq!(header.generation, 2);
    let forever = WritePolicy { expiration: Expiration::Never, ..write() };
    client.touch(&forever, key).await.unwrap();
    let header = client.get(&read(), key, Bins::None).await.unwrap();
    assert_eq!((header.time_to_live(), header.generation), (None, 3));
}

/// Add, append, prepend, and the same inside operate, with reads between writes.
async fn changing_calls(client: &Client, key: &Key) {
    client.add(&write(), key, &[as_bin!("int", 10), as_bin!("new", 1)]).await.unwrap();
    client.append(&write(), key, &[as_bin!("text", "!")]).await.unwrap();
    client.prepend(&write(), key, &[as_bin!("text", ">")]).await.unwrap();
    let record = client.get(&read(), key, Bins::All).await.unwrap();
    assert_eq!(record.bins["int"], Value::from(3));
    assert_eq!(record.bins["new"], Value::from(1));
    assert_eq!(record.bins["text"], Value::from(">h\u{e9}llo!"));
    use ResultCode::BinTypeError;
    assert_eq!(code(client.add(&write(), key, &[as_bin!("text", 1)]).await), BinTypeError);
    assert_eq!(code(client.append(&write(), key, &[as_bin!("int", "x")]).await), BinTypeError);

    let generation = record.generation;
    let (one, end, start) = (as_bin!("int", 1), as_bin!("text", "?"), as_bin!("text", "<"));
    let ops = [
        operations::add(&one),
        operations::append(&end),
        operations::prepend(&start),
        operations::touch(),
        operations::get_bin("int"),
        operations::get_bin("text"),
        operations::get_bin("absent"),
    ];
    let record = client.operate(&write(), key, &ops).await.unwrap();
    assert_eq!(record.generation, generation + 1);
    let last = |name: &str| match &record.bins[name] {
        Value::MultiResult(results) => results.last().cloned(),
        value => Some(value.clone()),
    };
    assert_eq!(last("int"), Some(Value::from(4)));
    assert_eq!(last("text"), Some(Value::from("<>h\u{e9}llo!?")));
    let ops = [operations::get_bin("int"), operations::get_bin("new")];
    let record = client.operate(&write(), key, &ops).await.unwrap();
    assert_eq!((record.generation, record.bins.len()), (generation + 1, 2));
    let fresh = as_bin!("fresh", 5);
    let ops = [operations::put(&fresh), operations::get()];
    let record = client.operate(&write(), key, &ops).await.unwrap();
    assert_eq!(record.bins["fresh"], Value::from(5));
    assert!(record.bins.contains_key("list"), "operate with get answers all bins");
}

/// What write policies promise, and bins and records that go away.
async fn policies_and_removal(client: &Client, key: &Key) {
    use RecordExistsAction::{CreateOnly, Replace};
    let bins = [as_bin!("a", 1), as_bin!("b", 2)];
    let create = WritePolicy { record_exists_action: CreateOnly, ..write() };
    assert_eq!(code(client.put(&create, key, &bins).await), ResultCode::KeyExistsError);
    let stale = WritePolicy {
        generation_policy: GenerationPolicy::ExpectGenEqual,
        generation: 60_000,
        ..write()
    };
    assert_eq!(code(client.put(&stale, key, &bins).await), ResultCode::GenerationError);
    let replace = WritePolicy { record_exists_action: Replace, send_key: true, ..write() };
    client.put(&replace, key, &bins).await.unwrap();
    assert_bins(client, key, &bins).await;
    client.put(&write(), key, &[as_bin!("a", None)]).await.unwrap();
    assert_bins(client, key, &[as_bin!("b", 2)]).await;

    let fresh = as_bin!("c", 3);
    let ops = [operations::delete(), operations::put(&fresh)];
    client.operate(&write(), key, &ops).await.unwrap();
    assert_bins(client, key, &[as_bin!("c", 3)]).await;
    client.operate(&write(), key, &[operations::delete()]).await.unwrap();
    assert!(!client.exists(&read(), key).await.unwrap());
    client.put(&write(), key, &bins).await.unwrap();
    assert!(client.delete(&write(), key).await.unwrap());
    assert!(!client.exists(&read(), key).await.unwrap());
}

#[tokio::test]
async fn every_call_works_with_every_key_type_with_and_without_a_set() {
    let node = Node::start(&Settings::default());
    let client = client_of(&node).await;
    for key in ["demo", ""].into_iter().flat_map(keys) {
        missing_record(&client, &key).await;
        plain_calls(&client, &key).await;
        changing_calls(&client, &key).await;
        policies_and_removal(&client, &key).await;
    }
    let nowhere = Key::new("nope", "demo", Value::from(1)).unwrap();
    assert!(client.put(&write(), &nowhere, &all_types()).await.is_err());
    client.close().await.unwrap();
    node.stop();
}

/// Looks at the destination until it shows what it should.
async fn settles(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_written_at_the_source_is_read_at_the_destination() {
    let pair = Pair::start();
    let source = client_of(&pair.source).await;
    let destination = client_of(&pair.destination).await;
    let keys: Vec<Key> = ["demo", ""].into_iter().flat_map(keys).collect();
    let hour = WritePolicy { expiration: Expiration::Seconds(3600), send_key: true, ..write() };
    for (index, key) in keys.iter().enumerate() {
        source.put(&hour, key, &all_types()).await.unwrap();
        source.put(&hour, key, &[as_bin!("int", index as i64)]).await.unwrap();
        source.append(&hour, key, &[as_bin!("text", "!")]).await.unwrap();
    }
    for (index, key) in keys.iter().enumerate() {
        settles("a record to arrive with its last change", async || {
            let record = destination.get(&read(), key, Bins::All).await.ok();
            record.is_some_and(|record| {
                record.bins.get("text") == Some(&Value::from("h\u{e9}llo!"))
                    && record.bins.get("int") == Some(&Value::from(index as i64))
            })
        })
        .await;
        let record = destination.get(&read(), key, Bins::All).await.unwrap();
        assert_eq!(record.bins.len(), all_types().len());
        for Bin { name, value } in
            all_types().iter().filter(|bin| bin.name != "int" && bin.name != "text")
        {
            assert_eq!(record.bins.get(name), Some(value), "bin {name} of {key}");
        }
        let left = record.time_to_live().expect("the time to live is shipped").as_secs();
        assert!((3500..=3600).contains(&left), "{left} s");
    }
    for (index, key) in keys.iter().enumerate() {
        if index % 2 == 0 {
            assert!(source.delete(&write(), key).await.unwrap());
        } else {
            source.put(&write(), key, &[as_bin!("list", None)]).await.unwrap();
        }
    }
    for (index, key) in keys.iter().enumerate() {
        if index % 2 == 0 {
            settles("a delete to arrive", async || {
                !destination.exists(&read(), key).await.unwrap()
            })
            .await;
        } else {
            settles("a bin to go", async || {
                let record = destination.get(&read(), key, Bins::All).await.unwrap();
                !record.bins.contains_key("list")
            })
            .await;
        }
    }
    source.close().await.unwrap();
    destination.close().await.unwrap();
    pair.source.stop();
    pair.destination.stop();
}
