//! The members of a JSON object with their values as they were written.
//!
//! Used by verifiers whose providers sign a part of the body: the signed bytes are the received ones, never a copy that
//! was parsed and written again. An object that has a member twice is refused, whichever it is: two parsers would read
//! two different messages.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::signature::proof::Failure;

/// Most members of an object.
const MEMBERS_MAX: usize = 256;

/// An object's members, in the order in which they stand.
pub(super) struct Members<'b>(Vec<(String, &'b RawValue)>);

impl<'b> Members<'b> {
    /// Reads a text that is exactly one object.
    ///
    /// # Errors
    /// [`Failure::Malformed`] when it is something else, has a member twice or more than 256 of them.
    pub(super) fn read(json: &'b [u8]) -> Result<Members<'b>, Failure> {
        serde_json::from_slice(json).map_err(|_| Failure::Malformed)
    }

    /// The text of a member's value, without the white space around it.
    ///
    /// # Errors
    /// [`Failure::Missing`] when there is no member of this name.
    pub(super) fn raw(&self, name: &str) -> Result<&'b str, Failure> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.get()).ok_or(Failure::Missing)
    }

    /// The content of a member that is a string.
    ///
    /// # Errors
    /// [`Failure::Missing`] when there is no member of this name, [`Failure::Malformed`] when it is no string.
    pub(super) fn text(&self, name: &str) -> Result<String, Failure> {
        serde_json::from_str(self.raw(name)?).map_err(|_| Failure::Malformed)
    }

    /// The object written again with `value`, which is JSON, as the last member and under `name`.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let mut written = String::from("{");
        for (known, raw) in self.0.iter().filter(|(known, _)| known != name) {
            written.push_str(&format!("{}:{},", serde_json::Value::from(known.as_str()), raw.get()));
        }
        written.push_str(&format!("{}:{value}}}", serde_json::Value::from(name)));
        written
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            members.push(member);
        }
        let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        match names.len() == members.len() {
            true => Ok(Members(members)),
            false => Err(A::Error::custom("a member is there twice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_received_bytes() {
        // A number written another way than it came has another signature.
        let body = br#" { "a" : 1.50 , "b":{ "c" : [ 1,2 ] } ,"d":"\u0064" } "#;
        let members = Members::read(body).unwrap();
        assert_eq!(members.raw("a"), Ok("1.50"));
        assert_eq!(members.raw("b"), Ok(r#"{ "c" : [ 1,2 ] }"#));
        assert_eq!(members.text("d"), Ok("d".to_owned()));
        assert_eq!(members.text("a"), Err(Failure::Malformed));
        assert_eq!(members.raw("c"), Err(Failure::Missing));
        assert_eq!(members.len(), 3);
    }

    #[test]
    fn an_object_has_one_reading() {
        // The signed one of two members would be judged and the other one believed.
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(Members::read(many(MEMBERS_MAX).as_bytes()).is_ok());
        let bad = [
            "",
            "[]",
            "1",
            "{",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1} {}"#,
            r#"{"a":1}x"#,
        ];
        for text in bad.map(str::to_owned).into_iter().chain([many(MEMBERS_MAX + 1)]) {
            assert!(Members::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Members::read("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }
}
