//! The `peers-clear-std` answer: the other nodes of the cluster.
//!
//! `<generation>,<default port>,[[<node id>,<tls name>,[<host>[:<port>],…]],…]`, IPv6 in brackets.
//! Source: `docs/wire.md` section 8.5.

use crate::limits::{PEER_HOSTS_MAX, PEERS_MAX};

/// A node's peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Changes whenever the list does.
    pub generation: u64,
    /// Port of hosts listed without one. Written as 3000 when absent: some clients need a number.
    pub default_port: Option<u16>,
    /// The other nodes.
    pub nodes: Vec<Peer>,
}

/// One other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id, as its own `node` answer says it.
    pub node: String,
    /// Name to check its certificate for; empty on clear-text ports.
    pub tls_name: String,
    /// Its addresses, and their ports where stated.
    pub hosts: Vec<(String, Option<u16>)>,
}

/// The text is no list of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peers: expected {expected} at byte {at}")]
pub struct PeersError {
    /// What the grammar wants there.
    pub expected: &'static str,
    /// Where, counted from the start of the answer.
    pub at: usize,
}

impl Peers {
    /// Writes the answer.
    pub fn format(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(Peer::format).collect();
        let port = self.default_port.unwrap_or(3000);
        format!("{},{port},[{}]", self.generation, nodes.join(","))
    }

    /// Reads an answer. `1,3000` alone, without a list, means no peers.
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, PeersError> {
        let mut cursor = Cursor { text, at: 0 };
        let generation = cursor.number("a generation")?;
        cursor.expect(",", "','")?;
        let port = cursor.take_until(",");
        let default_port = match port {
            "" => None,
            port => Some(port.parse().map_err(|_| cursor.error("a port"))?),
        };
        let mut nodes = Vec::new();
        if cursor.skip(",") {
            cursor.list(|cursor| {
                if nodes.len() == PEERS_MAX {
                    return Err(cursor.error("no more nodes"));
                }
                nodes.push(Peer::parse(cursor)?);
                Ok(())
            })?;
        }
        if !cursor.rest().is_empty() {
            return Err(cursor.error("the end"));
        }
        Ok(Self { generation, default_port, nodes })
    }
}

impl Peer {
    fn format(&self) -> String {
        let hosts: Vec<_> =
            self.hosts.iter().map(|(host, port)| format_host(host, *port)).collect();
        format!("[{},{},[{}]]", self.node, self.tls_name, hosts.join(","))
    }

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, PeersError> {
        cursor.expect("[", "'['")?;
        let node = cursor.take_until(",").to_owned();
        cursor.expect(",", "','")?;
        let tls_name = cursor.take_until(",").to_owned();
        cursor.expect(",", "','")?;
        let mut hosts = Vec::new();
        cursor.list(|cursor| {
            if hosts.len() == PEER_HOSTS_MAX {
                return Err(cursor.error("no more hosts"));
            }
            hosts.push(parse_host(cursor)?);
            Ok(())
        })?;
        cursor.expect("]", "']'")?;
        Ok(Self { node, tls_name, hosts })
    }
}

fn format_host(host: &str, port: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

fn parse_host(cursor: &mut Cursor<'_>) -> Result<(String, Option<u16>), PeersError> {
    let host = if cursor.skip("[") {
        let host = cursor.take_until("]");
        cursor.expect("]", "']'")?;
        host
    } else {
        cursor.take_until(":,]")
    };
    if host.is_empty() {
        return Err(cursor.error("a host"));
    }
    let port = match cursor.skip(":") {
        true => Some(cursor.take_until(",]").parse().map_err(|_| cursor.error("a port"))?),
        false => None,
    };
    Ok((host.to_owned(), port))
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    const fn error(&self, expected: &'static str) -> PeersError {
        PeersError { expected, at: self.at }
    }

    fn skip(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), PeersError> {
        if self.skip(token) { Ok(()) } else { Err(self.error(expected)) }
    }

    /// Takes text up to the first of the `stops`, or to the end.
    fn take_until(&mut self, stops: &str) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| stops.contains(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, PeersError> {
        let error = self.error(expected);
        self.take_until(",").parse().map_err(|_| error)
    }

    /// Takes `[item,item,…]`, possibly empty.
    fn list(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), PeersError>,
    ) -> Result<(), PeersError> {
        self.expect("[", "'['")?;
        if self.skip("]") {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.skip(",") {
                return self.expect("]", "',' or ']'");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str, hosts: &[(&str, Option<u16>)]) -> Peer {
        let hosts = hosts.iter().map(|&(host, port)| (host.to_owned(), port)).collect();
        Peer { node: node.into(), tls_name: String::new(), hosts }
    }

    #[test]
    fn lists_are_read_and_written() {
        let check = |text: &str, generation: u64, port: u16, nodes: Vec<Peer>| {
            let peers = Peers { generation, default_port: Some(port), nodes };
            assert_eq!(Peers::parse(text), Ok(peers.clone()), "{text}");
            assert_eq!(peers.format(), text);
        };
        check("0,3000,[]", 0, 3000, vec![]);
        check(
            "2,3000,[[B2,,[127.0.0.1:3100]]]",
            2,
            3000,
            vec![peer("B2", &[("127.0.0.1", Some(3100))])],
        );
        check(
            "7,4333,[[A1,,[10.0.0.1,[::1]:3001]],[C3,,[host.example,[fe80::2]]]]",
            7,
            4333,
            vec![
                peer("A1", &[("10.0.0.1", None), ("::1", Some(3001))]),
                peer("C3", &[("host.example", None), ("fe80::2", None)]),
            ],
        );
    }

    #[test]
    fn looser_spellings_are_read() {
        let none = Peers { generation: 1, default_port: Some(3000), nodes: vec![] };
        assert_eq!(Peers::parse("1,3000"), Ok(none));
        let no_port = Peers { generation: 1, default_port: None, nodes: vec![] };
        assert_eq!(Peers::parse("1,,[]"), Ok(no_port));
        let named = Peers::parse("1,4333,[[A1,tls.example,[h:1]]]").unwrap();
        assert_eq!(named.nodes[0].tls_name, "tls.example");
        let unlisted = Peers::parse("1,3000,[[A1,,[]]]").unwrap();
        assert!(unlisted.nodes[0].hosts.is_empty());
    }

    #[test]
    fn malformed_lists_say_what_is_missing_where() {
        let check = |text: &str, expected: &'static str, at: usize| {
            assert_eq!(Peers::parse(text), Err(PeersError { expected, at }), "{text}");
        };
        check("", "a generation", 0);
        check("x,3000,[]", "a generation", 0);
        check("1", "','", 1);
        check("1,99999,[]", "a port", 7);
        check("1,3000,[", "'['", 8);
        check("1,3000,[]x", "the end", 9);
        check("1,3000,[[A1", "','", 11);
        check("1,3000,[[A1,,[h:]]]", "a port", 16);
        check("1,3000,[[A1,,[,]]]", "a host", 14);
        check("1,3000,[[A1,,[h]", "']'", 16);
        check("1,3000,[[A1,,[h]]", "',' or ']'", 17);
        check("1,3000,[[A1,,[[::1]]]", "',' or ']'", 21);
        check(&format!("1,,[{}]", ["[A,,[h]]"; 1025].join(",")), "no more nodes", 4 + 1024 * 9);
        check(&format!("1,,[[A,,[{}]]]", ["h"; 257].join(",")), "no more hosts", 9 + 256 * 2);
    }
}
