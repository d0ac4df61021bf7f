//! Times and versions. Wall-clock times count from 2010-01-01T00:00:00Z; ticks are monotonic and
//! never leave the process.

use std::fmt;

/// 2010-01-01T00:00:00Z in Unix milliseconds: the zero of [`Lut`] and [`VoidTime`].
pub const CLIENT_EPOCH_UNIX_MS: u64 = 1_262_304_000_000;

/// Last update time: milliseconds since 2010-01-01 UTC, 40 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lut(u64);

impl Lut {
    /// The lowest LUT; as a recovery start it means "everything".
    pub const ZERO: Self = Self(0);
    /// The highest LUT, 2^40 - 1 (the year 2044).
    pub const MAX: Self = Self((1 << 40) - 1);

    /// The latest time that is believed of a wall clock: 2043-01-01. What follows is left for
    /// counting on, should a store ever have come so far: the bits end in November 2044.
    pub const CLOCK_MAX: Self = Self(1_041_379_200_000);

    /// Wraps milliseconds since 2010, cut to 40 bits' range.
    #[inline]
    pub const fn from_ms(ms: u64) -> Self {
        if ms > Self::MAX.0 { Self::MAX } else { Self(ms) }
    }

    /// From Unix milliseconds; times before 2010 become zero.
    #[inline]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self::from_ms(ms.saturating_sub(CLIENT_EPOCH_UNIX_MS))
    }

    /// The reading of a wall clock, in Unix milliseconds. One beyond [`Lut::CLOCK_MAX`] says nothing
    /// and reads as zero: a version taken from it would stand above all that come after.
    #[inline]
    pub const fn of_clock(unix_ms: u64) -> Self {
        let read = Self::from_unix_ms(unix_ms);
        if read.0 > Self::CLOCK_MAX.0 { Self::ZERO } else { read }
    }

    /// Milliseconds since 2010.
    #[inline]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Unix milliseconds.
    #[inline]
    pub const fn unix_ms(self) -> u64 {
        self.0 + CLIENT_EPOCH_UNIX_MS
    }

    /// Date and time in UTC, as `2026-11-22T08h00m05.123s`: for people, and for info answers, where
    /// `:` and `;` mean something else.
    pub fn utc(self) -> String {
        let (days, ms) = (self.unix_ms() / 86_400_000, self.unix_ms() % 86_400_000);
        // Days to a date by eras of 400 years that begin on the first of March, so that the leap
        // day comes last: the usual way.
        let since_march = days + 719_468;
        let (era, day) = (since_march / 146_097, since_march % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let shifted = (5 * day + 2) / 153;
        let (day, month) = (day - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
        let year = 400 * era + year + u64::from(month <= 2);
        let (s, ms) = (ms / 1000, ms % 1000);
        let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
        format!("{year}-{month:02}-{day:02}T{h:02}h{m:02}m{s:02}.{ms:03}s")
    }

    /// Seconds since 2010, as void times count.
    #[inline]
    pub const fn seconds(self) -> u32 {
        (self.0 / 1000) as u32
    }

    /// This time less `ms`, not below zero.
    #[inline]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// This time plus `ms`, not above [`Lut::MAX`].
    #[inline]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Five bytes, little-endian, as queue entries hold it.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 5] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4]]
    }

    /// The inverse of [`Lut::to_bytes`].
    #[inline]
    pub const fn from_bytes(b: [u8; 5]) -> Self {
        Self(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], 0, 0, 0]))
    }
}

impl fmt::Display for Lut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A record's version: LUT in the high 40 bits, sequence within that millisecond in the low 24.
///
/// A shard issues strictly increasing versions; the version alone orders copies of a record.
/// Source: `docs/design.md`, D11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// Below every issued version.
    pub const ZERO: Self = Self(0);

    /// The first version of a millisecond.
    #[inline]
    pub const fn first_of(lut: Lut) -> Self {
        Self(lut.0 << 24)
    }

    /// From its stored form.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Its stored form.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The millisecond it was issued in (or pushed to, when a clock stepped back).
    #[inline]
    pub const fn lut(self) -> Lut {
        Lut(self.0 >> 24)
    }

    /// The version to issue after `self` when the wall clock reads `wall`: never lower, never
    /// equal.
    ///
    /// # Panics
    ///
    /// If `self` is the last version there is. No store opens that has come near it.
    #[inline]
    #[must_use]
    pub fn next(self, wall: Lut) -> Self {
        let next = self.0.checked_add(1).expect("stores refuse to open beyond Lut::CLOCK_MAX");
        Self::first_of(wall).max(Self(next))
    }
}

/// Expiry: seconds since 2010-01-01 UTC, 30 bits; zero never expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoidTime(pub u32);

impl VoidTime {
    /// Never expires.
    pub const NEVER: Self = Self(0);

    /// Whether the record counts as gone at `now`.
    #[inline]
    pub const fn is_past(self, now: Lut) -> bool {
        self.0 != 0 && self.0 <= now.seconds()
    }
}

/// The time to live a writer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlSpec {
    /// The namespace's default (wire value 0).
    Default,
    /// Never expire (wire value 0xFFFFFFFF).
    Never,
    /// Keep the record's present void time (wire value 0xFFFFFFFE).
    Keep,
    /// Seconds from now, 1..=315,360,000.
    Seconds(u32),
}

impl TtlSpec {
    /// Ten years of 365 days: the longest life a writer may ask for, in seconds.
    pub const SECONDS_MAX: u32 = 315_360_000;

    /// From the request header's ttl slot; `None` when out of range (result 4). Source:
    /// `docs/wire.md` section 10.
    pub const fn from_wire(ttl: u32) -> Option<Self> {
        match ttl {
            0 => Some(Self::Default),
            u32::MAX => Some(Self::Never),
            0xFFFF_FFFE => Some(Self::Keep),
            1..=Self::SECONDS_MAX => Some(Self::Seconds(ttl)),
            _ => None,
        }
    }
}

/// Monotonic microseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// Later than every tick that can occur.
    pub const NEVER: Self = Self(u64::MAX);

    /// This tick plus `ms` milliseconds.
    #[inline]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// This tick plus `us` microseconds.
    #[inline]
    pub const fn plus_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to `self`; zero when `earlier` is later.
    #[inline]
    pub const fn us_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |unix_ms, text: &str| assert_eq!(Lut::from_unix_ms(unix_ms).utc(), text);
        check(CLIENT_EPOCH_UNIX_MS, "2010-01-01T00h00m00.000s");
        check(1_330_559_999_999, "2012-02-29T23h59m59.999s");
        check(1_330_560_000_000, "2012-03-01T00h00m00.000s");
        check(1_735_689_599_000, "2024-12-31T23h59m59.000s");
        check(1_795_334_703_250, "2026-11-22T08h05m03.250s");
    }

    #[test]
    fn versions_grow_whatever_the_clock_does() {
        let mut version = Version::ZERO;
        for wall in [5, 5, 7, 3, 3, 9].map(Lut::from_ms) {
            let next = version.next(wall);
            assert!(next > version && next.lut() >= wall);
            version = next;
        }
        assert_eq!(version, Version::first_of(Lut::from_ms(9)));
    }

    #[test]
    fn a_clock_far_off_moves_no_version_for_good() {
        let far = 4_000_000_000_000;
        assert_eq!(Lut::of_clock(far), Lut::ZERO);
        assert_eq!(Lut::of_clock(Lut::CLOCK_MAX.unix_ms() + 1), Lut::ZERO);
        assert_eq!(Lut::of_clock(Lut::CLOCK_MAX.unix_ms()), Lut::CLOCK_MAX);
        let right = 1_795_334_703_250;
        let before = Version::ZERO.next(Lut::of_clock(right));
        let during = before.next(Lut::of_clock(far));
        assert!(during > before && during.lut() == before.lut());
        let after = during.next(Lut::of_clock(right + 5));
        assert_eq!(after, Version::first_of(Lut::from_unix_ms(right + 5)));
    }

    #[test]
    fn a_lut_survives_its_five_bytes() {
        for lut in [Lut::ZERO, Lut::from_ms(0x12_3456_789A), Lut::MAX] {
            assert_eq!(Lut::from_bytes(lut.to_bytes()), lut);
        }
    }

    #[test]
    fn ttl_specs_follow_the_wire() {
        let cases = [
            (0, Some(TtlSpec::Default)),
            (1, Some(TtlSpec::Seconds(1))),
            (315_360_000, Some(TtlSpec::Seconds(315_360_000))),
            (315_360_001, None),
            (0xFFFF_FFFD, None),
            (0xFFFF_FFFE, Some(TtlSpec::Keep)),
            (0xFFFF_FFFF, Some(TtlSpec::Never)),
        ];
        for (wire, expected) in cases {
            assert_eq!(TtlSpec::from_wire(wire), expected, "{wire:#x}");
        }
    }
}
