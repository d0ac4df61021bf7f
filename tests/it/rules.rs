//! What a DC ships of a namespace: a table of cases, each set up at run time and checked at the
//! destination.

use crate::support::ship::{
    Client, configure, create_dc, digest_of, one_shard, present, stat, wait_until_connected,
    wait_until_settled,
};
use crate::support::{Node, Request, Settings, info, wait_for};

/// Records of one case.
const RECORDS: u32 = 8;

/// One step at the source.
#[derive(Clone, Default)]
struct Step {
    record: u32,
    set: &'static str,
    bins: Vec<(&'static str, Option<i64>)>,
    delete: bool,
    durable: bool,
    /// As a shipper does it.
    shipped: bool,
    ttl: u32,
}

fn write(record: u32, bins: &[(&'static str, i64)]) -> Step {
    let bins = bins.iter().map(|&(name, value)| (name, Some(value))).collect();
    Step { record, bins, ..Step::default() }
}

fn delete(record: u32) -> Step {
    Step { record, delete: true, ..Step::default() }
}

impl Step {
    fn in_set(self, set: &'static str) -> Self {
        Self { set, ..self }
    }

    fn shipped(self) -> Self {
        Self { shipped: true, ..self }
    }

    fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    fn ttl(self, ttl: u32) -> Self {
        Self { ttl, ..self }
    }

    fn without(mut self, bin: &'static str) -> Self {
        self.bins.push((bin, None));
        self
    }

    fn request(&self, first: u32) -> Request {
        let mut request = Request::put(digest_of(first + self.record), 0);
        request.ttl = self.ttl;
        request.info1 = if self.shipped { 0x10 } else { 0 };
        request.info2 = if self.delete { 3 } else { 1 } | if self.durable { 0x10 } else { 0 };
        let op = |&(name, value): &(&str, Option<i64>)| match value {
            Some(value) => (2, 1, name.as_bytes().to_vec(), value.to_be_bytes().to_vec()),
            None => (2, 0, name.as_bytes().to_vec(), Vec::new()),
        };
        request.ops = self.bins.iter().map(op).collect();
        if !self.set.is_empty() && !self.delete {
            request.fields.push((1, self.set.as_bytes().to_vec()));
        }
        request
    }
}

/// One line of the table.
struct Case {
    /// Items of the namespace in the DC, `;` between.
    items: &'static str,
    /// Written at the destination beforehand.
    there: Vec<Step>,
    /// Done at the source.
    steps: Vec<Step>,
    /// What the destination then has: `record bin=value bin=value`, `;` between records.
    expected: &'static str,
}

fn case(items: &'static str, steps: Vec<Step>, expected: &'static str) -> Case {
    Case { items, there: Vec::new(), steps, expected }
}

/// The records of a case at a node, as the table writes them.
fn found(node: &Node, first: u32) -> String {
    let gets: Vec<Request> = (0..RECORDS).map(|n| Request::get(digest_of(first + n))).collect();
    let answers = Client::of(node).replies(&gets).into_iter().enumerate();
    let record = |(n, answer): (usize, crate::support::ship::Answer)| {
        let mut bins = answer.bins;
        bins.sort();
        let bin = |(name, value): &(String, Vec<u8>)| {
            format!(" {name}={}", i64::from_be_bytes(value[..].try_into().unwrap()))
        };
        (answer.result == 0).then(|| format!("{n}{}", bins.iter().map(bin).collect::<String>()))
    };
    answers.filter_map(record).collect::<Vec<_>>().join("; ")
}

/// Every rule but those about expiry.
fn table() -> Vec<Case> {
    let sets = || {
        let one = |n, set| write(n, &[("a", 1)]).in_set(set);
        vec![one(0, ""), one(1, "s"), one(2, "t"), one(3, "u")]
    };
    let ab = || vec![write(0, &[("a", 1), ("b", 2)])];
    let there = |mut case: Case| {
        case.there = vec![write(0, &[("a", 9), ("z", 9)])];
        case
    };
    let deletes = || {
        let all = (0..3).map(|n| write(n, &[("a", 1)]));
        all.chain([delete(0), delete(1).durable()]).collect::<Vec<_>>()
    };
    let came = || {
        let all = (0..3).map(|n| write(n, &[("a", 1)]).shipped());
        all.chain([write(1, &[("a", 2)])]).collect::<Vec<_>>()
    };
    vec![
        // Sets.
        case("", sets(), "0 a=1; 1 a=1; 2 a=1; 3 a=1"),
        case("ignore-set=s", sets(), "0 a=1; 2 a=1; 3 a=1"),
        case("ignore-set=s;ignore-set=t", sets(), "0 a=1; 3 a=1"),
        case("ship-set=s", sets(), "0 a=1; 1 a=1; 2 a=1; 3 a=1"),
        case("ship-only-specified-sets=true", sets(), ""),
        case("ship-only-specified-sets=true;ship-set=s", sets(), "1 a=1"),
        case("ship-only-specified-sets=true;enable-set=s;ship-set=u", sets(), "1 a=1; 3 a=1"),
        // Bins.
        case("bin-policy=all", ab(), "0 a=1 b=2"),
        case("ignore-bin=b", ab(), "0 a=1"),
        case("ignore-bin=a;ignore-bin=b", ab(), ""),
        case("bin-policy=only-specified;ship-bin=b", ab(), "0 b=2"),
        case("ship-only-specified-bins=true;ship-bin=a", ab(), "0 a=1"),
        // A record that never had the listed bin: a removal of it makes no record.
        case("bin-policy=only-specified;ship-bin=x", ab(), ""),
        there(case("bin-policy=only-specified;ship-bin=a;ship-bin=z", ab(), "0 a=1")),
        case(
            "bin-policy=all",
            vec![write(0, &[("a", 1), ("b", 2)]), write(0, &[("a", 3)]).without("b")],
            "0 a=3",
        ),
        // What happens to bins that only the destination has.
        there(case("", ab(), "0 a=1 b=2")),
        there(case("write-policy=auto;ignore-bin=b", ab(), "0 a=1 z=9")),
        there(case("write-policy=update", ab(), "0 a=1 b=2 z=9")),
        there(case("write-policy=replace;ignore-bin=b", ab(), "0 a=1")),
        there(case("bin-policy=only-specified;ship-bin=b", ab(), "0 a=9 b=2 z=9")),
        // Changes that were shipped here. A client's write makes a record local again.
        case("forward=false", came(), "1 a=2"),
        case("forward=true", came(), "0 a=1; 1 a=2; 2 a=1"),
        // Deletes.
        case("", deletes(), "2 a=1"),
        case("ignore-expunges=true", deletes(), "0 a=1; 2 a=1"),
        there(case("", vec![write(0, &[("a", 1)]), delete(0)], "")),
        case("", vec![write(0, &[("a", 1)]), delete(0), write(0, &[("b", 1)])], "0 b=1"),
        case("forward=false", vec![write(0, &[("a", 1)]), delete(0).shipped()], "0 a=1"),
        case("forward=true", vec![write(0, &[("a", 1)]), delete(0).shipped()], ""),
        // Where to.
        case("remote-namespace=test", ab(), "0 a=1 b=2"),
    ]
}

#[test]
fn set_bin_write_forward_and_delete_rules_decide_what_arrives() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&one_shard());
    for (line, case) in table().into_iter().enumerate() {
        let first = line as u32 * RECORDS;
        let requests = |steps: &[Step]| steps.iter().map(|s| s.request(first)).collect::<Vec<_>>();
        Client::of(&destination).done(requests(&case.there));
        create_dc(&source, &destination, "");
        for item in case.items.split(';').filter(|item| !item.is_empty()) {
            configure(&source, &format!("namespace=test;{item}"));
        }
        wait_until_connected(&source, "destination", &destination);
        // Each step is shipped before the next, so that none is merged into another.
        for step in &case.steps {
            Client::of(&source).done([step.request(first)]);
            wait_until_settled(&source, "destination");
        }
        assert_eq!(found(&destination, first), case.expected, "line {line}: {}", case.items);
        configure(&source, "namespace=test;action=remove");
        configure(&source, "action=delete");
    }
    eprintln!("{} rules checked at the destination", table().len());
}

/// Deletes that a node has taken from shippers.
fn shipped_deletes(node: &Node) -> u64 {
    let text = info(node.ports()[0], "namespace/test");
    let figure = |name: &str| {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    };
    let (done, absent): (u64, u64) =
        (figure("xdr_client_delete_success"), figure("xdr_client_delete_not_found"));
    done + absent
}

#[test]
fn expiries_ship_as_deletes_when_asked_to() {
    let destination = Node::start(&one_shard());
    let expiring = Settings { namespace: "nsup-period 1".to_owned(), ..one_shard() };
    let source = Node::start(&expiring);
    create_dc(&source, &destination, "");
    wait_until_connected(&source, "destination", &destination);
    for (ships, first) in [(false, 0), (true, RECORDS)] {
        configure(&source, &format!("namespace=test;ship-nsup-deletes={ships}"));
        // What expires before it has shipped is another case, the next test's. So they live longer
        // until they live long enough.
        let lives_on = |ttl: u32| {
            let steps = (0..RECORDS).map(|n| write(n, &[("a", 1)]).ttl(ttl).request(first));
            Client::of(&source).done(steps);
            wait_until_settled(&source, "destination");
            present(&source, first..first + RECORDS).len() == RECORDS as usize
        };
        assert!((0..4).any(|doubled| lives_on(1 << doubled)), "they expire before they ship");
        let before = shipped_deletes(&destination);
        wait_for("the source to drop what has expired", || {
            info(source.ports()[0], "namespace/test").contains("master_objects=0;").then_some(())
        });
        wait_until_settled(&source, "destination");
        let expected = if ships { u64::from(RECORDS) } else { 0 };
        assert_eq!(shipped_deletes(&destination) - before, expected, "{ships}");
    }
}

#[test]
fn what_expired_before_it_was_shipped_ships_as_a_delete() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&one_shard());
    create_dc(&source, &destination, "");
    wait_until_connected(&source, "destination", &destination);
    let mut client = Client::of(&source);
    client.done([write(0, &[("a", 1)]).request(0), write(1, &[("a", 1)]).request(0)]);
    wait_until_settled(&source, "destination");
    assert_eq!(found(&destination, 0), "0 a=1; 1 a=1");
    configure(&source, "action=pause");
    client.done([write(0, &[("a", 2)]).ttl(1).request(0)]);
    wait_for("it to expire", || (found(&source, 0) == "1 a=1").then_some(()));
    configure(&source, "action=resume");
    wait_until_settled(&source, "destination");
    assert_eq!(found(&destination, 0), "1 a=1");
    assert_eq!(stat(&source, "destination", "abandoned"), 0);
}
