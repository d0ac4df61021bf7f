//! What a destination does with a request.

use crate::op::{Op, decode, tombstone, void_time, written};
use crate::plan::{Dest, Fault};
use crate::rng::Rng;
use crate::site::{Foreign, Mood};
use crate::store::{Key, Rec, shown};
use crate::trace::tell;
use crate::wire::Request;
use crate::world::World;
use longship::model::{Lut, RecordFlags, SrcId, Version, VoidTime};
use longship::wire::ResultCode;

impl World {
    /// Applies a request and gives the result code.
    pub(crate) fn apply(&mut self, link: usize, request: &Request, rng: &mut Rng) -> u8 {
        let refused = !self.calm && self.plan.refuses(request.key, request.version);
        let code = match self.links[link].to {
            _ if refused => ResultCode::RECORD_TOO_BIG.0,
            Dest::Site(site) => {
                let mood = self.sites[site].mood;
                mood_of(mood, rng).unwrap_or_else(|| {
                    let code = self.apply_at_site(link, site, request);
                    let applied = (request.version, self.sites[site].last.get());
                    self.links[link].applied.insert(request.key, applied);
                    code
                })
            }
            Dest::Foreign(foreign) => {
                let wall = self.sites[self.links[link].from].wall(self.now_us);
                let target = &mut self.foreigns[foreign];
                mood_of(target.mood, rng).unwrap_or_else(|| target.apply(link, request, wall))
            }
        };
        let (key, version) = (request.key, request.version.lut());
        tell(Some(key), || {
            format!("DC {link}'s destination answers {} to @{version}", ResultCode(code))
        });
        self.mark(u64::from(code) << 32 | request.version.raw());
        code
    }

    fn apply_at_site(&mut self, link: usize, site: usize, request: &Request) -> u8 {
        let asked = decode(&request.frame);
        let key = request.key;
        let from = self.sites[self.links[link].from].src_id;
        let origin = if asked.src_id == SrcId::NONE { from } else { asked.src_id };
        assert_ne!(origin, self.sites[site].src_id, "echo: key {key} comes home over DC {link}");
        // What a client was not answered yet comes first, and is on the device with this.
        if self.sites[site].tickets.iter().any(|of| of.key == key && of.unpublished.is_some()) {
            self.flush(site);
        }
        let wall = self.sites[site].wall(self.now_us);
        let old = self.sites[site].store.get(key).cloned();
        let live = old.as_ref().filter(|rec| rec.is_live(wall));
        let bins = match asked.op {
            Op::Write { bins, replace, .. } => written(live.map(|rec| rec.bins), bins, replace),
            Op::Delete { .. } => [None; 3],
        };
        let gone = bins == [None; 3];
        if gone && live.is_none() {
            self.links[link].absent.insert(key, request.version);
            return if matches!(asked.op, Op::Delete { .. }) { 2 } else { 0 };
        }
        let version = self.sites[site].next_version(key, self.now_us);
        let (flags, void) = match asked.op {
            Op::Write { ttl, .. } if !gone => (RecordFlags::SHIPPED, void_time(ttl, wall)),
            Op::Write { .. } => (tombstone(false, true), VoidTime::NEVER),
            Op::Delete { durable } => (tombstone(durable, true), VoidTime::NEVER),
        };
        let local_lut = old.as_ref().map_or(Lut::ZERO, |rec| rec.local_lut);
        let source = Some((link, request.version));
        let rec = Rec { version, local_lut, void, flags, src_id: origin, bins, source };
        tell(Some(key), || format!("site {site} applies {}", shown(&rec)));
        let change = self.change(key, &rec, old.map(|rec| rec.version.lut()));
        self.sites[site].store.put(key, rec);
        self.sites[site].wrote(self.now_us);
        if self.sites[site].commit {
            self.sites[site].flush();
        }
        self.submit(site, key, &change, false);
        0
    }

    /// Something left on a dead connection is applied after all, unless the destination has been
    /// greeted on a newer connection.
    pub(crate) fn straggle(&mut self, at: usize, rng: &mut Rng) {
        let straggler = self.stragglers.swap_remove(at);
        let link = straggler.link;
        if let Dest::Site(site) = self.links[link].to
            && !self.sites[site].up
        {
            return;
        }
        let key = straggler.request.key;
        tell(Some(key), || format!("a straggler of epoch {} arrives", straggler.epoch));
        self.happened(Fault::Straggler);
        self.apply(link, &straggler.request, rng);
    }
}

fn mood_of(mood: Mood, rng: &mut Rng) -> Option<u8> {
    rng.percent(mood.percent).then_some(mood.code)
}

impl Foreign {
    fn apply(&mut self, link: usize, request: &Request, wall: Lut) -> u8 {
        let asked = decode(&request.frame);
        let key: Key = request.key;
        let live = self.records.get(&key).filter(|rec| rec.is_live(wall));
        let source = Some((link, request.version));
        let base = Rec {
            version: Version::ZERO,
            local_lut: Lut::ZERO,
            void: VoidTime::NEVER,
            flags: RecordFlags::SHIPPED,
            src_id: SrcId::NONE,
            bins: [None; 3],
            source,
        };
        let rec = match asked.op {
            Op::Delete { durable: true } if self.community => {
                return ResultCode::ENTERPRISE_ONLY.0;
            }
            Op::Delete { .. } => {
                let code = if live.is_some() { 0 } else { ResultCode::NOT_FOUND.0 };
                self.records.insert(key, Rec { flags: tombstone(false, true), ..base });
                return code;
            }
            Op::Write { bins, replace, ttl } => {
                let bins = written(live.map(|rec| rec.bins), bins, replace);
                let flags =
                    if bins == [None; 3] { tombstone(false, true) } else { RecordFlags::SHIPPED };
                Rec { bins, flags, void: void_time(ttl, wall), ..base }
            }
        };
        self.records.insert(key, rec);
        0
    }
}
