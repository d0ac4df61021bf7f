//! What a client knows of one record: every write it asked for, in order, and how that was answered.
//! One client writes a key, one write at a time.

/// A write that was asked for; its place in the story is its number.
#[derive(Clone, Copy, Debug)]
struct Write {
    /// It deletes the record.
    deletes: bool,
    is_acknowledged: bool,
    /// It can be there; an answer that says no, or a start after which it was not, rules it out.
    is_possible: bool,
    asked_us: u64,
    /// It lives so long; for ever if that is 0.
    ttl_us: u64,
    /// When it is known to have been carried out; not before.
    done_us: u64,
}

/// Of one key. The first entry stands for the record that was never written.
#[derive(Clone, Debug)]
pub(super) struct Story {
    writes: Vec<Write>,
    /// At each site, the lowest number that may be seen there.
    floors: Vec<u64>,
}

/// What is lost of a client's connection may still be carried out for so long.
const LINGERS_US: u64 = 20_000_000;
/// Lives are counted in seconds.
const SECOND_US: u64 = 1_100_000;
/// A copy lives on for as long as it took to be shipped.
const SHIPPED_US: u64 = 60_000_000;

impl Write {
    fn may_have_expired(&self, now_us: u64) -> bool {
        self.ttl_us > 0 && now_us + SECOND_US > self.asked_us + self.ttl_us
    }

    fn may_live(&self, now_us: u64, shipped: bool) -> bool {
        let late_us = SECOND_US + if shipped { SHIPPED_US } else { 0 };
        let done_us = if self.done_us == 0 { u64::MAX } else { self.done_us };
        self.ttl_us == 0 || now_us < done_us.saturating_add(self.ttl_us + late_us)
    }
}

impl Story {
    pub(super) fn new(sites: usize) -> Self {
        let never = Write {
            deletes: true,
            is_acknowledged: true,
            is_possible: true,
            asked_us: 0,
            ttl_us: 0,
            done_us: 0,
        };
        Self { writes: vec![never], floors: vec![0; sites] }
    }

    /// A write is asked for. Gives its number.
    pub(super) fn ask(&mut self, deletes: bool, ttl_us: u64, now_us: u64) -> u64 {
        let write = Write {
            deletes,
            is_acknowledged: false,
            is_possible: true,
            asked_us: now_us,
            ttl_us,
            done_us: 0,
        };
        self.writes.push(write);
        self.writes.len() as u64 - 1
    }

    /// It was carried out.
    pub(super) fn acknowledge(&mut self, number: u64, now_us: u64) {
        self.writes[number as usize].is_acknowledged = true;
        self.writes[number as usize].done_us = now_us;
    }

    /// It was not, and will not be.
    pub(super) fn refuse(&mut self, number: u64) {
        self.writes[number as usize].is_possible = false;
    }

    /// Whether the site that writes it may show this, as the newest there is: the last that was
    /// acknowledged, or one whose fate is unknown that came later, or not long before.
    pub(super) fn may_be_newest(&self, found: Option<u64>, now_us: u64) -> bool {
        let last = self.writes.iter().rposition(|write| write.is_acknowledged).unwrap_or(0);
        let lingers = |write: &Write| {
            !write.is_acknowledged && write.asked_us + LINGERS_US > self.writes[last].asked_us
        };
        let all = self.writes.iter().enumerate();
        let mut allowed =
            all.filter(|(at, write)| write.is_possible && (*at >= last || lingers(write)));
        allowed.any(|(at, write)| Self::shows(at, write, found, (now_us, false)))
    }

    fn shows(
        at: usize,
        write: &Write,
        found: Option<u64>,
        (now_us, is_shipped): (u64, bool),
    ) -> bool {
        match found {
            None => write.deletes || write.may_have_expired(now_us),
            Some(number) => {
                !write.deletes && at as u64 == number && write.may_live(now_us, is_shipped)
            }
        }
    }

    /// A site shows this. Nothing may be shown that was never asked for, nor something older than what
    /// the site has shown before.
    pub(super) fn see(
        &mut self,
        site: usize,
        found: Option<u64>,
        (now_us, is_shipped): (u64, bool),
    ) -> Result<(), String> {
        let floor = self.floors[site];
        let lingers = |write: &Write| !write.is_acknowledged;
        let all = self.writes.iter().enumerate();
        let seen = all.filter(|(at, write)| {
            write.is_possible
                && (*at as u64 >= floor || lingers(write))
                && Self::shows(*at, write, found, (now_us, is_shipped))
        });
        // Of several deletes it is the first: the least that is known for sure.
        match seen.map(|(at, _)| at).next() {
            Some(at) => {
                self.floors[site] = floor.max(at as u64);
                Ok(())
            }
            None => Err(format!("site {site} shows {found:?}, and showed number {floor} before")),
        }
    }

    /// A site may have lost what it had not on its device, or is shipped everything again.
    pub(super) fn forget_floor(&mut self, site: usize) {
        self.floors[site] = 0;
    }

    /// What was acknowledged since then may be lost: nobody knows any more whether it is there.
    pub(super) fn doubt_since(&mut self, us: u64) {
        self.writes.iter_mut().filter(|write| write.done_us > us).for_each(|write| {
            write.is_acknowledged = false;
        });
    }

    /// The writer's process has begun anew, and this is what it has: what else is not known to be
    /// there will not come.
    pub(super) fn settle(&mut self, found: Option<u64>, now_us: u64) {
        for (at, write) in self.writes.iter_mut().enumerate() {
            if !write.is_acknowledged {
                write.is_acknowledged =
                    write.is_possible && Self::shows(at, write, found, (now_us, false));
                write.done_us = now_us;
                write.is_possible = write.is_acknowledged;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 100_000_000;

    #[test]
    fn the_newest_is_what_was_acknowledged_or_what_nobody_knows_of() {
        let mut story = Story::new(1);
        assert!(story.may_be_newest(None, NOW_US) && !story.may_be_newest(Some(1), NOW_US));
        let first = story.ask(false, 0, NOW_US);
        assert!(story.may_be_newest(None, NOW_US) && story.may_be_newest(Some(first), NOW_US));
        story.acknowledge(first, NOW_US);
        assert!(!story.may_be_newest(None, NOW_US), "it was acknowledged");
        let unknown = story.ask(false, 0, NOW_US);
        let deleted = story.ask(true, 0, NOW_US + 1);
        story.acknowledge(deleted, NOW_US);
        assert!(story.may_be_newest(None, NOW_US) && story.may_be_newest(Some(unknown), NOW_US));
        assert!(!story.may_be_newest(Some(first), NOW_US));
        story.settle(None, NOW_US);
        assert!(!story.may_be_newest(Some(unknown), NOW_US), "its process has ended without it");
        let refused = story.ask(false, 0, NOW_US + 2);
        story.refuse(refused);
        assert!(!story.may_be_newest(Some(refused), NOW_US));
    }

    #[test]
    fn no_site_shows_what_is_older_than_what_it_showed() {
        let mut story = Story::new(2);
        let numbers = [(); 3].map(|()| story.ask(false, 0, NOW_US));
        numbers.iter().for_each(|number| story.acknowledge(*number, NOW_US));
        assert!(story.see(0, Some(numbers[1]), (NOW_US, false)).is_ok());
        assert!(
            story.see(0, Some(numbers[0]), (NOW_US, false)).is_err()
                && story.see(0, None, (NOW_US, false)).is_err()
        );
        assert!(story.see(1, Some(numbers[0]), (NOW_US, false)).is_ok(), "another site");
        story.forget_floor(0);
        assert!(story.see(0, None, (NOW_US, false)).is_ok());
        assert!(story.see(0, Some(77), (NOW_US, false)).is_err(), "nobody wrote it");
    }
}
