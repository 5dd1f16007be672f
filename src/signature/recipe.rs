//! A signature over a template: the kind of scheme that most providers have.
//!
//! What was typed is brought together here: the algorithm with its key, the message with the places of its values, the
//! signature with what is read beside it. What one key says about another is checked where both are known.

use http::HeaderName;

use super::algorithm::Class;
use super::extract::ID_BYTES_MAX;
use super::file::{KeyForm, SchemeFile, TimestampFile};
use super::place::{Carrier, Place, Stamp, StampPlace, header_name, other_field, refuse_key};
use super::scheme::SchemeError;
use super::source::Source;
use super::template::{Config, Given, Part, Rule, Template};

/// A signature over a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    pub(super) class: Class,
    pub(super) key: KeyForm,
    pub(super) template: Template,
    pub(super) signature: Place,
    pub(super) timestamp: Option<Stamp>,
    /// Where the id is and what it must obey.
    pub(super) id: Option<(HeaderName, Rule)>,
}

impl Recipe {
    pub(super) fn build(file: &SchemeFile, class: Class) -> Result<Recipe, SchemeError> {
        let key = build_key(file, class)?;
        let Some(message) = &file.message else {
            return Err(SchemeError::new("message", "is missing").suggest("what is signed, often \"{body}\""));
        };
        let given = Given {
            unit: file.timestamp.as_ref().map(|timestamp| timestamp.unit),
            id_bytes: file.id.as_ref().and_then(|id| id.length),
        };
        let template = Template::parse(message, given)?;
        check_secret(class, &template)?;
        let Some(signature) = &file.signature else {
            let error = SchemeError::new("signature", "is missing");
            return Err(error.suggest("{ header: X-Signature, encoding: hex }"));
        };
        refuse_key(
            signature.ecdsa.is_some() && !class.is_ecdsa(),
            "signature.ecdsa",
            "the ecdsa algorithms",
        )?;
        let signature = Place::build(signature)?;
        check_fields(&template, &signature)?;
        check_carrier(&template, &signature)?;
        let timestamp = build_stamp(file.timestamp.as_ref(), &template, &signature)?;
        let id = build_id(file, &template)?;
        Ok(Recipe {
            class,
            key,
            template,
            signature,
            timestamp,
            id,
        })
    }

    /// Whether every byte of the body is bound. A plain hash with the secret in front can be extended by whoever has
    /// seen one, so it binds a beginning of the body only.
    pub(super) fn binds_body(&self) -> bool {
        let extendable = match self.class {
            Class::Hash(kind) => kind.can_be_extended() && self.template.has_body() && !self.secret_is_behind(),
            _ => false,
        };
        self.template.binds_body() && !extendable
    }

    /// Whether signature, time and id are in headers, so that nothing waits for the body.
    pub(super) fn is_in_headers(&self) -> bool {
        let of_head = |source: &Source| matches!(source, Source::Header(_) | Source::Field(_));
        self.sources().all(of_head)
    }

    /// Whether the URL is signed with its query.
    pub(super) fn signs_query(&self) -> bool {
        self.template
            .config()
            .any(|config| matches!(config, Config::Url | Config::Path))
    }

    fn secret_is_behind(&self) -> bool {
        self.template.tail().iter().any(|piece| piece.part == Part::Secret)
    }

    /// Where values of the request come from, besides the signature.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> + Clone {
        let carrier = match &self.signature.carrier {
            Carrier::One(source) => Some(source),
            Carrier::Any(_) => None,
        };
        let stamp = match self.timestamp.as_ref().map(|stamp| &stamp.place) {
            Some(StampPlace::At(source)) => Some(source),
            Some(StampPlace::First) | None => None,
        };
        self.template.sources().chain(carrier).chain(stamp)
    }

    pub(super) fn list_headers(&self, headers: &mut Vec<HeaderName>) -> Result<(), SchemeError> {
        headers.extend_from_slice(self.signature.headers());
        if let Some(header) = self.timestamp.as_ref().and_then(Stamp::header) {
            if headers.contains(header) {
                return Err(SchemeError::new("timestamp.header", "is the signature's header")
                    .suggest("use `field` for a time inside of it"));
            }
            headers.push(header.clone());
        }
        if let Some((header, _)) = &self.id {
            if headers.contains(header) {
                return Err(SchemeError::new("id.header", "is used for something else already"));
            }
            headers.push(header.clone());
        }
        for source in self.template.sources() {
            let Source::Header(name) = source else { continue };
            if headers.contains(name) {
                let error = SchemeError::new(
                    "message",
                    format!("{{header:{name}}} is used for something else already"),
                );
                return Err(error.suggest("use {timestamp} or {id} where it is one of these"));
            }
            headers.push(name.clone());
        }
        Ok(())
    }
}

/// The form of the keys, if the algorithm takes it.
pub(super) fn build_key(file: &SchemeFile, class: Class) -> Result<KeyForm, SchemeError> {
    let suggestion = match class {
        Class::Mac(_) => "utf8, base64, hex or whsec",
        Class::Public(_) => "a public key: hex, base64, base64url, pem or jwk",
        Class::Hash(_) | Class::Token | Class::Basic => "utf8",
    };
    match file.key {
        Some(key) if class.takes(key) => Ok(key),
        Some(_) => Err(SchemeError::new("key", "does not go with the algorithm").suggest(suggestion)),
        None if matches!(class, Class::Token | Class::Basic) => Ok(KeyForm::Utf8),
        None => Err(SchemeError::new("key", "is missing").suggest(suggestion)),
    }
}

/// A plain hash without the secret is no signature; a MAC with the secret in the message is a mistake.
fn check_secret(class: Class, template: &Template) -> Result<(), SchemeError> {
    match (class, template.has(&Part::Secret)) {
        (Class::Hash(_), false) => Err(SchemeError::new("message", "has no {secret}, so anybody can hash it")
            .suggest("put {secret} where the provider puts it, or use an hmac algorithm")),
        (Class::Mac(_) | Class::Public(_), true) => Err(SchemeError::new("message", "has {secret}, which is the key")
            .suggest("leave it out, or use a plain hash such as sha256")),
        _ => Ok(()),
    }
}

/// A signature cannot sign itself.
fn check_carrier(template: &Template, signature: &Place) -> Result<(), SchemeError> {
    let in_body = matches!(signature.carrier, Carrier::One(Source::Json(_) | Source::Form(_)));
    if in_body && (template.binds_body() || template.has(&Part::SortedForm)) {
        let error = SchemeError::new("message", "has the whole body, and the signature is in the body");
        return Err(error.suggest("sign members of it: {json:a} or {form:a}"));
    }
    Ok(())
}

fn check_fields(template: &Template, signature: &Place) -> Result<(), SchemeError> {
    for source in template.sources() {
        if let Source::Field(name) = source {
            other_field("message", name, signature)?;
        }
    }
    Ok(())
}

fn build_stamp(
    file: Option<&TimestampFile>,
    template: &Template,
    signature: &Place,
) -> Result<Option<Stamp>, SchemeError> {
    match (file, template.timestamp()) {
        (None, None) if signature.is_grouped() => {
            Err(SchemeError::new("signature.group", "needs a signed time in each group"))
        }
        (None, None) => Ok(None),
        (Some(file), Some(rule)) => Stamp::build(file, rule, signature).map(Some),
        (Some(_), None) => {
            let error = SchemeError::new("timestamp", "is not signed, so anybody can change it");
            Err(error.suggest("put {timestamp} into the message or remove this key"))
        }
        (None, Some(_)) => {
            let error = SchemeError::new("timestamp", "is missing, but the message has {timestamp}");
            Err(error.suggest("say where it is: { header: ..., unit: s, tolerance: 5m }"))
        }
    }
}

fn build_id(file: &SchemeFile, template: &Template) -> Result<Option<(HeaderName, Rule)>, SchemeError> {
    match (&file.id, template.id()) {
        (None, None) => Ok(None),
        (Some(id), Some(_)) if id.length.is_some_and(|bytes| bytes == 0 || bytes > ID_BYTES_MAX) => Err(
            SchemeError::new("id.length", format!("is not between 1 and {ID_BYTES_MAX}")),
        ),
        (Some(id), Some(rule)) => Ok(Some((header_name("id.header", &id.header)?, rule))),
        (Some(_), None) => {
            let error = SchemeError::new("id", "is not signed, so anybody can change it");
            Err(error.suggest("put {id} into the message or remove this key"))
        }
        (None, Some(_)) => {
            Err(SchemeError::new("id", "is missing, but the message has {id}")
                .suggest("say where it is: { header: ... }"))
        }
    }
}
