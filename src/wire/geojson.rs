//! Whether a text is GeoJSON that a cluster takes: what is accepted here and refused there could
//! never be shipped.
//!
//! Taken are the geometries Point, Polygon, MultiPolygon and AeroCircle, and a Feature around one of
//! them. Positions are longitude and latitude in degrees; rings are closed. The text is read once or
//! twice, without allocation, and nested no deeper than `GEOJSON_DEPTH_MAX`.
//! Source: the GeoJSON format (RFC 7946), JSON (RFC 8259), and the geospatial guide of the
//! destination's vendor for which geometries there are.

use crate::limits::GEOJSON_DEPTH_MAX;

/// Positions of the smallest ring: three corners, and the first one again.
const RING_POSITIONS_MIN: usize = 4;

/// Whether `text` is one GeoJSON object of a supported kind.
pub fn is_geojson(text: &[u8]) -> bool {
    let whole = || {
        str::from_utf8(text).ok()?;
        let mut json = Json { rest: text };
        let object = json.object(0)?;
        json.skip_space();
        (json.rest.is_empty() && is_supported(&object)).then_some(())
    };
    whole().is_some()
}

/// The members of an object that say what it is, as they stand in the text; of repeated ones the
/// last counts.
#[derive(Default)]
struct Object<'a> {
    kind: &'a [u8],
    coordinates: Option<&'a [u8]>,
    geometry: Option<&'a [u8]>,
}

fn is_supported(object: &Object<'_>) -> bool {
    if object.kind == b"\"Feature\"" {
        let geometry = object.geometry.and_then(|text| Json { rest: text }.object(1));
        return geometry.is_some_and(|geometry| is_geometry(&geometry));
    }
    is_geometry(object)
}

fn is_geometry(object: &Object<'_>) -> bool {
    let Some(text) = object.coordinates else { return false };
    let mut json = Json { rest: text };
    let read = match object.kind {
        b"\"Point\"" => json.position().map(|_| ()),
        b"\"Polygon\"" => json.polygon(),
        b"\"MultiPolygon\"" => json.list(Json::polygon).map(|_| ()),
        b"\"AeroCircle\"" => json.circle(),
        _ => None,
    };
    read.is_some()
}

/// What is still to be read. Each function takes what it is named after from the front, spaces
/// before it included; `None` when something else stands there.
#[derive(Clone, Copy)]
struct Json<'a> {
    rest: &'a [u8],
}

impl<'a> Json<'a> {
    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.rest = &self.rest[self.rest.iter().take_while(space).count()..];
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.rest.first().copied()
    }

    fn mark(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.rest = &self.rest[1..])
    }

    /// An item and, when another follows, the comma; false behind the last one and its `close`.
    fn goes_on(&mut self, close: u8) -> Option<bool> {
        match self.peek()? {
            b',' => self.mark(b',').map(|()| true),
            _ => self.mark(close).map(|()| false),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Object<'a>> {
        let mut object = Object::default();
        self.mark(b'{')?;
        if self.peek()? == b'}' {
            self.mark(b'}')?;
            return Some(object);
        }
        loop {
            let name = self.string()?;
            self.mark(b':')?;
            let value = self.value(depth + 1)?;
            match name {
                b"\"type\"" => object.kind = value,
                b"\"coordinates\"" => object.coordinates = Some(value),
                b"\"geometry\"" => object.geometry = Some(value),
                _ => {}
            }
            if !self.goes_on(b'}')? {
                return Some(object);
            }
        }
    }

    /// Any value; gives its text.
    fn value(&mut self, depth: usize) -> Option<&'a [u8]> {
        if depth > GEOJSON_DEPTH_MAX {
            return None;
        }
        let first = self.peek()?;
        let before = self.rest;
        match first {
            b'{' => self.object(depth).map(|_| ())?,
            b'[' => self.array(depth)?,
            b'"' => self.string().map(|_| ())?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number().map(|_| ())?,
        }
        Some(&before[..before.len() - self.rest.len()])
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.mark(b'[')?;
        if self.peek()? == b']' {
            return self.mark(b']');
        }
        loop {
            self.value(depth + 1)?;
            if !self.goes_on(b']')? {
                return Some(());
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// A string; gives its text, quotes included.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let (before, mut at) = (self.rest, 1);
        if before.first() != Some(&b'"') {
            return None;
        }
        loop {
            match before.get(at)? {
                b'"' => break,
                b'\\' => match before.get(at + 1)? {
                    b'u' => {
                        let digits = before.get(at + 2..at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        at += 6;
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                    _ => return None,
                },
                0..=0x1f => return None,
                _ => at += 1,
            }
        }
        self.rest = &before[at + 1..];
        Some(&before[..=at])
    }

    fn number(&mut self) -> Option<f64> {
        self.skip_space();
        let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let text = &self.rest[..self.rest.iter().take_while(is_part).count()];
        if !is_number(text) {
            return None;
        }
        self.rest = &self.rest[text.len()..];
        let number: f64 = str::from_utf8(text).ok()?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// A list of one or more; gives how many.
    fn list(&mut self, item: impl Fn(&mut Self) -> Option<()>) -> Option<usize> {
        self.mark(b'[')?;
        let mut count = 0;
        loop {
            item(self)?;
            count += 1;
            if !self.goes_on(b']')? {
                return Some(count);
            }
        }
    }

    /// `[longitude, latitude]`, and perhaps a height that nobody looks at.
    fn position(&mut self) -> Option<(f64, f64)> {
        self.mark(b'[')?;
        let longitude = self.number()?;
        self.mark(b',')?;
        let latitude = self.number()?;
        while self.goes_on(b']')? {
            self.number()?;
        }
        let is_on_earth = longitude.abs() <= 180.0 && latitude.abs() <= 90.0;
        is_on_earth.then_some((longitude, latitude))
    }

    fn ring(&mut self) -> Option<()> {
        self.mark(b'[')?;
        let first = self.position()?;
        let (mut last, mut count) = (first, 1);
        while self.goes_on(b']')? {
            (last, count) = (self.position()?, count + 1);
        }
        (count >= RING_POSITIONS_MIN && first == last).then_some(())
    }

    fn polygon(&mut self) -> Option<()> {
        self.list(Self::ring).map(|_| ())
    }

    /// `[[longitude, latitude], radius in metres]`.
    fn circle(&mut self) -> Option<()> {
        self.mark(b'[')?;
        self.position()?;
        self.mark(b',')?;
        let radius = self.number()?;
        self.mark(b']')?;
        (radius > 0.0).then_some(())
    }
}

/// Whether `text` is a number as JSON writes it: no sign but `-`, no leading zeros, digits on both
/// sides of the point.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> (&[u8], &[u8]) {
        text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
    }
    let (whole, mut rest) = digits(text.strip_prefix(b"-").unwrap_or(text));
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (found, after) = digits(fraction);
        if found.is_empty() {
            return false;
        }
        rest = after;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or(rest.strip_prefix(b"E")) {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-"));
        let (found, after) = digits(unsigned.unwrap_or(exponent));
        if found.is_empty() {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str], valid: bool) {
        for text in texts {
            assert_eq!(is_geojson(text.as_bytes()), valid, "{text}");
        }
    }

    #[test]
    fn the_geometries_of_a_cluster_are_taken() {
        check(
            &[
                r#"{"type":"Point","coordinates":[-122.0862,37.4220]}"#,
                r#" { "coordinates" : [ 1e1 , -0.5 , 30 ] , "type" : "Point" } "#,
                r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,0]]]}"#,
                r#"{"type":"Polygon","coordinates":
                    [[[0,0],[9,0],[9,9],[0,0]],[[1,1],[2,1],[2,2],[1,1]]]}"#,
                r#"{"type":"MultiPolygon","coordinates":[[[[0,0],[9,0],[9,9],[0,0]]]]}"#,
                r#"{"type":"AeroCircle","coordinates":[[-122.25,37.8],3000.5]}"#,
                r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},
                    "properties":{"name":"a \"b\" \u00e9","n":[1,{"x":null}],"t":true}}"#,
            ],
            true,
        );
    }

    #[test]
    fn what_a_cluster_refuses_is_refused() {
        check(
            &[
                "",
                "{}",
                "{x}",
                "[1]",
                r#"{"type":"Point"}"#,
                r#"{"type":"Point","coordinates":[1]}"#,
                r#"{"type":"Point","coordinates":[]}"#,
                r#"{"type":"Point","coordinates":["1","2"]}"#,
                r#"{"type":"Point","coordinates":[181,0]}"#,
                r#"{"type":"Point","coordinates":[0,90.1]}"#,
                r#"{"type":"Point","coordinates":[1,2]"#,
                r#"{"type":"Point","coordinates":[1,2]}}"#,
                r#"{"type":"Point","coordinates":[1,2],}"#,
                r#"{"type":"Point","coordinates":[01,2]}"#,
                r#"{"type":"Point","coordinates":[+1,2]}"#,
                r#"{"type":"Point","coordinates":[1.,2]}"#,
                r#"{"type":"Point","coordinates":[1e,2]}"#,
                r#"{"type":"Point","coordinates":[1e999,2]}"#,
                r#"{'type':'Point','coordinates':[1,2]}"#,
                r#"{"type":"point","coordinates":[1,2]}"#,
                r#"{"type":"Nonsense","coordinates":[1,2]}"#,
                r#"{"type":"LineString","coordinates":[[1,2],[3,4]]}"#,
                r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,1]]]}"#,
                r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[0,0]]]}"#,
                r#"{"type":"Polygon","coordinates":[]}"#,
                r#"{"type":"AeroCircle","coordinates":[[1,2]]}"#,
                r#"{"type":"AeroCircle","coordinates":[[1,2],0]}"#,
                r#"{"type":"Feature","geometry":null}"#,
                r#"{"type":"Feature","geometry":{"type":"Feature","geometry":{}}}"#,
                r#"{"type":"Point","coordinates":[1,2],"x":"\q"}"#,
                "{\"type\":\"Point\",\"coordinates\":[1,2],\"x\":\"\n\"}",
            ],
            false,
        );
        assert!(!is_geojson(b"{\"type\":\"Point\",\"coordinates\":[1,2],\"x\":\"\xff\"}"));
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"type":"Point","coordinates":[1,2],"x":{open}{close}}}"#)
        };
        check(&[&nested(GEOJSON_DEPTH_MAX)], true);
        check(&[&nested(GEOJSON_DEPTH_MAX + 1), &nested(500_000)], false);
    }

    #[test]
    fn every_cut_of_a_text_is_refused() {
        let text = r#"{"type":"Feature","geometry":{"type":"AeroCircle","coordinates":[[1,2],3]}}"#;
        check(&[text], true);
        (0..text.len()).for_each(|cut| check(&[&text[..cut]], false));
    }
}
