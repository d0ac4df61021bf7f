//! What a start needs besides its devices, looked at before anything is made or changed. The start
//! and `longship accept` both ask here, so that what refuses the one is what the other shows; they
//! ask for devices in the same way, [`Volume::examine`](crate::storage::volume::Volume::examine).
//! What the starting process is allowed (open files, memory, cores) is not looked at here: another
//! process may be allowed something else.

use std::net::SocketAddr;

use crate::config::Config;
use crate::process::home::Home;
use crate::process::start::NodeError;
use crate::process::{log_files, own_files};
use crate::storage::admit::Words;
use crate::storage::known;
use longship::model::Lut;
use longship::shipper::{MarksFile, SourceIdentity, highest_mark};
use longship_rt::clock::Clock;
use longship_rt::net::BoundPort;

/// What a start stands on.
pub(crate) struct Ground {
    /// What the operator lets it do.
    pub(crate) words: Words,
    /// How far DCs have got.
    pub(crate) marks: Box<MarksFile>,
    /// Versions issued from now on are above it.
    pub(crate) version_floor: Lut,
    /// One per shard.
    pub(crate) bound: Vec<BoundPort>,
}

impl Ground {
    /// Looks at all of it. Makes and changes nothing.
    ///
    /// # Errors
    ///
    /// Everything that refuses the start; there is at least one.
    pub(crate) fn look(
        config: &Config,
        shard_count: u16,
        home: &Home,
    ) -> Result<Self, Vec<NodeError>> {
        let mut marks = Box::new(MarksFile::new(home.path("marks")));
        let mut refused = Vec::new();
        let refused = &mut refused;
        note(refused, look_at_clock());
        note(refused, home.look());
        note(refused, log_files::refuse_taken(config));
        note(refused, own_files::refuse_taken(config));
        note(refused, SourceIdentity::look(home.folder()));
        let version_floor = note(refused, highest_mark(&mut *marks));
        let words = known::words(home.folder()).map_err(home.failed("read", "accepted"));
        let words = note(refused, words);
        match (words, version_floor, note(refused, bind(config, shard_count))) {
            (Some(words), Some(version_floor), Some(bound)) if refused.is_empty() => {
                Ok(Self { words, marks, version_floor, bound })
            }
            _ => Err(std::mem::take(refused)),
        }
    }
}

/// Goes on behind what was refused.
fn note<T>(refused: &mut Vec<NodeError>, looked: Result<T, impl Into<NodeError>>) -> Option<T> {
    looked.map_err(|error| refused.push(error.into())).ok()
}

fn look_at_clock() -> Result<(), NodeError> {
    let now = Lut::from_unix_ms(Clock::real().wall_ms());
    if now > Lut::CLOCK_MAX { Err(NodeError::Clock { now }) } else { Ok(()) }
}

/// One port per shard: `port + shard`, or whatever is free when the port is 0.
pub(super) fn bind(config: &Config, shard_count: u16) -> Result<Vec<BoundPort>, NodeError> {
    let network = &config.network;
    if network.port > 0 && network.port.checked_add(shard_count.saturating_sub(1)).is_none() {
        return Err(NodeError::PortsRunOut { port: network.port, shards: shard_count });
    }
    let bind_one = |shard: u16| {
        let port = if network.port == 0 { 0 } else { network.port + shard };
        let address = SocketAddr::new(network.address, port);
        BoundPort::bind(address).map_err(|source| NodeError::Listen { address, source })
    };
    (0..shard_count).map(bind_one).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::process::consent::Consent;
    use crate::process::place::place;
    use crate::process::start::run;
    use crate::process::stop::stopper;
    use longship_rt::makes_files::without_rights;

    /// Takes a file away and puts a folder there.
    fn put_folder(path: &Path) {
        let _ = fs::remove_file(path);
        fs::create_dir(path).unwrap();
    }

    /// A node of one namespace, with its work directory in `folder/work` and a file in `folder`.
    fn text(folder: &Path, (filesize, port): (&str, u16)) -> String {
        let at = folder.display();
        format!(
            "service {{\n work-directory {at}/work\n shards 1\n}}\n\
             network {{ service {{\n address 127.0.0.1\n port {port}\n}} }}\n\
             namespace test {{\n storage-engine device {{\n file {at}/test.dat\n\
             filesize {filesize}\n}}\n}}\n"
        )
    }

    #[test]
    fn a_folder_in_which_no_file_can_be_made_refuses_a_start_and_is_shown() {
        const ALL: u32 = 0o777;
        const READ: u32 = 0o555;
        let harms = [(ALL, ALL, None), (READ, ALL, Some("")), (ALL, READ, Some("/work"))];
        for (around, work, refusing) in harms {
            let folder = tempfile::tempdir().unwrap();
            let config = Config::parse(&text(folder.path(), ("64M", 0)), "test").unwrap();
            fs::create_dir(folder.path().join("work")).unwrap();
            drop(Consent::open(config.clone(), 1).unwrap());
            for (name, mode) in [("work/node-id", 0o666), ("work", work), ("", around)] {
                fs::set_permissions(folder.path().join(name), Permissions::from_mode(mode))
                    .unwrap();
            }
            let shown = without_rights(|| Consent::open(config.clone(), 1).unwrap().in_the_way());
            let Some(name) = refusing else {
                assert_eq!(shown, Vec::<String>::new());
                continue;
            };
            let refused = without_rights(|| {
                let (_, plan) = place(&config).unwrap();
                run(config.clone(), &plan, stopper().1, &mut |_| {}).unwrap_err().to_string()
            });
            assert_eq!(shown, [refused.as_str()]);
            let place = format!("{}{name}", folder.path().display());
            assert!(refused.contains("make ") && refused.contains(&place), "{refused}");
            assert!(refused.contains("let this user read and write it"), "{refused}");
            assert!(!folder.path().join("test.dat").exists(), "nothing was made");
        }
    }

    #[test]
    fn what_refuses_a_start_is_what_is_shown_to_be_in_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        const WHOLE: (&str, u16) = ("64M", 0);
        let (huge, elsewhere) = (("2T", 0), ("64M", taken));
        // What it is about, filesize and port, and what is done to the work directory.
        type Harm = (&'static str, (&'static str, u16), fn(&Path));
        let harms: [Harm; 9] = [
            ("identity is damaged: restore it", WHOLE, |work| {
                fs::write(work.join("identity"), "").unwrap();
            }),
            ("identity is damaged: restore it", WHOLE, |work| {
                fs::write(work.join("identity"), [0xFF; 40]).unwrap();
            }),
            ("identity", WHOLE, |work| put_folder(&work.join("identity"))),
            ("marks", WHOLE, |work| put_folder(&work.join("marks"))),
            ("accepted", WHOLE, |work| put_folder(&work.join("accepted"))),
            ("damage-test", WHOLE, |work| put_folder(&work.join("damage-test"))),
            ("volume-test", WHOLE, |work| fs::write(work.join("volume-test"), "no").unwrap()),
            ("test.dat", huge, |_| {}),
            ("another `port`", elsewhere, |_| {}),
        ];
        for (expected, settings, harm) in harms {
            let folder = tempfile::tempdir().unwrap();
            let work = folder.path().join("work");
            let config = Config::parse(&text(folder.path(), settings), "test").unwrap();
            let shown = || Consent::open(config.clone(), 1).unwrap().in_the_way();
            fs::create_dir(&work).unwrap();
            if settings == WHOLE {
                assert_eq!(shown(), Vec::<String>::new(), "{expected}");
            }
            harm(&work);
            let (_, plan) = place(&config).unwrap();
            let refused = run(config.clone(), &plan, stopper().1, &mut |_| {}).unwrap_err();
            let refused = refused.to_string();
            assert!(refused.contains(expected), "{refused}");
            let [told] = &shown()[..] else { panic!("{:?} for {refused}", shown()) };
            // The free space changes all the time.
            let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
            assert_eq!(words(told), words(&refused));
            assert!(!folder.path().join("test.dat").exists(), "nothing was made");
        }
    }
}
