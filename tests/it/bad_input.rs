//! What strangers may send: each is answered as the protocol says, and nobody else notices.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::support::{Node, Reply, Request, Settings, connect, info, read_frame};

const OK: u8 = 0;
const PARAMETER: u8 = 4;
const NO_NAMESPACE: u8 = 20;
const BIN_NAME: u8 = 21;
const SECURITY_NOT_SUPPORTED: u8 = 51;

/// A record whose partition is `partition`, so that a test can choose the shard.
fn digest_in(partition: u16) -> [u8; 20] {
    let mut digest = [7; 20];
    digest[..2].copy_from_slice(&partition.to_le_bytes());
    digest
}

fn ask(stream: &mut TcpStream, frame: &[u8]) -> Option<Reply> {
    stream.write_all(frame).ok()?;
    let (kind, body) = read_frame(stream)?;
    assert_eq!(kind, 3, "a data request gets a data answer");
    Some(Reply::of(&body))
}

/// A connection opened before any harm is done; its requests must be answered all along.
struct Bystander {
    streams: Vec<TcpStream>,
    writes: u32,
}

impl Bystander {
    fn of(node: &Node) -> Self {
        Self { streams: node.ports().iter().map(|port| connect(*port)).collect(), writes: 0 }
    }

    /// Writes and reads through every port, records of every shard.
    fn is_served(&mut self, after: &str) {
        self.writes += 1;
        for stream in &mut self.streams {
            for partition in [100, 101] {
                let digest = digest_in(partition);
                let put = ask(stream, &Request::put(digest, self.writes.into()).frame());
                assert_eq!(put.map(|reply| reply.result), Some(OK), "a write after {after}");
                let got = ask(stream, &Request::get(digest).frame());
                assert_eq!(got.map(|r| (r.result, r.ops)), Some((OK, 1)), "a read after {after}");
            }
        }
    }
}

#[test]
fn frames_that_are_none_close_their_connection_without_an_answer() {
    let node = Node::start(&Settings::default());
    let mut bystander = Bystander::of(&node);
    let body = Request::get(digest_in(0)).body();
    let length = body.len() as u64;
    let claim =
        |version, kind, length| crate::support::proto_claiming(version, kind, length, &body);
    let cases = [
        ("version 0 of a data frame", claim(0, 3, length)),
        ("version 1", claim(1, 3, length)),
        ("version 3", claim(3, 3, length)),
        ("type 0", claim(2, 0, length)),
        ("type 6", claim(2, 6, length)),
        ("a length of 128 MiB and one", claim(2, 3, (128 << 20) + 1)),
        ("the longest length", claim(2, 3, (1 << 48) - 1)),
        ("an info frame above the limit", claim(2, 1, (128 << 20) + 1)),
        ("a TLS greeting", vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0]),
    ];
    for (what, frame) in cases {
        for port in node.ports() {
            let mut stream = connect(*port);
            // The node may close while this is being written.
            let _ = stream.write_all(&frame);
            assert_eq!(read_frame(&mut stream), None, "{what}");
        }
        bystander.is_served(what);
    }
    node.stop();
}

#[test]
fn malformed_bodies_are_answered_and_the_connection_goes_on() {
    let node = Node::start(&Settings::default());
    let mut bystander = Bystander::of(&node);
    let put = Request::put(digest_in(100), 5);
    let changed = |change: fn(&mut Request)| {
        let mut request = put.clone();
        change(&mut request);
        request.body()
    };
    let cut = |bytes: usize| put.body()[..bytes].to_vec();
    let whole = put.body().len();
    let cases = [
        ("an empty body", Vec::new(), PARAMETER),
        ("half a header", cut(11), PARAMETER),
        ("a header that promises fields", cut(22), PARAMETER),
        ("a body cut inside a field", cut(30), PARAMETER),
        ("a body cut inside the last op", cut(whole - 3), PARAMETER),
        ("bytes left over", [put.body(), vec![0; 3]].concat(), PARAMETER),
        ("a field of length 0", zero_field(&put), PARAMETER),
        ("an op longer than the frame", long_op(&put), PARAMETER),
        ("a digest of 19 bytes", changed(|r| r.fields[1].1.truncate(19)), PARAMETER),
        ("neither read nor write", changed(|r| r.info2 = 0), PARAMETER),
        ("a write without ops", changed(|r| r.ops.clear()), PARAMETER),
        ("op 0", changed(|r| r.ops[0].0 = 0), PARAMETER),
        ("op 6", changed(|r| r.ops[0].0 = 6), PARAMETER),
        ("op 200", changed(|r| r.ops[0].0 = 200), PARAMETER),
        ("an integer of 7 bytes", changed(|r| r.ops[0].3.truncate(7)), PARAMETER),
        ("particle type 99", changed(|r| r.ops[0].1 = 99), PARAMETER),
        ("a bin name of 16 bytes", changed(|r| r.ops[0].2 = vec![b'b'; 16]), BIN_NAME),
        ("a bin name of 255 bytes", changed(|r| r.ops[0].2 = vec![b'b'; 255]), BIN_NAME),
        ("a NUL in a bin name", changed(|r| r.ops[0].2 = b"a\0b".to_vec()), BIN_NAME),
        ("an unknown namespace", changed(|r| r.fields[0].1 = b"nope".to_vec()), NO_NAMESPACE),
        ("no namespace", changed(|r| drop(r.fields.remove(0))), NO_NAMESPACE),
        ("a set name of 64 bytes", changed(|r| r.fields.push((1, vec![b's'; 64]))), PARAMETER),
    ];
    let mut streams: Vec<_> = node.ports().iter().map(|port| connect(*port)).collect();
    for (what, body, expected) in cases {
        // All on the same connections, for the owner of the record and for the other shard.
        for stream in &mut streams {
            let reply = ask(stream, &crate::support::proto(3, &body));
            assert_eq!(reply.map(|reply| reply.result), Some(expected), "{what}");
        }
        bystander.is_served(what);
    }
    node.stop();
}

/// The first field says that it has length 0.
fn zero_field(request: &Request) -> Vec<u8> {
    let mut body = request.body();
    body[22..26].fill(0);
    body
}

/// The op says that it is as long as can be said.
fn long_op(request: &Request) -> Vec<u8> {
    let mut body = request.body();
    let op = body.len() - (4 + 4 + 1 + 8);
    body[op..op + 4].fill(0xFF);
    body
}

#[test]
fn requests_of_other_kinds_get_the_answers_of_their_kind() {
    let node = Node::start(&Settings::default());
    let port = node.ports()[0];
    assert_eq!(info(port, "no-such-command"), "ERROR:4:unrecognized command");
    assert_eq!(info(port, "status"), "ok");
    let mut stream = connect(port);
    stream.write_all(&crate::support::proto(2, &[0; 16])).unwrap();
    let (kind, body) = read_frame(&mut stream).unwrap();
    assert_eq!((kind, body.len(), body[1]), (2, 16, SECURITY_NOT_SUPPORTED));
    // A command without its newline is dropped: an answer of no lines.
    let unfinished = crate::support::proto(1, b"node\nbuild");
    stream.write_all(&unfinished).unwrap();
    let (_, body) = read_frame(&mut stream).unwrap();
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1);
    node.stop();
}

#[test]
fn half_frames_and_early_goodbyes_harm_nobody() {
    let node = Node::start(&Settings::default());
    let mut bystander = Bystander::of(&node);
    let frame = Request::put(digest_in(100), 5).frame();
    for length in 0..frame.len() {
        let port = node.ports()[length % node.ports().len()];
        let mut stream = connect(port);
        stream.write_all(&frame[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_frame(&mut stream), None, "{length} bytes of a frame");
    }
    bystander.is_served("half frames");
    // Byte by byte it is a frame all the same.
    let mut stream = connect(node.ports()[0]);
    frame.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
    let (_, body) = read_frame(&mut stream).unwrap();
    assert_eq!(Reply::of(&body).result, OK);
    node.stop();
}

#[test]
fn random_bytes_and_damaged_frames_harm_nobody() {
    let node = Node::start(&Settings::default());
    let mut bystander = Bystander::of(&node);
    let mut random = 0x1B87_3593_u64;
    let mut next = move || {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..200 {
        let mut bytes = Request::put(digest_in(200), round).frame();
        if round % 4 == 0 {
            bytes = (0..next() % 300).map(|_| next() as u8).collect();
        } else {
            // Keep the frame's header whole in most rounds, so that the body is looked at.
            let first = if round % 4 == 1 { 0 } else { 8 };
            for _ in 0..=next() % 3 {
                let at = first + (next() as usize) % (bytes.len() - first);
                bytes[at] = next() as u8;
            }
        }
        let mut stream = connect(node.ports()[(next() as usize) % 2]);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        // Whatever is answered is made of frames, and then the node lets go.
        while read_frame(&mut stream).is_some() {}
        if round % 20 == 0 {
            bystander.is_served("random bytes");
        }
    }
    bystander.is_served("random bytes");
    node.stop();
}
