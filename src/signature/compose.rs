//! The signed bytes of a whole request, put together from what it claims.
//!
//! A [`Composer`] reads the signature's groups and resolves the template for each of them. Values that break the rules of
//! the template make a request malformed, however right its signature: they could be cut in two ways.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::extract::{self, SIGNATURES_MAX, each_header, one_stamp, read_id, read_timestamp};
use super::native::Message;
use super::place::{Carrier, Stamp, StampPlace};
use super::proof::Failure;
use super::recipe::Recipe;
use super::source::{Reader, Source};
use super::template::{Part, Piece, Rule, Template};
use super::whole::{Group, decoded, few_groups};
use crate::clock::UnixMillis;

/// The methods that a message may have: none of them begins or ends another.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// A run of a message's bytes.
pub(super) enum Chunk<'m> {
    Bytes(Cow<'m, [u8]>),
    /// The secret itself, of which no copy is made.
    Secret,
}

impl Chunk<'_> {
    /// The bytes, under this secret.
    pub(super) fn bytes<'c>(&'c self, secret: &'c [u8]) -> &'c [u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Secret => secret,
        }
    }
}

/// A claim: a group of signatures, and what they would have to be of.
pub(super) type Claim<'m> = (Group<'m>, Vec<Chunk<'m>>);

/// Puts messages together for one request.
pub(super) struct Composer<'m> {
    recipe: &'m Recipe,
    template: &'m Template,
    message: &'m Message<'m>,
    reader: &'m Reader<'m>,
}

impl<'m> Composer<'m> {
    pub(super) fn new(
        recipe: &'m Recipe,
        template: &'m Template,
        message: &'m Message<'m>,
        reader: &'m Reader<'m>,
    ) -> Composer<'m> {
        Composer {
            recipe,
            template,
            message,
            reader,
        }
    }

    /// What the request claims: one claim, or one for each group.
    pub(super) fn claims(&self) -> Result<Vec<Claim<'m>>, Failure> {
        let mut claims = Vec::new();
        for mut group in self.groups()? {
            self.stamp(&mut group)?;
            let chunks = self.chunks(&group.text, &group.stamp)?;
            claims.push((group, chunks));
        }
        few_groups(&claims)?;
        Ok(claims)
    }

    /// The signed id.
    pub(super) fn id(&self) -> Result<Option<String>, Failure> {
        let Some((name, rule)) = &self.recipe.id else {
            return Ok(None);
        };
        let text = extract::field_value(self.message.headers, name)?;
        read_id(*rule, text)
            .map(|id| Some(id.to_owned()))
            .ok_or(Failure::Malformed)
    }

    /// The bytes of the message; `text` is where other fields of the signature are read, `stamp` the time.
    pub(super) fn chunks(&self, text: &[u8], stamp: &[u8]) -> Result<Vec<Chunk<'m>>, Failure> {
        let mut chunks = Vec::new();
        for piece in self.template.head() {
            self.resolve(piece, text, stamp, &mut chunks)?;
        }
        if self.template.has_body() {
            chunks.push(Chunk::Bytes(Cow::Borrowed(self.message.body)));
        }
        for piece in self.template.tail() {
            self.resolve(piece, text, stamp, &mut chunks)?;
        }
        Ok(chunks)
    }

    fn groups(&self) -> Result<Vec<Group<'m>>, Failure> {
        let place = &self.recipe.signature;
        let mut texts: Vec<Cow<'m, [u8]>> = Vec::new();
        match &place.carrier {
            Carrier::One(source) if !matches!(source, Source::Header(_)) => texts.push(self.reader.demand(source)?),
            Carrier::One(_) | Carrier::Any(_) => each_header(place, self.message.headers, |text| {
                texts.push(Cow::Borrowed(text));
                Ok(())
            })?,
        }
        let mut groups: Vec<Group<'m>> = Vec::new();
        for text in texts {
            for part in extract::groups(&place.spelling, &text) {
                let group = self.group(part)?;
                match groups.first_mut().filter(|_| !place.is_grouped()) {
                    // Several headers are one list of signatures.
                    Some(first) => first.take(group)?,
                    None => groups.push(group),
                }
            }
        }
        match groups.iter().all(|group| group.signatures.is_empty()) {
            true => Err(Failure::Malformed),
            false => Ok(groups),
        }
    }

    fn group(&self, text: &[u8]) -> Result<Group<'m>, Failure> {
        let field = self.recipe.timestamp.as_ref().and_then(Stamp::field);
        let mut signatures = Vec::new();
        let stamp = extract::entries(&self.recipe.signature.spelling, text, field, |entry| {
            signatures.extend(decoded(self.recipe, entry));
        })?;
        Ok(Group {
            text: Cow::Owned(text.to_vec()),
            signatures,
            stamp: stamp.unwrap_or_default().to_vec(),
            time: None,
        })
    }

    /// Reads the time that goes with a group.
    fn stamp(&self, group: &mut Group<'_>) -> Result<(), Failure> {
        let Some(stamp) = &self.recipe.timestamp else {
            return Ok(());
        };
        if let StampPlace::At(source) = &stamp.place
            && !matches!(source, Source::Field(_))
        {
            group.stamp = self.reader.demand(source)?.into_owned();
        }
        group.time = Some(read_stamp(stamp, &group.stamp)?);
        Ok(())
    }

    fn resolve(&self, piece: &'m Piece, text: &[u8], stamp: &[u8], chunks: &mut Vec<Chunk<'m>>) -> Result<(), Failure> {
        let bytes: Cow<'m, [u8]> = match &piece.part {
            Part::Literal(literal) => Cow::Borrowed(literal),
            Part::Timestamp => Cow::Owned(stamp.to_vec()),
            Part::Id => Cow::Owned(self.id()?.unwrap_or_default().into_bytes()),
            Part::BodySha256 => Cow::Owned(hex::encode(Sha256::digest(self.message.body)).into_bytes()),
            Part::SortedForm => Cow::Owned(self.reader.sorted_form()?),
            Part::Method if METHODS.contains(&self.message.method) => Cow::Borrowed(self.message.method.as_bytes()),
            Part::Method => return Err(Failure::Malformed),
            Part::Value(Source::Field(name)) => {
                let value = extract::other_field(&self.recipe.signature.spelling, text, name)?;
                obeying(piece.rule, Cow::Owned(value.to_vec()))?
            }
            Part::Value(source) => obeying(piece.rule, self.reader.part(source)?)?,
            Part::Optional { before, value, after } => {
                let value = self.reader.look_up(value)?.filter(|value| !value.is_empty());
                let Some(value) = value else { return Ok(()) };
                chunks.push(Chunk::Bytes(Cow::Borrowed(before)));
                chunks.push(Chunk::Bytes(obeying(piece.rule, value)?));
                Cow::Borrowed(after)
            }
            Part::Secret => {
                chunks.push(Chunk::Secret);
                return Ok(());
            }
            // The body is written by the caller; what the configuration gives is literal text by now.
            Part::Body | Part::Config(_) => return Ok(()),
        };
        chunks.push(Chunk::Bytes(bytes));
        Ok(())
    }
}

impl Group<'_> {
    fn take(&mut self, other: Group<'_>) -> Result<(), Failure> {
        let mut stamp = Some(self.stamp.as_slice()).filter(|stamp| !stamp.is_empty());
        one_stamp(
            &mut stamp,
            Some(other.stamp.as_slice()).filter(|stamp| !stamp.is_empty()),
        )?;
        self.stamp = stamp.unwrap_or_default().to_vec();
        self.signatures.extend(other.signatures);
        match self.signatures.len() > SIGNATURES_MAX {
            true => Err(Failure::Malformed),
            false => Ok(()),
        }
    }
}

fn read_stamp(stamp: &Stamp, text: &[u8]) -> Result<UnixMillis, Failure> {
    match (&stamp.place, text.is_empty()) {
        (StampPlace::At(Source::Field(_)) | StampPlace::First, true) => Err(Failure::Malformed),
        _ => read_timestamp(stamp, text).ok_or(Failure::Malformed),
    }
}

fn obeying(rule: Rule, value: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, Failure> {
    match rule.admits(&value) {
        true => Ok(value),
        false => Err(Failure::Malformed),
    }
}
