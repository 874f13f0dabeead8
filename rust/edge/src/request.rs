//! What comes in: a line of text, or a line of JSON with a query and its policy.

use std::fmt;

use centroute_core::{Policy, PolicySpec};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::engine::Engine;
use crate::error::Error;

/// A line of JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The text to route.
    #[serde(default)]
    pub query: Option<Text>,
    /// What this request wants.
    #[serde(default, deserialize_with = "object")]
    pub policy: Option<PolicySpec>,
    /// Asks whether the server is there, and for nothing else.
    #[serde(default)]
    pub ping: Option<bool>,
}

impl Request {
    /// Reads one line.
    pub fn from_line(line: &[u8]) -> Result<Self, Error> {
        let line = std::str::from_utf8(line).map_err(|_| Error::data("is not UTF-8"))?;
        // An array would be read as the fields in their order.
        if !line.trim_start().starts_with('{') {
            return Err(Error::data("is no request in JSON (wanted an object)"));
        }
        serde_json::from_str(line).map_err(|error| Error::data(format!("is no request in JSON ({error})")))
    }
}

/// A policy from a JSON object.
pub fn policy_from_json(json: &str) -> Result<PolicySpec, serde_json::Error> {
    let spec = object(&mut serde_json::Deserializer::from_str(json))?;
    // What follows the object would go unread.
    serde_json::from_str::<serde::de::IgnoredAny>(json)?;
    Ok(spec.unwrap_or_default())
}

/// A policy or null, but no array of its fields' values.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PolicySpec>, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Option<PolicySpec>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            PolicySpec::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Fields)
}

/// A JSON string. Lone surrogates, which no UTF-8 holds, become U+FFFD, as in the Python package.
#[derive(Debug)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    return Ok(Text(text.to_owned()));
                }
                // What is not UTF-8 here are the three bytes of a surrogate: ED A0..BF xx.
                let mut bytes = bytes.to_vec();
                for place in 0..bytes.len().saturating_sub(2) {
                    if bytes[place] == 0xed && bytes[place + 1] >= 0xa0 {
                        bytes[place..place + 3].copy_from_slice("\u{fffd}".as_bytes());
                    }
                }
                String::from_utf8(bytes).map(Text).map_err(|_| E::custom("a string that is not Unicode"))
            }
        }
        // As bytes and not as a string: for a string, the reader would refuse what no UTF-8 holds.
        deserializer.deserialize_bytes(Bytes).map_err(D::Error::custom)
    }
}

/// A line of plain text: every byte that is no UTF-8 becomes U+FFFD, as in the Python package.
#[must_use]
pub fn text_of_line(line: &[u8]) -> std::borrow::Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(line) {
        return text.into();
    }
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text.into()
}

/// The latest policy that a line brought, compiled: the next line mostly brings the same.
#[derive(Debug, Default)]
pub struct PolicyCache {
    latest: Option<(PolicySpec, Policy)>,
}

impl PolicyCache {
    /// The policy bound to the engine.
    pub fn get(&mut self, spec: PolicySpec, engine: &Engine) -> Result<&Policy, Error> {
        if self.latest.as_ref().is_none_or(|(latest, _)| *latest != spec) {
            let policy = engine.compile(&spec)?;
            self.latest = Some((spec, policy));
        }
        self.latest.as_ref().map(|(_, policy)| policy).ok_or_else(|| Error::data("has no policy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf8_become_one_mark_each() {
        assert_eq!(text_of_line(b"a\xe2\x82 \xed\xa0\x80"), "a\u{fffd}\u{fffd} \u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(text_of_line("é".as_bytes()), "é");
    }

    #[test]
    fn lone_surrogates_become_a_mark_and_pairs_a_character() {
        let text = |line: &str| Request::from_line(line.as_bytes()).expect("sound").query.expect("a query").0;
        assert_eq!(text(r#"{"query": "a\ud800b\udfffé\n"}"#), "a\u{fffd}b\u{fffd}é\n");
        assert_eq!(text(r#"{"query": "\ud83d\ude00"}"#), "😀");
    }

    #[test]
    fn a_broken_line_is_refused() {
        for line in [
            "",
            "{",
            "[]",
            r#"["a"]"#,
            r#"{"query": "a", "policy": [1]}"#,
            r#"{"query": 1}"#,
            r#"{"query": [65]}"#,
            r#"{"text": "a"}"#,
        ] {
            assert!(Request::from_line(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Request::from_line(b"{\"query\": \"\xff\"}").is_err());
    }
}
